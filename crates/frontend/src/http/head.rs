//! The request head: validated before hyper reads it, and the framing of its request.
//!
//! hyper accepts some heads that RFC 9110 and RFC 9112 reject, hides a `Content-Length` beside a
//! `Transfer-Encoding`, and closes some connections without an answer. This check comes first: each
//! head that it rejects has a status and a reason, and hyper only reads heads whose body has one
//! unambiguous end. The parser is the one that hyper uses, so both agree where a line, a name and a
//! value end. A line may end with a bare LF (RFC 9112, section 2.2).
//!
//! Routes, methods and media types are checked by the API.

use std::mem::MaybeUninit;

use http::uri::{PathAndQuery, Uri};
use http::{Method, StatusCode};

use crate::http::framing::Framing;
use crate::limits;

/// The longest method, in bytes; the longest registered method has 17.
const METHOD_BYTES: usize = 32;

/// The result of parsing bytes that begin with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadParse {
    /// The beginning of a head that may still be valid.
    Incomplete,
    /// A valid head of `length` bytes, and the framing of its body.
    Head { length: usize, body: Framing },
    /// Not a valid head: the connection ends with this answer.
    Rejected(Rejection),
}

/// Why a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
}

const fn bad(why: &'static str) -> Rejection {
    Rejection { status: StatusCode::BAD_REQUEST, why }
}

/// The connection ended, or no further byte arrived, inside a head.
pub(crate) const CUT_OFF: Rejection = bad("the request ends before its head does");
pub(crate) const TOO_SLOW: Rejection =
    Rejection { status: StatusCode::REQUEST_TIMEOUT, why: "the head of the request took too long" };

const TARGET_TOO_LONG: Rejection =
    Rejection { status: StatusCode::URI_TOO_LONG, why: "the request target is too long" };
const HEADERS_TOO_LARGE: Rejection = Rejection {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    why: "the headers are too large",
};
const TOO_MANY_HEADERS: Rejection = Rejection {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    why: "there are too many headers",
};
const BODY_TOO_LARGE: Rejection =
    Rejection { status: StatusCode::PAYLOAD_TOO_LARGE, why: "the body is too large" };
const UNKNOWN_CODING: Rejection = Rejection {
    status: StatusCode::NOT_IMPLEMENTED,
    why: "the only Transfer-Encoding that is understood is chunked",
};
const TUNNEL: Rejection =
    Rejection { status: StatusCode::NOT_IMPLEMENTED, why: "this is not a proxy" };
const UNKNOWN_EXPECTATION: Rejection = Rejection {
    status: StatusCode::EXPECTATION_FAILED,
    why: "the only expectation that can be met is 100-continue",
};

/// Parses the head that `bytes` begin with; blank lines before it have been dropped.
pub(crate) fn parse(bytes: &[u8]) -> HeadParse {
    let mut fields = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let checked = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) => {
            check(&request).map(|body| HeadParse::Head { length, body })
        }
        Ok(httparse::Status::Partial) => check_beginning(&request, bytes.len()),
        Err(error) => Err(malformed(error)),
    };
    checked.unwrap_or_else(HeadParse::Rejected)
}

fn malformed(error: httparse::Error) -> Rejection {
    match error {
        httparse::Error::HeaderName => bad("the name of a header is malformed"),
        httparse::Error::HeaderValue => bad("the value of a header is malformed"),
        httparse::Error::TooManyHeaders => TOO_MANY_HEADERS,
        httparse::Error::Version => bad("the version of HTTP must be 1.0 or 1.1"),
        _ => bad("the request line is malformed"),
    }
}

/// Checks the limits on a head that has arrived in part.
fn check_beginning(
    request: &httparse::Request<'_, '_>,
    bytes: usize,
) -> Result<HeadParse, Rejection> {
    let method = request.method.map_or(bytes, str::len);
    let target = match (request.method, request.path) {
        (_, Some(path)) => path.len(),
        (Some(_), None) => bytes.saturating_sub(method + 1),
        (None, None) => 0,
    };
    match () {
        () if METHOD_BYTES < method => Err(bad("the method is too long")),
        () if limits::URI_BYTES_MAX < target => Err(TARGET_TOO_LONG),
        () if limits::HEAD_BYTES_MAX < bytes => Err(HEADERS_TOO_LARGE),
        () => Ok(HeadParse::Incomplete),
    }
}

