//! The parser of plain requests: recognizes orders and queries of one product, the most frequent
//! requests of a shop, by their bytes.
//!
//! It finds where the request ends and what its answer needs: the `Authorization`, the key and the
//! body of an order, the path of a query, whether the connection closes afterwards, and the request
//! id to repeat. Any unusual request is unsupported and goes to hyper: another route or version, a
//! chunked body or one with another media type than JSON, a query with a body, a head that is not
//! valid, or more than [`BYTES_MAX`]. The parser of heads is the one that hyper uses; only the
//! policy of what is plain stands here.

use std::mem::MaybeUninit;

use crate::http::head::is_host;
use crate::limits;

/// A plain order begins with these bytes.
const ORDER: &[u8] = b"POST /orders HTTP/1.1\r\n";

/// A plain query begins with one of these.
const QUERIES: [&[u8]; 2] = [b"GET /products/", b"GET /stocks/"];

/// The longest plain request, in bytes; most have about 200.
pub(crate) const BYTES_MAX: usize = 2_048;

/// Headers that ask for more than an answer, or frame the body in another way.
const UNSUPPORTED_HEADERS: [&str; 5] = ["expect", "te", "trailer", "transfer-encoding", "upgrade"];

/// The result of parsing some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// A complete plain request.
    Plain(PlainRequest<'a>),
    /// The beginning of what may be a plain request.
    Incomplete,
    /// Any other request.
    Unsupported,
}

/// A plain request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlainRequest<'a> {
    /// Its length in bytes, head and body.
    pub(crate) length: usize,
    /// The value of its `X-Request-Id`, as it was sent.
    pub(crate) id: Option<&'a str>,
    /// The connection closes after its answer.
    pub(crate) last: bool,
    /// The value of its `Authorization`, as it was sent.
    pub(crate) authorization: Option<&'a [u8]>,
    /// The value of its `Forwarded`.
    pub(crate) forwarded: Option<&'a [u8]>,
    /// The value of its `X-Forwarded-For`.
    pub(crate) x_forwarded_for: Option<&'a [u8]>,
    /// What it asks for.
    pub(crate) content: Content<'a>,
}

/// What a plain request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// `POST /orders`: an order.
    Order {
        /// The value of its `Idempotency-Key`, as it was sent.
        key: Option<&'a str>,
        /// The order as JSON.
        body: &'a [u8],
    },
    /// `GET` of this path: the query of a product. The path has no query part.
    Query(&'a str),
}

/// True if these bytes are whole requests without bodies: [`parse`] finds more than a beginning in
/// them. So a query, which is parsed where it is answered, need not be parsed when it arrives.
pub(crate) fn end_with_query(bytes: &[u8]) -> bool {
    bytes.starts_with(b"GET ") && bytes.ends_with(b"\r\n\r\n")
}

/// Parses the request that `bytes` begin with.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let is_order = bytes.starts_with(ORDER);
    if !is_order && !QUERIES.iter().any(|begin| bytes.starts_with(begin)) {
        let may_be = ORDER.starts_with(bytes) || QUERIES.iter().any(|all| all.starts_with(bytes));
        return if may_be { Parsed::Incomplete } else { Parsed::Unsupported };
    }
    let mut fields = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let end = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if bytes.len() < BYTES_MAX => return Parsed::Incomplete,
        Ok(httparse::Status::Partial) | Err(_) => return Parsed::Unsupported,
    };
    let Some(head) = PlainHead::of(request.headers) else { return Parsed::Unsupported };
    let body = if is_order { head.length } else { Some(0).filter(|_| head.length.is_none()) };
    let Some(length) = body.map(|body| end + body).filter(|length| *length <= BYTES_MAX) else {
        return Parsed::Unsupported;
    };
    let Some(body) = bytes.get(end..length) else { return Parsed::Incomplete };
    let content = match request.path {
        _ if is_order => Content::Order { key: head.key, body },
        Some(path) if request.version == Some(1) && is_plain(path) => Content::Query(path),
        _ => return Parsed::Unsupported,
    };
    let PlainHead { id, authorization, forwarded, x_forwarded_for, last, .. } = head;
    Parsed::Plain(PlainRequest {
        length,
        id,
        last,
        authorization,
        forwarded,
        x_forwarded_for,
        content,
    })
}

/// True for the path of one product: two segments without special characters.
fn is_plain(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    let name = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    name.is_some_and(|(_, name)| !name.is_empty() && name.bytes().all(is_plain))
}

/// The headers of a plain request, as far as they matter.
#[derive(Default)]
struct PlainHead<'a> {
    /// The length of the body, if there is one.
    length: Option<usize>,
    key: Option<&'a str>,
    id: Option<&'a str>,
    authorization: Option<&'a [u8]>,
    forwarded: Option<&'a [u8]>,
    x_forwarded_for: Option<&'a [u8]>,
    last: bool,
}

