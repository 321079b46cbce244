//! A connection and its customer, over a socket.

mod sending;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::connections::{Connections, Places};

use super::*;
use crate::answer;

const IDLE: Duration = Duration::from_secs(1);

/// What may pass between the moment of an answer and the moment when a test sees it.
const MARGIN: Duration = Duration::from_millis(200);

const ORDER: &str = "POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\n{}";
const QUERY: &str = "GET /stocks/bear HTTP/1.1\r\nHost: shop\r\n\r\n";

/// Inside everything is answered with what was sent; outside, orders are placed or refused.
#[derive(Clone)]
struct Shop(Arc<State>);

struct State {
    overload: AtomicBool,
    room: AtomicBool,
    drains: AtomicBool,
    access_log: AccessLog,
    turnstile: Turnstile,
    /// A request has come inside.
    comes: Notify,
    /// So long are answers at least.
    body: AtomicUsize,
    /// How many there were.
    answered: AtomicUsize,
    /// How often a side that reads the connection has begun.
    begun: AtomicUsize,
}

impl Shop {
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

impl House for Shop {
    fn sheds(&self) -> bool {
        self.0.overload.load(Ordering::Relaxed)
    }

    fn turns_away(&self) -> bool {
        self.sheds() && !self.0.room.load(Ordering::Relaxed)
    }

    fn turnstile(&self) -> &Turnstile {
        &self.0.turnstile
    }

    fn write_refusal(&self, out: &mut Vec<u8>, _: &Order<'_>) -> Written {
        out.extend_from_slice(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno");
        Written { id: 0..0, bytes: 2 }
    }

    fn drains(&self) -> bool {
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

    async fn order(&self, order: &Order<'_>) -> Answer {
        assert_eq!((order.key, order.body), (None, b"{}".as_slice()));
        tokio::task::yield_now().await;
        self.respond(b"placed".to_vec())
    }

    async fn answer(&self, request: Request<Incoming>, _: IpAddr, step: &Step) -> Answer {
        self.0.comes.notify_one();
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return answer::error(StatusCode::BAD_REQUEST, "a part is missing");
        };
        match head.method == Method::POST {
            true => step.read(),
            // It has to be looked up.
            false => tokio::task::yield_now().await,
        }
        self.respond(body.to_bytes().into())
    }
}

struct Customer(TcpStream);

impl Customer {
    /// Sends this, and is told so much: statuses and bodies.
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

