//! The access log: one line per answered request, bounded in bytes and in rate.
//!
//! A line begins in the format of the classic servers and continues with fields for operators:
//!
//! ```text
//! 128.119.202.15 - - [26/Apr/2024 22:21:55] "POST /orders HTTP/1.1" 200 - bytes=35 ms=0.8 id=4f1c
//! ```
//!
//! Beyond [`LINES_PER_SECOND_MAX`] lines are sampled, and each line says how many requests it
//! stands for (`requests=8`): these numbers add up to all requests. [`Sampler`] decides and has no
//! clock. A request without a line costs one lock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri, Version};
use parking_lot::Mutex;
use wire::escaped::escaped;
use wire::log_format::ACCESS;
use wire::wall_clock::{access_time, since_epoch};

use crate::limits::LINES_PER_SECOND_MAX;

/// The most bytes of a method, and of a request's id, in a line.
const METHOD_BYTES_MAX: usize = 16;

/// The pure core: decides which requests get a line.
#[derive(Debug, Default)]
struct Sampler {
    /// The second being counted, with its requests and lines.
    second: u64,
    requests: u64,
    lines: u64,
    /// One line stands for this many requests.
    factor: u64,
    /// Requests without a line since the last line.
    left_out: u64,
}

impl Sampler {
    /// A request was answered in this second. Returns the number of requests that its line stands
    /// for, or `None`: it gets no line.
    fn sample(&mut self, second: u64) -> Option<u64> {
        if self.factor == 0 || self.second != second {
            let before = if second == self.second.wrapping_add(1) { self.requests } else { 0 };
            self.factor = before.div_ceil(LINES_PER_SECOND_MAX).max(1);
            (self.second, self.requests, self.lines) = (second, 0, 0);
        }
        self.requests += 1;
        let due = self.left_out + 1 >= self.factor;
        if !due || LINES_PER_SECOND_MAX <= self.lines {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out) + 1)
    }
}

/// The request, as its line shows it.
#[derive(Clone, Debug)]
pub(crate) enum RequestLine {
    /// `POST /orders HTTP/1.1`
    Order,
    /// Bytes that are no request.
    Malformed,
    /// Any request that hyper has read.
    Other(Method, Uri, Version),
}

/// An answered request.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) client: IpAddr,
    pub(crate) request: &'a RequestLine,
    pub(crate) status: u16,
    /// The length of the answer's body.
    pub(crate) bytes: usize,
    /// From the moment the request was read until its answer was complete.
    pub(crate) took: Duration,
    /// The request's id, as the answer repeats it.
    pub(crate) id: &'a [u8],
}

/// Writes the lines if it is on. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    sampler: Option<Arc<Mutex<Sampler>>>,
}

impl AccessLog {
    /// `on`: lines are written.
    pub(crate) fn new(on: bool) -> Self {
        Self { sampler: on.then(Arc::default) }
    }

    /// True when lines are written.
    pub(crate) fn is_on(&self) -> bool {
        self.sampler.is_some()
    }

    /// Writes the line of a request, unless sampling leaves it out.
    pub(crate) fn note(&self, answered: &Answered<'_>) {
        let Some(sampler) = &self.sampler else { return };
        let now = since_epoch();
        let sampled = sampler.lock().sample(now.as_secs());
        if let Some(requests) = sampled {
            let line = line(answered, now, requests);
            tracing::info!(target: ACCESS, "{line}");
        }
    }
}

fn line(answered: &Answered<'_>, now: Duration, requests: u64) -> String {
    use std::fmt::Write as _;
    let Answered { client, request, status, bytes, took, id } = answered;
    let time = access_time(now);
    let client = client.to_canonical();
    let mut line = String::with_capacity(160);
    // Writing into a string cannot fail.
    let _ = write!(line, "{client} - - [{time}] \"");
    let _ = match request {
        RequestLine::Order => write!(line, "POST /orders HTTP/1.1"),
        RequestLine::Malformed => write!(line, "-"),
        RequestLine::Other(method, uri, version) => {
            let target = uri.path_and_query().map_or("*", |target| target.as_str());
            let method = escaped(method.as_str()).within(METHOD_BYTES_MAX);
            write!(line, "{method} {} {version:?}", escaped(target))
        }
    };
    let took = took.as_secs_f64() * 1_000.0;
    // A space would end the field, and the rest of the id would look like another field.
    let id = escaped(id).to_string().replace(' ', "\\x20");
    let _ = write!(line, "\" {status} - bytes={bytes} ms={took:.1} id={id}");
    if 1 < requests {
        let _ = write!(line, " requests={requests}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_the_limit_each_request_has_a_line() {
        let mut sampler = Sampler::default();
        for second in 0..3 {
            for _ in 0..LINES_PER_SECOND_MAX {
                assert_eq!(sampler.sample(second), Some(1));
            }
        }
    }

    /// Neither a burst nor a lasting overload writes more lines than the limit.
    #[test]
    fn beyond_the_limit_lines_are_sampled_and_add_up_to_the_requests() {
        let mut sampler = Sampler::default();
        let mut stands_for = 0;
        for second in 10..14 {
            let sampled: Vec<u64> = (0..20_500).filter_map(|_| sampler.sample(second)).collect();
            let lines = u64::try_from(sampled.len()).unwrap();
            assert!(lines <= LINES_PER_SECOND_MAX, "{lines}");
            assert!(900 < sampled.len(), "{}", sampled.len());
            if 10 < second {
                assert!(sampled[1..].iter().all(|requests| *requests == 21), "{sampled:?}");
            }
            stands_for += sampled.iter().sum::<u64>();
        }
        assert_eq!(stands_for + sampler.left_out, 4 * 20_500);
        assert!(sampler.sample(20).is_some(), "the burst is over");
        assert_eq!(sampler.sample(20), Some(1));
    }

    fn shown(request: &RequestLine, id: &[u8], requests: u64) -> String {
        let (client, took) = (IpAddr::from([128, 119, 202, 15]), Duration::from_micros(840));
        let answered = Answered { client, request, status: 200, bytes: 35, took, id };
        line(&answered, Duration::from_secs(1_714_170_115), requests)
    }

    #[test]
    fn a_line_begins_in_the_format_of_the_classic_servers() {
        let begin = "128.119.202.15 - - [26/Apr/2024 22:21:55] \"POST /orders HTTP/1.1\" 200 - ";
        assert_eq!(
            shown(&RequestLine::Order, b"4f1c", 1),
            format!("{begin}bytes=35 ms=0.8 id=4f1c")
        );
        assert!(shown(&RequestLine::Order, b"4f1c", 8).ends_with(" requests=8"));
    }

    #[test]
    fn a_line_is_bounded_and_escaped() {
        let method = Method::from_bytes("M".repeat(10_000).as_bytes()).unwrap();
        let uri: Uri = format!("/a\"{}", "x".repeat(60_000)).parse().unwrap();
        let request = RequestLine::Other(method, uri, Version::HTTP_11);
        let line = shown(&request, &[b'\n'; 128], 1);
        assert!(line.len() < 700, "{}", line.len());
        assert!(line.contains("/a\\x22xxx") && !line.contains('\n'), "{line}");
        let forged = shown(&RequestLine::Order, b"7 200 requests=5", 1);
        assert!(forged.ends_with("id=7\\x20200\\x20requests=5"), "{forged}");
    }
}
