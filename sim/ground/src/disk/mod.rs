//! A replica's disk: what a process wrote, what the system has, and what is really there.
//!
//! ```text
//!    process memory ──write──► page cache ──sync──► disk
//!         ▲ lost by kill -9        ▲ lost by a power cut
//! ```
//!
//! Two things are kept on it: the engine's log ([`log`]) and the file of the history ([`file`]).
//! Both take their time, and a crash may come at any moment of it. What a cut leaves of what was
//! not synced is decided by the seed: nothing, all, or any part.
//!
//! A handle belongs to one life of its process. After that life it can neither read nor write: what
//! destructors do in a simulated crash must not reach the disk.

pub mod file;
pub mod log;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use order::raft::hand::Hand;
use parking_lot::Mutex;

use self::file::{FileOps, SimFile};
use self::log::{Shelf, SimLog};
use crate::luck::Luck;

/// How a crash treats the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies: what it had not written is lost.
    Kill,
    /// The power goes: what was not synced is lost as well.
    Power,
}

/// Faults put into a disk on purpose: each must be found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    /// The log says that it synced, and did not.
    pub log: bool,
    /// The file of the history says that it synced, and did not.
    pub file: bool,
    /// What a killed process left in the page cache is read again and believed without a sync.
    pub reopening: bool,
}

/// One replica's disk. Clones share it.
#[derive(Clone, Debug)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Which life of the process may use it.
    life: u64,
    luck: Luck,
    lies: Lies,
    /// While this is there, nothing is synced.
    stalled: Option<Stall>,
    log: Shelf,
    file: FileOps,
}

/// All that a disk held at one moment.
#[derive(Clone, Debug)]
pub struct DiskCopy {
    log: Shelf,
    file: FileOps,
}

/// A disk that does nothing until somebody says so.
#[derive(Debug, Default)]
struct Stall {
    over: Arc<tokio::sync::Notify>,
}

impl Disk {
    /// An empty disk.
    pub fn new(seed: u64, id: u64, lies: Lies) -> Self {
        let inner = Inner {
            life: 0,
            luck: Luck::new(seed, &format!("disk {id}")),
            lies,
            stalled: None,
            log: Shelf::default(),
            file: FileOps::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// A new life of the process begins: this is its handle.
    pub fn open(&self) -> Handle {
        let mut inner = self.inner.lock();
        inner.life += 1;
        // What an earlier life left behind has been written by now.
        inner.file.settle();
        Handle { disk: self.clone(), life: inner.life }
    }

    /// The process dies, or the power goes: the disk is left as it may be left.
    pub fn crash(&self, how: Crash) {
        let mut inner = self.inner.lock();
        inner.life += 1;
        let Inner { luck, log, file, .. } = &mut *inner;
        log.crash(how, luck);
        file.crash(how, luck);
    }

    /// From now on nothing is synced; what is written stays in the page cache.
    pub fn stall(&self) {
        self.inner.lock().stalled.get_or_insert_default();
    }

    /// It goes on.
    pub fn resume(&self) {
        if let Some(stall) = self.inner.lock().stalled.take() {
            stall.over.notify_waiters();
        }
    }

    /// A copy of all that is on it, while no process uses it.
    pub fn copy(&self) -> DiskCopy {
        let inner = self.inner.lock();
        DiskCopy { log: inner.log.clone(), file: inner.file.clone() }
    }

    /// An operator puts a copy in the place of what is there.
    pub fn put_back(&self, copy: &DiskCopy) {
        let mut inner = self.inner.lock();
        inner.life += 1;
        inner.log = copy.log.clone();
        inner.file = copy.file.clone();
    }

    /// How many bytes and entries are really there: for people.
    pub fn holds(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.file.len(), inner.log.len())
    }
}

/// The disk, as one life of a process may use it.
#[derive(Clone, Debug)]
pub struct Handle {
    disk: Disk,
    life: u64,
}

impl Handle {
    /// The log on it, and the task that writes it.
    pub fn log(&self) -> SimLog {
        SimLog::open(self.clone())
    }

    /// The file of the history.
    pub fn file(&self) -> SimFile {
        SimFile::new(self.clone())
    }

    /// Whoever does the blocking work waits for the file as long as this says.
    pub fn hand(&self) -> Hand {
        let handle = self.clone();
        Hand::Inline(Arc::new(move || handle.clone().took().boxed()))
    }

    /// Waits as long as the last writes to the file take; then they are done.
    pub async fn took(self) {
        if !self.with(|inner| inner.file.begin()).unwrap_or(false) {
            return;
        }
        self.pause(0, 12).await;
        self.with(|inner| inner.file.settle());
    }

    /// A pause of a system at work: so many milliseconds. A stalled disk does not matter yet.
    async fn wrote(&self, most: u64) {
        let usual = self.with(|inner| inner.luck.between(0, most)).unwrap_or_default();
        if 0 < usual {
            tokio::time::sleep(Duration::from_millis(usual)).await;
        }
    }

    /// A pause of a disk at work: so many milliseconds, and as long as it stalls.
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

    /// Nothing: this life is over.
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> Option<T> {
        let mut inner = self.disk.inner.lock();
        (inner.life == self.life).then(|| act(&mut inner))
    }
}
