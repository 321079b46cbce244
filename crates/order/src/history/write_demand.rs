//! The demand on the history writer: when it writes next.
//!
//! Applying an entry asks for a write at the writer's pace; a task that waits for the disk asks for
//! one at once.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// How often the history is written, and how many bytes may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritePace {
    /// The shortest time between two writes: 200 ms by default. Much longer in tests that must not
    /// write.
    pub every: Duration,
    /// When about this many bytes of blocks wait, writing starts at once and applying waits for it:
    /// 32 MB by default.
    pub bytes: usize,
}

impl Default for WritePace {
    fn default() -> Self {
        Self { every: Duration::from_millis(200), bytes: 32 << 20 }
    }
}

/// The requests to the writing thread.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    state: Mutex<DemandState>,
    changed: Condvar,
    /// The same signal for a writer that is a task.
    stirred: Notify,
}

#[derive(Debug, Default)]
struct DemandState {
    /// An entry was applied since the last write.
    dirty: bool,
    /// Write without waiting for the pace.
    urgent: bool,
    stop: bool,
}

impl Demand {
    /// Reports that an entry was applied.
    pub(crate) fn note(&self) {
        let mut state = self.state.lock();
        if !state.dirty {
            state.dirty = true;
            self.wake();
        }
    }

    /// Makes the thread write at once, because a task waits for the write.
    pub(crate) fn urge(&self) {
        let mut state = self.state.lock();
        state.urgent = true;
        self.wake();
    }

    /// Stops the thread; unwritten blocks will be replayed from the log.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake();
    }

    fn wake(&self) {
        self.changed.notify_one();
        self.stirred.notify_one();
    }

    /// Waits until there is something to write and its time has come. False: the writer is stopped.
    pub(super) fn wait(&self, not_before: Instant) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return false;
            }
            if state.urgent || (state.dirty && not_before <= Instant::now()) {
                *state = DemandState::default();
                return true;
            }
            if state.dirty {
                self.changed.wait_until(&mut state, not_before);
            } else {
                self.changed.wait(&mut state);
            }
        }
    }
}

impl Demand {
    /// [`Self::wait`], for a writer that is a task.
    pub(super) async fn waited(&self, not_before: tokio::time::Instant) -> bool {
        loop {
            let dirty = {
                let mut state = self.state.lock();
                if state.stop {
                    return false;
                }
                let is_time = not_before <= tokio::time::Instant::now();
                if state.urgent || (state.dirty && is_time) {
                    *state = DemandState::default();
                    return true;
                }
                state.dirty
            };
            if dirty {
                // Late or woken: the loop checks again in either case.
                let _ = tokio::time::timeout_at(not_before, self.stirred.notified()).await;
            } else {
                self.stirred.notified().await;
            }
        }
    }
}
