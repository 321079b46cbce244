//! A replica's disk of three levels: process memory, page cache, and disk.
//!
//! ```text
//!    process memory ──write──► page cache ──sync──► disk
//!         ▲ lost by kill -9        ▲ lost by a power cut
//! ```
//!
//! It holds the engine's log ([`log`]) and the file of the history ([`file`]). Writes to both take
//! time, and a crash may interrupt them at any moment. The seed decides how much of the unsynced
//! data survives a power cut: nothing, all, or any part.
//!
//! A handle belongs to one run of its process. After that run it can neither read nor write: the
//! destructors of a simulated crash must not reach the disk.

pub mod file;
pub mod log;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use order::raft::executor::Executor;
use parking_lot::Mutex;

use self::file::{FileOps, SimFile};
use self::log::{LogOnDisk, SimLog};
use crate::rng::Rng;

/// The effect of a crash on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies: data not yet written is lost.
    Kill,
    /// The power goes: unsynced data is lost as well.
    Power,
}

/// Injected faults of a disk: the checker must detect each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskMutants {
    /// The log reports a sync that it did not make.
    pub log: bool,
    /// The file of the history reports a sync that it did not make.
    pub file: bool,
    /// Data that a killed process left in the page cache is read and trusted without a sync.
    pub reopening: bool,
}

/// One replica's disk. Clones share it.
#[derive(Clone, Debug)]
pub struct Disk {
    inner: Arc<Mutex<DiskState>>,
}

#[derive(Debug)]
struct DiskState {
    /// The run of the process that may use the disk.
    life: u64,
    luck: Rng,
    lies: DiskMutants,
    /// While this is set, no sync completes.
    stalled: Option<Stall>,
    log: LogOnDisk,
    file: FileOps,
}

/// A copy of everything on a disk at one moment.
#[derive(Clone, Debug)]
pub struct DiskCopy {
    log: LogOnDisk,
    file: FileOps,
}

/// A stalled disk: no sync completes until it is resumed.
#[derive(Debug, Default)]
struct Stall {
    over: Arc<tokio::sync::Notify>,
}

impl Disk {
    /// An empty disk.
    pub fn new(seed: u64, id: u64, lies: DiskMutants) -> Self {
        let inner = DiskState {
            life: 0,
            luck: Rng::new(seed, &format!("disk {id}")),
            lies,
            stalled: None,
            log: LogOnDisk::default(),
            file: FileOps::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Begins a new run of the process, and returns its handle.
    pub fn open(&self) -> Handle {
        let mut inner = self.inner.lock();
        inner.life += 1;
        // The page cache of an earlier run has been flushed by now.
        inner.file.settle();
        Handle { disk: self.clone(), life: inner.life }
    }

    /// The process dies, or the power goes: applies the crash to the disk.
    pub fn crash(&self, how: Crash) {
        let mut inner = self.inner.lock();
        inner.life += 1;
        let DiskState { luck, log, file, .. } = &mut *inner;
        log.crash(how, luck);
        file.crash(how, luck);
    }

    /// Stalls the disk: no sync completes; written data stays in the page cache.
    pub fn stall(&self) {
        self.inner.lock().stalled.get_or_insert_default();
    }

    /// Ends the stall.
    pub fn resume(&self) {
        if let Some(stall) = self.inner.lock().stalled.take() {
            stall.over.notify_waiters();
        }
    }

    /// A copy of everything on the disk, while no process uses it.
    pub fn copy(&self) -> DiskCopy {
        let inner = self.inner.lock();
        DiskCopy { log: inner.log.clone(), file: inner.file.clone() }
    }

    /// Replaces the disk's content with a copy, as an operator would.
    pub fn put_back(&self, copy: &DiskCopy) {
        let mut inner = self.inner.lock();
        inner.life += 1;
        inner.log = copy.log.clone();
        inner.file = copy.file.clone();
    }

    /// The number of bytes and entries certainly on disk: for humans.
    pub fn holds(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.file.len(), inner.log.len())
    }
}

/// The disk, as one run of a process may use it.
#[derive(Clone, Debug)]
pub struct Handle {
    disk: Disk,
    life: u64,
}

impl Handle {
    /// The log on the disk, and the task that writes it.
    pub fn log(&self) -> SimLog {
        SimLog::open(self.clone())
    }

    /// The file of the history.
    pub fn file(&self) -> SimFile {
        SimFile::new(self.clone())
    }

    /// The executor of blocking work: after each job it waits for the file's writes.
    pub fn hand(&self) -> Executor {
        let handle = self.clone();
        Executor::Inline(Arc::new(move || handle.clone().took().boxed()))
    }

    /// Waits as long as the pending writes to the file take; then they are done.
    pub async fn took(self) {
        if !self.with(|inner| inner.file.begin()).unwrap_or(false) {
            return;
        }
        self.pause(0, 12).await;
        self.with(|inner| inner.file.settle());
    }

    /// The delay of a write to the page cache: at most `most` milliseconds, also on a stalled disk.
    async fn wrote(&self, most: u64) {
        let usual = self.with(|inner| inner.luck.between(0, most)).unwrap_or_default();
        if 0 < usual {
            tokio::time::sleep(Duration::from_millis(usual)).await;
        }
    }

    /// The delay of a sync: `least` to `most` milliseconds, 40 more in 2 of 100 cases, and until a
    /// stall ends.
    async fn pause(&self, least: u64, most: u64) {
        let (usual, rarely) = self
            .with(|inner| (inner.luck.between(least, most), inner.luck.percent(2)))
            .unwrap_or_default();
        let long = if rarely { usual + 40 } else { usual };
        if 0 < long {
            tokio::time::sleep(Duration::from_millis(long)).await;
        }
        while let Some(over) = self.stalled() {
            over.await;
        }
    }

    fn stalled(&self) -> Option<BoxFuture<'static, ()>> {
        let over = self.with(|inner| inner.stalled.as_ref().map(|stall| stall.over.clone()))??;
        Some(async move { over.notified().await }.boxed())
    }

    /// Runs `act` on the disk. `None`: this run of the process is over.
    fn with<T>(&self, act: impl FnOnce(&mut DiskState) -> T) -> Option<T> {
        let mut inner = self.disk.inner.lock();
        (inner.life == self.life).then(|| act(&mut inner))
    }
}