/// Validates a complete head, and returns the framing of its body.
fn check(request: &httparse::Request<'_, '_>) -> Result<Framing, Rejection> {
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    check_target(method, target)?;
    let is_http_11 = request.version == Some(1);
    let mut host = false;
    let mut length = None;
    let mut bytes = 0;
    let mut codings = None;
    for httparse::Header { name, value } in request.headers.iter() {
        bytes += name.len() + value.len();
        let value = value.trim_ascii();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        // Comparing lengths first makes all other headers nearly free.
        match name.len() {
            4 if is("host") => {
                if std::mem::replace(&mut host, true) {
                    return Err(bad("there is more than one Host"));
                }
                if !is_host(value) {
                    return Err(bad("the header Host is malformed"));
                }
            }
            6 if is("expect") && !is_met(value) => return Err(UNKNOWN_EXPECTATION),
            14 if is("content-length") => {
                let own = content_length(value)?;
                if length.replace(own).is_some_and(|other| other != own) {
                    return Err(bad("there is more than one Content-Length, and they differ"));
                }
            }
            17 if is("transfer-encoding") => {
                let chunked = value.eq_ignore_ascii_case(b"chunked");
                let ends_chunked = chunked || ends_chunked(value);
                // A second `Transfer-Encoding` header extends the first.
                let alone = codings.is_none();
                codings = Some((chunked && alone, ends_chunked));
            }
            _ => {}
        }
    }
    if limits::HEADER_BYTES_MAX < bytes {
        return Err(HEADERS_TOO_LARGE);
    }
    if is_http_11 && !host {
        return Err(bad("the header Host is missing"));
    }
    match (codings, length) {
        (None, length) => Ok(Framing::of_length(length.unwrap_or_default())),
        (Some(_), Some(_)) => Err(bad("there is a Content-Length beside a Transfer-Encoding")),
        (Some(_), _) if !is_http_11 => Err(bad("HTTP/1.0 has no Transfer-Encoding")),
        (Some((true, _)), _) => Ok(Framing::chunked()),
        (Some((_, true)), _) => Err(UNKNOWN_CODING),
        // RFC 9112, section 6.3: the end of such a body cannot be determined.
        (Some(_), _) => Err(bad("the last Transfer-Encoding must be chunked")),
    }
}

/// The forms of RFC 9112, section 3.2, except the one for proxies.
fn check_target(method: &str, target: &str) -> Result<(), Rejection> {
    if METHOD_BYTES < method.len() {
        return Err(bad("the method is too long"));
    }
    if limits::URI_BYTES_MAX < target.len() {
        return Err(TARGET_TOO_LONG);
    }
    if method == Method::CONNECT.as_str() {
        return Err(TUNNEL);
    }
    let sound = match target.as_bytes() {
        b"*" => method == Method::OPTIONS.as_str(),
        // Most targets have only these bytes, and need no copy to be checked.
        [b'/', rest @ ..] if rest.iter().copied().all(is_unreserved) => true,
        [b'/', ..] => PathAndQuery::try_from(target).is_ok(),
        _ => Uri::try_from(target).is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()
        }),
    };
    // A URI's fragment is never sent.
    if sound && !target.contains('#') {
        Ok(())
    } else {
        Err(bad("the request target is malformed"))
    }
}

/// True for a byte that is valid anywhere in a path or query.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%=&?".contains(&byte)
}

fn content_length(value: &[u8]) -> Result<u64, Rejection> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad("the header Content-Length is malformed"));
    }
    let digits = str::from_utf8(value).unwrap_or_default();
    // Only digits, so the number is too large.
    digits.parse::<i64>().ok().and_then(|length| u64::try_from(length).ok()).ok_or(BODY_TOO_LARGE)
}

