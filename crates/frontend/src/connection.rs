//! One public connection: who reads it, and when that changes.
//!
//! It begins on the [`Doorstep`], where plain orders are served without much ado. With the first
//! request that is anything else it comes inside: a server of HTTP reads it, and the API answers.
//! Between two requests it is taken from that server again when it only brings orders, and when
//! there is an overload: then a pile of connections costs little memory, and a refusal little time.
//!
//! The server of HTTP is given one request at a time (see [`TrackedStream`]). Every connection that
//! is closed behind an answer is closed so that the answer arrives (see [`linger`]).

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use wire::connections::OpenConnection;
use wire::net::TcpStream;

use crate::access_log::{AccessLog, Answered, RequestLine};
use crate::answer::{Answer, REQUEST_ID};
use crate::doorstep::{Doorstep, Leaves};
use crate::head::Rejection;
use crate::limits;
use crate::linger;
use crate::plain::Order;
use crate::step::Step;
use crate::tracked_stream::{End, TrackedStream};
use crate::turnstile::Turnstile;

/// What a connection leads to: the API.
pub(crate) trait House: Clone {
    /// There is an overload: orders may be refused before they are read.
    fn sheds(&self) -> bool;

    /// There is no room for an order that has come: it gets [`write_refusal`](Self::write_refusal).
    fn turns_away(&self) -> bool;

    /// The line of connections that wait to be read.
    fn turnstile(&self) -> &Turnstile;

    /// Adds an answer as it goes over the wire. `last`: the connection is closed after it.
    fn write(&self, out: &mut Vec<u8>, answer: &Answer, last: bool);

    /// Adds the answer to what is no request that can be served: the last of its connection.
    fn write_rejection(&self, out: &mut Vec<u8>, rejection: &Rejection) -> Answer;

    /// Adds the whole answer to an order for which there is no room, as it goes over the wire.
    fn write_refusal(&self, out: &mut Vec<u8>, order: &Order<'_>) -> Written;

    /// The frontend is about to close: each answer is the last one of its connection.
    fn drains(&self) -> bool;

    /// How long a connection lives between two requests.
    fn idle(&self) -> Duration;

    /// Where requests are noted.
    fn access_log(&self) -> &AccessLog;

    /// Answers a plain order.
    fn order(&self, order: &Order<'_>) -> impl Future<Output = Answer> + Send;

    /// Answers any request. `from`: the address of its client. `step`: what its connection is told
    /// of it.
    fn answer(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
        step: &Step,
    ) -> impl Future<Output = Answer> + Send;
}

/// What was written to an order for which there is no room.
pub(crate) struct Written {
    /// Where its request's id is.
    pub(crate) id: Range<usize>,
    /// Of the answer's body.
    pub(crate) bytes: usize,
}

/// The client of a connection.
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) place: OpenConnection,
}

/// Serves one connection to its end; when its place is to be closed, to the end of the request that
/// is at work.
pub(crate) async fn serve(stream: TcpStream, client: Client, api: impl House) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (mut stream, mut ahead) = (stream, Vec::new());
    // Who brings orders inside that are not plain would only be sent back.
    let (mut first, mut comes_out) = (true, true);
    loop {
        // Each side waits for the client before it passes the connection on. Should one of them
        // ever not do so, the other connections still have their turn.
        tokio::task::consume_budget().await;
        let served = match Doorstep::new(stream, ahead).serve(&api, &client).await {
            Leaves::Inside(comes) => {
                (stream, ahead) = (comes.stream, comes.ahead);
                comes.served
            }
            Leaves::Closes(stream) => return linger::close(stream, &[]).await,
            Leaves::Gone => return,
        };
        comes_out &= served || std::mem::take(&mut first);
        let tracked = TrackedStream::new(stream, ahead, api.idle());
        match inside(tracked, comes_out, &api, &client).await {
            Left::Idle(idle) => (stream, ahead) = (idle.stream, idle.unread),
            Left::Over(over) => return close(over, &api, &client).await,
            Left::Gone => return,
        }
    }
}

/// How a connection leaves the server of HTTP.
enum Left {
    /// It is between two requests, and better served outside.
    Idle(TrackedStream),
    /// It is to be closed, and an answer may be on its way.
    Over(TrackedStream),
    /// It is broken, or was idle for long.
    Gone,
}

