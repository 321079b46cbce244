//! Parses an HTTP answer as far as the load needs it: its status, its end, and `Retry-After`.

use anyhow::{Context, Result, bail};

/// The parts of an answer that the load needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The answer has a `Retry-After`.
    pub(crate) retry_after: bool,
    /// Where the body begins, in bytes.
    pub(crate) body: usize,
    /// Where the answer ends, in bytes.
    pub(crate) end: usize,
}

/// Parses the answer at the beginning of `bytes`. `None`: the answer is not complete yet.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Answer>> {
    if matches!(bytes.first(), Some(b':' | b'-')) {
        return redis(bytes);
    }
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let body = head + 4;
    let mut lines = bytes[..head].split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| line.get(9..12)).unwrap_or_default();
    let mut answer = Answer { status: digits(status)?, retry_after: false, body, end: body };
    for line in lines {
        if named(line, b"content-length:") {
            answer.end = body + digits::<usize>(&line[15..])?;
        } else if named(line, b"retry-after:") {
            answer.retry_after = true;
        } else if named(line, b"transfer-encoding:") {
            bail!("an answer comes in chunks, which the load does not read");
        }
    }
    Ok((answer.end <= bytes.len()).then_some(answer))
}

/// Parses Redis's two replies, to an order and to `WAIT`, as one HTTP answer: 409 if the stock is
/// empty, 504 if no replica has the order.
fn redis(bytes: &[u8]) -> Result<Option<Answer>> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|it| it.ends_with(b"\n"));
    let (Some(order), Some(wait)) = (lines.next(), lines.next()) else { return Ok(None) };
    let status = match (digits::<i64>(&order[1..]), digits::<i64>(&wait[1..])) {
        (Ok(-1), Ok(_)) => 409,
        (Ok(0..), Ok(1..)) => 200,
        (Ok(0..), Ok(_)) => 504,
        _ => bail!("Redis says {}", String::from_utf8_lossy(bytes)),
    };
    let end = order.len() + wait.len();
    Ok(Some(Answer { status, retry_after: false, body: 0, end }))
}

fn named(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn digits<N: std::str::FromStr>(text: &[u8]) -> Result<N> {
    let text = std::str::from_utf8(text).unwrap_or_default().trim();
    text.parse().ok().with_context(|| format!("read {text:?} as a number of an answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let two = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\
                    HTTP/1.1 503 Oh\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
        let first = parse(two).expect("a valid answer").expect("complete");
        assert_eq!(&two[first.body..first.end], b"{}");
        assert_eq!((first.status, first.retry_after), (200, false));
        let second = parse(&two[first.end..]).expect("a valid answer").expect("complete");
        assert_eq!((second.status, second.retry_after), (503, true));
        assert_eq!(first.end + second.end, two.len());
    }

    #[test]
    fn an_incomplete_answer_is_none_yet() {
        let whole = b"HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\nno!";
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]).expect("a valid answer"), None);
        }
        assert!(parse(whole).expect("a valid answer").is_some());
    }

    #[test]
    fn two_replies_of_redis_are_one_answer() {
        let status = |said: &[u8]| parse(said).expect("a valid answer").map(|it| it.status);
        for length in 0..b":4711\r\n:2\r\n".len() {
            assert_eq!(status(&b":4711\r\n:2\r\n"[..length]), None);
        }
        assert_eq!(status(b":4711\r\n:2\r\n"), Some(200));
        assert_eq!(status(b":4711\r\n:0\r\n"), Some(504));
        assert_eq!(status(b":-1\r\n:2\r\n"), Some(409));
        assert!(parse(b"-NOSCRIPT\r\n:0\r\n").is_err());
    }

    #[test]
    fn bytes_that_are_no_answer_are_an_error() {
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
