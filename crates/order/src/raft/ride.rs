//! News of a commit rides with the entries that come next.
//!
//! The engine tells a follower of each commit at once: a request without entries, when there are
//! none to send. A busy log brings an entry a moment later, which says the same, so that a request
//! of its own costs a message each way, and both processes a wake-up, for nothing. Here such a
//! request waits for the next one, but not for long.
//!
//! What waits for it: a follower applies a little later, on which no answer to a client depends. A
//! lone survivor may not have heard of what was committed in the last few milliseconds, as it may
//! not have heard of what was still on its way. News that is lost with its stream comes with a
//! heartbeat, every 50 ms and over a connection of its own.
//!
//! The engine gets fewer answers than it made requests. It does not count them: it goes by how far
//! an answer's log reaches (`InflightAppendQueue::drain_acked`, 0.10.0-alpha.37; to be looked at
//! before an upgrade).
//!
//! # Invariants
//!
//! * The first request of a stream does not come here: it may be a question, whose answer the
//!   engine waits for.
//! * A request with entries is never held, and requests stay in their order.
//! * News waits for [`RIDE_MAX`] at the most, however much comes after it, before it is given on by
//!   itself or as a part of later news.

use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::time::Instant;

use super::types::Types;

/// How long news of a commit may wait for entries to ride with: a few times what an entry of one
/// busy client takes.
const RIDE_MAX: Duration = Duration::from_millis(5);

type Request = AppendEntriesRequest<Types>;

/// The requests of `input`, of which it has given the first already, with fewer that carry nothing.
pub(crate) fn ride<S>(input: S) -> impl Stream<Item = Request> + Send + 'static
where
    S: Stream<Item = Request> + Send + Unpin + 'static,
{
    futures::stream::unfold((input.fuse(), None), |(mut input, mut held)| async move {
        loop {
            let next = match &held {
                None => input.next().await,
                // None as well when the time is up.
                Some((until, _)) => {
                    tokio::time::timeout_at(*until, input.next()).await.unwrap_or_default()
                }
            };
            match next {
                // It says all that what was held would have said.
                Some(request) if !request.entries.is_empty() => {
                    return Some((request, (input, None)));
                }
                Some(news) => held = Some((until(held.as_ref(), Instant::now()), news)),
                // The time is up, or nothing more comes.
                None => return held.map(|(_, news)| (news, (input, None))),
            }
        }
    })
}

/// When news that comes now is given on at the latest: with what is held already.
fn until(held: Option<&(Instant, Request)>, now: Instant) -> Instant {
    held.map_or(now + RIDE_MAX, |(until, _)| *until)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;
    use openraft::EntryPayload;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::super::types::{Entry, LeaderId, LogId, Payload, Vote};
    use super::*;

    const LEADER: LeaderId = LeaderId { term: 1, node_id: 456 };

    fn id(index: u64) -> LogId {
        LogId::new(LEADER, index)
    }

    /// Entries up to `last`, when there is one, and news of a commit.
    fn request(last: Option<u64>, committed: u64) -> Request {
        let batch = || EntryPayload::Normal(Payload(Bytes::new()));
        let entry = |index| Entry { log_id: id(index), payload: batch() };
        AppendEntriesRequest {
            vote: Vote { leader_id: LEADER, committed: true },
            prev_log_id: Some(id(last.map_or(9, |last| last - 1))),
            entries: last.map(entry).into_iter().collect(),
            leader_commit: Some(id(committed)),
        }
    }

    /// What a request carries: its last entry, and the commit it tells of.
    fn says(request: &Request) -> (Option<u64>, u64) {
        let last = request.entries.last().map(|entry| entry.log_id.index);
        (last, request.leader_commit.map_or(0, |at| at.index))
    }

    #[tokio::test]
    async fn news_of_a_commit_rides_with_the_next_entries() {
        let (send, input) = mpsc::unbounded_channel();
        let mut output = Box::pin(ride(UnboundedReceiverStream::new(input)));
        for (last, committed) in [(None, 7), (None, 8), (Some(10), 9), (Some(11), 9)] {
            send.send(request(last, committed)).unwrap();
        }
        // Entries wait for nothing.
        for last in [10, 11] {
            let next = output.next().now_or_never().flatten().unwrap();
            assert_eq!(says(&next), (Some(last), 9));
        }
    }

    #[test]
    fn later_news_does_not_put_off_what_is_held() {
        let now = Instant::now();
        let first = until(None, now);
        assert_eq!(first, now + RIDE_MAX);
        let held = (first, request(None, 7));
        assert_eq!(until(Some(&held), now + RIDE_MAX / 2), first);
    }

    #[tokio::test]
    async fn news_of_a_commit_goes_by_itself_when_no_entries_come() {
        let (send, input) = mpsc::unbounded_channel();
        let mut output = Box::pin(ride(UnboundedReceiverStream::new(input)));
        let began = Instant::now();
        for committed in [7, 8] {
            send.send(request(None, committed)).unwrap();
        }
        assert!(output.next().now_or_never().is_none(), "it waits for company");
        assert_eq!(says(&output.next().await.unwrap()), (None, 8));
        assert!(RIDE_MAX <= began.elapsed());
        // The stream ends while news is held: it is told all the same.
        send.send(request(None, 9)).unwrap();
        drop(send);
        assert_eq!(says(&output.next().now_or_never().flatten().unwrap()), (None, 9));
        assert!(output.next().await.is_none());
    }
}
