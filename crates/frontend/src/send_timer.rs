//! The send timer: ends a connection whose client takes nothing of what it is sent.
//!
//! An answer that is not taken holds memory, and its connection a place. A client may be slow, but
//! each byte that it takes starts the time anew; [`limits::SEND_TIMEOUT`] without one ends it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::limits;

/// Runs while something waits to be sent.
#[derive(Debug)]
pub(crate) struct SendTimer {
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Default for SendTimer {
    fn default() -> Self {
        Self::new(limits::SEND_TIMEOUT)
    }
}

impl SendTimer {
    pub(crate) fn new(within: Duration) -> Self {
        Self { within, timer: None }
    }

    /// What came of sending something, or an error after too long without progress.
    pub(crate) fn check(
        &mut self,
        sent: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if sent.is_ready() {
            self.timer = None;
            return sent;
        }
        let within = self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the client takes no answers");
        timer.as_mut().poll(cx).map(|()| Err(late()))
    }

    /// The client has not taken all that it was to be sent.
    pub(crate) fn is_stalled(&self) -> bool {
        self.timer.is_some()
    }
}
