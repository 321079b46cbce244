//! A witness outside the log: what the log had on disk when the history was last written.
//!
//! A log that lost its end cleanly, at the border of a record, looks like one that was never
//! longer: no checksum tells. But then the replica has forgotten entries that a majority may count
//! on, or a vote, and must not take part any more. So each time the history is written, it also
//! writes down the last entry that was on the log's disk *and* applied (one that is committed is
//! never taken back), and the vote. A log that is opened and has less has lost something.
//!
//! # Not here
//!
//! What was lost within the time between the last writing of the history and the crash, a tenth of
//! a second under load, is not noticed. Nor is the loss of log and history together.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::raft::codec;
use crate::raft::open_error::OpenError;
use crate::raft::types::{LogId, Vote};

/// What a log was known to have on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last entry.
    pub last: Option<LogId>,
}

impl Witness {
    /// The same, with no entry beyond one that is applied.
    pub(crate) fn up_to(self, applied: Option<LogId>) -> Self {
        let index = |log_id: &Option<LogId>| log_id.map(|log_id| log_id.index);
        let last = if index(&applied) < index(&self.last) { applied } else { self.last };
        Self { vote: self.vote, last }
    }

    /// Whether a log that has this much has lost something of what `self` saw.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when it has.
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
        codec::encode_witness(self.vote, self.last)
    }

    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let (vote, last) = codec::decode_witness(bytes)?;
        Ok(Self { vote, last })
    }
}

/// What a running log has on disk: kept by the log, read by whoever writes the history.
#[derive(Clone, Debug, Default)]
pub struct OnDisk {
    kept: Arc<Mutex<Kept>>,
    failed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Kept {
    witness: Witness,
    /// Grows when entries are taken back: what was under way before counts no more.
    epoch: u64,
    /// Why nothing more comes to disk.
    failure: Option<(io::ErrorKind, String)>,
}

impl OnDisk {
    /// What is on disk now.
    pub fn now(&self) -> Witness {
        self.kept.lock().witness
    }

    /// A log was opened with this.
    pub(crate) fn open(&self, witness: Witness) {
        self.kept.lock().witness = witness;
    }

    /// The epoch for entries that are appended now.
    pub(crate) fn epoch(&self) -> u64 {
        self.kept.lock().epoch
    }

    /// Entries up to `last`, appended in `epoch`, have come to disk.
    pub(crate) fn reach(&self, last: LogId, epoch: u64) {
        let mut kept = self.kept.lock();
        if kept.epoch == epoch {
            kept.witness.last = Some(last);
        }
    }

    /// Nothing more comes to disk.
    pub(crate) fn fail(&self, error: &io::Error) {
        self.kept.lock().failure.get_or_insert_with(|| (error.kind(), error.to_string()));
        self.failed.notify_waiters();
    }

    /// Returns when nothing more comes to disk, and why: the replica must stop.
    pub(crate) async fn failed(&self) -> String {
        let mut told = pin!(self.failed.notified());
        loop {
            told.as_mut().enable();
            if let Some((_, text)) = &self.kept.lock().failure {
                return text.clone();
            }
            told.as_mut().await;
            told.set(self.failed.notified());
        }
    }

    /// The first failure instead of a later one, which only says that nobody writes any more.
    pub(crate) fn why(&self, error: io::Error) -> io::Error {
        match &self.kept.lock().failure {
            Some((kind, text)) => io::Error::new(*kind, text.clone()),
            None => error,
        }
    }

    /// Everything after `last` is taken back.
    pub(crate) fn take_back(&self, last: Option<LogId>) {
        let mut kept = self.kept.lock();
        kept.epoch += 1;
        kept.witness = kept.witness.up_to(last);
    }

    /// A vote has come to disk.
    pub(crate) fn vote(&self, vote: Vote) {
        self.kept.lock().witness.vote = Some(vote);
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

    fn witness(vote: Option<Vote>, last: Option<u64>) -> Witness {
        Witness { vote, last: last.map(log_id) }
    }

    #[test]
    fn a_log_that_has_less_than_was_seen_has_lost_something() {
        let seen = witness(Some(Vote::new(3, 2)), Some(10));
        let lost = |vote, last| seen.check(witness(vote, last), Path::new("log")).is_err();
        assert!(!lost(Some(Vote::new(3, 2)), Some(10)));
        assert!(!lost(Some(Vote::new_committed(3, 2)), Some(11)));
        assert!(!lost(Some(Vote::new(4, 1)), Some(10)));
        assert!(lost(Some(Vote::new(3, 2)), Some(9)));
        assert!(lost(Some(Vote::new(3, 2)), None));
        assert!(lost(Some(Vote::new(3, 1)), Some(10)));
        assert!(lost(Some(Vote::new(2, 7)), Some(99)));
        assert!(lost(None, Some(10)));
        assert!(witness(None, None).check(witness(None, None), Path::new("log")).is_ok());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_failure_hears_of_the_first() {
        let on_disk = OnDisk::default();
        let mut waiting = pin!(on_disk.failed());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        on_disk.fail(&io::Error::other("no room"));
        on_disk.fail(&io::Error::other("nobody writes"));
        assert_eq!(waiting.await, "no room");
        assert_eq!(on_disk.failed().await, "no room", "also afterwards");
    }

    #[test]
    fn what_was_taken_back_is_not_missed() {
        let on_disk = OnDisk::default();
        on_disk.open(witness(None, Some(5)));
        let epoch = on_disk.epoch();
        on_disk.reach(log_id(9), epoch);
        on_disk.take_back(Some(log_id(6)));
        assert_eq!(on_disk.now().last, Some(log_id(6)));
        on_disk.reach(log_id(10), epoch);
        assert_eq!(on_disk.now().last, Some(log_id(6)), "that was before");
        on_disk.reach(log_id(7), on_disk.epoch());
        assert_eq!(on_disk.now().last, Some(log_id(7)));
        assert_eq!(on_disk.now().up_to(Some(log_id(6))).last, Some(log_id(6)), "not applied yet");
    }
}
