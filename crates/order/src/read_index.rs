//! Read index: the read barrier; many reads share one question to the majority.
//!
//! A linearizable read asks the majority whether this replica still leads, and then reads
//! everything that was committed when it asked. Reads that wait at the same time share one
//! question. A read that arrives while a question is under way waits for the next: the answer under
//! way may be older than the read.

use std::time::Duration;

use futures::future::BoxFuture;
use ledger::terms::Index;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;

use crate::problems;

/// The most reads that wait for a confirmation.
const WAITING_MAX: usize = 16 * 1024;

/// The longest wait of a read.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(900);

/// The index as of which a read is confirmed, or the problem.
pub(crate) type Confirmation = Result<Index, Problem>;

/// Asks the majority once.
pub(crate) type Confirm = Box<dyn Fn() -> BoxFuture<'static, Confirmation> + Send + Sync>;

/// Confirms reads; clones share one question at a time.
#[derive(Clone, Debug)]
pub(crate) struct ReadIndex {
    waiting: mpsc::Sender<oneshot::Sender<Confirmation>>,
}

impl ReadIndex {
    /// A read index, and its task, which ends at `stop`.
    pub(crate) fn new(
        confirm: Confirm,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        (Self { waiting }, ask(queue, confirm, stop))
    }

    /// Confirms that every entry committed before this call is applied here; returns that index.
    pub(crate) async fn confirm(&self) -> Confirmation {
        let (reply, confirmed) = oneshot::channel();
        self.waiting.try_send(reply).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => problems::overloaded(),
            mpsc::error::TrySendError::Closed(_) => problems::stopping(),
        })?;
        match tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(confirmation)) => confirmation,
            Ok(Err(_)) => Err(problems::stopping()),
            Err(_) => Err(problems::no_quorum()),
        }
    }
}

async fn ask(
    mut queue: mpsc::Receiver<oneshot::Sender<Confirmation>>,
    confirm: Confirm,
    stop: CancellationToken,
) {
    let mut sharing = Vec::new();
    loop {
        tokio::select! {
            count = queue.recv_many(&mut sharing, WAITING_MAX) => if count == 0 { return },
            () = stop.cancelled() => return,
        }
        let confirmation = tokio::select! {
            confirmation = confirm() => confirmation,
            () = stop.cancelled() => return,
        };
        for reply in sharing.drain(..) {
            // A read that has gone away needs no answer.
            let _ = reply.send(confirmation.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn reads_share_a_question_and_never_one_that_is_under_way() {
        let (rounds, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let (count, gate) = (rounds.clone(), answers.clone());
        let confirm: Confirm = Box::new(move || {
            let (number, gate) = (count.fetch_add(1, Ordering::SeqCst) + 1, gate.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(Index(number))
            }
            .boxed()
        });
        let stop = CancellationToken::new();
        let (reader, task) = ReadIndex::new(confirm, stop.clone());
        let task = tokio::spawn(task);
        let first = tokio::spawn({
            let reader = reader.clone();
            async move { reader.confirm().await }
        });
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut later: Vec<_> = (0..10).map(|_| Box::pin(reader.confirm())).collect();
        for read in &mut later {
            assert!(read.as_mut().now_or_never().is_none());
        }
        answers.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap(), Index(1));
        for read in later {
            assert_eq!(read.await.unwrap(), Index(2));
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
        stop.cancel();
        task.await.unwrap();
        assert!(reader.confirm().await.is_err());
    }
}
