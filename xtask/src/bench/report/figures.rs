//! The figures of a row, as they were measured: no sentence and no target, which the page adds.
//!
//! They are kept as JSON beside the page, so the page can be written again without measuring. Times
//! are in ms and memory is in MB, unless a name says otherwise.

use serde::{Deserialize, Serialize};

use crate::bench::load::Spread;
use crate::bench::load::closed::Done;
use crate::bench::name::Name;

/// One measurement, beside its comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: Name,
    /// The day, the command, and how busy the machine was with other things before the run.
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) busy: f64,
    pub(crate) figures: Figures,
}

impl Row {
    /// True if the row was not measured.
    pub(crate) fn is_skipped(&self) -> bool {
        matches!(self.figures, Figures::Skipped(_))
    }
}

/// The figures of one row, by the kind of the measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figures {
    /// The reason why the row was not measured.
    Skipped(String),
    ClosedLoop(ClosedLoop),
    Alone(Alone),
    HalfRate(HalfRate),
    Overload(Overload),
    Growth(Growth),
    Return(Return),
    Failover(Failover),
}

/// Kept connections, each with one request under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClosedLoop {
    /// The store, and what it is compared with; several pairs or products in one row.
    pub(crate) sides: Vec<ClosedSide>,
    /// The CPU of the store by its processes, for rows that show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_shares: Option<CpuShares>,
    /// The name and version of another store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) other_store: Option<String>,
}

/// The medians of one side of a closed loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClosedSide {
    /// Orders, queries or refusals per second.
    pub(crate) rate: f64,
    /// CPU of the servers, µs for each of them.
    pub(crate) cpu_us: f64,
    pub(crate) latency: Spread,
}

/// The CPU of one order, in µs, by the store's processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CpuShares {
    pub(crate) followers: Vec<f64>,
    pub(crate) leader: f64,
    pub(crate) catalog: f64,
    pub(crate) frontend: f64,
}

/// One client by itself, and the costs that cannot be avoided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alone {
    pub(crate) order: Spread,
    pub(crate) legs: Spread,
    pub(crate) sync_appending: Spread,
    pub(crate) sync_overwriting: Spread,
    pub(crate) round_trip: Spread,
    /// CPU per order, in µs: of the store, and of the bare legs without the client.
    pub(crate) order_cpu_us: f64,
    pub(crate) legs_cpu_us: f64,
}

/// An open loop at half of the greatest rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HalfRate {
    /// Orders per second.
    pub(crate) rate: f64,
    pub(crate) refused_percent: f64,
    pub(crate) store: OpenSide,
    pub(crate) bare: OpenSide,
}

/// The medians of one side of an open loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenSide {
    pub(crate) latency: Spread,
    /// From when a request is due to its sending, 99th percentile.
    pub(crate) late_p99: f64,
    /// CPU of the servers, µs per order.
    pub(crate) cpu_us: f64,
}

/// An open loop at twice the greatest rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Overload {
    /// Orders per second.
    pub(crate) rate: f64,
    pub(crate) accepted: Answers,
    pub(crate) refused: Answers,
    pub(crate) bare: Answers,
    pub(crate) refused_percent: f64,
    /// From the sending of a request to its refusal, 99th percentile.
    pub(crate) refusal_p99: f64,
    /// Orders that got 504, in all runs.
    pub(crate) unknown: u64,
    /// The most connections.
    pub(crate) connections: u64,
    /// What the load and the answers cost, for the store and for the bare handler.
    pub(crate) cost: OverloadCost,
    pub(crate) bare_cost: OverloadCost,
    pub(crate) memory: Memory,
}

/// The orders that were answered in one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// Of those due in a second.
    pub(crate) due: f64,
    /// Answered per second while the load lasted.
    pub(crate) answered: f64,
    pub(crate) latency: Spread,
}

/// What an overload costs the load and the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OverloadCost {
    /// From when a request is due to its sending, 99th percentile.
    pub(crate) late_p99: f64,
    /// CPU per answer, in µs: of the servers, and of the load.
    pub(crate) cpu_us: f64,
    pub(crate) load_cpu_us: f64,
}

/// The memory of all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) before: f64,
    pub(crate) most: f64,
    pub(crate) after: f64,
}

/// A store that is empty, full, and started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Growth {
    /// The orders that were placed to fill the store, and their rate.
    pub(crate) placed: u64,
    pub(crate) placed_per_second: f64,
    /// True if they were placed in batches.
    pub(crate) in_batches: bool,
    pub(crate) empty: StoreState,
    pub(crate) full: StoreState,
    pub(crate) started_again: StoreState,
    /// Seconds from a start until all replicas were ready and an order was acknowledged: at once,
    /// and after a quiet minute.
    pub(crate) start_s: f64,
    pub(crate) later_start_s: f64,
}

/// The measures of a store at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoreState {
    pub(crate) orders: u64,
    /// Orders per second, and CPU of each in µs.
    pub(crate) rate: f64,
    pub(crate) cpu_us: f64,
    pub(crate) look_up: Spread,
    /// The memory of the largest replica.
    pub(crate) memory: f64,
    /// The disk space of all replicas together, in MB.
    pub(crate) disk: f64,
}

/// A replica that returns after missing half of the orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Return {
    pub(crate) orders: u64,
    pub(crate) missed: u64,
    pub(crate) away: Phase,
    pub(crate) returning: Phase,
    pub(crate) back: Phase,
    pub(crate) under_load: Done,
}

/// A span of time under load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) seconds: f64,
    /// Orders per second.
    pub(crate) rate: f64,
    /// CPU of all processes, µs per order, including the replica that returns.
    pub(crate) cpu_us: f64,
    /// The most memory of the replica that was away, and of the largest other replica.
    pub(crate) memory: f64,
    pub(crate) others_memory: f64,
}

/// A leader that is killed or frozen, several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failover {
    pub(crate) times: u32,
    /// The longest times without an acknowledged order.
    pub(crate) gap: Spread,
    /// The same of the second before, in which the leader was left alone.
    pub(crate) quiet: Spread,
    pub(crate) under_load: Done,
}
