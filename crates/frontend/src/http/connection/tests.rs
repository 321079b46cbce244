//! A connection and its client, over a socket.

mod sending;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::connections::{Connections, Places};

use super::*;
use crate::access_log::AccessLog;
use crate::answer;
use crate::client_address::{ClientAddress, Gateways};
use crate::http::handler::Written;
use crate::http::head::Rejection;
use crate::http::parse::{Content, PlainRequest};
use crate::http::scheduler::ReadScheduler;
use crate::remembered_key::RememberedKey;

const IDLE: Duration = Duration::from_secs(1);

/// The time that may pass between an answer and the moment at which a test sees it.
const MARGIN: Duration = Duration::from_millis(200);

const ORDER: &str = "POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\n{}";
/// A query that hyper reads.
const QUERY: &str = "GET /stocks?limit=1 HTTP/1.1\r\nHost: shop\r\n\r\n";
/// A query of one product.
const ONE: &str = "GET /stocks/bear HTTP/1.1\r\nHost: shop\r\n\r\n";

/// Requests read by hyper are answered with their body; the fast path places or rejects orders.
#[derive(Clone)]
struct TestShop(Arc<State>);

struct State {
    overload: AtomicBool,
    room: AtomicBool,
    drains: AtomicBool,
    access_log: AccessLog,
    scheduler: ReadScheduler,
    /// hyper has read the head of a request.
    comes: Notify,
    /// The shortest body of an answer, in bytes.
    body: AtomicUsize,
    /// The number of answers.
    answered: AtomicUsize,
    /// The number of times that a reader has begun with the connection.
    begun: AtomicUsize,
}

impl TestShop {
    fn overload(&self, there_is: bool) {
        self.0.overload.store(there_is, Ordering::Relaxed);
    }

    fn room(&self, there_is: bool) {
        self.0.room.store(there_is, Ordering::Relaxed);
    }

    fn respond(&self, mut body: Vec<u8>) -> Answer {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
        let length = body.len().max(self.0.body.load(Ordering::Relaxed));
        body.resize(length, b' ');
        Response::new(body.into())
    }
}

impl Handler for TestShop {
    fn is_overloaded(&self) -> bool {
        self.0.overload.load(Ordering::Relaxed)
    }

    fn should_reject(&self) -> bool {
        self.is_overloaded() && !self.0.room.load(Ordering::Relaxed)
    }

    fn read_scheduler(&self) -> &ReadScheduler {
        &self.0.scheduler
    }

    fn write_overloaded(&self, out: &mut Vec<u8>, _: Option<&str>) -> Written {
        out.extend_from_slice(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno");
        Written { id: 0..0, bytes: 2 }
    }

    fn is_draining(&self) -> bool {
        self.0.drains.load(Ordering::Relaxed)
    }

    fn idle(&self) -> Duration {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        IDLE
    }

    fn access_log(&self) -> &AccessLog {
        &self.0.access_log
    }

    fn write(&self, out: &mut Vec<u8>, answer: &Answer, last: bool) {
        answer::write(out, answer, "now", last);
    }

    fn write_rejection(&self, out: &mut Vec<u8>, rejection: &Rejection) -> Answer {
        let answer = answer::error(rejection.status, "");
        self.write(out, &answer, true);
        answer
    }

    fn client_of(&self, connection: ClientAddress, _: &HeaderMap) -> ClientAddress {
        connection
    }

    fn client_of_plain(&self, connection: ClientAddress, _: &PlainRequest<'_>) -> ClientAddress {
        connection
    }

    async fn answer_plain(
        &self,
        request: &PlainRequest<'_>,
        _: &mut RememberedKey,
        _: ClientAddress,
    ) -> Answer {
        tokio::task::yield_now().await;
        match request.content {
            Content::Order { key: None, body: b"{}" } => self.respond(b"placed".to_vec()),
            Content::Query("/stocks/bear") => self.respond(b"shown".to_vec()),
            content => panic!("{content:?}"),
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        _: ClientAddress,
        phase: &RequestPhase,
    ) -> Answer {
        self.0.comes.notify_one();
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return answer::error(StatusCode::BAD_REQUEST, "a part is missing");
        };
        match head.method == Method::POST {
            true => phase.note_read(),
            // A query must be looked up.
            false => tokio::task::yield_now().await,
        }
        self.respond(body.to_bytes().into())
    }
}

struct TestClient(TcpStream);

impl TestClient {
    /// Sends bytes and returns this many answers: statuses and bodies.
    async fn send(&mut self, bytes: &str, answers: usize) -> Vec<String> {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        for _ in 0..answers {
            told.push(self.hear().await);
        }
        told
    }

