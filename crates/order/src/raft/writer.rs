//! The thread that writes the history behind the log's back.
//!
//! The log is the durable truth; the history only has to be consistent, and some way behind. So one
//! thread looks at the books now and then, at one moment of them: the state, the position, and the
//! blocks not yet on disk. It writes these in one transaction and only then lets the blocks go. Its
//! pace bounds what must be replayed after a crash and how much memory waits for the disk.
//!
//! The whole state is written each time, not just what changed: one moment is one value, equal to
//! the state a snapshot carries. A big shop is written less often, so that writing stays a tenth of
//! the work.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::raft::blocks::Durable;
use crate::raft::rows::Row;
use crate::raft::view::Shared;

/// How often the history is written, and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// At most this often: 100 ms by default. Much longer in tests that must not write.
    pub every: Duration,
    /// When about this many bytes of blocks wait, writing starts at once and applying waits for it:
    /// 32 MB by default.
    pub bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: Duration::from_millis(100), bytes: 32 << 20 }
    }
}

/// What is asked of the thread.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    wishes: Mutex<Wishes>,
    changed: Condvar,
    /// The same for a writer that is a task.
    stirred: Notify,
}

#[derive(Debug, Default)]
struct Wishes {
    /// Something was applied since the last look.
    dirty: bool,
    /// Do not wait for the pace.
    urgent: bool,
    stop: bool,
}

impl Demand {
    /// Something was applied.
    pub(crate) fn note(&self) {
        let mut wishes = self.wishes.lock();
        if !wishes.dirty {
            wishes.dirty = true;
            self.wake();
        }
    }

    /// Somebody waits for it.
    pub(crate) fn urge(&self) {
        let mut wishes = self.wishes.lock();
        wishes.urgent = true;
        self.wake();
    }

    /// It is over; what is not written will be replayed from the log.
    pub(crate) fn stop(&self) {
        self.wishes.lock().stop = true;
        self.wake();
    }

    fn wake(&self) {
        self.changed.notify_one();
        self.stirred.notify_one();
    }

    /// Waits until there is something to write and it is time. False: it is over.
    fn wait(&self, not_before: Instant) -> bool {
        let mut wishes = self.wishes.lock();
        loop {
            if wishes.stop {
                return false;
            }
            if wishes.urgent || (wishes.dirty && not_before <= Instant::now()) {
                *wishes = Wishes::default();
                return true;
            }
            if wishes.dirty {
                self.changed.wait_until(&mut wishes, not_before);
            } else {
                self.changed.wait(&mut wishes);
            }
        }
    }
}

impl Demand {
    /// [`Self::wait`] for a writer that is a task.
    async fn waited(&self, not_before: tokio::time::Instant) -> bool {
        loop {
            let dirty = {
                let mut wishes = self.wishes.lock();
                if wishes.stop {
                    return false;
                }
                let is_time = not_before <= tokio::time::Instant::now();
                if wishes.urgent || (wishes.dirty && is_time) {
                    *wishes = Wishes::default();
                    return true;
                }
                wishes.dirty
            };
            if dirty {
                // Late or woken: either way it looks again.
                let _ = tokio::time::timeout_at(not_before, self.stirred.notified()).await;
            } else {
                self.stirred.notified().await;
            }
        }
    }
}

/// Writes until it is over, or until the disk fails.
pub(crate) fn run(shared: &Arc<Shared>) {
    let mut not_before = Instant::now() + shared.pace.every;
    while shared.demand.wait(not_before) {
        let start = Instant::now();
        match write(shared) {
            Ok(durable) => written(shared, durable),
            Err(error) => return failed(shared, &error),
        }
        not_before = start + shared.pace.every.max(start.elapsed() * 10);
    }
}

/// The same as a task, where there are no threads.
pub(crate) async fn run_inline(shared: Arc<Shared>) {
    let mut not_before = tokio::time::Instant::now();
    while shared.demand.waited(not_before).await {
        let start = tokio::time::Instant::now();
        let theirs = shared.clone();
        match shared.hand.aside(move || write(&theirs)).await {
            Ok(durable) => written(&shared, durable),
            Err(error) => return failed(&shared, &error),
        }
        not_before = start + shared.pace.every.max(start.elapsed() * 10);
    }
}

fn failed(shared: &Shared, error: &io::Error) {
    let failure = format!("cannot write the history of orders: {error}");
    tracing::error!("{failure}");
    shared.progress.send_modify(|progress| progress.failure = Some(failure));
}

/// Writes one moment of the books.
fn write(shared: &Shared) -> io::Result<Durable> {
    let _in_turn = shared.positions.lock();
    let before = shared.durable.read().clone();
    let (now, blocks) = {
        let books = shared.books.read();
        let blocks: Vec<_> = books.young.iter().cloned().collect();
        // Nothing has been applied since: while a snapshot is installed, only then, the ledger may
        // remember more keys than belong to what is applied.
        let now = (books.applied != before.applied).then(|| {
            (books.ledger.state(), books.ledger.marks(), books.applied, books.members.clone())
        });
        (now, blocks)
    };
    let witness = |applied| shared.on_disk.get().map(|on_disk| on_disk.now().up_to(applied));
    let durable = match now {
        Some((state, marks, applied, members)) => {
            let (state, marks) = (state.encode().into(), Some(marks));
            Durable { applied, members, state, witness: witness(applied), marks }
        }
        None => Durable { witness: witness(before.applied), ..Durable::clone(&before) },
    };
    let rows: Vec<Row> = blocks.iter().map(Row::new).collect();
    shared.blocks.write(&rows, Some(&durable))?;
    Ok(durable)
}

/// That moment is on disk: others may count on it, and its blocks leave memory.
fn written(shared: &Shared, durable: Durable) {
    let (index, applied) = (durable.index(), durable.applied);
    if applied < shared.durable.read().applied {
        // A snapshot has been installed meanwhile.
        return;
    }
    *shared.durable.write() = Arc::new(durable);
    let mut books = shared.books.write();
    // They are on disk: memory may let them go.
    while books.young.front().is_some_and(|block| block.header().index <= index) {
        books.pop();
    }
    drop(books);
    shared.progress.send_modify(|progress| progress.durable = applied);
}
