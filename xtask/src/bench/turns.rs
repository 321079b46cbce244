//! Comparisons in turns, so that other work on the machine affects all sides alike.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::bench::load::Spread;
use crate::bench::load::closed::Closed;
use crate::bench::load::script::{Expect, Script};
use crate::bench::report::{ClosedLoop, ClosedSide, CpuShares};
use crate::bench::store::Store;
use crate::bench::{Times, float, machine, ratio};

/// One side of a comparison.
pub(crate) struct Side<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: &'a str,
    pub(crate) script: Script,
    pub(crate) expect: Expect,
    pub(crate) clients: usize,
    /// The CPU time that the servers have used.
    pub(crate) cpu: &'a dyn Fn() -> Result<Duration>,
    /// The store whose ledger must have grown by what was acknowledged.
    pub(crate) ledger: Option<&'a Store>,
}

/// One run of a side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) rate: f64,
    /// CPU of the servers, µs per order or query.
    pub(crate) server_us: f64,
    /// CPU of the load, µs per order or query.
    pub(crate) load_us: f64,
    pub(crate) latency: Spread,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, server_us, load_us, latency } = self;
        let Spread { p50, p99, .. } = latency;
        write!(
            f,
            "{rate:>8.0} per second, {server_us:>6.1} µs of CPU each, {load_us:>4.1} of the load, \
             {p50:>6.2} ms, 99th {p99:>6.2} ms"
        )
    }
}

impl Side<'_> {
    /// Measures the side once.
    pub(crate) fn run(&self, times: &Times) -> Result<Run> {
        let before = self.ledger.map(Store::next_order_number).transpose()?;
        let script = self.script.again();
        let closed = Closed {
            address: self.address,
            script: &script,
            expect: self.expect,
            clients: self.clients,
            warm_up: times.warm_up,
            length: times.length,
        };
        let counted = closed.run(|| Ok(((self.cpu)()?, machine::own_cpu()?)))?;
        if let (Some(store), Some(before)) = (self.ledger, before) {
            check_growth(store, before, (counted.whole, 0))?;
        }
        let [(server, own), (server_after, own_after)] = counted.seen;
        let count = float(counted.count);
        let each = |cpu: Duration| ratio(cpu.as_secs_f64() * 1e6, count);
        Ok(Run {
            rate: ratio(count, counted.seconds),
            server_us: each(server_after.saturating_sub(server)),
            load_us: each(own_after.saturating_sub(own)),
            latency: counted.latency,
        })
    }
}

/// Fails unless the ledger has grown by exactly the acknowledged orders: none lost, none doubled.
/// An order of unknown outcome may be there or not.
pub(crate) fn check_growth(
    store: &Store,
    before: u64,
    (acknowledged, unknown): (u64, u64),
) -> Result<()> {
    let grown = store.next_order_number()?.saturating_sub(before);
    match (acknowledged..=acknowledged + unknown).contains(&grown) {
        true => Ok(()),
        false => bail!(
            "{acknowledged} orders were acknowledged, {unknown} are of unknown outcome, and the \
             ledger has {grown} more"
        ),
    }
}

/// Measures the sides in turns; returns the runs of each side.
pub(crate) fn turns(times: &Times, sides: &[Side<'_>]) -> Result<Vec<Vec<Run>>> {
    let mut runs = vec![Vec::new(); sides.len()];
    for turn in 1..=times.runs {
        for (side, runs) in sides.iter().zip(&mut runs) {
            let run = side.run(times)?;
            println!("run {turn} of {}: {:<28} {run}", times.runs, side.name);
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Divides the `each` µs of one order among the store's processes, by their CPU times before and
/// after.
pub(crate) fn cpu_shares(
    store: &Store,
    before: &[(String, Duration)],
    after: &[(String, Duration)],
    each: f64,
) -> Result<CpuShares> {
    let leader = format!("order {}", store.await_leader(None)?);
    let used = |(was, is): (&(String, Duration), &(String, Duration))| {
        (is.0.clone(), is.1.saturating_sub(was.1).as_secs_f64())
    };
    let used: Vec<_> = before.iter().zip(after).map(used).collect();
    Ok(divide(&used, &leader, each))
}

/// Divides `each` among processes by name, as they have used seconds of CPU.
fn divide(used: &[(String, f64)], leader: &str, each: f64) -> CpuShares {
    let all: f64 = used.iter().map(|(_, seconds)| seconds).sum();
    let mut shares = CpuShares::default();
    for (name, seconds) in used {
        let us = each * ratio(*seconds, all);
        match name.as_str() {
            "frontend" => shares.frontend += us,
            "catalog" => shares.catalog += us,
            name if name == leader => shares.leader += us,
            _ => shares.followers.push(us),
        }
    }
    shares
}

/// The medians of each side.
pub(crate) fn closed_loop(runs: &[Vec<Run>]) -> ClosedLoop {
    let sides = runs.iter().map(|runs| closed_side(runs)).collect();
    ClosedLoop { sides, ..ClosedLoop::default() }
}

/// The medians of the runs of one side.
pub(crate) fn closed_side(runs: &[Run]) -> ClosedSide {
    ClosedSide {
        rate: median(runs.iter().map(|run| run.rate)),
        cpu_us: median(runs.iter().map(|run| run.server_us)),
        latency: median_spread(runs.iter().map(|run| run.latency)),
    }
}

/// The median of each percentile.
pub(crate) fn median_spread(spreads: impl IntoIterator<Item = Spread>) -> Spread {
    Spread::of_each(&spreads.into_iter().collect::<Vec<_>>(), median)
}

/// The median; of an even count, the upper of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, server_us: f64) -> Run {
        Run { rate, server_us, load_us: 5.0, latency: Spread { p50: 1.0, ..Spread::default() } }
    }

    #[test]
    fn medians_are_of_each_measure_by_itself() {
        let store = vec![run(500.0, 100.0), run(4_500.0, 0.2), run(1_000.0, 90.0)];
        let sides = closed_loop(&[store, vec![run(2_000.0, 50.0)]]).sides;
        let latency = Spread { p50: 1.0, ..Spread::default() };
        let expected = [(1_000.0, 90.0), (2_000.0, 50.0)];
        assert_eq!(sides, expected.map(|(rate, cpu_us)| ClosedSide { rate, cpu_us, latency }));
        assert!((median([]) - 0.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_cpu_of_an_order_is_divided_among_the_processes_by_their_roles() {
        let used = [("order 1", 1.0), ("order 2", 2.0), ("catalog", 3.0), ("frontend", 4.0)];
        let used = used.map(|(name, seconds)| (name.to_owned(), seconds));
        let expected = CpuShares { followers: vec![2.0], leader: 4.0, catalog: 6.0, frontend: 8.0 };
        assert_eq!(divide(&used, "order 2", 20.0), expected);
    }
}
