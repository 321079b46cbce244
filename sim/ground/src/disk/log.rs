//! The engine's log on a simulated disk: the contract of the real log, and every effect of a crash.
//!
//! Everything (entries, votes, the committed position, cuts and purges) goes into one queue, in
//! order, and one task writes and syncs the queued records as a batch. Entries can be read at once;
//! callbacks come after the sync. A killed process loses the queue. A power cut also loses the
//! written and unsynced records, from a random one on.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use order::raft::log_store;
use order::raft::types::{Entry, LogId, Types, Vote};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{Crash, Handle};
use crate::rng::Rng;

/// A committed position that is not on disk after this time gets a sync of its own.
const IDLE: Duration = Duration::from_millis(10);

/// One read for a follower stops after about this many bytes: a much lower limit than the real one,
/// so that runs reach it.
const READ_BYTES: usize = 16 << 10;

/// The content of a log.
#[derive(Clone, Debug, Default)]
struct LogContent {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Clone, Debug)]
enum Record {
    Vote(Vote),
    Committed(LogId),
    Append(Entry),
    /// Truncates: removes the entries from this index on.
    Cut(u64),
    Purge(LogId),
}

impl LogContent {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Committed(id) => self.committed = Some(*id),
            Record::Append(entry) => {
                self.entries.insert(entry.log_id.index, entry.clone());
            }
            Record::Cut(next) => drop(self.entries.split_off(next)),
            Record::Purge(up_to) => {
                self.entries = self.entries.split_off(&(up_to.index + 1));
                self.purged = self.purged.max(Some(*up_to));
            }
        }
    }

    fn last(&self) -> Option<LogId> {
        let last = self.entries.last_key_value().map(|(_, entry)| entry.log_id);
        last.or(self.purged)
    }
}

/// The part of a log that is on disk.
#[derive(Clone, Debug, Default)]
pub(super) struct LogOnDisk {
    sure: LogContent,
    /// Records written and not synced.
    cached: Vec<Record>,
}

impl LogOnDisk {
    pub(super) fn len(&self) -> usize {
        self.sure.entries.len()
    }

    fn sync(&mut self) {
        for record in self.cached.drain(..) {
            self.sure.take(&record);
        }
    }

    /// Applies a crash. The checksums of the real log cut a torn record and all after it.
    pub(super) fn crash(&mut self, how: Crash, luck: &mut Rng) {
        if how == Crash::Power {
            let kept = match luck.below(3) {
                0 => 0,
                1 => self.cached.len(),
                _ => luck.place(self.cached.len() + 1),
            };
            self.cached.truncate(kept);
            self.sync();
        }
    }
}

/// Records that are written to disk together.
struct Batch {
    records: Vec<Record>,
    /// False: written, and synced with the next batch or when the log is idle.
    sync: bool,
    done: Option<FlushCallback>,
}

enum FlushCallback {
    Append(IOFlushed<Types>),
    Waiter(oneshot::Sender<()>),
}

/// The log of one run of a replica. A clone is another handle to the same log.
#[derive(Clone, Debug)]
pub struct SimLog {
    book: Arc<Mutex<LogContent>>,
    queue: mpsc::UnboundedSender<Batch>,
}

impl SimLog {
    /// Reads the log on disk. Must be called on the process's runtime.
    pub(super) fn open(handle: Handle) -> Self {
        let read = |inner: &mut super::DiskState| {
            let mut book = inner.log.sure.clone();
            for record in &inner.log.cached {
                book.take(record);
            }
            if !inner.lies.reopening {
                inner.log.sync();
            }
            book
        };
        let book = handle.with(read).unwrap_or_default();
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write(handle, waiting));
        Self { book: Arc::new(Mutex::new(book)), queue }
    }

    fn put(&self, records: Vec<Record>, sync: bool, done: Option<FlushCallback>) -> io::Result<()> {
        let mut book = self.book.lock();
        for record in &records {
            book.take(record);
        }
        let gone = |_| io::Error::other("this life of the process is over");
        self.queue.send(Batch { records, sync, done }).map_err(gone)
    }
}