    async fn hear(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(self.0.read_u8().await.unwrap()));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).await.unwrap();
        format!("{} {}", &head[9..12], String::from_utf8(body).unwrap())
    }

    /// Reads an answer with this body, which must be the last of the connection.
    async fn hear_the_last(&mut self, body: &str) {
        let mut told = String::new();
        self.0.read_to_string(&mut told).await.unwrap();
        assert!(told.contains("\r\nconnection: close\r\n"), "{told}");
        assert!(told.ends_with(&format!("\r\n\r\n{body}")), "{told}");
    }
}

/// A connection that is served, and its other end.
struct Visit {
    shop: TestShop,
    customer: TestClient,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    /// `Some` until the connection is served.
    stream: Option<(TcpStream, SocketAddr)>,
}

impl Visit {
    /// Serves the connection.
    fn begin(mut self) -> Self {
        let (shop, stop) = (self.shop.clone(), self.stop.clone());
        if let Some((stream, from)) = self.stream.take() {
            self.served = tokio::spawn(async move {
                let stream = MaybeTlsStream::Plain(stream);
                let at_work = serve(stream, client(from, &stop), shop.clone());
                tokio::select! {
                    () = at_work => {}
                    () = shop.read_scheduler().run() => {}
                }
            });
        }
        self
    }
}

/// A client that holds a place.
fn client(from: SocketAddr, stop: &CancellationToken) -> Client {
    let places = Connections::new(Places::new(1, 0));
    let place = places.open(from.ip(), false, stop).unwrap();
    let address = ClientAddress::of_connection(from.ip(), &Gateways::default());
    Client { address, place }
}

/// Serves a connection. On a runtime with one thread, the serving task runs to its next wait before
/// the client runs: so a test knows which reader reads the next bytes.
async fn visit() -> Visit {
    arrive(None).await.begin()
}

/// A connection that is not served yet. `buffer`: the size of the system's buffers, in bytes.
async fn arrive(buffer: Option<u32>) -> Visit {
    let (overload, room) = (AtomicBool::new(false), AtomicBool::new(false));
    let (scheduler, comes) = (ReadScheduler::new(), Notify::new());
    let [body, answered, begun] = [0; 3].map(AtomicUsize::new);
    let (drains, access_log) = (AtomicBool::new(false), AccessLog::new(false));
    let state =
        State { overload, room, drains, access_log, scheduler, comes, body, answered, begun };
    let shop = TestShop(Arc::new(state));
    let [ours, theirs] = [TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap()];
    if let Some(bytes) = buffer {
        ours.set_send_buffer_size(bytes).unwrap();
        theirs.set_recv_buffer_size(bytes).unwrap();
    }
    ours.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = ours.listen(1).unwrap();
    let customer = TestClient(theirs.connect(listener.local_addr().unwrap()).await.unwrap());
    let stream = Some(listener.accept().await.unwrap());
    let (stop, served) = (CancellationToken::new(), tokio::spawn(async {}));
    Visit { shop, customer, stop, served, stream }
}

const PLACED: &str = "200 placed";
const INSIDE: &str = "200 {}";
const ANSWERED: &str = "200 shown";
const SHOWN: &str = "200 ";
const NO: &str = "503 no";

