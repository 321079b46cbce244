//! Replicas: a vector as the log, elections by the rules of Raft, and the two real cores on top.

use std::collections::BTreeMap;

use ledger::terms::Index;
use order::acknowledger::Acknowledger;
use order::leader_term::{Detach, LeaderTerm};
use wire::watch::lease::Moment;
use wire::watch::rules::Rules;
use wire::watch::source_state::Incarnation;
use wire::watch::window::Window;

/// The number of products.
pub(crate) const PRODUCTS: usize = 2;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) settled: Index,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Blank,
    /// An order under a key, of several products; a refused order changes nothing.
    Order {
        key: usize,
        products: [bool; PRODUCTS],
        refused: bool,
    },
    Attach(Incarnation, String),
    Detach(Incarnation, u64),
}

/// The state after the entries so far: the ledger, reduced to this model's needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) versions: [Index; PRODUCTS],
    /// With the index of the entry that attached it.
    pub(crate) attached: BTreeMap<Incarnation, (String, Index)>,
    /// The index at which each key was first decided, and whether the order was refused.
    pub(crate) keys: BTreeMap<usize, (Index, bool)>,
    pub(crate) settled: Index,
}

/// The effects of one entry.
pub(crate) struct Applied {
    pub(crate) changed: [bool; PRODUCTS],
    pub(crate) attached: bool,
    /// For an order: the index at which its key was first decided, and whether that is this entry.
    pub(crate) decided: Option<(usize, Index, bool, bool)>,
}

impl State {
    pub(crate) fn apply(&mut self, index: Index, entry: &Entry) -> Applied {
        self.settled = self.settled.max(entry.settled);
        let mut applied = Applied { changed: [false; PRODUCTS], attached: false, decided: None };
        match &entry.what {
            What::Order { key, products, refused } => {
                let fresh = !self.keys.contains_key(key);
                let (first, refused) = *self.keys.entry(*key).or_insert((index, *refused));
                applied.decided = Some((*key, first, refused, fresh));
                if fresh && !refused {
                    applied.changed = *products;
                    for (version, changed) in self.versions.iter_mut().zip(products) {
                        if *changed {
                            *version = index;
                        }
                    }
                }
            }
            What::Attach(who, name) => {
                self.attached.entry(*who).or_insert((name.clone(), index));
                applied.attached = true;
            }
            What::Detach(who, term) if *term == entry.term => {
                self.attached.remove(who);
                applied.attached = true;
            }
            // A detach from another term is void.
            What::Blank | What::Detach(..) => {}
        }
        applied
    }

    pub(crate) fn attached_catalogs(&self) -> Vec<(Incarnation, String)> {
        self.attached.iter().map(|(who, (name, _))| (*who, name.clone())).collect()
    }
}

/// An answer that waits at a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) op: usize,
    pub(crate) index: Index,
}

/// One read-index round.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) started: Moment,
    pub(crate) term: u64,
    pub(crate) replied: Vec<usize>,
}

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) up: bool,
    pub(crate) frozen: bool,
    pub(crate) life: u64,
    /// On disk.
    pub(crate) log: Vec<Entry>,
    pub(crate) term: u64,
    pub(crate) state: State,
    pub(crate) applied: usize,
    /// In memory.
    pub(crate) committed: usize,
    pub(crate) leads: bool,
    pub(crate) first_own: usize,
    pub(crate) matched: BTreeMap<usize, usize>,
    pub(crate) round: Option<Round>,
    pub(crate) window: Window,
    pub(crate) leadership: Option<LeaderTerm>,
    pub(crate) acknowledger: Acknowledger<Held>,
    /// Orders appended here and not yet applied: by index, with the term.
    pub(crate) waiters: BTreeMap<usize, (u64, usize)>,
    /// Detaches that are decided and stalled before they reach the log.
    pub(crate) detaches: Vec<Detach>,
}

impl Replica {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            up: true,
            frozen: false,
            life: 0,
            log: Vec::new(),
            term: 0,
            state: State::default(),
            applied: 0,
            committed: 0,
            leads: false,
            first_own: 0,
            matched: BTreeMap::new(),
            round: None,
            window: Window::at(Index(0)),
            leadership: None,
            acknowledger: Acknowledger::new(Index(0), rules),
            waiters: BTreeMap::new(),
            detaches: Vec::new(),
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.up && !self.frozen
    }

    /// The last entry's term and the log's length: Raft's order of logs.
    pub(crate) fn reach(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len())
    }

    /// The replica crashes and loses everything in memory.
    pub(crate) fn crash(&mut self, rules: Rules) {
        let fresh = Self::new(rules);
        *self = Self {
            up: false,
            life: self.life + 1,
            log: std::mem::take(&mut self.log),
            term: self.term,
            state: self.state.clone(),
            applied: self.applied,
            committed: self.applied,
            window: Window::at(Index(self.applied as u64)),
            acknowledger: Acknowledger::new(self.state.settled, rules),
            ..fresh
        };
    }

    /// Adopts a leader's log; entries that differ are truncated.
    pub(crate) fn copy(&mut self, log: &[Entry]) {
        let same = self.log.iter().zip(log).take_while(|(ours, theirs)| ours == theirs).count();
        if same < log.len() || self.log.len() < log.len() {
            assert!(self.applied <= same, "an applied entry would be truncated");
            self.log.truncate(same);
            self.log.extend_from_slice(&log[same..]);
        } else {
            self.log.truncate(log.len());
        }
    }
}
