//! Reads a request's body: bounded in length, in time, and in the memory that slow senders may
//! hold.

use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use wire::problem::{Code, Problem};

use super::{Api, bad_request};
use crate::answer::{self, Answer};
use crate::body_quota::Reservation;
use crate::client_address::ClientAddress;
use crate::limits;

impl Api {
    /// Reads a body. A body that did not arrive with its head needs quota.
    pub(super) async fn read_body(
        &self,
        request: Request<Incoming>,
        from: ClientAddress,
        bytes_max: usize,
    ) -> Result<Bytes, Answer> {
        if let Some(refusal) = refuse_content_type(&request) {
            return Err(refusal);
        }
        let body = request.into_body();
        if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > bytes_max {
            return Err(too_large());
        }
        let reading = self.collect(Limited::new(body, bytes_max), from);
        let late = || answer::error(StatusCode::REQUEST_TIMEOUT, "the body took too long");
        tokio::time::timeout(limits::BODY_TIMEOUT, reading).await.map_err(|_| late())?
    }

    /// Reads a body to its end. While it is waited for, the received bytes need quota.
    async fn collect(
        &self,
        mut body: Limited<Incoming>,
        from: ClientAddress,
    ) -> Result<Bytes, Answer> {
        let mut read = BytesMut::new();
        let mut reservation: Option<Reservation<'_>> = None;
        loop {
            let mut frame = body.frame();
            let frame = match futures::poll!(&mut frame) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if reservation.is_none() {
                        let ClientAddress { address, is_exempt, .. } = from;
                        let reserved = self.shared.bodies.reserve(address, read.len(), is_exempt);
                        reservation = Some(reserved.ok_or_else(no_quota)?);
                    }
                    frame.await
                }
            };
            match frame {
                None => return Ok(read.freeze()),
                Some(Ok(frame)) => read.extend(frame.into_data()),
                Some(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
                Some(Err(_)) => return Err(bad_request("the body could not be read")),
            }
            if reservation.as_mut().is_some_and(|reservation| !reservation.grow(read.len())) {
                return Err(no_quota());
            }
        }
    }
}

fn too_large() -> Answer {
    answer::last(answer::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))
}

fn no_quota() -> Answer {
    let why = "too many bodies are on their way: send them whole, or fewer at once";
    answer::problem(&Problem::definite(Code::Overloaded, why))
}

/// The answer to a body with a media type other than JSON. A body without a media type is accepted.
fn refuse_content_type(request: &Request<Incoming>) -> Option<Answer> {
    let kind = request.headers().get(CONTENT_TYPE)?;
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind.is_empty() || kind == "application/json" || kind.ends_with("+json") {
        return None;
    }
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(answer::error(status, "the Content-Type, if given, must be JSON"))
}