/// True if the expectation can be met; an empty one can.
fn is_met(expectation: &[u8]) -> bool {
    expectation.is_empty() || expectation.eq_ignore_ascii_case(b"100-continue")
}

/// True if the last transfer coding is chunked.
fn ends_chunked(value: &[u8]) -> bool {
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// True for a host with or without a port (RFC 3986, section 3.2.2). It may be empty.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    if let Some(rest) = value.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        let address = &rest[..end];
        let rest = &rest[end + 1..];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b":.%-_~".contains(byte);
        return !address.is_empty()
            && address.iter().all(is_part)
            && rest.strip_prefix(b":").map_or(rest.is_empty(), is_port);
    }
    let mut parts = value.splitn(2, |byte| *byte == b':');
    let name = parts.next().unwrap_or_default();
    let port = parts.next().unwrap_or_default();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    name.iter().all(is_part) && is_port(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> u16 {
        match parse(bytes) {
            HeadParse::Incomplete => 0,
            HeadParse::Head { .. } => 200,
            HeadParse::Rejected(rejection) => rejection.status.as_u16(),
        }
    }

    fn framed(fields: &str) -> HeadParse {
        parse(format!("POST /orders HTTP/1.1\r\nHost: shop\r\n{fields}\r\n{{}}").as_bytes())
    }

    #[test]
    fn a_body_has_exactly_one_end() {
        let sound = |fields: &str| match framed(fields) {
            HeadParse::Head { length, body } => {
                assert_eq!(length, 35 + fields.len() + 2, "{fields}");
                body
            }
            other => panic!("{fields:?}: {other:?}"),
        };
        assert_eq!(sound(""), Framing::of_length(0));
        assert_eq!(sound("Content-Length: 2\r\n"), Framing::of_length(2));
        assert_eq!(sound("Content-Length:  02 \r\n"), Framing::of_length(2));
        let twice = "Content-Length: 2\r\ncontent-length: 2\r\n";
        assert_eq!(sound(twice), Framing::of_length(2));
        assert_eq!(sound("Transfer-Encoding: Chunked\r\n"), Framing::chunked());
        for (fields, expected) in [
            ("Content-Length: 2\r\nContent-Length: 3\r\n", 400),
            ("Content-Length: 3\r\nA: b\r\nCONTENT-LENGTH: 2\r\n", 400),
            ("Content-Length: 2, 3\r\n", 400),
            ("Content-Length: 2, 2\r\n", 400),
            ("Content-Length: +2\r\n", 400),
            ("Content-Length: -2\r\n", 400),
            ("Content-Length: 0x2\r\n", 400),
            ("Content-Length: 2 2\r\n", 400),
            ("Content-Length: 2.0\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length: 18446744073709551616\r\n", 413),
            ("Content-Length: 9223372036854775808\r\n", 413),
            ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\nContent-Length: 2\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: chunked, chunked\r\n", 501),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", 400),
            ("Transfer-Encoding: chunked, gzip\r\n", 400),
            ("Transfer-Encoding: gzip\r\n", 400),
            ("Transfer-Encoding: identity\r\n", 400),
            ("Transfer-Encoding: xchunked\r\n", 400),
            ("Transfer-Encoding: \"chunked\"\r\n", 400),
            ("Transfer-Encoding:\r\n", 400),
        ] {
            let HeadParse::Rejected(rejection) = framed(fields) else { panic!("{fields:?}") };
            assert_eq!(rejection.status.as_u16(), expected, "{fields:?}");
        }
        let old = b"POST /orders HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(status(old), 400);
    }

    #[test]
    fn a_request_names_one_host() {
        for (host, expected) in [
            ("Host: shop\r\n", 200),
            ("Host: shop.example:8080\r\n", 200),
            ("Host: 127.0.0.1:\r\n", 200),
            ("Host: [::1]:8080\r\n", 200),
            ("Host: [fe80::1%25eth0]\r\n", 200),
            ("Host: my_shop\r\n", 200),
            ("Host:\r\n", 200),
            ("", 400),
            ("Hose: shop\r\n", 400),
            ("Host: shop\r\nhost: shop\r\n", 400),
            ("Host: shop\r\nHost: other\r\n", 400),
            ("Host: a b\r\n", 400),
            ("Host: a, b\r\n", 400),
            ("Host: user@shop\r\n", 400),
            ("Host: http://shop\r\n", 400),
            ("Host: shop:http\r\n", 400),
            ("Host: ::1\r\n", 400),
            ("Host: [::1\r\n", 400),
            ("Host: []\r\n", 400),
            ("Host: [::1]8080\r\n", 400),
            ("Host: sh\u{f6}p\r\n", 400),
        ] {
            let bytes = format!("GET / HTTP/1.1\r\n{host}\r\n");
            assert_eq!(status(bytes.as_bytes()), expected, "{host:?}");
        }
        assert_eq!(status(b"GET / HTTP/1.0\r\n\r\n"), 200);
        assert_eq!(status(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
    }

    #[test]
    fn a_target_has_one_of_the_forms_for_origin_servers() {
        for (line, expected) in [
            ("GET / HTTP/1.1", 200),
            ("GET /stocks?limit=1&after=a/b HTTP/1.1", 200),
            ("GET /stocks/Caf\u{e9} HTTP/1.1", 200),
            ("GET http://shop/stocks HTTP/1.1", 200),
            ("OPTIONS * HTTP/1.1", 200),
            ("GET * HTTP/1.1", 400),
            ("GET stocks HTTP/1.1", 400),
            ("GET shop:80 HTTP/1.1", 400),
            ("GET ftp://shop/stocks HTTP/1.1", 400),
            ("GET http:///stocks HTTP/1.1", 400),
            ("GET /stocks#top HTTP/1.1", 400),
            ("GET /a b HTTP/1.1", 400),
            ("GET  / HTTP/1.1", 400),
            (" GET / HTTP/1.1", 400),
            ("GET / HTTP/1.2", 400),
            ("GET / HTTP/2.0", 400),
            ("GET / http/1.1", 400),
            ("GET /", 400),
            ("PRI * HTTP/2.0", 400),
            ("G\u{e9}T / HTTP/1.1", 400),
            ("CONNECT shop:80 HTTP/1.1", 501),
            ("CONNECT / HTTP/1.1", 501),
        ] {
            let bytes = format!("{line}\r\nHost: shop\r\n\r\n");
            assert_eq!(status(bytes.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_head_is_bounded_before_it_is_complete() {
        let long = |count: usize| "a".repeat(count);
        let over = limits::URI_BYTES_MAX + 1;
        for (bytes, expected) in [
            (format!("GET /{}", long(over)), 414),
            (format!("GET /{} HTTP/1.1\r\n", long(over)), 414),
            (format!("GET /{} HTTP/1.1\r\nHost: shop\r\n\r\n", long(over)), 414),
            (format!("GET /{}", long(limits::URI_BYTES_MAX - 1)), 0),
            (long(METHOD_BYTES + 1), 400),
            (format!("{} / HTTP/1.1\r\nHost: shop\r\n\r\n", long(METHOD_BYTES + 1)), 400),
            (format!("GET / HTTP/1.1\r\nX: {}", long(limits::HEAD_BYTES_MAX)), 431),
            (format!("GET / HTTP/1.1\r\nX: {}", long(limits::HEADER_BYTES_MAX)), 0),
            (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", long(16_384)), 431),
            (format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(limits::HEADERS_MAX + 1)), 431),
            (format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(limits::HEADERS_MAX)), 0),
        ] {
            let shown: String = bytes.chars().take(30).collect();
            assert_eq!(status(bytes.as_bytes()), expected, "{shown}");
        }
    }

    #[test]
    fn every_prefix_of_a_valid_head_is_incomplete() {
        let head = b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\n";
        for length in 1..head.len() {
            assert_eq!(status(&head[..length]), 0, "{length}");
        }
        assert_eq!(status(head), 200);
    }
}
