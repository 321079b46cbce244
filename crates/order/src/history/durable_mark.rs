//! The durable mark: what the log had on disk when the history was last written, kept outside the
//! log.
//!
//! A log that was cut cleanly at the border of a record looks like a log that was never longer: no
//! checksum can tell. But the replica has then forgotten entries that a majority may count on, or a
//! vote, and must not take part any more. So each write of the history also records the vote, and
//! the last entry that was on the log's disk *and* applied (a committed entry is never removed). A
//! log that holds less when it is opened has lost data.
//!
//! # Not here
//!
//! A loss between the last write of the history and the crash (by default 200 ms; more for a
//! big shop) is not noticed. Nor is the loss of both log and history.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use wire::metrics::Histogram;

use crate::history::open_error::OpenError;
use crate::raft::codec;
use crate::raft::types::{LogId, Vote};

/// What a log was known to have on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurableMark {
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last entry.
    pub last: Option<LogId>,
}

impl DurableMark {
    /// The same mark, without entries beyond the applied one.
    pub(crate) fn up_to(self, applied: Option<LogId>) -> Self {
        let index = |log_id: &Option<LogId>| log_id.map(|log_id| log_id.index);
        let last = if index(&applied) < index(&self.last) { applied } else { self.last };
        Self { vote: self.vote, last }
    }

    /// Checks that an opened log has lost nothing below this mark.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when the log has lost entries or its vote.
    pub fn check(self, log: Self, folder: &Path) -> Result<(), OpenError> {
        if let Some(seen) = self.last
            && log.last.is_none_or(|last| last.index < seen.index)
        {
            let end = log.last.map_or_else(|| "nothing".into(), |last| last.index.to_string());
            let reason = format!("it ends at {end}, and {} was on disk", seen.index);
            return Err(OpenError::damaged(folder, "its end", &reason));
        }
        if let Some(seen) = self.vote
            && log.vote.is_none_or(|vote| vote < seen)
        {
            let vote = log.vote.map_or_else(|| "no vote".into(), |vote| vote.to_string());
            let reason = format!("it holds {vote}, and {seen} was on disk");
            return Err(OpenError::damaged(folder, "its last vote", &reason));
        }
        Ok(())
    }

    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        codec::encode_durable_mark(self.vote, self.last)
    }

    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let (vote, last) = codec::decode_durable_mark(bytes)?;
        Ok(Self { vote, last })
    }
}

/// What a running log has on disk: updated by the log, read by the writer of the history.
#[derive(Clone, Debug)]
pub struct OnDisk {
    state: Arc<Mutex<OnDiskState>>,
    failed: Arc<Notify>,
    syncs: Arc<Histogram>,
}

#[derive(Debug, Default)]
struct OnDiskState {
    durable_mark: DurableMark,
    /// Grows with each truncation: an append that was under way before does not count any more.
    epoch: u64,
    /// Why nothing more reaches the disk.
    failure: Option<(io::ErrorKind, String)>,
}

impl Default for OnDisk {
    fn default() -> Self {
        let syncs = Arc::new(Histogram::of_durations());
        Self { state: Arc::default(), failed: Arc::default(), syncs }
    }
}

impl OnDisk {
    /// How long appended entries took to reach the disk.
    pub(crate) fn syncs(&self) -> &Arc<Histogram> {
        &self.syncs
    }

    /// The current mark.
    pub fn now(&self) -> DurableMark {
        self.state.lock().durable_mark
    }

    /// Sets the mark of a log that was just opened.
    pub(crate) fn open(&self, durable_mark: DurableMark) {
        self.state.lock().durable_mark = durable_mark;
    }

    /// The epoch for entries that are appended now.
    pub(crate) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Entries up to `last`, appended in `epoch`, are on disk.
    pub(crate) fn reach(&self, last: LogId, epoch: u64) {
        let mut state = self.state.lock();
        if state.epoch == epoch {
            state.durable_mark.last = Some(last);
        }
    }

    /// Records that nothing more reaches the disk.
    pub(crate) fn fail(&self, error: &io::Error) {
        self.state.lock().failure.get_or_insert_with(|| (error.kind(), error.to_string()));
        self.failed.notify_waiters();
    }

    /// Resolves with the reason when nothing more reaches the disk: the replica must stop.
    pub(crate) async fn failed(&self) -> String {
        let mut notified = pin!(self.failed.notified());
        loop {
            notified.as_mut().enable();
            if let Some((_, text)) = &self.state.lock().failure {
                return text.clone();
            }
            notified.as_mut().await;
            notified.set(self.failed.notified());
        }
    }

    /// Replaces a later failure, which only says that the writing thread is gone, by the first
    /// failure.
    pub(crate) fn why(&self, error: io::Error) -> io::Error {
        match &self.state.lock().failure {
            Some((kind, text)) => io::Error::new(*kind, text.clone()),
            None => error,
        }
    }

    /// Everything after `last` is truncated.
    pub(crate) fn take_back(&self, last: Option<LogId>) {
        let mut state = self.state.lock();
        state.epoch += 1;
        state.durable_mark = state.durable_mark.up_to(last);
    }

    /// A vote is on disk.
    pub(crate) fn vote(&self, vote: Vote) {
        self.state.lock().durable_mark.vote = Some(vote);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::raft::types::LeaderId;

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index }
    }

    fn mark(vote: Option<Vote>, last: Option<u64>) -> DurableMark {
        DurableMark { vote, last: last.map(log_id) }
    }

    #[test]
    fn a_log_below_its_durable_mark_is_damaged() {
        let seen = mark(Some(Vote::new(3, 2)), Some(10));
        let lost = |vote, last| seen.check(mark(vote, last), Path::new("log")).is_err();
        assert!(!lost(Some(Vote::new(3, 2)), Some(10)));
        assert!(!lost(Some(Vote::new_committed(3, 2)), Some(11)));
        assert!(!lost(Some(Vote::new(4, 1)), Some(10)));
        assert!(lost(Some(Vote::new(3, 2)), Some(9)));
        assert!(lost(Some(Vote::new(3, 2)), None));
        assert!(lost(Some(Vote::new(3, 1)), Some(10)));
        assert!(lost(Some(Vote::new(2, 7)), Some(99)));
        assert!(lost(None, Some(10)));
        assert!(mark(None, None).check(mark(None, None), Path::new("log")).is_ok());
    }

    #[tokio::test]
    async fn a_waiter_for_a_failure_receives_the_first() {
        let on_disk = OnDisk::default();
        let mut waiting = pin!(on_disk.failed());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        on_disk.fail(&io::Error::other("no room"));
        on_disk.fail(&io::Error::other("the writer has ended"));
        assert_eq!(waiting.await, "no room");
        assert_eq!(on_disk.failed().await, "no room", "also afterwards");
    }

    #[test]
    fn truncated_entries_are_not_missed() {
        let on_disk = OnDisk::default();
        on_disk.open(mark(None, Some(5)));
        let epoch = on_disk.epoch();
        on_disk.reach(log_id(9), epoch);
        on_disk.take_back(Some(log_id(6)));
        assert_eq!(on_disk.now().last, Some(log_id(6)));
        on_disk.reach(log_id(10), epoch);
        assert_eq!(on_disk.now().last, Some(log_id(6)), "from an epoch before the truncation");
        on_disk.reach(log_id(7), on_disk.epoch());
        assert_eq!(on_disk.now().last, Some(log_id(7)));
        assert_eq!(on_disk.now().up_to(Some(log_id(6))).last, Some(log_id(6)), "not applied yet");
    }
}
