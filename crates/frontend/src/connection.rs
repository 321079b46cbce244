//! One public connection: who reads it, and when that changes.
//!
//! It begins on the [`Doorstep`], where plain orders are served without much ado. With the first
//! request that is anything else it comes inside: a server of HTTP reads it, and the API answers.
//! Between two requests it is taken from that server again when it only brings orders, and when
//! there is an overload: then a pile of connections costs little memory, and a refusal little time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use wire::net::TcpStream;
use wire::telemetry::{self, ACCESS};

use crate::answer::Answer;
use crate::doorstep::{Comes, Doorstep};
use crate::limits;
use crate::plain::Order;
use crate::step::{Io, Step};
use crate::turnstile::Turnstile;

/// What a connection leads to: the API.
pub(crate) trait House: Clone {
    /// There is an overload: orders may be refused before they are read.
    fn sheds(&self) -> bool;

    /// There is no room for an order that has come: it gets [`write_refusal`](Self::write_refusal).
    fn turns_away(&self) -> bool;

    /// The line of connections that wait to be read.
    fn turnstile(&self) -> &Turnstile;

    /// Adds an answer as it goes over the wire. `last`: the connection is closed after it.
    fn write(&self, out: &mut Vec<u8>, answer: &Answer, last: bool);

    /// Adds the whole answer to an order for which there is no room, as it goes over the wire.
    fn write_refusal(&self, out: &mut Vec<u8>, order: &Order<'_>);

    /// Answers a plain order.
    fn order(&self, order: &Order<'_>) -> impl Future<Output = Answer> + Send;

    /// Answers any request. `local`: it comes from this machine. `step`: what its connection is
    /// told of it.
    fn answer(
        &self,
        request: Request<Incoming>,
        local: bool,
        step: &Step,
    ) -> impl Future<Output = Answer> + Send;
}

/// Serves one connection to its end; after `stop`, to the end of the request that is at work.
pub(crate) async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    api: impl House,
    access_log: bool,
    stop: CancellationToken,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let client = access_log.then(|| from.ip());
    let (mut stream, mut ahead) = (stream, Bytes::new());
    // Who brings orders inside that are not plain would only be sent back.
    let (mut first, mut comes_out) = (true, true);
    loop {
        let comes = Doorstep::new(stream, ahead).serve(&api, client, &stop);
        let Some(Comes { stream: own, ahead: came, served }) = comes.await else { return };
        comes_out &= served || std::mem::take(&mut first);
        let io = Io { stream: own, ahead: came, step: Arc::new(Step::new()) };
        let idle = inside(io, comes_out, from.ip(), &api, client, &stop);
        let Some(idle) = idle.await else { return };
        (stream, ahead) = (idle.stream, idle.ahead);
    }
}

/// Has it read by a server of HTTP; until it ends, or is idle and better served outside: in an
/// overload, and where it `comes_out`, after some orders in a row.
async fn inside(
    io: Io,
    comes_out: bool,
    from: IpAddr,
    api: &impl House,
    client: Option<IpAddr>,
    stop: &CancellationToken,
) -> Option<Io> {
    let step = io.step.clone();
    let service = service_fn(|request: Request<Incoming>| {
        // It may have come with the one before, whose answer is sent only now.
        step.came();
        let (api, step) = (api.clone(), step.clone());
        async move {
            let line = client.map(|_| request_line(&request));
            let answer = api.answer(request, is_local(from), &step).await;
            if let (Some(client), Some(line)) = (client, line) {
                log(client, &line, answer.status().as_u16());
            }
            step.answered();
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(8 * limits::HEADER_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    let (mut stopping, mut stops) = (pin!(stop.cancelled()), false);
    let idle = poll_fn(|cx| {
        let better = || api.sheds() || (comes_out && step.only_orders());
        loop {
            match Pin::new(&mut connection).poll(cx) {
                // A client that vanishes is no news.
                Poll::Ready(Ok(()) | Err(_)) => return Poll::Ready(false),
                Poll::Pending if !stops && step.is_idle() && better() => return Poll::Ready(true),
                Poll::Pending => {}
            }
            // Only now, for before that it has not looked at what came with it.
            if stops || stopping.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            stops = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    });
    if !idle.await {
        return None;
    }
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    // The answer has left whatever bytes follow its request: those are read next, before the rest.
    io.ahead = match (parts.read_buf, io.ahead) {
        (read, rest) if rest.is_empty() => read,
        (read, rest) => [read, rest].concat().into(),
    };
    Some(io)
}

/// One line of the access log.
pub(crate) fn log(client: IpAddr, line: &str, status: u16) {
    let time = telemetry::access_time(telemetry::since_epoch());
    tracing::info!(target: ACCESS, "{client} - - [{time}] \"{line}\" {status} -");
}

/// `GET /stocks/GameStart HTTP/1.1`, cut where it could spoil the log.
fn request_line(request: &Request<Incoming>) -> String {
    let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
    let target = target.get(..256).unwrap_or(target);
    format!("{} {target} {:?}", request.method(), request.version())
}

fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::{Method, Response, StatusCode};
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    use super::*;
    use crate::answer;

    const ORDER: &str = "POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\n{}";
    const QUERY: &str = "GET /stocks/bear HTTP/1.1\r\nHost: shop\r\n\r\n";

    /// Inside everything is answered with what was sent; outside, orders are placed or refused.
    #[derive(Clone)]
    struct Shop(Arc<State>);

    struct State {
        overload: AtomicBool,
        room: AtomicBool,
        turnstile: Turnstile,
        /// A request has come inside.
        comes: Notify,
    }

    impl Shop {
        fn overload(&self, there_is: bool) {
            self.0.overload.store(there_is, Ordering::Relaxed);
        }

        fn room(&self, there_is: bool) {
            self.0.room.store(there_is, Ordering::Relaxed);
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

        fn write_refusal(&self, out: &mut Vec<u8>, _: &Order<'_>) {
            out.extend_from_slice(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno");
        }

        fn write(&self, out: &mut Vec<u8>, answer: &Answer, last: bool) {
            answer::write(out, answer, "now", last);
        }

        async fn order(&self, order: &Order<'_>) -> Answer {
            assert_eq!((order.key, order.body), (None, b"{}".as_slice()));
            tokio::task::yield_now().await;
            Response::new(Bytes::from_static(b"placed"))
        }

        async fn answer(&self, request: Request<Incoming>, _: bool, step: &Step) -> Answer {
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
            Response::new(body.to_bytes())
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
    }

    /// On a runtime of one thread whoever is served has its turn to the end before its customer
    /// has one: so it is known who reads what comes next.
    async fn visit() -> Visit {
        let (overload, room) = (AtomicBool::new(false), AtomicBool::new(false));
        let (turnstile, comes) = (Turnstile::new(), Notify::new());
        let shop = Shop(Arc::new(State { overload, room, turnstile, comes }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let customer = Customer(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (stream, from) = listener.accept().await.unwrap();
        let (stop, theirs) = (CancellationToken::new(), shop.clone());
        let stopping = stop.clone();
        let served = tokio::spawn(async move {
            let at_work = serve(stream, from, theirs.clone(), false, stopping);
            tokio::select! {
                () = at_work => {}
                () = theirs.turnstile().run() => {}
            }
        });
        Visit { shop, customer, stop, served }
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
        let Visit { shop, mut customer, stop, served } = visit().await;
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

    #[tokio::test]
    async fn what_comes_with_the_last_order_inside_is_not_lost() {
        for overload in [false, true] {
            let Visit { shop, mut customer, stop, served } = visit().await;
            let almost = if overload { 0 } else { 3 };
            let all = ORDER.len();
            for (with, rest, last) in [
                (QUERY, "", SHOWN),
                (QUERY, "", SHOWN),
                (&ORDER[..all - 1], &ORDER[all - 1..], INSIDE),
            ] {
                assert_eq!(customer.send(QUERY, 1).await, [SHOWN]);
                assert_eq!(
                    customer.send(&ORDER.repeat(almost), almost).await,
                    vec![INSIDE; almost]
                );
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
        served.await.unwrap();
    }

    /// Of every request that hyper reads: a query, and an order that is not plain.
    #[tokio::test]
    async fn an_answer_leaves_whatever_bytes_follow_its_request() {
        let odd = ORDER.replace("Host: shop", "Host: shop\r\nTE: trailers");
        let bad = "GET / HTTP/1.1\r\n: no name\r\n\r\n";
        for (request, answer) in [(QUERY, SHOWN), (odd.as_str(), INSIDE)] {
            for tail in ["\r\n", &QUERY[..9], bad, &ORDER[..40]] {
                let Visit { mut customer, .. } = visit().await;
                let bytes = [request, tail].concat();
                assert_eq!(customer.send(&bytes, 1).await, [answer], "before {tail:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_malformed_request_gets_an_answer_before_the_connection_closes() {
        let many = "X: y\r\n".repeat(limits::HEADERS_MAX + 1);
        for (head, status) in [
            (": no name\r\n", "400"),
            (" folded\r\n", "400"),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", "400"),
            (many.as_str(), "431"),
        ] {
            let Visit { mut customer, served, .. } = visit().await;
            let bytes = format!("GET / HTTP/1.1\r\nHost: shop\r\n{head}\r\n");
            assert_eq!(customer.send(&bytes, 1).await, [format!("{status} ")]);
            drop(customer);
            served.await.unwrap();
        }
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
        served.await.unwrap();
    }
}
