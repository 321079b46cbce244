//! Reading a request's body: bounded in length, in time, and in what slow senders may take.

use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use wire::problem::{Code, Problem};

use super::{Api, bad_request};
use crate::answer::{self, Answer};
use crate::limits;

impl Api {
    /// Reads a body; one that has not come with its head only while there is room for it.
    pub(super) async fn read_body(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
        bytes_max: usize,
    ) -> Result<Bytes, Answer> {
        let too_large =
            || answer::last(answer::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"));
        if let Some(refusal) = refuse_content_type(&request) {
            return Err(refusal);
        }
        let body = request.into_body();
        let size = body.size_hint();
        if usize::try_from(size.lower()).unwrap_or(usize::MAX) > bytes_max {
            return Err(too_large());
        }
        let bytes = size.exact().and_then(|bytes| usize::try_from(bytes).ok());
        let mut reading = pin!(Limited::new(body, bytes_max).collect());
        let read = match futures::poll!(reading.as_mut()) {
            Poll::Ready(read) => Ok(read),
            Poll::Pending => {
                let (bytes, exempt) = (bytes.unwrap_or(bytes_max), self.is_gateway(from));
                let Some(_room) = self.shared.bodies.reserve(from, bytes, exempt) else {
                    let why = "too many bodies are on their way: send them whole, or fewer at once";
                    return Err(answer::problem(&Problem::definite(Code::Overloaded, why)));
                };
                tokio::time::timeout(limits::BODY_TIMEOUT, reading).await
            }
        };
        match read {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(bad_request("the body could not be read")),
            Err(_) => Err(answer::error(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
        }
    }
}

/// The answer to a body that says it is no JSON. One that does not say what it is, is taken.
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
