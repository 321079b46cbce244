//! The outgoing side of answers: batches those that wait, and pushes what changes.

use std::sync::Arc;

use futures::Stream;
use futures::stream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::access::{self, StoreAccess};
use crate::limits::CALLS_PER_BATCH_MAX;
use crate::peers::{LeaderHint, Roster};
use crate::proto;

/// The outgoing stream: batches waiting answers, and pushes changes of the leader and the roster.
struct AnswerStream {
    waiting: mpsc::Receiver<proto::Answer>,
    hint: watch::Receiver<LeaderHint>,
    sent_hint: Option<LeaderHint>,
    roster: Option<watch::Receiver<Roster>>,
    /// The log entry of the roster that was sent last.
    replicas: Option<(u64, u64)>,
    access: Option<watch::Receiver<Arc<StoreAccess>>>,
    /// The access that was sent last.
    sent_access: Option<Arc<StoreAccess>>,
    stop: CancellationToken,
}

/// A stream of these answers, and of what is pushed, until they end or `stop` is cancelled.
pub(super) fn answer_stream(
    waiting: mpsc::Receiver<proto::Answer>,
    hint: watch::Receiver<LeaderHint>,
    roster: Option<watch::Receiver<Roster>>,
    access: Option<watch::Receiver<Arc<StoreAccess>>>,
    stop: CancellationToken,
) -> impl Stream<Item = Result<proto::Answers, Status>> {
    let speaker = AnswerStream {
        waiting,
        hint,
        sent_hint: None,
        roster,
        replicas: None,
        access,
        sent_access: None,
        stop,
    };
    stream::unfold(speaker, AnswerStream::next)
}

impl AnswerStream {
    async fn next(mut self) -> Option<(Result<proto::Answers, Status>, Self)> {
        // `borrow` does not mark the hint as seen, so a change between two calls is not lost.
        let latest = *self.hint.borrow();
        let mut answers = Vec::new();
        let is_pushed = self.unsent_roster().is_some() || self.unsent_access().is_some();
        if self.sent_hint == Some(latest) && !is_pushed {
            tokio::select! {
                count = self.waiting.recv_many(&mut answers, CALLS_PER_BATCH_MAX) => {
                    if count == 0 {
                        return None;
                    }
                }
                // An unchanged hint is sent as well, while log time stands still: a caller takes a
                // silent replica for lost.
                changed = self.hint.changed() => if changed.is_err() { return None },
                () = change(&mut self.roster) => {}
                () = change(&mut self.access) => {}
                () = self.stop.cancelled() => return None,
            }
        }
        let hint = *self.hint.borrow_and_update();
        self.sent_hint = Some(hint);
        let leader = hint.leader.unwrap_or(0);
        let term = hint.term;
        let replicas = self.unsent_roster();
        if let Some(roster) = &replicas {
            self.replicas = Some((roster.term, roster.index));
        }
        let access = self.unsent_access().map(|access| {
            let message = access::store_access_to(&access);
            self.sent_access = Some(access);
            message
        });
        let log_time_ms = hint.log_time_ms;
        let replica = hint.replica;
        let batch =
            proto::Answers { answers, log_time_ms, leader, term, replicas, replica, access };
        Some((Ok(batch), self))
    }

    /// The roster, if it differs from the roster that was sent last.
    fn unsent_roster(&self) -> Option<proto::Replicas> {
        let roster = self.roster.as_ref()?.borrow();
        let is_changed = !roster.voters.is_empty() && self.replicas != Some(roster.at);
        is_changed.then(|| (&*roster).into())
    }

    /// The access, if it changed after the access that was sent last.
    fn unsent_access(&self) -> Option<Arc<StoreAccess>> {
        let access = self.access.as_ref()?.borrow();
        let is_sent = self.sent_access.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, &access));
        (!is_sent).then(|| access.clone())
    }
}

/// Waits for a change of a pushed value; for ever if there is none or its sender is gone.
async fn change<T>(pushed: &mut Option<watch::Receiver<T>>) {
    let changed = match pushed {
        Some(pushed) => pushed.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_replica_sends_a_message_even_if_its_hint_is_unchanged() {
        let (hints, hint) = watch::channel(LeaderHint { log_time_ms: 7, ..LeaderHint::default() });
        let (_answers, waiting) = mpsc::channel(1);
        let mut speaker = AnswerStream {
            waiting,
            hint,
            sent_hint: None,
            roster: None,
            replicas: None,
            access: None,
            sent_access: None,
            stop: CancellationToken::new(),
        };
        for _ in 0..3 {
            hints.send_modify(|_| {});
            let next = tokio::time::timeout(Duration::from_secs(10), speaker.next());
            let (batch, rest) = next.await.expect("a message comes").unwrap();
            assert_eq!(batch.unwrap().log_time_ms, 7);
            speaker = rest;
        }
    }
}
