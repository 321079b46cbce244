//! The phase of a connection's request: between two requests, the reader of the connection may
//! change.
//!
//! hyper does not say when it is idle. Three observers note here the part that they see: the stream
//! that gives hyper bytes and takes its answers, the code that reads an order's body, and the code
//! that awaits the answer. Only after an order that was read to its end is a connection idle: after
//! other requests, a part of the body or of the answer may be in flight for longer.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Bytes may be in flight.
const BUSY: u8 = 0;
/// An order was read to its end.
const READ: u8 = 1;
/// The order has its answer, which is not sent yet.
const ANSWERED: u8 = 2;
/// The answer is sent, and no byte has arrived since.
const IDLE: u8 = 3;

/// After this many orders in a row, a connection counts as one that brings only orders.
const ORDERS_ONLY: u8 = 4;

/// Shared by all observers of one connection. They run in turns, as parts of one task.
#[derive(Debug)]
pub(crate) struct RequestPhase {
    now: AtomicU8,
    /// The number of orders among the last requests in a row; at most [`ORDERS_ONLY`].
    orders: AtomicU8,
    /// A part of a head has arrived.
    begun: AtomicBool,
    /// The request in progress has arrived whole, with its body.
    whole: AtomicBool,
}

impl RequestPhase {
    /// No byte has arrived yet.
    pub(crate) fn new() -> Self {
        Self {
            now: AtomicU8::new(IDLE),
            orders: AtomicU8::new(0),
            begun: AtomicBool::new(false),
            whole: AtomicBool::new(true),
        }
    }

    /// Sets whether a part of a head has arrived, and the rest is awaited.
    pub(crate) fn begun(&self, begun: bool) {
        self.begun.store(begun, Ordering::Relaxed);
    }

    /// True if a part of a head has arrived, and the rest has not.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Sets whether the request in progress has arrived whole.
    pub(crate) fn whole(&self, whole: bool) {
        self.whole.store(whole, Ordering::Relaxed);
    }

    /// True if the request in progress has arrived whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// True if the request in progress is an order that was read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.now.load(Ordering::Relaxed) == READ
    }

    /// The head of a request has arrived.
    pub(crate) fn note_arrived(&self) {
        self.now.store(BUSY, Ordering::Relaxed);
    }

    /// The request is an order, and has been read to its end.
    pub(crate) fn note_read(&self) {
        self.now.store(READ, Ordering::Relaxed);
    }

    /// The request has its answer.
    pub(crate) fn note_answered(&self) {
        let orders = self.orders.load(Ordering::Relaxed);
        let order = self.pass(READ, ANSWERED);
        let orders = if order { (orders + 1).min(ORDERS_ONLY) } else { 0 };
        self.orders.store(orders, Ordering::Relaxed);
    }

    /// Every byte to send has been sent.
    pub(crate) fn note_flushed(&self) {
        self.pass(ANSWERED, IDLE);
    }

    /// The connection is being closed.
    pub(crate) fn closes(&self) {
        self.now.store(BUSY, Ordering::Relaxed);
    }

    /// True between two requests, while no part of the next one has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.now.load(Ordering::Relaxed) == IDLE && !self.has_begun()
    }

    /// True if the last [`ORDERS_ONLY`] requests were orders.
    pub(crate) fn has_only_orders(&self) -> bool {
        self.orders.load(Ordering::Relaxed) == ORDERS_ONLY
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
        let phase = RequestPhase::new();
        assert!(phase.is_idle());
        for _ in 0..2 {
            phase.note_arrived();
            phase.note_flushed();
            assert!(!phase.is_idle(), "an earlier flush sent no answer to this request");
            phase.note_read();
            phase.note_flushed();
            assert!(!phase.is_idle());
            phase.note_answered();
            assert!(!phase.is_idle());
            phase.note_flushed();
            assert!(phase.is_idle());
        }
    }

    /// Kind: a connection that changes readers while a request arrives, and so forever.
    #[test]
    fn a_connection_with_a_partial_head_is_not_idle() {
        let phase = RequestPhase::new();
        phase.begun(true);
        assert!(!phase.is_idle());
        phase.begun(false);
        assert!(phase.is_idle());
    }

    #[test]
    fn a_connection_is_not_idle_after_other_requests_or_with_more_bytes() {
        let phase = RequestPhase::new();
        phase.note_arrived();
        phase.note_answered();
        phase.note_flushed();
        assert!(!phase.is_idle(), "the request was not read to its end");
        phase.note_read();
        phase.note_answered();
        phase.note_arrived();
        phase.note_flushed();
        assert!(!phase.is_idle(), "the next request has begun");
        phase.note_read();
        phase.note_answered();
        phase.closes();
        phase.note_flushed();
        assert!(!phase.is_idle());
    }
}
