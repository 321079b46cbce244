//! How far a connection is with its request: when it is between two of them, it may change hands.
//!
//! The server that reads HTTP does not say when it is idle. Three who see a part of its work note
//! it here: whoever hands it bytes and takes its answers, whoever reads the body of an order, and
//! whoever calls for the answer. Only after an order that was read to its end is anything claimed:
//! of other requests a part of the body, or of the answer, may be on its way for longer.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Something is on its way, as far as is known.
const BUSY: u8 = 0;
/// An order was read, to its end.
const READ: u8 = 1;
/// It was given its answer, which is not sent yet.
const ANSWERED: u8 = 2;
/// The answer is sent, and nothing has come since.
const IDLE: u8 = 3;

/// With so many in a row a connection is taken for one that brings nothing but orders.
const ONLY_ORDERS: u8 = 4;

/// Shared by all who see a part of one connection. They run in turns, as parts of one task.
#[derive(Debug)]
pub(crate) struct Step {
    now: AtomicU8,
    /// How many of the last requests in a row were orders; no more than [`ONLY_ORDERS`].
    orders: AtomicU8,
    /// A part of a head has come.
    begun: AtomicBool,
    /// All of the request that is at work has come, body and all.
    whole: AtomicBool,
}

impl Step {
    /// Nothing has come yet.
    pub(crate) fn new() -> Self {
        Self {
            now: AtomicU8::new(IDLE),
            orders: AtomicU8::new(0),
            begun: AtomicBool::new(false),
            whole: AtomicBool::new(true),
        }
    }

    /// Whether a part of a head has come, and the rest is waited for.
    pub(crate) fn begun(&self, begun: bool) {
        self.begun.store(begun, Ordering::Relaxed);
    }

    /// True while a part of a head has come, and the rest has not.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether all of the request that is at work has come.
    pub(crate) fn whole(&self, whole: bool) {
        self.whole.store(whole, Ordering::Relaxed);
    }

    /// True when all of the request that is at work has come.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// True when the request that is at work is an order, which was read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.now.load(Ordering::Relaxed) == READ
    }

    /// The head of a request has come.
    pub(crate) fn came(&self) {
        self.now.store(BUSY, Ordering::Relaxed);
    }

    /// They were an order, which has been read to its end.
    pub(crate) fn read(&self) {
        self.now.store(READ, Ordering::Relaxed);
    }

    /// The request has its answer.
    pub(crate) fn answered(&self) {
        let orders = self.orders.load(Ordering::Relaxed);
        let order = self.pass(READ, ANSWERED);
        let orders = if order { (orders + 1).min(ONLY_ORDERS) } else { 0 };
        self.orders.store(orders, Ordering::Relaxed);
    }

    /// All that was to be sent is sent.
    pub(crate) fn flushed(&self) {
        self.pass(ANSWERED, IDLE);
    }

    /// The connection is being closed.
    pub(crate) fn closes(&self) {
        self.now.store(BUSY, Ordering::Relaxed);
    }

    /// True between two requests, while no part of the next one has come.
    pub(crate) fn is_idle(&self) -> bool {
        self.now.load(Ordering::Relaxed) == IDLE && !self.has_begun()
    }

    /// True when the last requests were orders, and nothing else.
    pub(crate) fn only_orders(&self) -> bool {
        self.orders.load(Ordering::Relaxed) == ONLY_ORDERS
    }

    fn pass(&self, from: u8, to: u8) -> bool {
        let passes = self.now.load(Ordering::Relaxed) == from;
        if passes {
            self.now.store(to, Ordering::Relaxed);
        }
        passes
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

    /// Kind: a connection that changes hands while a request is coming, and so for ever.
    #[test]
    fn a_connection_on_which_a_part_of_a_head_has_come_is_not_idle() {
        let step = Step::new();
        step.begun(true);
        assert!(!step.is_idle());
        step.begun(false);
        assert!(step.is_idle());
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
