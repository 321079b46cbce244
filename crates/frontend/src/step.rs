//! How far a connection is with its request: when it is between two of them, it may change hands.
//!
//! The server that reads HTTP does not say when it is idle. Three who see a part of its work note
//! it here: whoever hands it bytes and takes its answers, whoever reads the body of an order, and
//! whoever calls for the answer. Only after an order that was read to its end is anything claimed:
//! of other requests a part of the body, or of the answer, may be on its way for longer.

use std::sync::atomic::{AtomicU8, Ordering};

/// Something is on its way, as far as is known.
const BUSY: u8 = 0;
/// An order was read, to its end.
const READ: u8 = 1;
/// It was given its answer, which is not sent yet.
const ANSWERED: u8 = 2;
/// The answer is sent, and nothing has come since.
const IDLE: u8 = 3;

/// Shared by all who see a part of one connection. They run in turns, as parts of one task.
#[derive(Debug)]
pub(crate) struct Step(AtomicU8);

impl Step {
    /// Nothing has come yet.
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(IDLE))
    }

    /// Bytes have come.
    pub(crate) fn came(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    /// They were an order, which has been read to its end.
    pub(crate) fn read(&self) {
        self.0.store(READ, Ordering::Relaxed);
    }

    /// The request has its answer.
    pub(crate) fn answered(&self) {
        self.pass(READ, ANSWERED);
    }

    /// All that was to be sent is sent.
    pub(crate) fn flushed(&self) {
        self.pass(ANSWERED, IDLE);
    }

    /// The connection is being closed.
    pub(crate) fn closes(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    /// True between two requests.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == IDLE
    }

    fn pass(&self, from: u8, to: u8) {
        if self.0.load(Ordering::Relaxed) == from {
            self.0.store(to, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_before_the_first_and_after_each_whole_order() {
        let step = Step::new();
        assert!(step.is_idle());
        for _ in 0..2 {
            step.came();
            step.flushed();
            assert!(!step.is_idle(), "what was sent before is no answer to this");
            step.read();
            step.flushed();
            assert!(!step.is_idle());
            step.answered();
            assert!(!step.is_idle());
            step.flushed();
            assert!(step.is_idle());
        }
    }

    #[test]
    fn nothing_is_claimed_of_other_requests_or_when_more_has_come() {
        let step = Step::new();
        step.came();
        step.answered();
        step.flushed();
        assert!(!step.is_idle(), "it was not read to its end");
        step.read();
        step.answered();
        step.came();
        step.flushed();
        assert!(!step.is_idle(), "the next one has begun");
        step.read();
        step.answered();
        step.closes();
        step.flushed();
        assert!(!step.is_idle());
    }
}
