//! The log on disk: every entry and every vote is written and synced here before another replica
//! counts on it.
//!
//! The files are kept by `raft-log`: records with checksums, and one thread that writes and syncs
//! all records that have arrived meanwhile, then notifies all waiters. This file adds the engine's
//! contract:
//!
//! * entries can be read when `append` returns, and are durable when its callback is called;
//! * a vote is durable when `save_vote` returns;
//! * the committed position is written with the next sync, or with a sync of its own after the log
//!   has been idle for [`IDLE`]: a survivor without a majority serves the entries that it knows to
//!   be committed.
//!
//! A torn tail is cut when the log is opened, and the rest is synced before it counts. Damage
//! anywhere else is an error with file and position.
//!
//! For tests, flushes can be delayed: then a crash loses what a killed process would lose.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::{Condvar, Mutex, RwLock};
use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;
use tokio::sync::oneshot;

use crate::failpoints;
use crate::history::durable_mark::{self, DurableMark};
use crate::history::open_error::OpenError;
use crate::history::view::View;
use crate::raft::codec::{StoredBody, StoredLogId, StoredVote};
use crate::raft::divergence::DIVERGED;
use crate::raft::log_damage;
use crate::raft::log_types::{FlushWaiter, LogTypes};
use crate::raft::types::{Entry, LogId, Types, Vote};

/// A committed position that no append has carried to disk for this long gets a sync of its own.
pub const IDLE: Duration = Duration::from_millis(10);

/// A read for a follower stops after about this many bytes.
pub const READ_BYTES: u64 = 2 << 20;

/// A file of the log is closed at 16 MB. Purged entries are removed by whole files, and the open
/// file is in memory as a whole.
const CHUNK_BYTES: usize = 16 << 20;

/// Entries kept in memory for reading: 8 MB. Not more, because a killed process closes its
/// connections only after its memory is released.
const CACHE_BYTES: usize = 8 << 20;

/// The durable log of one replica. A clone is another handle to the same log.
#[derive(Clone, Debug)]
pub struct LogStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: RwLock<RaftLog<LogTypes>>,
    later: Arc<Later>,
    on_disk: durable_mark::OnDisk,
    /// The ledger that the entries are applied to, if there is one.
    ledger: OnceLock<Weak<View>>,
}

/// The plan of the flush thread.
#[derive(Debug, Default)]
struct Later {
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Plan {
    /// When the committed position gets a sync of its own.
    sync_at: Option<Instant>,
    /// Flushes held back by a fault, oldest first.
    held: VecDeque<(Instant, FlushWaiter)>,
    /// The fault: each flush of entries is held back for this long.
    delay: Option<Duration>,
    /// True while the thread sleeps with nothing to do.
    asleep: bool,
    stop: bool,
}

/// A flush that is due.
#[derive(Debug)]
enum Due {
    /// A fault held the flush back until now.
    Held(FlushWaiter),
    /// The log is idle.
    Idle,
}

impl LogStore {
    /// Opens the log in `folder`, and creates it if absent.
    ///
    /// `flush_delay` is a fault for tests: each flush of entries is held back for this long.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or when the log is damaged anywhere but in a torn tail.
    pub fn open(folder: &Path, flush_delay: Option<Duration>) -> Result<Self, OpenError> {
        std::fs::create_dir_all(folder).map_err(|error| OpenError::folder(folder, &error))?;
        let mut config = raft_log::Config::new(folder.display());
        config.wal.chunk_max_size = Some(CHUNK_BYTES);
        config.wal.flush_batch_wait = Some(Duration::ZERO);
        config.log_cache_capacity = Some(CACHE_BYTES);
        let config = Arc::new(config);
        sync_left_behind(folder).map_err(|error| OpenError::folder(folder, &error))?;
        let log = RaftLog::open(config.clone())
            .map_err(|error| log_damage::find(folder, &config, &error))?;
        let later = Arc::new(Later::default());
        later.plan.lock().delay = flush_delay;
        let on_disk = durable_mark::OnDisk::default();
        let state = log.log_state();
        let vote = state.vote().map(|vote: &StoredVote| vote.0);
        let last = state.last().map(|id: &StoredLogId| id.0);
        on_disk.open(DurableMark { vote, last });
        let inner = Arc::new(Inner {
            log: RwLock::new(log),
            later: later.clone(),
            on_disk,
            ledger: OnceLock::new(),
        });
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("log-flush".into())
            .spawn(move || later.run(&weak))
            .map_err(|error| OpenError::folder(folder, &error))?;
        Ok(Self { inner })
    }