    /// Is told this, and that it was the last.
    async fn hear_the_last(&mut self, body: &str) {
        let mut told = String::new();
        self.0.read_to_string(&mut told).await.unwrap();
        assert!(told.contains("\r\nconnection: close\r\n"), "{told}");
        assert!(told.ends_with(&format!("\r\n\r\n{body}")), "{told}");
    }
}

/// A connection that is served, and its other end.
struct Visit {
    shop: Shop,
    customer: Customer,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    /// Until it is served.
    stream: Option<(TcpStream, SocketAddr)>,
}

impl Visit {
    /// Serves it.
    fn begin(mut self) -> Self {
        let (shop, stop) = (self.shop.clone(), self.stop.clone());
        if let Some((stream, from)) = self.stream.take() {
            self.served = tokio::spawn(async move {
                let at_work = serve(stream, client(from, &stop), shop.clone());
                tokio::select! {
                    () = at_work => {}
                    () = shop.turnstile().run() => {}
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
    Client { address: from.ip(), place }
}

/// On a runtime of one thread whoever is served has its turn to the end before its customer
/// has one: so it is known who reads what comes next.
async fn visit() -> Visit {
    arrive(None).await.begin()
}

/// One that is not served yet. `buffer`: so many bytes the system is to hold, in each direction.
async fn arrive(buffer: Option<u32>) -> Visit {
    let (overload, room) = (AtomicBool::new(false), AtomicBool::new(false));
    let (turnstile, comes) = (Turnstile::new(), Notify::new());
    let [body, answered, begun] = [0; 3].map(AtomicUsize::new);
    let (drains, access_log) = (AtomicBool::new(false), AccessLog::new(false));
    let state =
        State { overload, room, drains, access_log, turnstile, comes, body, answered, begun };
    let shop = Shop(Arc::new(state));
    let [ours, theirs] = [TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap()];
    if let Some(bytes) = buffer {
        ours.set_send_buffer_size(bytes).unwrap();
        theirs.set_recv_buffer_size(bytes).unwrap();
    }
    ours.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = ours.listen(1).unwrap();
    let customer = Customer(theirs.connect(listener.local_addr().unwrap()).await.unwrap());
    let stream = Some(listener.accept().await.unwrap());
    let (stop, served) = (CancellationToken::new(), tokio::spawn(async {}));
    Visit { shop, customer, stop, served, stream }
}

const PLACED: &str = "200 placed";
const INSIDE: &str = "200 {}";
const SHOWN: &str = "200 ";
const NO: &str = "503 no";

#[tokio::test]
async fn plain_orders_are_placed_outside_and_nothing_else_is_and_nothing_is_lost_on_the_way() {
    let Visit { mut customer, stop, served, .. } = visit().await;
    assert_eq!(customer.send(ORDER, 1).await, [PLACED]);
    assert_eq!(customer.send(&ORDER.repeat(3), 3).await, [PLACED; 3]);
    // What comes in parts is waited for.
    for middle in [1, 22, 30, ORDER.len() - 1] {
        let (one, two) = ORDER.split_at(middle);
        assert_eq!(customer.send(&[ORDER, one].concat(), 1).await, [PLACED]);
        tokio::task::yield_now().await;
        assert_eq!(customer.send(&[two, ORDER].concat(), 2).await, [PLACED; 2]);
    }
    // A query among orders goes inside, and so does what comes with it, in its order.
    let mixed = [ORDER, QUERY, ORDER].concat();
    assert_eq!(customer.send(&mixed, 3).await, [PLACED, SHOWN, INSIDE]);
    assert_eq!(customer.send(QUERY, 1).await, [SHOWN]);
    // After a few orders it is taken for one that brings nothing else.
    for _ in 0..4 {
        assert_eq!(customer.send(ORDER, 1).await, [INSIDE]);
    }
    assert_eq!(customer.send(ORDER, 1).await, [PLACED]);
    stop.cancel();
    served.await.unwrap();
    assert_eq!(customer.0.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
}

#[tokio::test]
async fn in_an_overload_plain_orders_are_refused_and_nothing_else_is() {
    let Visit { shop, mut customer, stop, served, .. } = visit().await;
    assert_eq!(customer.send(&[QUERY, ORDER].concat(), 2).await, [SHOWN, INSIDE]);
    shop.overload(true);
    assert_eq!(customer.send(ORDER, 1).await, [INSIDE], "it was inside already");
    assert_eq!(customer.send(ORDER, 1).await, [NO]);
    assert_eq!(customer.send(&ORDER.repeat(3), 3).await, [NO; 3]);
    let mixed = [ORDER, QUERY, ORDER].concat();
    assert_eq!(customer.send(&mixed, 3).await, [NO, SHOWN, INSIDE]);
    assert_eq!(customer.send(ORDER, 1).await, [NO], "it was idle after an order");
    let (one, two) = ORDER.split_at(30);
    assert_eq!(customer.send(one, 0).await, [""; 0]);
    tokio::task::yield_now().await;
    assert_eq!(customer.send(two, 1).await, [NO]);
    shop.room(true);
    assert_eq!(customer.send(ORDER, 1).await, [PLACED], "there is room for it");
    shop.room(false);
    assert_eq!(customer.send(ORDER, 1).await, [NO]);
    shop.overload(false);
    assert_eq!(customer.send(&[ORDER, QUERY].concat(), 2).await, [PLACED, SHOWN]);
    stop.cancel();
    served.await.unwrap();
}

/// Kind: a connection that two sides hand to each other for ever, so that no other has its turn.
#[tokio::test]
async fn in_an_overload_a_part_of_a_request_is_waited_for_by_one_side() {
    let post = "POST /orders HTTP/1.0\r\n";
    for part in ["G", "GET /sto", "\r", post, "PUT / HTTP/1.1\r\nHost: a\r\n"] {
        for first in ["", QUERY, ORDER] {
            let Visit { shop, mut customer, .. } = visit().await;
            shop.overload(true);
            customer.send(first, usize::from(!first.is_empty())).await;
            customer.send(part, 0).await;
            // The connection is the only other task: it has come to rest after some turns.
            for _ in 0..32 {
                tokio::task::yield_now().await;
            }
            let begun = shop.0.begun.load(Ordering::Relaxed);
            assert!(begun <= 8, "{part:?} after {first:?} changed hands {begun} times");
        }
    }
}

#[tokio::test]
async fn what_comes_with_the_last_order_inside_is_not_lost() {
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
async fn a_part_of_an_order_goes_inside_when_the_rest_takes_long_or_never_comes() {
    let Visit { shop, mut customer, .. } = visit().await;
    let (one, two) = ORDER.split_at(ORDER.len() - 1);
    assert_eq!(customer.send(one, 0).await, [""; 0]);
    shop.0.comes.notified().await;
    assert_eq!(customer.send(two, 1).await, [INSIDE]);
    let Visit { mut customer, .. } = visit().await;
    customer.0.write_all(one.as_bytes()).await.unwrap();
    customer.0.shutdown().await.unwrap();
    assert!(customer.hear().await.starts_with("400 "));
    // At a stop, too: it is answered, for it has begun.
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
async fn who_brings_orders_that_are_not_plain_is_not_sent_back_and_forth() {
    let Visit { mut customer, .. } = visit().await;
    let odd = ORDER.replace("Host: shop", "Host: shop\r\nTE: trailers");
    for _ in 0..12 {
        assert_eq!(customer.send(&odd, 1).await, [INSIDE]);
    }
    assert_eq!(customer.send(ORDER, 1).await, [INSIDE]);
}

#[tokio::test]
async fn who_wants_it_closed_has_it_closed() {
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
async fn one_that_has_its_order_under_way_is_told_how_it_went_and_that_it_was_the_last() {
    let Visit { mut customer, stop, served, .. } = visit().await;
    customer.0.write_all(ORDER.as_bytes()).await.unwrap();
    // The order is under way in the next turn, and placed in the one after it.
    tokio::task::yield_now().await;
    stop.cancel();
    customer.hear_the_last("placed").await;
    drop(customer);
    served.await.unwrap();
}

/// The side that sends requests must be the one that closes: a request that is sent just when a
/// connection closes is lost. Of both ways in which a connection is read.
#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_and_not_for_ever() {
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
async fn each_answer_of_a_frontend_that_is_about_to_close_is_the_last_of_its_connection() {
    for (request, body) in [(ORDER, "placed"), (QUERY, "")] {
        let Visit { shop, mut customer, served, .. } = visit().await;
        shop.0.drains.store(true, Ordering::Relaxed);
        customer.0.write_all(request.as_bytes()).await.unwrap();
        customer.hear_the_last(body).await;
        drop(customer);
        served.await.unwrap();
    }
}
