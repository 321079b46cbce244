//! The send timer: ends a connection whose client reads nothing of its answers.
//!
//! An answer that is not read holds memory, and its connection a place. A client may be slow: each
//! byte that it reads restarts the timer. [`limits::SEND_TIMEOUT`] without one ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::limits;

/// Runs while bytes wait to be sent.
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

    /// Passes the result of a send on, or returns an error after too long without progress.
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

    /// True if bytes wait for the client to read.
    pub(crate) fn is_stalled(&self) -> bool {
        self.timer.is_some()
    }
}
