//! The border between the HTTP layer and the API: what the layer asks of it, and what it tells.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use http::header::HeaderValue;
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use tokio::time::Instant;
use wire::connections::OpenConnection;

use crate::access_log::{AccessLog, Answered, RequestLine};
use crate::answer::{Answer, REQUEST_ID};
use crate::client_address::ClientAddress;
use crate::http::head::Rejection;
use crate::http::parse::PlainRequest;
use crate::http::phase::RequestPhase;
use crate::http::scheduler::ReadScheduler;
use crate::remembered_key::RememberedKey;

/// What a connection serves: the API.
pub(crate) trait Handler: Clone {
    /// True during an overload: orders may be rejected unread.
    fn is_overloaded(&self) -> bool;

    /// True if an order that has arrived should be rejected: it gets
    /// [`write_overloaded`](Self::write_overloaded).
    fn should_reject(&self) -> bool;

    /// The scheduler of connections that wait to be read.
    fn read_scheduler(&self) -> &ReadScheduler;

    /// Appends an answer as bytes on the wire. `last`: the connection closes after it.
    fn write(&self, out: &mut Vec<u8>, answer: &Answer, last: bool);

    /// Appends the answer to bytes that are no valid request: the last answer of its connection.
    fn write_rejection(&self, out: &mut Vec<u8>, rejection: &Rejection) -> Answer;

    /// Appends the whole 503 to an order beyond the limit, as bytes on the wire. `id`: the request
    /// id that the client sent.
    fn write_overloaded(&self, out: &mut Vec<u8>, id: Option<&str>) -> Written;

    /// The frontend is about to close: each answer is the last one of its connection.
    fn is_draining(&self) -> bool;

    /// How long a connection lives between two requests.
    fn idle(&self) -> Duration;

    /// The access log.
    fn access_log(&self) -> &AccessLog;

    /// The client of a request on a connection, which a gateway may name in the headers.
    fn client_of(&self, connection: ClientAddress, headers: &HeaderMap) -> ClientAddress;

    /// The client of a plain request.
    fn client_of_plain(
        &self,
        connection: ClientAddress,
        request: &PlainRequest<'_>,
    ) -> ClientAddress;

    /// Answers a plain request. `remembered`: the API key of its connection. `from`: its client.
    fn answer_plain(
        &self,
        request: &PlainRequest<'_>,
        remembered: &mut RememberedKey,
        from: ClientAddress,
    ) -> impl Future<Output = Answer> + Send;

    /// Answers any request. `from`: its client. `phase`: notes how far the request is.
    fn answer(
        &self,
        request: Request<Incoming>,
        from: ClientAddress,
        phase: &RequestPhase,
    ) -> impl Future<Output = Answer> + Send;
}

/// The answer waits this long before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause(pub(crate) Duration);

/// Waits for the pause of an answer, if it has one. The connection counts as idle meanwhile, and
/// the pause ends when it is to close.
pub(crate) async fn pause(client: &Client, answer: &mut Answer) {
    let Some(Pause(time)) = answer.extensions_mut().remove() else { return };
    client.place.note_idle();
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = client.place.closing().cancelled() => {}
    }
}

/// The 503 that was written to an order beyond the limit.
pub(crate) struct Written {
    /// The position of the request's id.
    pub(crate) id: Range<usize>,
    /// The length of the answer's body.
    pub(crate) bytes: usize,
}

/// The client of a connection.
pub(crate) struct Client {
    pub(crate) address: ClientAddress,
    pub(crate) place: OpenConnection,
}

/// Logs an answered request in the access log.
pub(crate) fn log(
    api: &impl Handler,
    client: IpAddr,
    request: &RequestLine,
    answer: &Answer,
    began: Instant,
) {
    let id = answer.headers().get(REQUEST_ID).map_or(&b"-"[..], HeaderValue::as_bytes);
    api.access_log().note(&Answered {
        client,
        request,
        status: answer.status().as_u16(),
        bytes: answer.body().len(),
        took: began.elapsed(),
        id,
    });
}