impl<'a> PlainHead<'a> {
    /// `None`: the headers are not those of a plain request.
    fn of(headers: &[httparse::Header<'a>]) -> Option<Self> {
        let mut head = Self::default();
        let mut host = false;
        let mut connection = false;
        for httparse::Header { name, value } in headers {
            let value = value.trim_ascii();
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let odd = if is("content-length") {
                head.length.replace(digits(value)?).is_some()
            } else if is("idempotency-key") {
                head.key.replace(text(value)?).is_some()
            } else if is("x-request-id") {
                head.id.replace(text(value)?).is_some()
            } else if is("authorization") {
                head.authorization.replace(value).is_some()
            } else if is("x-forwarded-for") {
                head.x_forwarded_for.replace(value).is_some()
            } else if is("forwarded") {
                head.forwarded.replace(value).is_some()
            } else if is("connection") {
                head.last = value.eq_ignore_ascii_case(b"close");
                let is_known = head.last || value.eq_ignore_ascii_case(b"keep-alive");
                std::mem::replace(&mut connection, true) || !is_known
            } else if is("content-type") {
                let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
                !kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
            } else if is("host") {
                std::mem::replace(&mut host, true) || !is_host(value)
            } else {
                UNSUPPORTED_HEADERS.iter().any(|other| is(other))
            };
            if odd {
                return None;
            }
        }
        host.then_some(head)
    }
}

/// A value that is text, as the API reads it.
fn text(value: &[u8]) -> Option<&str> {
    str::from_utf8(value).ok().filter(|value| value.is_ascii())
}

/// The length of a body, if it is not too long.
fn digits(value: &[u8]) -> Option<usize> {
    // Five digits suffice for the longest body.
    if value.is_empty() || 5 < value.len() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = value.iter().fold(0, |sum, digit| 10 * sum + usize::from(digit - b'0'));
    (length <= limits::BODY_BYTES_MAX).then_some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parts of requests, whole and broken.
    const PARTS: [&str; 12] = [
        "/products/bear HTTP/1.1",
        "/stocks/",
        "GET /products/fox HTTP/1.1\r\n",
        "POST /orders HTTP/1.1\r\n",
        "Host: shop",
        "Content-Length: 9\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        ": x\r\n ",
        "\u{e9}",
    ];

    const HEAD: &str = "POST /orders HTTP/1.1\r\nHost: shop\r\n";

    fn with(headers: &str, body: &str) -> Vec<u8> {
        format!("{HEAD}{headers}\r\n{body}").into_bytes()
    }

    #[test]
    fn a_plain_order_ends_where_its_length_says() {
        let plain = [
            (with("Content-Length: 2\r\n", "{}"), None),
            (with("content-length:2\r\nContent-Type: application/json\r\n", "{}"), None),
            (
                with(
                    "Idempotency-Key: \"7\" \r\nUser-Agent: curl/8\r\nContent-Length:  2\r\n",
                    "{}",
                ),
                Some("\"7\""),
            ),
            (with("Content-Length: 0\r\n", ""), None),
            (with("Connection: Keep-Alive\r\nContent-Length: 2\r\n", "{}"), None),
            (
                with(
                    "Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n",
                    "{}",
                ),
                None,
            ),
        ];
        for (one, key) in plain {
            let two = [&one[..], &one[..]].concat();
            for bytes in [&one, &two] {
                let Parsed::Plain(order) = parse(bytes) else { panic!("another order may follow") };
                let Content::Order { key: found, body } = order.content else {
                    panic!("{order:?}")
                };
                assert_eq!((order.length, found), (one.len(), key));
                assert!(one.ends_with(body) && matches!(body, b"{}" | b""));
            }
            for length in 0..one.len() {
                assert_eq!(parse(&one[..length]), Parsed::Incomplete, "it is cut off");
            }
        }
    }

    #[test]
    fn the_request_id_and_the_close_of_a_plain_order_are_parsed() {
        let bytes = with("X-Request-Id: a 7\r\nConnection: Close\r\nContent-Length: 2\r\n", "{}");
        let Parsed::Plain(order) = parse(&bytes) else { panic!("it is plain") };
        assert_eq!((order.id, order.last), (Some("a 7"), true));
    }

    #[test]
    fn an_unusual_request_is_not_plain() {
        for headers in [
            "",
            "Content-Length: 2\r\nContent-Length: 2\r\n",
            "Content-Length: +2\r\n",
            "Content-Length: 0x2\r\n",
            "Content-Length:\r\n",
            "Content-Length: 2, 2\r\n",
            "Content-Length: 2\r\nContent-Length: 3\r\n",
            "Content-Length: 2\r\nHost: shop\r\n",
            "Content-Length: 2\r\nHost: other\r\n",
            "Content-Length: 16385\r\n",
            "Content-Length: 2048\r\n",
            "Content-Length: 18446744073709551615\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
            "Content-Length: 2\r\ntransfer-encoding: chunked\r\n",
            "Content-Length: 2\r\nConnection: close, te\r\n",
            "Content-Length: 2\r\nConnection: close\r\nConnection: keep-alive\r\n",
            "Content-Length: 2\r\nExpect: 100-continue\r\n",
            "Content-Length: 2\r\nX-Request-Id: 7\r\nX-Request-Id: 8\r\n",
            "Content-Length: 2\r\nIdempotency-Key: 1\r\nidempotency-key: 1\r\n",
            "Content-Length: 2\r\nContent-Type: text/plain\r\n",
            "Content-Length: 2\r\n folded: 1\r\n",
            "Content-Length : 2\r\n",
            "Content-Length: 2\r\nno colon\r\n",
            "Content-Length: 2\r\n: no name\r\n",
            "Content-Length: 2\r\nA: b\rc: d\r\n",
            "Content-Length: 2\r\nIdempotency-Key: caf\u{e9}\r\n",
            "Content-Length: 2\r\nA: \0\r\n",
        ] {
            assert_eq!(parse(&with(headers, "{}")), Parsed::Unsupported, "{headers:?}");
        }
        let many = "a:\r\n".repeat(limits::HEADERS_MAX - 2) + "Content-Length: 2\r\n";
        assert!(matches!(parse(&with(&many, "{}")), Parsed::Plain(_)));
        assert_eq!(parse(&with(&("a:\r\n".to_owned() + &many), "{}")), Parsed::Unsupported);
        assert_eq!(
            parse(&with(&"a".repeat(BYTES_MAX), "")),
            Parsed::Unsupported,
            "the head has no end"
        );
        let whole = with("Content-Length: 2\r\n", "{}");
        let text = String::from_utf8(whole).unwrap();
        for (from, to) in [
            ("POST", "PUT"),
            ("/orders", "/orders/"),
            ("/orders", "/v1/orders/batch"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("Host", "Hose"),
            ("Host: shop", "Host: a, b"),
        ] {
            assert_eq!(parse(text.replacen(from, to, 1).as_bytes()), Parsed::Unsupported, "{to}");
        }
    }
    #[test]
    fn a_plain_query_names_one_product_and_has_no_body() {
        for path in ["/products/bear", "/stocks/B%65ar-1.2_~"] {
            for headers in ["", "X-Request-Id: 7\r\nAccept: */*\r\nUser-Agent: curl/8\r\n"] {
                let one = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{headers}\r\n");
                let two = one.repeat(2);
                for bytes in [&one, &two] {
                    let Parsed::Plain(query) = parse(bytes.as_bytes()) else { panic!("{bytes}") };
                    assert_eq!((query.length, query.last), (one.len(), false));
                    assert!(end_with_query(bytes.as_bytes()));
                    assert_eq!(query.content, Content::Query(path));
                }
                for length in 0..one.len() {
                    assert_eq!(parse(&one.as_bytes()[..length]), Parsed::Incomplete, "cut off");
                    assert!(!end_with_query(&one.as_bytes()[..length]));
                }
            }
        }
    }

    #[test]
    fn an_unusual_query_is_not_plain() {
        let plain = "GET /products/bear HTTP/1.1\r\nHost: shop\r\n\r\n";
        for (from, to) in [
            ("GET", "HEAD"),
            ("GET", "get"),
            ("/bear", "/"),
            ("/bear", "/bear/"),
            ("/bear", "/bear?x"),
            ("/bear", "/b/ear"),
            ("/bear", "/b+ear"),
            ("/bear", "/b\u{e9}ar"),
            ("/products/bear", "/products"),
            ("/products/bear", "/products?after=a"),
            ("/products/bear", "/orders/7"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("Host: shop", "Host: a, b"),
            ("Host: shop\r\n", ""),
            ("shop", "shop\r\nContent-Length: 0"),
            ("shop", "shop\r\nTransfer-Encoding: chunked"),
            ("shop", "shop\r\nUpgrade: h2c"),
            ("shop", "shop\r\nConnection: upgrade"),
        ] {
            let text = plain.replacen(from, to, 1);
            assert_eq!(parse(text.as_bytes()), Parsed::Unsupported, "{text}");
        }
    }

    proptest! {
        /// Kind: a request that waits for bytes that its client never sends.
        #[test]
        fn bytes_that_end_with_a_query_are_no_beginning(
            parts in prop::collection::vec(prop::sample::select(PARTS.as_slice()), 0..6)
        ) {
            let bytes = ["GET ", &*parts.concat(), "\r\n\r\n"].concat();
            prop_assert!(end_with_query(bytes.as_bytes()));
            prop_assert_ne!(parse(bytes.as_bytes()), Parsed::Incomplete, "{}", bytes);
        }
    }
}
