//! The streams between processes: first in, first out, with any delay; they stall and break.

use std::collections::VecDeque;

use ledger::change::Change;
use ledger::terms::Index;
use wire::watch::lease::Moment;
use wire::watch::source_state::{Grant, Incarnation};

/// The messages from a source to a watcher.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    List(Index, Vec<Change>, Index),
    Change(Index, Index, Vec<Change>, Index),
    Reset(Index),
    Beat { sent: Index, settled: Index, grant: Option<Grant> },
    Leaving,
    Close,
}

/// The messages from a watcher to a source.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Hello { cursor: Index, seen: Index },
    Heartbeat { local: Moment, seen: Index },
    Goodbye,
    Close,
}

/// A process of one tier, in one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) at: usize,
    pub(crate) life: u64,
}

/// A stream: a catalog's to a replica, or a frontend's to a catalog.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) id: u64,
    pub(crate) to_leader: bool,
    pub(crate) watcher: Who,
    pub(crate) incarnation: Incarnation,
    pub(crate) source: Who,
    pub(crate) down: VecDeque<(u64, Down)>,
    pub(crate) up: VecDeque<(u64, Up)>,
    /// No message gets through any more; either side notices when it sends.
    pub(crate) broken: bool,
    /// The source's side: accepted, and not closed.
    pub(crate) served: bool,
    /// A hello that waits for its attach.
    pub(crate) waits: Option<(Index, Index)>,
    pub(crate) sent: Index,
    pub(crate) settled: Index,
    /// When the watcher opened the stream, by its own clock.
    pub(crate) since: Moment,
}

impl Stream {
    /// Sends a message down, to arrive after all earlier ones.
    pub(crate) fn send(&mut self, at: u64, what: Down) {
        if !self.broken {
            let last = self.down.back().map_or(0, |(at, _)| *at);
            self.down.push_back((at.max(last), what));
        }
    }

    /// Sends a message up.
    pub(crate) fn report(&mut self, at: u64, what: Up) {
        if !self.broken {
            let last = self.up.back().map_or(0, |(at, _)| *at);
            self.up.push_back((at.max(last), what));
        }
    }

    /// Cuts the stream: messages in flight are lost.
    pub(crate) fn cut(&mut self) {
        self.broken = true;
        self.down.clear();
        self.up.clear();
    }
}
