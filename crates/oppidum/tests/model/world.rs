//! The world: processes, streams, clocks, clients, and the answers given so far.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use catalog::core::CatalogCore;
use frontend::cache::{Cache, FillId};
use ledger::change::Change;
use ledger::terms::{Cents, Index, Name};
use wire::watch::lease::{Moment, Times};
use wire::watch::rules::Rules;
use wire::watch::source_state::Incarnation;
use wire::watch::window::Window;

use crate::replica::{Entry, PRODUCTS, Replica, What};
use crate::rng::Rng;
use crate::wires::{Stream, Who};

pub(crate) const REPLICAS: usize = 3;
pub(crate) const CATALOGS: usize = 2;
pub(crate) const FRONTENDS: usize = 3;

/// A process's clock: its rate in per mille, and its reading at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) rate: u64,
    pub(crate) start: u64,
}

/// A frontend's fill, as a catalog knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) frontend: Who,
    pub(crate) fill: FillId,
    pub(crate) product: usize,
    pub(crate) floor: Index,
    /// The number of the try: the answer to an earlier one arrives too late.
    pub(crate) attempt: u64,
}

/// A fill in flight to a catalog, or its answer in flight back.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    Ask { at: u64, catalog: Who, query: Query },
    Answer { at: u64, query: Query, product: Option<Change>, as_of: Index },
}

#[derive(Debug)]
pub(crate) struct CatalogProcess {
    pub(crate) up: bool,
    pub(crate) frozen: bool,
    pub(crate) leaving: bool,
    pub(crate) life: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) core: CatalogCore<Query>,
    pub(crate) window: Window,
    pub(crate) stream: Option<u64>,
    pub(crate) reported: Index,
}

#[derive(Debug)]
pub(crate) struct FrontendProcess {
    pub(crate) up: bool,
    pub(crate) frozen: bool,
    pub(crate) life: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) cache: Cache<usize>,
    pub(crate) stream: Option<u64>,
    pub(crate) reported: Index,
    /// Fills in flight: their catalog, and when each was sent.
    pub(crate) fills: BTreeMap<FillId, (Query, Who, u64)>,
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Order {
        products: [bool; PRODUCTS],
        refused: bool,
    },
    /// Another request with an order's key.
    Again(usize),
    Lookup(usize),
    Query {
        product: usize,
    },
    /// A query that goes to the leader itself.
    Read {
        product: usize,
    },
}

/// The progress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// At this replica, in this incarnation.
    AtReplica(Who),
    /// At this frontend, in this incarnation.
    AtFrontend(Who),
    /// At no process: to be tried again.
    Open,
    Done,
    /// The client's frontend is gone, and so is the request.
    Dropped,
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) wish: Wish,
    pub(crate) progress: Progress,
    /// The greatest index that any client knew when the request was sent.
    pub(crate) floor: Index,
}

/// The whole state of a run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) rules: Rules,
    pub(crate) times: Times,
    pub(crate) clocks: [Clock; REPLICAS + CATALOGS + FRONTENDS],
    pub(crate) replicas: Vec<Replica>,
    /// `cut[a][b]`: no message passes between these replicas.
    pub(crate) cut: [[bool; REPLICAS]; REPLICAS],
    pub(crate) catalogs: Vec<CatalogProcess>,
    pub(crate) frontends: Vec<FrontendProcess>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) count: u64,
    pub(crate) parcels: Vec<Parcel>,
    /// The committed entries, also those that no replica knows to be committed.
    pub(crate) committed: Vec<Entry>,
    pub(crate) committed_keys: BTreeMap<usize, usize>,
    /// For each product, the committed entries that changed it.
    pub(crate) changes: [Vec<Index>; PRODUCTS],
    /// The greatest index in any answer so far.
    pub(crate) revealed: Index,
    pub(crate) ops: Vec<Op>,
    pub(crate) names: [Name; PRODUCTS],
    pub(crate) violation: Option<String>,
    pub(crate) answered: u64,
    /// The number of orders that a frontend refused by itself.
    pub(crate) refused: u64,
    pub(crate) trace: Option<Vec<String>>,
    /// The longest ordinary delay of a message, in microseconds.
    pub(crate) delay: u64,
    /// Some messages stall for much longer, with all later ones on their stream.
    pub(crate) stalls: bool,
    /// Decided detaches do not reach the log: for directed schedules.
    pub(crate) stall_detaches: bool,
    /// This replica applies nothing and checks no grace: for directed schedules.
    pub(crate) lags: Option<usize>,
    /// This catalog does not connect again: for directed schedules.
    pub(crate) stays_away: Option<usize>,
    /// The indexes that dead catalogs had seen.
    pub(crate) last_seen: BTreeMap<Incarnation, Index>,
}