    /// Holds back each flush of entries from now on; `None` ends the fault. For tests.
    pub fn delay_flushes(&self, delay: Option<Duration>) {
        self.inner.later.plan.lock().delay = delay;
    }

    /// The live durable mark of this log.
    pub fn on_disk(&self) -> &durable_mark::OnDisk {
        &self.inner.on_disk
    }

    /// Prevents from now on the removal of entries that this ledger has applied.
    pub fn keep_applied(&self, ledger: &Arc<View>) {
        // A second call has no effect: the first ledger counts.
        let _ = self.inner.ledger.set(Arc::downgrade(ledger));
    }

    /// Waits until everything written so far is on disk: for a clean stop.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub async fn flush(&self) -> io::Result<()> {
        let (waiter, flushed) = oneshot::channel();
        self.inner
            .log
            .write()
            .flush(failpoints::disk_syncs(), Some(FlushWaiter::Waiter(waiter)))?;
        flushed.await.map_err(io::Error::other)?
    }
}

impl Inner {
    /// Flushes the written records to disk, at once or, under a fault, later.
    fn flush(&self, log: &mut RaftLog<LogTypes>, done: FlushWaiter) -> io::Result<()> {
        match self.later.hold(done) {
            Some(done) => log.flush(failpoints::disk_syncs(), Some(done)),
            None => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.later.plan.lock().stop = true;
        self.later.changed.notify_one();
    }
}

impl Later {
    /// Holds a flush back if the fault is set; otherwise returns it.
    fn hold(&self, done: FlushWaiter) -> Option<FlushWaiter> {
        let mut plan = self.plan.lock();
        plan.sync_at = None;
        let Some(delay) = plan.delay else { return Some(done) };
        plan.held.push_back((Instant::now() + delay, done));
        self.changed.notify_one();
        None
    }

    /// Schedules a sync after [`IDLE`], unless an append comes first. The fault that holds flushes
    /// back also holds this sync back.
    fn sync_soon(&self) {
        let mut plan = self.plan.lock();
        if plan.delay.is_some() {
            return;
        }
        plan.sync_at = Some(Instant::now() + IDLE);
        if plan.asleep {
            self.changed.notify_one();
        }
    }

    /// The flush thread: waits for the next flush that is due and does it, until the log is closed.
    fn run(&self, inner: &Weak<Inner>) {
        while let Some(due) = self.next_due() {
            let Some(inner) = inner.upgrade() else { return };
            let done = match due {
                Due::Held(done) => done,
                Due::Idle => FlushWaiter::Unwatched(inner.on_disk.clone()),
            };
            if let Err(error) = inner.log.write().flush(failpoints::disk_syncs(), Some(done)) {
                inner.on_disk.fail(&error);
            }
        }
    }

