//! Commit coalescing: a commit notice travels with the next entries instead of alone.
//!
//! The engine sends a follower each new commit index at once: a request without entries, when there
//! are none to send. A busy log brings an entry a moment later, which carries the same commit
//! index. So a request of its own costs one message each way, and a wake-up of both processes, for
//! nothing. Here such a request waits for the next one, for at most [`RIDE_MAX`].
//!
//! The price: a follower applies a little later, on which no client's answer depends. A lone
//! survivor may not know the commits of the last few milliseconds, as with any message in flight. A
//! notice that is lost with its stream arrives with a heartbeat, every 50 ms and over a connection
//! of its own.
//!
//! The engine gets fewer answers than it made requests. It does not count them: it goes by how far
//! an answer's log reaches (`InflightAppendQueue::drain_acked`, 0.10.0-alpha.37; to be checked
//! before an upgrade).
//!
//! # Invariants
//!
//! * The first request of a stream is not passed to this module: the engine may wait for its
//!   answer.
//! * A request with entries is never held, and requests stay in their order.
//! * A notice waits for at most [`RIDE_MAX`], however many notices follow; then it is sent alone or
//!   as part of a later notice.

use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::time::Instant;

use super::types::Types;

/// How long a commit notice may wait for entries: a few times the time of one entry of one busy
/// client.
const RIDE_MAX: Duration = Duration::from_millis(5);

type Request = AppendEntriesRequest<Types>;

/// Yields the requests of `input` behind its first, with commit notices merged into later requests.
pub(crate) fn ride<S>(input: S) -> impl Stream<Item = Request> + Send + 'static
where
    S: Stream<Item = Request> + Send + Unpin + 'static,
{
    futures::stream::unfold((input.fuse(), None), |(mut input, mut held)| async move {
        loop {
            let next = match &held {
                None => input.next().await,
                // `None` also when the time is up.
                Some((until, _)) => {
                    tokio::time::timeout_at(*until, input.next()).await.unwrap_or_default()
                }
            };
            match next {
                // A request with entries carries everything that the held notice says.
                Some(request) if !request.entries.is_empty() => {
                    return Some((request, (input, None)));
                }
                Some(news) => held = Some((until(held.as_ref(), Instant::now()), news)),
                // The time is up, or the stream has ended.
                None => return held.map(|(_, news)| (news, (input, None))),
            }
        }
    })
}

/// The deadline of a notice that arrives now: that of the held notice, if there is one.
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

    /// A request with the entry `last`, if any, and the commit index `committed`.
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

    /// The last entry and the commit index of a request.
    fn says(request: &Request) -> (Option<u64>, u64) {
        let last = request.entries.last().map(|entry| entry.log_id.index);
        (last, request.leader_commit.map_or(0, |at| at.index))
    }

    #[tokio::test]
    async fn a_commit_notice_is_merged_into_the_next_entries() {
        let (send, input) = mpsc::unbounded_channel();
        let mut output = Box::pin(ride(UnboundedReceiverStream::new(input)));
        for (last, committed) in [(None, 7), (None, 8), (Some(10), 9), (Some(11), 9)] {
            send.send(request(last, committed)).unwrap();
        }
        // Entries are not delayed.
        for last in [10, 11] {
            let next = output.next().now_or_never().flatten().unwrap();
            assert_eq!(says(&next), (Some(last), 9));
        }
    }

    #[test]
    fn a_later_commit_notice_does_not_delay_the_held_one() {
        let now = Instant::now();
        let first = until(None, now);
        assert_eq!(first, now + RIDE_MAX);
        let held = (first, request(None, 7));
        assert_eq!(until(Some(&held), now + RIDE_MAX / 2), first);
    }

    #[tokio::test]
    async fn a_commit_notice_is_sent_alone_when_no_entries_follow() {
        let (send, input) = mpsc::unbounded_channel();
        let mut output = Box::pin(ride(UnboundedReceiverStream::new(input)));
        let began = Instant::now();
        for committed in [7, 8] {
            send.send(request(None, committed)).unwrap();
        }
        assert!(output.next().now_or_never().is_none(), "the notice waits for entries");
        assert_eq!(says(&output.next().await.unwrap()), (None, 8));
        assert!(RIDE_MAX <= began.elapsed());
        // The stream ends while a notice is held: the notice is still sent.
        send.send(request(None, 9)).unwrap();
        drop(send);
        assert_eq!(says(&output.next().now_or_never().flatten().unwrap()), (None, 9));
        assert!(output.next().await.is_none());
    }
}