impl World {
    /// Every process runs, and no step has been taken.
    pub(crate) fn new(seed: u64, rules: Rules) -> Self {
        let mut rng = Rng::new(seed);
        let times = Times::default();
        let clocks = std::array::from_fn(|_| Clock {
            rate: [950, 1_000, 1_050][rng.pick(3)],
            start: rng.below(1_000_000_000),
        });
        let capacity = NonZeroUsize::new(1 + rng.pick(2)).unwrap();
        let mut count = 0;
        let mut fresh = || {
            count += 1;
            Incarnation(count)
        };
        let catalogs = (0..CATALOGS)
            .map(|_| CatalogProcess {
                up: true,
                frozen: false,
                leaving: false,
                life: 0,
                incarnation: fresh(),
                core: CatalogCore::new(times, rules),
                window: Window::at(Index(0)),
                stream: None,
                reported: Index(0),
            })
            .collect();
        let frontends = (0..FRONTENDS)
            .map(|_| FrontendProcess {
                up: true,
                frozen: false,
                life: 0,
                incarnation: fresh(),
                cache: Cache::new(capacity, times, rules),
                stream: None,
                reported: Index(0),
                fills: BTreeMap::new(),
            })
            .collect();
        Self {
            rng,
            now: 1_000_000,
            rules,
            times,
            clocks,
            replicas: (0..REPLICAS).map(|_| Replica::new(rules)).collect(),
            cut: [[false; REPLICAS]; REPLICAS],
            catalogs,
            frontends,
            streams: BTreeMap::new(),
            count: 100,
            parcels: Vec::new(),
            committed: Vec::new(),
            committed_keys: BTreeMap::new(),
            changes: std::array::from_fn(|_| Vec::new()),
            revealed: Index(0),
            ops: Vec::new(),
            names: ["bear", "fox"].map(|name| Name::new(name).unwrap()),
            violation: None,
            answered: 0,
            refused: 0,
            trace: None,
            delay: 3_000,
            stalls: true,
            stall_detaches: false,
            lags: None,
            stays_away: None,
            last_seen: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let micros = self.now - 1_000_000;
            trace.push(format!("{:>5}.{:03} ms  {}", micros / 1_000, micros % 1_000, line()));
        }
    }

    /// The reading of a process's clock: replicas first, then catalogs, then frontends.
    fn clock(&self, process: usize) -> Moment {
        let Clock { rate, start } = self.clocks[process];
        Moment(Duration::from_micros(start + self.now * rate / 1_000))
    }

    pub(crate) fn replica_clock(&self, replica: usize) -> Moment {
        self.clock(replica)
    }

    pub(crate) fn catalog_clock(&self, catalog: usize) -> Moment {
        self.clock(REPLICAS + catalog)
    }

    pub(crate) fn frontend_clock(&self, frontend: usize) -> Moment {
        self.clock(REPLICAS + CATALOGS + frontend)
    }

    /// The arrival of a message sent now: usually soon, sometimes very late.
    pub(crate) fn arrival(&mut self) -> u64 {
        let late = self.stalls && self.rng.chance(15);
        let span = if late { 700_000 } else { self.delay };
        self.now + self.rng.below(span + 1)
    }

    pub(crate) fn fresh(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// A product as of a version.
    pub(crate) fn change(&self, product: usize, version: Index) -> Change {
        Change {
            name: self.names[product].clone(),
            price: Cents::new(100).unwrap(),
            stock: version.0,
            restock_to: None,
            version,
        }
    }

    pub(crate) fn product(&self, name: &Name) -> usize {
        self.names.iter().position(|other| other == name).unwrap()
    }

    pub(crate) fn linked(&self, a: usize, b: usize) -> bool {
        a == b || !self.cut[a][b]
    }

    pub(crate) fn fail(&mut self, why: String) {
        self.note(|| format!("VIOLATION: {why}"));
        self.violation.get_or_insert(why);
    }

    /// A majority has these entries: they are committed for ever.
    pub(crate) fn commit(&mut self, entries: &[Entry]) {
        for (at, entry) in entries.iter().enumerate() {
            if at < self.committed.len() {
                assert_eq!(self.committed[at], *entry, "two committed entries at {}", at + 1);
                continue;
            }
            self.committed.push(entry.clone());
            let index = self.committed.len();
            if let What::Order { key, products, refused } = &entry.what
                && !self.committed_keys.contains_key(key)
            {
                self.committed_keys.insert(*key, index);
                for (changes, changed) in self.changes.iter_mut().zip(products) {
                    if *changed && !refused {
                        changes.push(Index(index as u64));
                    }
                }
            }
        }
    }
}
