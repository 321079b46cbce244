//! Keeps the log short: a snapshot now and then, and what lies far below it is purged.
//!
//! A snapshot is a manifest and costs one write of the small state, so it is made by size: when so
//! many bytes, or so many entries, have been applied since the last. The engine then purges what
//! lies deeper below it than the entries kept for followers that lag a little. Whoever lags more
//! fetches blocks, and only those that it lacks.

use std::sync::Arc;
use std::time::Duration;

use ledger::terms::Index;
use tokio_util::sync::CancellationToken;

use super::types::Raft;
use super::view::View;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// When a snapshot is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// So many bytes of batches were applied since the last: 64 MB, one file of the log.
    pub(crate) bytes: u64,
    /// Or so many entries.
    pub(crate) entries: u64,
}

impl Limits {
    /// For a log that keeps so many entries below a snapshot.
    pub(crate) fn keeping(entries: u64) -> Self {
        Self { bytes: 64 << 20, entries }
    }
}

/// The pure core: how much has been applied since the last snapshot.
#[derive(Clone, Copy, Debug)]
struct Pile {
    limits: Limits,
    bytes: u64,
    index: Index,
}

impl Pile {
    /// True when a snapshot is due at these totals; it begins a new pile then.
    fn is_due(&mut self, bytes: u64, index: Index) -> bool {
        let due = self.limits.bytes <= bytes.saturating_sub(self.bytes)
            || self.limits.entries <= index.0.saturating_sub(self.index.0);
        if due {
            (self.bytes, self.index) = (bytes, index);
        }
        due
    }
}

/// Makes snapshots until `stop`.
pub(crate) async fn run(raft: Raft, view: Arc<View>, limits: Limits, stop: CancellationToken) {
    let mut applied = view.applied();
    let mut pile = Pile { limits, bytes: view.applied_bytes(), index: *applied.borrow() };
    loop {
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let index = *applied.borrow_and_update();
        if pile.is_due(view.applied_bytes(), index)
            && let Err(error) = raft.trigger().snapshot().await
        {
            tracing::debug!("no snapshot at {index}: {error}");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_by_bytes_or_by_entries_and_then_it_begins_anew() {
        let limits = Limits { bytes: 1_000, entries: 10 };
        let mut pile = Pile { limits, bytes: 0, index: Index(100) };
        assert!(!pile.is_due(999, Index(109)));
        assert!(pile.is_due(1_000, Index(101)));
        assert!(!pile.is_due(1_999, Index(110)));
        assert!(pile.is_due(1_999, Index(111)));
        assert!(!pile.is_due(2_000, Index(112)));
    }
}