#[tokio::test]
async fn the_fast_path_serves_plain_requests_only_and_loses_no_bytes() {
    let Visit { mut customer, stop, served, .. } = visit().await;
    assert_eq!(customer.send(ORDER, 1).await, [PLACED]);
    assert_eq!(customer.send(&ORDER.repeat(3), 3).await, [PLACED; 3]);
    // A query of one product is served, too, among orders and alone.
    assert_eq!(customer.send(&[ONE, ORDER, ONE].concat(), 3).await, [ANSWERED, PLACED, ANSWERED]);
    // An order that arrives in parts is awaited.
    for middle in [1, 22, 30, ORDER.len() - 1] {
        let (one, two) = ORDER.split_at(middle);
        assert_eq!(customer.send(&[ORDER, one].concat(), 1).await, [PLACED]);
        tokio::task::yield_now().await;
        assert_eq!(customer.send(&[two, ORDER].concat(), 2).await, [PLACED; 2]);
    }
    // A query among orders goes to hyper, and so do the bytes that follow it, in order.
    let mixed = [ORDER, QUERY, ORDER].concat();
    assert_eq!(customer.send(&mixed, 3).await, [PLACED, SHOWN, INSIDE]);
    assert_eq!(customer.send(QUERY, 1).await, [SHOWN]);
    // After four orders in a row the connection counts as one that only brings orders.
    for _ in 0..4 {
        assert_eq!(customer.send(ORDER, 1).await, [INSIDE]);
    }
    assert_eq!(customer.send(ORDER, 1).await, [PLACED]);
    stop.cancel();
    served.await.unwrap();
    assert_eq!(customer.0.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
}

#[tokio::test]
async fn under_overload_only_plain_orders_are_rejected() {
    let Visit { shop, mut customer, stop, served, .. } = visit().await;
    assert_eq!(customer.send(&[QUERY, ORDER].concat(), 2).await, [SHOWN, INSIDE]);
    shop.overload(true);
    assert_eq!(customer.send(ORDER, 1).await, [INSIDE], "hyper had the connection already");
    assert_eq!(customer.send(ORDER, 1).await, [NO]);
    assert_eq!(customer.send(&ORDER.repeat(3), 3).await, [NO; 3]);
    let mixed = [ONE, ORDER, ONE].concat();
    assert_eq!(customer.send(&mixed, 3).await, [ANSWERED, NO, ANSWERED], "queries are answered");
    let mixed = [ORDER, QUERY, ORDER].concat();
    assert_eq!(customer.send(&mixed, 3).await, [NO, SHOWN, INSIDE]);
    assert_eq!(customer.send(ORDER, 1).await, [NO], "the connection was idle after an order");
    let (one, two) = ORDER.split_at(30);
    assert_eq!(customer.send(one, 0).await, [""; 0]);
    tokio::task::yield_now().await;
    assert_eq!(customer.send(two, 1).await, [NO]);
    shop.room(true);
    assert_eq!(customer.send(ORDER, 1).await, [PLACED], "the limit is not reached");
    shop.room(false);
    assert_eq!(customer.send(ORDER, 1).await, [NO]);
    shop.overload(false);
    assert_eq!(customer.send(&[ORDER, QUERY].concat(), 2).await, [PLACED, SHOWN]);
    stop.cancel();
    served.await.unwrap();
}

/// Kind: a connection that two readers hand to each other forever, so that no other has its turn.
#[tokio::test]
async fn under_overload_one_reader_waits_for_the_rest_of_a_request() {
    let post = "POST /orders HTTP/1.0\r\n";
    for part in ["G", "GET /sto", "\r", post, "PUT / HTTP/1.1\r\nHost: a\r\n"] {
        for first in ["", QUERY, ORDER] {
            let Visit { shop, mut customer, .. } = visit().await;
            shop.overload(true);
            customer.send(first, usize::from(!first.is_empty())).await;
            customer.send(part, 0).await;
            // The connection is the only other task: it comes to rest after a few turns.
            for _ in 0..32 {
                tokio::task::yield_now().await;
            }
            let begun = shop.0.begun.load(Ordering::Relaxed);
            assert!(begun <= 8, "{part:?} after {first:?} changed hands {begun} times");
        }
    }
}

#[tokio::test]
async fn bytes_behind_the_last_order_that_hyper_reads_are_not_lost() {
    for overload in [false, true] {
        let Visit { shop, mut customer, stop, served, .. } = visit().await;
        let almost = if overload { 0 } else { 3 };
        let all = ORDER.len();
        for (with, rest, last) in
            [(QUERY, "", SHOWN), (QUERY, "", SHOWN), (&ORDER[..all - 1], &ORDER[all - 1..], INSIDE)]
        {
            assert_eq!(customer.send(QUERY, 1).await, [SHOWN]);
            assert_eq!(customer.send(&ORDER.repeat(almost), almost).await, vec![INSIDE; almost]);
            shop.overload(overload);
            let both = [ORDER, with].concat();
            assert_eq!(customer.send(&both, 1).await, [INSIDE]);
            tokio::task::yield_now().await;
            assert_eq!(customer.send(rest, 1).await, [last]);
            shop.overload(false);
            assert_eq!(customer.send(QUERY, 1).await, [SHOWN]);
        }
        stop.cancel();
        served.await.unwrap();
    }
}

#[tokio::test]
async fn a_partial_order_goes_to_hyper_when_the_rest_is_slow_or_missing() {
    let Visit { shop, mut customer, .. } = visit().await;
    let (one, two) = ORDER.split_at(ORDER.len() - 1);
    assert_eq!(customer.send(one, 0).await, [""; 0]);
    shop.0.comes.notified().await;
    assert_eq!(customer.send(two, 1).await, [INSIDE]);
    let Visit { mut customer, .. } = visit().await;
    customer.0.write_all(one.as_bytes()).await.unwrap();
    customer.0.shutdown().await.unwrap();
    assert!(customer.hear().await.starts_with("400 "));
    // At a stop as well: an order that has begun to arrive is answered.
    let Visit { mut customer, stop, served, .. } = visit().await;
    customer.0.write_all(one.as_bytes()).await.unwrap();
    tokio::task::yield_now().await;
    stop.cancel();
    tokio::task::yield_now().await;
    customer.0.write_all(two.as_bytes()).await.unwrap();
    customer.hear_the_last("{}").await;
    drop(customer);
    served.await.unwrap();
}

#[tokio::test]
async fn a_connection_with_unusual_orders_stays_with_hyper() {
    let Visit { mut customer, .. } = visit().await;
    let odd = ORDER.replace("Host: shop", "Host: shop\r\nTE: trailers");
    for _ in 0..12 {
        assert_eq!(customer.send(&odd, 1).await, [INSIDE]);
    }
    assert_eq!(customer.send(ORDER, 1).await, [INSIDE]);
}

#[tokio::test]
async fn a_connection_closes_when_its_client_asks_for_it() {
    for overload in [false, true] {
        let Visit { shop, mut customer, served, .. } = visit().await;
        shop.overload(overload);
        let last = ORDER.replace("Host: shop", "Host: shop\r\nConnection: close");
        let both = [&last, ORDER].concat();
        customer.0.write_all(both.as_bytes()).await.unwrap();
        customer.hear_the_last("placed").await;
        drop(customer);
        served.await.unwrap();
    }
}

#[tokio::test]
async fn at_a_stop_an_order_in_flight_gets_the_last_answer_of_its_connection() {
    let Visit { mut customer, stop, served, .. } = visit().await;
    customer.0.write_all(ORDER.as_bytes()).await.unwrap();
    // The order is in flight in the next turn, and placed in the one after it.
    tokio::task::yield_now().await;
    stop.cancel();
    customer.hear_the_last("placed").await;
    drop(customer);
    served.await.unwrap();
}

/// The side that sends requests must be the side that closes: a request that is sent just when the
/// connection closes is lost. Checked for both readers.
#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_time() {
    for (request, answer) in [(ORDER, PLACED), (QUERY, SHOWN)] {
        let Visit { mut customer, served, .. } = visit().await;
        for _ in 0..2 {
            assert_eq!(customer.send(request, 1).await, [answer]);
        }
        let began = Instant::now();
        served.await.unwrap();
        assert!(IDLE <= began.elapsed() + MARGIN, "{:?}", began.elapsed());
        assert_eq!(customer.0.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
    }
}

#[tokio::test]
async fn each_answer_of_a_draining_frontend_closes_its_connection() {
    for (request, body) in [(ORDER, "placed"), (QUERY, "")] {
        let Visit { shop, mut customer, served, .. } = visit().await;
        shop.0.drains.store(true, Ordering::Relaxed);
        customer.0.write_all(request.as_bytes()).await.unwrap();
        customer.hear_the_last(body).await;
        drop(customer);
        served.await.unwrap();
    }
}