/// Closes a connection, behind a last answer where what came was no request.
async fn close(over: TrackedStream, api: &impl House, client: &Client) {
    let mut out = Vec::new();
    match over.end {
        Some(End::Rejected(rejection)) => {
            let answer = api.write_rejection(&mut out, &rejection);
            if over.unread.starts_with(b"HEAD ") {
                drop_body(&mut out);
            }
            log(api, client, &RequestLine::Malformed, &answer, Instant::now());
        }
        Some(End::Idle) => return,
        Some(End::Closed) | None => {}
    }
    linger::close(over.stream, &out).await;
}

/// Leaves the head of an answer alone (RFC 9110, section 9.3.2).
fn drop_body(answer: &mut Vec<u8>) {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    answer.truncate(end.map_or(answer.len(), |end| end + 4));
}

/// Has it read by a server of HTTP; until it ends, or is idle and better served outside: in an
/// overload, and where it `comes_out`, after some orders in a row.
async fn inside(
    tracked: TrackedStream,
    comes_out: bool,
    api: &impl House,
    client: &Client,
) -> Left {
    let (step, stop) = (tracked.step.clone(), client.place.closing());
    let service = service_fn(|request: Request<Incoming>| {
        client.place.note_request();
        let (api, step) = (api.clone(), step.clone());
        async move {
            let line = api.access_log().is_on().then(|| (request_line(&request), Instant::now()));
            let unread = Unread::of(&request);
            let mut answer = api.answer(request, client.address, &step).await;
            if api.drains() || stop.is_cancelled() || unread.is_left(&step, &answer) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if let Some((line, began)) = &line {
                log(&api, client, line, &answer, *began);
            }
            step.answered();
            client.place.note_idle();
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    // The stream sees to the bounds of a head, and to the time that it may take.
    let mut connection = http1::Builder::new()
        .max_buf_size(2 * limits::HEAD_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(tracked), service);
    let (mut stopping, mut stops, mut stopped_idle) = (pin!(stop.cancelled()), false, false);
    let left = poll_fn(|cx| -> Poll<fn(TrackedStream) -> Left> {
        let better = || api.sheds() || (comes_out && step.only_orders());
        loop {
            match Pin::new(&mut connection).poll(cx) {
                // At a stop nothing is on its way to a client that waits for nothing.
                Poll::Ready(Ok(())) if stopped_idle => return Poll::Ready(Left::gone),
                Poll::Ready(Ok(())) => return Poll::Ready(Left::Over),
                // A client that vanishes is no news.
                Poll::Ready(Err(_)) => return Poll::Ready(Left::gone),
                Poll::Pending if !stops && step.is_idle() && better() => {
                    return Poll::Ready(Left::Idle);
                }
                Poll::Pending => stopped_idle = false,
            }
            // Only now, for before that it has not looked at what came with it. A request that has
            // begun to come is answered, too.
            if stops || stopping.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if step.has_begun() && client.place.is_evicted() {
                return Poll::Ready(Left::gone);
            }
            if step.has_begun() {
                return Poll::Pending;
            }
            (stops, stopped_idle) = (true, true);
            Pin::new(&mut connection).graceful_shutdown();
        }
    });
    let left = left.await;
    // It holds no byte that was read, and between two requests none to be sent.
    left(connection.into_parts().io.into_inner())
}

impl Left {
    fn gone(_: TrackedStream) -> Self {
        Self::Gone
    }
}

/// Whether a body may be left unread behind an answer: then the connection ends with it, and the
/// answer says so.
#[derive(Clone, Copy)]
struct Unread {
    chunked: bool,
    post: bool,
}

impl Unread {
    fn of(request: &Request<Incoming>) -> Self {
        let chunked = request.headers().contains_key(TRANSFER_ENCODING);
        Self { chunked, post: request.method() == Method::POST }
    }

    /// What has come of a body of some length is dropped by hyper at one stroke. Of chunks only
    /// the first is: so they must have been read, as those of orders are, or of a batch that is
    /// answered.
    fn is_left(self, step: &Step, answer: &Answer) -> bool {
        let read = step.is_read() || (self.post && answer.status().is_success());
        !step.is_whole() || (self.chunked && !read)
    }
}

/// Notes an answered request in the access log.
pub(crate) fn log(
    api: &impl House,
    client: &Client,
    request: &RequestLine,
    answer: &Answer,
    began: Instant,
) {
    let id = answer.headers().get(REQUEST_ID).map_or(&b"-"[..], HeaderValue::as_bytes);
    api.access_log().note(&Answered {
        client: client.address,
        request,
        status: answer.status().as_u16(),
        bytes: answer.body().len(),
        took: began.elapsed(),
        id,
    });
}

fn request_line(request: &Request<Incoming>) -> RequestLine {
    RequestLine::Other(request.method().clone(), request.uri().clone(), request.version())
}

#[cfg(test)]
mod tests;
