//! The drain: a frontend that stops still answers for a while, so that proxies notice before it
//! closes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The end of a frontend: it drains, then it closes.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    drains: AtomicBool,
    /// Cancelled when the drain is over: everything that runs ends.
    pub(crate) end: CancellationToken,
}

impl Closing {
    /// True during the drain: requests are answered, and each answer closes its connection.
    pub(crate) fn drains(&self) -> bool {
        self.drains.load(Ordering::Relaxed)
    }

    /// Waits for `stop`, drains, then cancels `end`.
    pub(crate) async fn run(&self, drain: Duration, stop: &CancellationToken) {
        stop.cancelled().await;
        self.drains.store(true, Ordering::Relaxed);
        if !drain.is_zero() {
            tracing::info!("not ready any more: answering for {drain:?}, then closing");
            tokio::time::sleep(drain).await;
        }
        self.end.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stopping_frontend_drains_before_it_closes() {
        let (closing, stop) = (Closing::default(), CancellationToken::new());
        assert!(!closing.drains());
        let drain = Duration::from_millis(20);
        let began = tokio::time::Instant::now();
        stop.cancel();
        let closed = async {
            closing.end.cancelled().await;
            assert!(closing.drains());
            assert!(drain <= began.elapsed());
        };
        tokio::join!(closing.run(drain, &stop), closed);
    }
}
