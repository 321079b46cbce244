//! Log compaction: makes a snapshot from time to time, and purges the log far below it.
//!
//! A snapshot is a manifest and costs one write of the small state, so it is made by size: when
//! [`Limits::bytes`] or [`Limits::entries`] have been applied since the last. Below a snapshot the
//! log keeps entries for followers that lag a little, bounded in bytes and in entries. A follower
//! that lags more fetches blocks, and only those that it lacks.
//!
//! A starting replica reads the whole log. The log's size depends neither on the total number of
//! orders nor on the number of orders per entry, so it also bounds the start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ledger::terms::Index;
use tokio_util::sync::CancellationToken;

use super::state_machine::Raft;
use crate::history::view::View;

/// How often compaction checks the totals.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A position in the log is noted each time this many bytes have been applied.
const NOTE_BYTES: u64 = 1 << 20;

/// When a snapshot is due, and how much of the log is kept below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The bytes of batches applied since the last snapshot that make one due: 32 MB, some 300,000
    /// orders.
    pub(crate) bytes: u64,
    /// The entries applied since the last snapshot that make one due.
    pub(crate) entries: u64,
    /// The bytes kept below a snapshot; the engine also bounds the number of entries.
    pub(crate) kept_bytes: u64,
}

impl Limits {
    /// The limits of a log that keeps `entries` below a snapshot.
    pub(crate) fn keeping(entries: u64) -> Self {
        Self { bytes: 32 << 20, entries, kept_bytes: 32 << 20 }
    }
}

/// The pure core: how much has been applied since the last snapshot, and what lies below it.
#[derive(Clone, Debug)]
struct LogGrowth {
    limits: Limits,
    /// The totals at the last snapshot.
    bytes: u64,
    index: Index,
    /// Noted positions in the log, oldest first: the bytes applied up to there, and the index.
    places: VecDeque<(u64, Index)>,
}

impl LogGrowth {
    fn new(limits: Limits, bytes: u64, index: Index) -> Self {
        Self { limits, bytes, index, places: VecDeque::from([(bytes, index)]) }
    }

    /// True when a snapshot is due at these totals; both counts then start again.
    fn is_due(&mut self, bytes: u64, index: Index) -> bool {
        let last = self.places.back().map_or(0, |(bytes, _)| *bytes);
        if NOTE_BYTES <= bytes.saturating_sub(last) {
            self.places.push_back((bytes, index));
        }
        let due = self.limits.bytes <= bytes.saturating_sub(self.bytes)
            || self.limits.entries <= index.0.saturating_sub(self.index.0);
        if due {
            (self.bytes, self.index) = (bytes, index);
        }
        due
    }

    /// The index up to which the log may be purged, if it has grown since the last call.
    fn purge(&mut self) -> Option<Index> {
        let beyond = self.bytes.saturating_sub(self.limits.kept_bytes);
        let count = self.places.partition_point(|(bytes, _)| *bytes < beyond);
        self.places.drain(..count).next_back().map(|(_, index)| index)
    }
}

/// Makes snapshots until `stop`.
pub(crate) async fn run(raft: Raft, view: Arc<View>, limits: Limits, stop: CancellationToken) {
    let mut applied = view.applied();
    let mut growth = LogGrowth::new(limits, view.applied_bytes(), *applied.borrow());
    loop {
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let index = *applied.borrow_and_update();
        if growth.is_due(view.applied_bytes(), index)
            && let Err(error) = raft.trigger().snapshot().await
        {
            tracing::debug!("no snapshot at {index}: {error}");
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        // The engine never purges above the last snapshot, even when asked to. By itself it purges
        // the entries that lie deeper below the snapshot than the entries that the log keeps.
        if let Some(index) = growth.purge()
            && let Err(error) = raft.trigger().purge_log(index.0).await
        {
            tracing::debug!("not purged up to {index}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::storage::{IOFlushed, RaftLogStorage};
    use openraft::type_config::TypeConfigExt;

    use super::*;
    use crate::raft::log_store::LogStore;
    use crate::raft::types::{Body, Entry, LeaderId, LogId, Payload, Types};

    const LIMITS: Limits = Limits { bytes: 1_000, entries: 10, kept_bytes: 500 };

    #[test]
    fn a_snapshot_is_due_by_bytes_or_by_entries_and_resets_both_counts() {
        let mut growth = LogGrowth::new(LIMITS, 0, Index(100));
        assert!(!growth.is_due(999, Index(109)));
        assert!(growth.is_due(1_000, Index(101)));
        assert!(!growth.is_due(1_999, Index(110)));
        assert!(growth.is_due(1_999, Index(111)));
        assert!(!growth.is_due(2_000, Index(112)));
    }

    #[test]
    fn entries_for_lagging_followers_are_kept_below_a_snapshot() {
        let limits = Limits { bytes: 4 << 20, entries: 1_000, kept_bytes: 2 << 20 };
        let mut growth = LogGrowth::new(limits, 0, Index(0));
        for index in 1..=4 {
            growth.is_due(index << 20, Index(index));
        }
        assert_eq!(growth.purge(), Some(Index(1)), "two of the four megabytes are kept");
        assert_eq!(growth.purge(), None, "no further than before");
    }

    #[tokio::test]
    async fn the_log_folder_is_bounded_in_bytes_for_any_entry_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogStore::open(folder.path(), None).unwrap();
        let limits = Limits { bytes: 32 << 20, entries: u64::MAX, kept_bytes: 32 << 20 };
        let (mut growth, mut bytes, mut longest) = (LogGrowth::new(limits, 0, Index(0)), 0, 0);
        // One entry is as great as sixteen of the batcher's: fewer syncs, the same bytes.
        let payload = Payload(Bytes::from(vec![7; 1 << 20]));
        for index in 1..=240 {
            let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
            let entry = Entry { log_id, payload: Body::Normal(payload.clone()) };
            let (done, flushed) = Types::oneshot();
            log.append([entry], IOFlushed::signal(done)).await.unwrap();
            flushed.await.unwrap().unwrap();
            bytes += 1 << 20;
            growth.is_due(bytes, Index(index));
            if let Some(purged) = growth.purge() {
                let leader_id = LeaderId { term: 1, node_id: 1 };
                log.purge(LogId { leader_id, index: purged.0 }).await.unwrap();
            }
            longest = longest.max(size(folder.path()));
        }
        // The kept bytes, the bytes until the next snapshot, and files that may not be removed yet.
        assert!(longest < 112 << 20, "the log has grown to {} MB", longest >> 20);
    }

    fn size(folder: &std::path::Path) -> u64 {
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}
