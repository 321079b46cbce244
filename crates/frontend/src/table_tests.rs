//! The HTTP table: the expected answer to each request shape, over sockets, from the whole API.
//!
//! Every shape is sent in HTTP/1.1 and 1.0, on a connection that is to stay open and on one that is
//! to be closed, through the fast path if it is plain and through hyper, with TLS and without. It
//! is followed by nothing, by a line end, by half a request and by a whole one. For each variant
//! the table states the status, whether the connection stays open, and how many orders are placed.
//! In each, the answer leaves before the client sends more, with the headers that every answer has.

mod api_requests;
mod malformed;
mod orders;
pub(crate) mod store;

use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use wire::tls::stream::MaybeTlsStream;

use self::store::OpenStore;

/// At once, as opposed to never: far below every time-out of the server, and far above the delays
/// of a busy machine.
const AT_ONCE: Duration = Duration::from_secs(6);

const NEXT: &[u8] = b"GET /livez HTTP/1.1\r\nHost: shop\r\n\r\n";

/// The bytes that follow a request, and the part of [`NEXT`] still to be sent after them.
const TAILS: [(&[u8], &[u8]); 4] =
    [(b"", NEXT), (b"\r\n", NEXT), (NEXT.split_at(9).0, NEXT.split_at(9).1), (NEXT, b"")];

/// A request without its version, and the expected answer.
#[derive(Clone, Debug)]
struct Shape {
    /// Method and target.
    line: String,
    headers: Vec<u8>,
    body: Vec<u8>,
    /// The whole request, in one version only.
    raw: Option<Vec<u8>>,
    status: u16,
    /// The status in HTTP/1.0.
    old_status: u16,
    /// The connection ends after the answer in any case.
    closes: bool,
    old_closes: bool,
    /// The number of orders placed.
    places: u64,
}

fn shape(line: &str, headers: impl AsRef<[u8]>, body: impl AsRef<[u8]>, status: u16) -> Shape {
    Shape {
        line: line.to_owned(),
        headers: [b"Host: shop\r\n", headers.as_ref()].concat(),
        body: body.as_ref().to_owned(),
        raw: None,
        status,
        old_status: status,
        closes: false,
        old_closes: false,
        places: 0,
    }
}

/// Only the headers that are named.
fn bare(line: &str, headers: impl AsRef<[u8]>, status: u16) -> Shape {
    Shape { headers: headers.as_ref().to_owned(), ..shape(line, "", "", status) }
}

fn raw(bytes: impl AsRef<[u8]>, status: u16) -> Shape {
    Shape { raw: Some(bytes.as_ref().to_owned()), ..shape("", "", "", status) }
}

impl Shape {
    fn closing(self) -> Self {
        Self { closes: true, old_closes: true, ..self }
    }

    fn placing(self, places: u64) -> Self {
        Self { places, ..self }
    }

    /// The answer in HTTP/1.0 differs.
    fn in_http_10(self, old_status: u16, old_closes: bool) -> Self {
        Self { old_status, old_closes, ..self }
    }

    fn variants(&self) -> Vec<Variant> {
        if let Some(bytes) = &self.raw {
            let (status, open) = (self.status, !self.closes);
            return vec![Variant { bytes: bytes.clone(), status, open, places: self.places }];
        }
        // A header that no plain request has: hyper reads the request.
        let plain = ["POST /orders", "GET /products/", "GET /stocks/"];
        let may_be_plain = plain.iter().any(|begin| self.line.starts_with(begin));
        let ways: &[&str] = if may_be_plain { &["", "TE: trailers\r\n"] } else { &[""] };
        let versions = [
            ("HTTP/1.1", "", self.status, !self.closes),
            ("HTTP/1.1", "Connection: close\r\n", self.status, false),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n", self.old_status, !self.old_closes),
            ("HTTP/1.0", "", self.old_status, false),
        ];
        let mut variants = Vec::new();
        for (version, connection, status, open) in versions {
            for way in ways {
                let head = format!("{} {version}\r\n{connection}{way}", self.line).into_bytes();
                let bytes = [&head, &self.headers[..], b"\r\n", &self.body].concat();
                let places = if status == 200 { self.places } else { 0 };
                variants.push(Variant { bytes, status, open, places });
            }
        }
        variants
    }
}