    /// Waits for the next flush that is due. `None`: the log is closed.
    fn next_due(&self) -> Option<Due> {
        let mut plan = self.plan.lock();
        loop {
            if plan.stop {
                return None;
            }
            let now = Instant::now();
            if plan.held.front().is_some_and(|(due, _)| *due <= now) {
                return plan.held.pop_front().map(|(_, done)| Due::Held(done));
            }
            if plan.sync_at.is_some_and(|due| due <= now) {
                plan.sync_at = None;
                return Some(Due::Idle);
            }
            let due = [plan.sync_at, plan.held.front().map(|(due, _)| *due)];
            if let Some(due) = due.into_iter().flatten().min() {
                self.changed.wait_until(&mut plan, due);
            } else {
                plan.asleep = true;
                self.changed.wait(&mut plan);
                plan.asleep = false;
            }
        }
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.inner.log.read();
        log.read(start, end).map(|read| read.map(entry)).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.inner.log.read().log_state().vote().map(|vote| vote.0))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let log = self.inner.log.read();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for read in log.read(start, end) {
            let (log_id, body) = read?;
            bytes += body.size();
            entries.push(entry((log_id, body)));
            if READ_BYTES <= bytes {
                break;
            }
        }
        Ok(beginning_at(start, entries))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let log = self.inner.log.read();
        let state = log.log_state();
        Ok(LogState {
            last_purged_log_id: state.purged().map(|id| id.0),
            last_log_id: state.last().map(|id| id.0),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (waiter, flushed) = oneshot::channel();
        {
            let mut log = self.inner.log.write();
            log.save_vote(StoredVote(*vote))?;
            log.flush(failpoints::disk_syncs(), Some(FlushWaiter::Waiter(waiter)))?;
        }
        flushed.await.map_err(io::Error::other)??;
        self.inner.on_disk.vote(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let mut log = self.inner.log.write();
        log.commit(StoredLogId(committed)).map_err(|error| self.inner.on_disk.why(error))?;
        // Written with the next entries or, without any, by a sync of its own: waking the flush
        // thread for each of these records would cost about as much as an entry does.
        self.inner.later.sync_soon();
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.inner.log.read().log_state().committed().map(|id| id.0))
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut log = self.inner.log.write();
        let records = entries.into_iter().map(|e| (StoredLogId(e.log_id), StoredBody(e.payload)));
        let on_disk = &self.inner.on_disk;
        log.append(records).map_err(|error| on_disk.why(error))?;
        let last = log.log_state().last().map(|id| (id.0, on_disk.epoch(), on_disk.clone()));
        let flushed = self.inner.flush(&mut log, FlushWaiter::Append(done, Instant::now(), last));
        flushed.map_err(|error| on_disk.why(error))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let next = last.map_or(0, |last| last.index + 1);
        let mut log = self.inner.log.write();
        // There is nothing to remove, and `raft-log` fails unless it finds the entry that stays.
        if log.log_state().last().is_none_or(|id| id.0.index < next) {
            return Ok(());
        }
        // The committed position that `raft-log` keeps by itself lags behind the applied entries.
        let ledger = self.inner.ledger.get().and_then(Weak::upgrade);
        let applied = ledger.and_then(|ledger| ledger.applied_log_id());
        let state = log.log_state();
        // If the log ends before the applied entry, its tail is of an earlier leader and overruled:
        // no loss.
        let applied = applied.filter(|applied| state.last().is_some_and(|id| *applied <= id.0));
        let kept = applied.max(state.committed().map(|id| id.0));
        if let Some(kept) = kept.filter(|kept| next <= kept.index) {
            let why = format!("{DIVERGED}: the log is to be cut from {next} on, below {kept}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        log.truncate(next)?;
        self.inner.on_disk.take_back(last);
        Ok(())
    }

    async fn purge(&mut self, up_to: LogId) -> io::Result<()> {
        self.inner.log.write().purge(StoredLogId(up_to))?;
        // The next sync removes the files; an idle log schedules one.
        self.inner.later.sync_soon();
        Ok(())
    }
}

/// Syncs a file and drops it from the page cache, so that later reads return what the disk has.
/// After a failed sync, memory and disk may differ, and a second sync does not report it (A.
/// Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
pub(crate) fn forget_unread(path: &Path) -> io::Result<()> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    file.sync_all()?;
    // A system without this advice needs no error.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

/// Syncs what a killed process had written and not synced. It is still in the page cache, so it
/// would be read and counted on, and a power failure could remove it: nothing else syncs it.
fn sync_left_behind(folder: &Path) -> io::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "wal") {
            forget_unread(&path)?;
        }
    }
    std::fs::File::open(folder)?.sync_all()
}

/// The entries read for a follower, if they begin at `start`. Otherwise their beginning has been
/// purged meanwhile, and the rest would be sent as if it continued the follower's log.
pub fn beginning_at(start: u64, entries: Vec<Entry>) -> Vec<Entry> {
    let begins = entries.first().is_some_and(|first| first.log_id.index == start);
    if begins { entries } else { Vec::new() }
}

fn entry((log_id, body): (StoredLogId, StoredBody)) -> Entry {
    Entry { log_id: log_id.0, payload: body.0 }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end.max(start))
}
