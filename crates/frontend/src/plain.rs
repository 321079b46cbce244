//! A plain order, told by its bytes: most of what a shop is sent, when it counts.
//!
//! All that is looked for is where the request ends, and what of it an order needs: its key and its
//! body, whether it is the last one of its connection, and the id that it wants to see again.
//! Whatever is out of the ordinary is not plain, and goes the long way: another route or version, a
//! body in chunks or that says it is no JSON, a head that is not quite right, more than
//! [`BYTES_MAX`].

use crate::head::is_host;
use crate::limits;

/// What a plain order begins with.
const BEGIN: &[u8] = b"POST /orders HTTP/1.1\r\n";

/// The longest plain order, in bytes: most are some two hundred long.
pub(crate) const BYTES_MAX: usize = 2_048;

/// Headers that ask for more than an answer, or say where the body ends in another way.
const NOT_PLAIN: [&[u8]; 5] = [b"expect", b"te", b"trailer", b"transfer-encoding", b"upgrade"];

/// What some bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    /// A plain order, whole.
    Order(Order<'a>),
    /// What may become one, when more has come.
    Part,
    /// Something else.
    Other,
}

/// A plain order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order<'a> {
    /// How many bytes it takes.
    pub(crate) length: usize,
    /// The value of its `Idempotency-Key`, as it was sent.
    pub(crate) key: Option<&'a str>,
    /// The value of its `X-Request-Id`, as it was sent.
    pub(crate) id: Option<&'a str>,
    /// The connection is to be closed after it.
    pub(crate) last: bool,
    /// What is ordered.
    pub(crate) body: &'a [u8],
}

/// What `bytes` begin with.
pub(crate) fn see(bytes: &[u8]) -> Seen<'_> {
    if !bytes.starts_with(BEGIN) {
        return if BEGIN.starts_with(bytes) { Seen::Part } else { Seen::Other };
    }
    let head = match read_head(bytes) {
        Ok(head) if head.end + head.length <= BYTES_MAX => head,
        Ok(_) => return Seen::Other,
        Err(Seen::Part) if BYTES_MAX <= bytes.len() => return Seen::Other,
        Err(seen) => return seen,
    };
    let Head { end, length, key, id, last } = head;
    let order = |body| Order { length: end + length, key, id, last, body };
    bytes.get(end..end + length).map_or(Seen::Part, |body| Seen::Order(order(body)))
}

/// What the head of a plain order says. It ends before `end`, and a body of `length` follows.
#[derive(Default)]
struct Head<'a> {
    end: usize,
    length: usize,
    key: Option<&'a str>,
    id: Option<&'a str>,
    last: bool,
}

/// The head of a plain order, or what it is instead: a part of one, or something else.
fn read_head(bytes: &[u8]) -> Result<Head<'_>, Seen<'_>> {
    let mut rest = &bytes[BEGIN.len()..];
    let (mut head, mut length, mut host, mut connection) = (Head::default(), None, false, false);
    for _ in 0..=limits::HEADERS_MAX {
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Seen::Part)?;
        let line = rest[..end].strip_suffix(b"\r").ok_or(Seen::Other)?;
        rest = &rest[end + 1..];
        if line.is_empty() {
            head.length = length.filter(|_| host).ok_or(Seen::Other)?;
            head.end = bytes.len() - rest.len();
            return Ok(head);
        }
        let (name, value) = header(line).ok_or(Seen::Other)?;
        let text = || std::str::from_utf8(value).map_err(|_| Seen::Other);
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let odd = if is(b"content-length") {
            length.replace(digits(value).ok_or(Seen::Other)?).is_some()
        } else if is(b"idempotency-key") {
            head.key.replace(text()?).is_some()
        } else if is(b"x-request-id") {
            head.id.replace(text()?).is_some()
        } else if is(b"connection") {
            head.last = value.eq_ignore_ascii_case(b"close");
            if !head.last && !value.eq_ignore_ascii_case(b"keep-alive") {
                return Err(Seen::Other);
            }
            std::mem::replace(&mut connection, true)
        } else if is(b"content-type") {
            let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            !kind.eq_ignore_ascii_case(b"application/json")
        } else if is(b"host") {
            std::mem::replace(&mut host, true) || !is_host(value)
        } else {
            NOT_PLAIN.iter().any(|other| is(other))
        };
        if odd {
            return Err(Seen::Other);
        }
    }
    Err(Seen::Other)
}

/// The name and the value of a header, without the white space around it.
fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_sound = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    let sound = !name.is_empty() && name.iter().all(is_sound) && value.iter().all(is_text);
    sound.then(|| (name, value.trim_ascii()))
}

/// The length of a body that is not too long.
fn digits(value: &[u8]) -> Option<usize> {
    // Five digits are more than the longest body has.
    if value.is_empty() || 5 < value.len() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = value.iter().fold(0, |sum, digit| 10 * sum + usize::from(digit - b'0'));
    (length <= limits::BODY_BYTES_MAX).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST /orders HTTP/1.1\r\nHost: shop\r\n";

    fn with(headers: &str, body: &str) -> Vec<u8> {
        format!("{HEAD}{headers}\r\n{body}").into_bytes()
    }

    #[test]
    fn a_plain_order_is_as_long_as_it_says() {
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
                let Seen::Order(order) = see(bytes) else { panic!("another one may follow") };
                assert_eq!((order.length, order.key), (one.len(), key));
                assert!(one.ends_with(order.body) && matches!(order.body, b"{}" | b""));
            }
            for length in 0..one.len() {
                assert_eq!(see(&one[..length]), Seen::Part, "a part of one is none yet");
            }
        }
    }

    #[test]
    fn what_it_wants_of_the_answer_is_seen() {
        let bytes = with("X-Request-Id: a 7\r\nConnection: Close\r\nContent-Length: 2\r\n", "{}");
        let Seen::Order(order) = see(&bytes) else { panic!("it is plain") };
        assert_eq!((order.id, order.last), (Some("a 7"), true));
    }

    #[test]
    fn whatever_is_out_of_the_ordinary_is_not_plain() {
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
            "Content-Length: 2\nA: b\r\n",
            "Content-Length: 2\r\nA: \0\r\n",
        ] {
            assert_eq!(see(&with(headers, "{}")), Seen::Other, "{headers:?}");
        }
        let many = "a:\r\n".repeat(limits::HEADERS_MAX - 2) + "Content-Length: 2\r\n";
        assert!(matches!(see(&with(&many, "{}")), Seen::Order(_)));
        assert_eq!(see(&with(&("a:\r\n".to_owned() + &many), "{}")), Seen::Other);
        assert_eq!(see(&with(&"a".repeat(BYTES_MAX), "")), Seen::Other, "no end in sight");
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
            assert_eq!(see(text.replacen(from, to, 1).as_bytes()), Seen::Other, "{to}");
        }
    }
}