/// A request as bytes, and the expected answer.
#[derive(Clone, Debug)]
struct Variant {
    bytes: Vec<u8>,
    status: u16,
    open: bool,
    places: u64,
}

/// An answer as received.
#[derive(Debug)]
struct ReceivedAnswer {
    status: u16,
    head: String,
    body: String,
}

struct Customer(BufReader<MaybeTlsStream>);

impl Customer {
    async fn new(store: &OpenStore) -> Self {
        Self(BufReader::new(store.connect().await))
    }

    async fn send(&mut self, bytes: &[u8]) {
        // If the connection has ended, reading the answer shows it.
        let _ = self.0.get_mut().write_all(bytes).await;
        let _ = self.0.get_mut().flush().await;
    }

    /// The next answer, or why there is none.
    async fn hear(&mut self, to_head: bool) -> Result<ReceivedAnswer, String> {
        loop {
            let answer = tokio::time::timeout(AT_ONCE, self.read(to_head)).await;
            let answer = answer.map_err(|_| "the answer is withheld".to_owned())?;
            let answer = answer.map_err(|error| format!("no answer: {error}"))?;
            if answer.status != 100 {
                return Ok(answer);
            }
        }
    }

    async fn read(&mut self, to_head: bool) -> std::io::Result<ReceivedAnswer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_default();
        let length = value_of(&head, "content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.filter(|_| !to_head).unwrap_or_default()];
        self.0.read_exact(&mut body).await?;
        Ok(ReceivedAnswer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Checks that no byte follows, and that the connection has ended without an error.
    async fn hear_the_end(&mut self) -> Result<(), String> {
        let mut rest = Vec::new();
        match tokio::time::timeout(AT_ONCE, self.0.read_to_end(&mut rest)).await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(_)) => Err(format!("more bytes arrived: {}", String::from_utf8_lossy(&rest))),
            Ok(Err(error)) => Err(format!("the connection broke: {error}")),
            Err(_) => Err("the connection stays open".to_owned()),
        }
    }
}

fn value_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Sends one variant with one tail, and compares the answer with the table.
async fn attempt(
    store: &OpenStore,
    variant: &Variant,
    (tail, rest): (&[u8], &[u8]),
) -> Result<(), String> {
    let mut customer = Customer::new(store).await;
    customer.send(&[&variant.bytes[..], tail].concat()).await;
    let to_head = variant.bytes.starts_with(b"HEAD ");
    let answer = customer.hear(to_head).await?;
    check_answer(&answer, variant, to_head)?;
    if !variant.open {
        return customer.hear_the_end().await;
    }
    customer.send(rest).await;
    let next = customer.hear(false).await.map_err(|why| format!("the next request: {why}"))?;
    match next.status == 200 && next.body == "alive\n" {
        true => Ok(()),
        false => Err(format!("the next request is misread: {next:?}")),
    }
}

fn check_answer(answer: &ReceivedAnswer, variant: &Variant, to_head: bool) -> Result<(), String> {
    let expect = |holds: bool, what: &str| match holds {
        true => Ok(()),
        false => Err(format!("{what}: {answer:?}")),
    };
    expect(answer.status == variant.status, &format!("not {}", variant.status))?;
    let is = |name, expected| value_of(&answer.head, name) == Some(expected);
    expect(is("cache-control", "no-store"), "may be stored")?;
    expect(is("x-content-type-options", "nosniff"), "may be sniffed")?;
    expect(value_of(&answer.head, "x-request-id").is_some(), "has no id")?;
    let closes = match answer.head.starts_with("http/1.1") {
        true => is("connection", "close"),
        false => !is("connection", "keep-alive"),
    };
    expect(closes != variant.open, "has a wrong connection header")?;
    let code = format!("\"code\":{}", variant.status);
    let in_envelope = variant.status < 400 || to_head || answer.body.contains(&code);
    expect(in_envelope, "is not in the envelope")
}

