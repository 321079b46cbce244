//! The fast path: serves plain orders, and plain queries of one product, without hyper.
//!
//! They need little of HTTP: the path or the key and the body, and where the request ends. The fast
//! path reads these from the bytes, awaits the answer and writes it. hyper, which does much more,
//! takes some 4 us longer per request (docs/decisions/0021). Any other request goes to hyper. Under
//! overload, orders beyond the limit are rejected here with a prepared answer.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use wire::tls::stream::MaybeTlsStream;

use crate::access_log::{Answered, RequestLine};
use crate::http::handler::{Client, Handler, Written, log, pause};
use crate::http::parse::{self, Content, Parsed, PlainRequest};
use crate::http::send_timer::SendTimer;
use crate::http::tracked_stream::drop_first;
use crate::remembered_key::RememberedKey;

/// A request that arrived in part may take this long to arrive whole before the connection goes to
/// hyper, which answers the client when the time-out of a head ends.
const PARTIAL_HEAD_MAX: Duration = Duration::from_millis(500);

/// How a connection leaves the fast path.
pub(crate) enum FastPathEnd {
    /// A request that hyper must read has arrived.
    ToHyper(Handoff),
    /// The connection is to be closed after the answer just sent.
    Closes(MaybeTlsStream),
    /// The connection is broken, was idle for too long, or is idle at a stop.
    Ended,
}

/// A connection that leaves the fast path for hyper.
pub(crate) struct Handoff {
    pub(crate) stream: MaybeTlsStream,
    /// Bytes that were read and not served.
    pub(crate) unread: Vec<u8>,
    /// The fast path has served requests of this connection.
    pub(crate) served: bool,
}

/// A connection on the fast path.
pub(crate) struct FastPath {
    stream: MaybeTlsStream,
    /// Bytes that were read and are not served yet.
    unread: Vec<u8>,
    /// Answers to send, and how many of their bytes have been sent.
    out: Vec<u8>,
    sent: usize,
    /// When the last request began to arrive, or was served.
    active_at: Instant,
    /// The number of requests served.
    served: usize,
    /// Its last requests were queries: under overload it is read without a ticket.
    only_queries: bool,
    /// May read: the last read found bytes, or the scheduler has called the connection.
    reads: bool,
    ticket: Option<u64>,
    /// The connection ends after the answers in `out`.
    ends: bool,
    remembered: RememberedKey,
    pub(crate) sending: SendTimer,
}

impl FastPath {
    /// `unread`: bytes that have been read from the stream already.
    pub(crate) fn new(stream: MaybeTlsStream, unread: Vec<u8>) -> Self {
        Self {
            stream,
            unread,
            out: Vec::new(),
            sent: 0,
            active_at: Instant::now(),
            served: 0,
            only_queries: false,
            reads: true,
            ticket: None,
            ends: false,
            remembered: RememberedKey::default(),
            sending: SendTimer::default(),
        }
    }

