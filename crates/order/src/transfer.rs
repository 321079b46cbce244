//! Leadership transfers that an operator asks for: the request, its queue and its result.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// The most transfers that wait; an operator asks for one at a time.
const WAITING_MAX: usize = 4;

/// How long no request could be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause(pub(crate) Duration);

/// A request to hand over the lead, and the channel for its result.
#[derive(Debug)]
pub(crate) struct TransferRequest {
    /// The replica that is to lead.
    pub(crate) to: u64,
    /// The result; the error says in words for the operator why it cannot be done.
    pub(crate) reply: oneshot::Sender<Result<Pause, String>>,
}

/// The queue of transfer requests: its sender and its receiver.
pub(crate) fn queue() -> (mpsc::Sender<TransferRequest>, mpsc::Receiver<TransferRequest>) {
    mpsc::channel(WAITING_MAX)
}
