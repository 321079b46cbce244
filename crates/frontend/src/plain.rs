//! A plain order, told by its bytes: what can be refused without understanding it.
//!
//! In an overload most of what comes is refused, and reading it costs more than saying no. So all
//! that is looked for here is where the request ends. Whatever is out of the ordinary is not plain,
//! and goes the long way: another route or version, a body in chunks or of which a part has yet to
//! come, a connection that is to be closed, an id to give back, a head that is not quite right.

use crate::limits;

/// What a plain order begins with.
const BEGIN: &[u8] = b"POST /orders HTTP/1.1\r\n";

/// Headers that ask for more than an answer, or say where the body ends in another way.
const NOT_PLAIN: [&[u8]; 7] = [
    b"connection",
    b"expect",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"x-request-id",
];

/// How long the plain order is that `bytes` begin with. None: they begin with something else, or
/// with a part of one.
pub(crate) fn order(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes.strip_prefix(BEGIN)?;
    let (mut length, mut host) = (None, false);
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        let line = line.strip_suffix(b"\r")?;
        if line.is_empty() {
            break;
        }
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(digits(value)?).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case(b"host") {
            host = true;
        } else if NOT_PLAIN.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            return None;
        }
    }
    let whole = (bytes.len() - rest.len()).checked_add(length.filter(|_| host)?)?;
    (whole <= bytes.len()).then_some(whole)
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
            with("Content-Length: 2\r\n", "{}"),
            with("content-length:2\r\nContent-Type: application/json\r\n", "{}"),
            with("Idempotency-Key: \"7\"\r\nUser-Agent: curl/8\r\nContent-Length:  2 \r\n", "{}"),
            with("Content-Length: 0\r\n", ""),
        ];
        for one in plain {
            let two = [&one[..], &one[..]].concat();
            assert_eq!(order(&one), Some(one.len()), "{}", String::from_utf8_lossy(&one));
            assert_eq!(order(&two), Some(one.len()), "another one may follow");
            for length in 0..one.len() {
                assert_eq!(order(&one[..length]), None, "a part of one is none");
            }
        }
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
            "Content-Length: 16385\r\n",
            "Content-Length: 18446744073709551615\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
            "Content-Length: 2\r\ntransfer-encoding: chunked\r\n",
            "Content-Length: 2\r\nConnection: close\r\n",
            "Content-Length: 2\r\nExpect: 100-continue\r\n",
            "Content-Length: 2\r\nX-Request-Id: 7\r\n",
            "Content-Length: 2\r\n folded: 1\r\n",
            "Content-Length : 2\r\n",
            "Content-Length: 2\r\nno colon\r\n",
            "Content-Length: 2\r\n: no name\r\n",
            "Content-Length: 2\r\nA: b\rc: d\r\n",
            "Content-Length: 2\nA: b\r\n",
            "Content-Length: 2\r\nA: \0\r\n",
        ] {
            assert_eq!(order(&with(headers, "{}")), None, "{headers:?}");
        }
        let whole = with("Content-Length: 2\r\n", "{}");
        let text = String::from_utf8(whole).unwrap();
        for (from, to) in [
            ("POST", "PUT"),
            ("/orders", "/orders/"),
            ("/orders", "/v1/orders/batch"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("Host", "Hose"),
        ] {
            assert_eq!(order(text.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
    }
}