    /// Serves plain requests until one arrives that hyper must read, or the connection is over.
    pub(crate) async fn serve(mut self, api: &impl Handler, client: &Client) -> FastPathEnd {
        let stop = client.place.closing();
        let mut stopping = pin!(stop.cancelled());
        let mut timer = pin!(tokio::time::sleep(api.idle()));
        // The timer runs for a request that has arrived in part.
        let mut part = false;
        loop {
            let has_request = poll_fn(|cx| {
                if let Poll::Ready(has_request) = self.poll(cx, api, client) {
                    return Poll::Ready(has_request);
                }
                // `out` is emptied when all of it is with the system.
                let sent = self.out.is_empty();
                if sent && stopping.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(!self.unread.is_empty() && !client.place.is_evicted());
                }
                if part != (sent && !self.unread.is_empty()) {
                    part = !part;
                    let patient = if part { PARTIAL_HEAD_MAX } else { api.idle() };
                    timer.as_mut().reset(Instant::now() + patient);
                }
                while timer.as_mut().poll(cx).is_ready() {
                    let ends = self.active_at + api.idle();
                    if part || ends <= Instant::now() {
                        return Poll::Ready(part);
                    }
                    timer.as_mut().reset(ends);
                }
                Poll::Pending
            });
            if !has_request.await {
                let closes = self.ends && self.out.is_empty();
                return if closes { FastPathEnd::Closes(self.stream) } else { FastPathEnd::Ended };
            }
            let Parsed::Plain(request) = parse::parse(&self.unread) else {
                let Self { stream, unread, served, .. } = self;
                return FastPathEnd::ToHyper(Handoff { stream, unread, served: 0 < served });
            };
            client.place.note_request();
            let began = Instant::now();
            let from = api.client_of_plain(client.address, &request);
            let mut answer = api.answer_plain(&request, &mut self.remembered, from).await;
            pause(client, &mut answer).await;
            self.ends = request.last || stop.is_cancelled() || api.is_draining();
            let is_query = matches!(request.content, Content::Query(_));
            let may_begin = self.served == 0 || !api.is_overloaded();
            self.only_queries = queries_on(self.only_queries, is_query, may_begin);
            api.write(&mut self.out, &answer, self.ends);
            if api.access_log().is_on() {
                log(api, from.address, &line(&request), &answer, began);
            }
            let length = request.length;
            self.done(length);
            client.place.note_idle();
        }
    }

    /// The first `length` of the unserved bytes are served.
    fn done(&mut self, length: usize) {
        drop_first(&mut self.unread, length);
        self.active_at = Instant::now();
        self.served += 1;
    }

    /// Ready with true: a request has arrived that is not rejected here; with false: the connection
    /// is over.
    fn poll(&mut self, cx: &mut Context<'_>, api: &impl Handler, client: &Client) -> Poll<bool> {
        loop {
            while self.sent < self.out.len() {
                let sent = Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..]);
                match ready!(self.sending.check(sent, cx)) {
                    Ok(count) if 0 < count => self.sent += count,
                    Ok(_) | Err(_) => return Poll::Ready(false),
                }
            }
            if !self.out.is_empty() {
                let sent = Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0);
                if ready!(self.sending.check(sent, cx)).is_err() {
                    return Poll::Ready(false);
                }
            }
            let sent = std::mem::take(&mut self.sent);
            drop_first(&mut self.out, sent);
            if self.ends {
                return Poll::Ready(false);
            }
            self.reject_overloaded(api, client);
            if !self.out.is_empty() {
                continue;
            }
            let unread = &self.unread;
            if parse::end_with_query(unread)
                || (!unread.is_empty() && parse::parse(unread) != Parsed::Incomplete)
            {
                return Poll::Ready(true);
            }
            // A client that only queries takes no part in the queue of the orders.
            if !self.reads
                && !self.only_queries
                && api.is_overloaded()
                && !api.read_scheduler().poll_turn(&mut self.ticket, cx)
            {
                return Poll::Pending;
            }
            let mut room = [MaybeUninit::uninit(); parse::BYTES_MAX];
            let mut room = ReadBuf::uninit(&mut room);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
            self.reads = read.is_ready();
            if ready!(read).is_err() {
                return Poll::Ready(false);
            }
            if room.filled().is_empty() {
                // The stream has ended. A request that is cut off goes to hyper's reader, which
                // answers it.
                return Poll::Ready(!self.unread.is_empty());
            }
            // Further parts of one request do not restart the idle time.
            if self.unread.is_empty() {
                self.active_at = Instant::now();
            }
            self.unread.extend_from_slice(room.filled());
        }
    }

    /// Rejects the plain orders at the beginning of the unserved bytes that are beyond the limit.
    fn reject_overloaded(&mut self, api: &impl Handler, client: &Client) {
        while api.is_overloaded()
            && !api.is_draining()
            && let Parsed::Plain(order) = parse::parse(&self.unread)
            && matches!(order.content, Content::Order { .. })
            && !order.last
            && api.should_reject()
        {
            let Written { id, bytes } = api.write_overloaded(&mut self.out, order.id);
            api.access_log().note(&Answered {
                client: api.client_of_plain(client.address, &order).address,
                request: &RequestLine::Order,
                status: 503,
                bytes,
                took: Duration::ZERO,
                id: &self.out[id],
            });
            let length = order.length;
            self.done(length);
            self.only_queries = false;
        }
    }
}

/// The request, as the access log shows it.
fn line(request: &PlainRequest<'_>) -> RequestLine {
    match request.content {
        Content::Order { .. } => RequestLine::Order,
        Content::Query(path) => {
            RequestLine::Other(Method::GET, path.parse().unwrap_or_default(), Version::HTTP_11)
        }
    }
}

/// True if a connection counts as one that only queries after another request. `may_begin`: it is
/// its first request, or there is no overload; a client that orders under overload does not leave
/// the queue by a query.
fn queries_on(before: bool, is_query: bool, may_begin: bool) -> bool {
    is_query && (before || may_begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: a client that passes the queue of the orders, because it queries between them.
    #[test]
    fn under_overload_an_order_among_queries_waits_its_turn() {
        let after = |requests: &[(bool, bool)]| {
            requests.iter().fold(false, |before, (is_query, may_begin)| {
                queries_on(before, *is_query, *may_begin)
            })
        };
        let (order, query) = (false, true);
        assert!(after(&[(query, true), (query, false), (query, false)]), "it only queries");
        assert!(!after(&[(query, true), (order, false)]), "its next order waits");
        assert!(!after(&[(query, true), (order, false), (query, false)]), "and so until the end");
        assert!(after(&[(order, true), (query, true)]), "without an overload it is read at once");
    }
}