/// Tries every variant of each shape with each tail, with TLS with the second one only; returns the
/// differences.
async fn try_all(store: &OpenStore, shapes: &[Shape]) -> Vec<String> {
    let tails = if store.speaks_tls() { &TAILS[1..2] } else { &TAILS[..] };
    let mut wrong = Vec::new();
    for shape in shapes {
        let variants = shape.variants();
        let with_tails = |one| tails.iter().map(move |tail| (one, *tail));
        let cases: Vec<_> = variants.iter().flat_map(with_tails).collect();
        let before = store.placed();
        let results = join_all(cases.iter().map(|(one, tail)| attempt(store, one, *tail))).await;
        for ((variant, (tail, _)), result) in cases.iter().zip(results) {
            if let Err(why) = result {
                let start = &variant.bytes[..variant.bytes.len().min(200)];
                let (bytes, tail) = (start.escape_ascii(), tail.escape_ascii());
                wrong.push(format!("\"{bytes}\" before \"{tail}\": {why}"));
            }
        }
        let expected: u64 = cases.iter().map(|(variant, _)| variant.places).sum();
        let placed = store.placed() - before;
        if placed != expected {
            let (line, headers) = (&shape.line, shape.headers.escape_ascii());
            wrong.push(format!("{line} {headers}: {placed} orders were placed, not {expected}"));
        }
    }
    wrong
}

fn verdict(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn requests_to_the_api_get_their_answers() {
    for tls in [false, true] {
        let store = OpenStore::open(tls).await;
        verdict(&try_all(&store, &api_requests::shapes()).await);
    }
}

#[tokio::test]
async fn orders_are_placed_exactly_when_the_answer_is_2xx() {
    for tls in [false, true] {
        let store = OpenStore::open(tls).await;
        verdict(&try_all(&store, &orders::shapes()).await);
    }
}

#[tokio::test]
async fn malformed_requests_get_their_errors_and_place_nothing() {
    for tls in [false, true] {
        let store = OpenStore::open(tls).await;
        verdict(&try_all(&store, &malformed::shapes()).await);
    }
}

#[test]
fn the_table_has_at_least_120_shapes() {
    let shapes = [api_requests::shapes(), orders::shapes(), malformed::shapes()].concat();
    assert!(120 <= shapes.len(), "{}", shapes.len());
}

/// A client that closes its side in the middle of a request gets an answer, and no order is placed.
#[tokio::test]
async fn a_request_that_is_cut_off_gets_an_answer() {
    let whole = orders::ORDER.replace("\r\n\r\n", "\r\nX-Odd: \r\n\r\n");
    let chunked =
        "POST /orders HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n";
    for tls in [false, true] {
        let store = OpenStore::open(tls).await;
        for request in [orders::ORDER, whole.as_str(), chunked] {
            for cut in [4, 30, request.len() - 5, request.len() - 1] {
                let mut customer = Customer::new(&store).await;
                customer.send(&request.as_bytes()[..cut]).await;
                customer.0.get_mut().shutdown().await.unwrap();
                let told = customer.hear(false).await;
                let is_400 = told.as_ref().is_ok_and(|told| told.status == 400);
                assert!(is_400, "{:?}: {told:?}", &request[..cut]);
                customer.hear_the_end().await.unwrap();
            }
        }
        assert_eq!(store.placed(), 0);
    }
}

/// Kind: a client that speaks the wrong protocol and is not told which one is right.
#[tokio::test]
async fn a_request_without_tls_is_told_to_use_https() {
    let store = OpenStore::open(true).await;
    for request in [NEXT, orders::ORDER.as_bytes(), b"\r\n\r\n\r\n\r\n"] {
        let stream = TcpStream::connect(store.address).await.unwrap();
        let mut customer = Customer(BufReader::new(MaybeTlsStream::Plain(stream)));
        customer.send(request).await;
        let told = customer.hear(false).await.unwrap();
        assert!(told.status == 400 && told.body.contains("use https://"), "{told:?}");
        customer.hear_the_end().await.unwrap();
    }
    assert_eq!(store.placed(), 0);
}