/// Writes and syncs queued records, all that are queued as one batch.
async fn write(handle: Handle, mut waiting: mpsc::UnboundedReceiver<Batch>) {
    let mut unsynced = false;
    loop {
        let first = if unsynced {
            match tokio::time::timeout(IDLE, waiting.recv()).await {
                Ok(first) => first,
                Err(_) => Some(Batch { records: Vec::new(), sync: true, done: None }),
            }
        } else {
            waiting.recv().await
        };
        let Some(first) = first else { return };
        let mut batches = vec![first];
        while let Ok(batch) = waiting.try_recv() {
            batches.push(batch);
        }
        handle.wrote(1).await;
        let records: Vec<Record> =
            batches.iter_mut().flat_map(|batch| std::mem::take(&mut batch.records)).collect();
        if handle.with(|inner| inner.log.cached.extend(records)).is_none() {
            return;
        }
        unsynced = !batches.iter().any(|batch| batch.sync);
        if unsynced {
            continue;
        }
        handle.pause(0, 3).await;
        let synced = handle.with(|inner| {
            if !inner.lies.log {
                inner.log.sync();
            }
        });
        if synced.is_none() {
            return;
        }
        for done in batches.into_iter().filter_map(|batch| batch.done) {
            match done {
                FlushCallback::Append(done) => done.io_completed(Ok(())),
                // A waiter that has gone needs no answer.
                FlushCallback::Waiter(waiter) => drop(waiter.send(())),
            }
        }
    }
}

impl RaftLogReader<Types> for SimLog {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let book = self.book.lock();
        Ok(book.entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.book.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let book = self.book.lock();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (_, entry) in book.entries.range(start..end) {
            entries.push(entry.clone());
            bytes += match &entry.payload {
                openraft::EntryPayload::Normal(payload) => payload.0.len(),
                _ => 16,
            };
            if READ_BYTES <= bytes {
                break;
            }
        }
        Ok(log_store::beginning_at(start, entries))
    }
}

impl RaftLogStorage<Types> for SimLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let book = self.book.lock();
        Ok(LogState { last_purged_log_id: book.purged, last_log_id: book.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (waiter, flushed) = oneshot::channel();
        self.put(vec![Record::Vote(*vote)], true, Some(FlushCallback::Waiter(waiter)))?;
        flushed.await.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.put(vec![Record::Committed(committed)], false, None)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.book.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(Record::Append).collect();
        self.put(records, true, Some(FlushCallback::Append(done)))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let next = last.map_or(0, |last| last.index + 1);
        self.put(vec![Record::Cut(next)], false, None)
    }

    async fn purge(&mut self, up_to: LogId) -> io::Result<()> {
        self.put(vec![Record::Purge(up_to)], false, None)
    }
}

#[cfg(test)]
mod tests {
    use openraft::StorageError;
    use openraft::testing::log::{StoreBuilder, Suite};
    use order::history::block_source::NoSource;
    use order::history::write_demand::WritePace;
    use order::raft::state_machine::StateMachine;

    use super::*;
    use crate::disk::{Disk, DiskMutants};

    struct Builder;

    impl StoreBuilder<Types, SimLog, StateMachine, Disk> for Builder {
        async fn build(&self) -> Result<(Disk, SimLog, StateMachine), StorageError<Types>> {
            let disk = Disk::new(1, 1, DiskMutants::default());
            let handle = disk.open();
            let file = (std::path::Path::new("blocks"), handle.file());
            let work = (WritePace::default(), handle.hand());
            let windows = ledger::ledger::Windows::default();
            let opened = StateMachine::open_on(file, windows, work, Arc::new(NoSource));
            Ok((disk, handle.log(), opened.unwrap().0))
        }
    }

    #[tokio::test]
    async fn the_engines_suite_passes_on_the_simulated_disk() {
        Suite::test_all(Builder).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_power_cut_loses_unsynced_records_and_nothing_else() {
        let vote = |term| Vote::new(term, 1);
        for seed in 0..32 {
            let disk = Disk::new(seed, 1, DiskMutants::default());
            let mut log = disk.open().log();
            log.save_vote(&vote(1)).await.unwrap();
            let mut other = log.clone();
            let saving = tokio::spawn(async move { other.save_vote(&vote(2)).await });
            tokio::time::sleep(Duration::from_millis(seed % 5)).await;
            let saved = saving.is_finished();
            disk.crash(Crash::Power);
            let found = disk.open().log().read_vote().await.unwrap();
            assert!(found == Some(vote(2)) || (found == Some(vote(1)) && !saved), "{found:?}");
        }
    }
}
