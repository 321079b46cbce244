//! One public connection: which reader reads it, and when the reader changes.
//!
//! A connection begins on the [`FastPath`], which serves plain orders without hyper. The first
//! request of any other kind hands the connection over to hyper, and the API answers. Between two
//! requests the connection returns to the fast path if it only brings orders, or under overload:
//! then thousands of connections need little memory, and a rejection little time.
//!
//! hyper is given one request at a time (see [`TrackedStream`]). A connection that closes after an
//! answer closes so that the answer arrives (see [`linger`]).

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use wire::tls::stream::MaybeTlsStream;

use crate::access_log::RequestLine;
use crate::answer::Answer;
use crate::http::fast_path::{FastPath, FastPathEnd};
use crate::http::handler::{Client, Handler, log, pause};
use crate::http::linger;
use crate::http::phase::RequestPhase;
use crate::http::tracked_stream::{End, TrackedStream};
use crate::limits;

/// Serves a connection to its end or, when its place is to be closed, to the end of the request in
/// progress.
pub(crate) async fn serve(mut stream: MaybeTlsStream, client: Client, api: impl Handler) {
    let mut unread = Vec::new();
    // A connection whose orders hyper has to read would only be handed over again.
    let mut first = true;
    let mut may_return = true;
    loop {
        // Each reader waits for the client before it hands the connection over. Should a reader
        // ever not do so, this budget still gives other connections their turn.
        tokio::task::consume_budget().await;
        let served = match FastPath::new(stream, unread).serve(&api, &client).await {
            FastPathEnd::ToHyper(handoff) => {
                (stream, unread) = (handoff.stream, handoff.unread);
                handoff.served
            }
            FastPathEnd::Closes(stream) => return linger::close(stream, &[]).await,
            FastPathEnd::Ended => return,
        };
        may_return &= served || std::mem::take(&mut first);
        let tracked = TrackedStream::new(stream, unread, api.idle());
        match serve_with_hyper(tracked, may_return, &api, &client).await {
            ServedByHyper::Idle(idle) => (stream, unread) = (idle.stream, idle.unread),
            ServedByHyper::Over(over) => return close(over, &api, &client).await,
            ServedByHyper::Ended => return,
        }
    }
}

/// How a connection leaves hyper.
enum ServedByHyper {
    /// The connection is between two requests, and returns to the fast path.
    Idle(TrackedStream),
    /// The connection is to be closed; an answer may be in flight.
    Over(TrackedStream),
    /// The connection is broken, or was idle for too long.
    Ended,
}

/// Closes a connection; if its last bytes were no valid request, after a last answer.
async fn close(over: TrackedStream, api: &impl Handler, client: &Client) {
    let mut out = Vec::new();
    match over.end {
        Some(End::Rejected(rejection)) => {
            let answer = api.write_rejection(&mut out, &rejection);
            if over.unread.starts_with(b"HEAD ") {
                drop_body(&mut out);
            }
            log(api, client.address.address, &RequestLine::Malformed, &answer, Instant::now());
        }
        Some(End::Idle) => return,
        Some(End::Closed) | None => {}
    }
    linger::close(over.stream, &out).await;
}

/// Removes the body of an answer to `HEAD` (RFC 9110, section 9.3.2).
fn drop_body(answer: &mut Vec<u8>) {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    answer.truncate(end.map_or(answer.len(), |end| end + 4));
}

/// Serves a connection with hyper until it ends, or is idle and should return to the fast path:
/// under overload, or, if `may_return`, after four orders in a
/// row.
async fn serve_with_hyper(
    tracked: TrackedStream,
    may_return: bool,
    api: &impl Handler,
    client: &Client,
) -> ServedByHyper {
    let phase = tracked.phase.clone();
    let stop = client.place.closing();
    let service = service_fn(|request: Request<Incoming>| {
        client.place.note_request();
        let api = api.clone();
        let phase = phase.clone();
        async move {
            let line = api.access_log().is_on().then(|| (request_line(&request), Instant::now()));
            let unread = Unread::of(&request);
            let from = api.client_of(client.address, request.headers());
            let mut answer = api.answer(request, from, &phase).await;
            pause(client, &mut answer).await;
            if api.is_draining() || stop.is_cancelled() || unread.is_left(&phase, &answer) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if let Some((line, began)) = &line {
                log(&api, from.address, line, &answer, *began);
            }
            phase.note_answered();
            client.place.note_idle();
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    // The stream bounds a head's size, and the time that it may take to arrive.
    let mut connection = http1::Builder::new()
        .max_buf_size(2 * limits::HEAD_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(tracked), service);
    let mut stopping = pin!(stop.cancelled());
    let mut stops = false;
    let mut stopped_idle = false;
    let left = poll_fn(|cx| -> Poll<fn(TrackedStream) -> ServedByHyper> {
        let better = || api.is_overloaded() || (may_return && phase.has_only_orders());
        loop {
            match Pin::new(&mut connection).poll(cx) {
                // A connection that was idle at the stop has no answer in flight.
                Poll::Ready(Ok(())) if stopped_idle => return Poll::Ready(ServedByHyper::ended),
                Poll::Ready(Ok(())) => return Poll::Ready(ServedByHyper::Over),
                // A client that disappears is not logged.
                Poll::Ready(Err(_)) => return Poll::Ready(ServedByHyper::ended),
                Poll::Pending if !stops && phase.is_idle() && better() => {
                    return Poll::Ready(ServedByHyper::Idle);
                }
                Poll::Pending => stopped_idle = false,
            }
            // After the poll, in which hyper looks at the bytes that arrived with the stop. A
            // request that has begun to arrive is answered, too.
            if stops || stopping.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if phase.has_begun() && client.place.is_evicted() {
                return Poll::Ready(ServedByHyper::ended);
            }
            if phase.has_begun() {
                return Poll::Pending;
            }
            (stops, stopped_idle) = (true, true);
            Pin::new(&mut connection).graceful_shutdown();
        }
    });
    let left = left.await;
    // hyper holds no unread byte, and between two requests no byte to send.
    left(connection.into_parts().io.into_inner())
}

impl ServedByHyper {
    fn ended(_: TrackedStream) -> Self {
        Self::Ended
    }
}

/// True if a body may be left unread behind an answer: then the answer closes the connection, and
/// says so.
#[derive(Clone, Copy)]
struct Unread {
    chunked: bool,
    post: bool,
}

impl Unread {
    fn of(request: &Request<Incoming>) -> Self {
        let has_body = !request.body().is_end_stream();
        let chunked = has_body && request.headers().contains_key(TRANSFER_ENCODING);
        Self { chunked, post: request.method() == Method::POST }
    }

    /// What has arrived of a body with a length is dropped by hyper at once. Of a chunked body
    /// hyper drops only the first chunk. So chunks must have been read, as they are for an order or
    /// an answered batch.
    fn is_left(self, phase: &RequestPhase, answer: &Answer) -> bool {
        let read = phase.is_read() || (self.post && answer.status().is_success());
        !phase.is_whole() || (self.chunked && !read)
    }
}

fn request_line(request: &Request<Incoming>) -> RequestLine {
    RequestLine::Other(request.method().clone(), request.uri().clone(), request.version())
}

#[cfg(test)]
mod tests;
