//! One public connection: who reads it, and when that changes.
//!
//! Usually a server of HTTP does, and the API answers. In an overload, when a connection is between
//! two requests, it is taken from that server and waits on the [`Doorstep`]: there a plain order is
//! refused by its bytes alone, with an answer that is ready. The first that is let in, or is
//! anything else, gets a server of its own again. So a pile of connections costs little memory.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::net::TcpStream;
use wire::telemetry::{self, ACCESS};

use crate::answer::Answer;
use crate::limits;
use crate::plain;
use crate::step::Step;
use crate::turnstile::Turnstile;

/// As much is read at a time on the doorstep: a dozen orders.
const GLANCE_BYTES: usize = 2_048;

/// What a connection leads to: the API.
pub(crate) trait House: Clone {
    /// There is an overload: orders may be refused before they are read.
    fn sheds(&self) -> bool;

    /// There is no room for an order that has come: it gets [`write_refusal`](Self::write_refusal).
    fn turns_away(&self) -> bool;

    /// The line of connections that wait to be read.
    fn turnstile(&self) -> &Turnstile;

    /// Adds the whole answer to an order for which there is no room, as it goes over the wire.
    fn write_refusal(&self, out: &mut Vec<u8>);

    /// Answers one request. `local`: it comes from this machine. `step`: what its connection is
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
    let mut io = Io { stream, ahead: Bytes::new(), step: Arc::new(Step::new()) };
    loop {
        if api.sheds() {
            match Doorstep::new(io).wait(&api, client, &stop).await {
                Some((stream, ahead)) => io = Io { stream, ahead, step: Arc::new(Step::new()) },
                None => return,
            }
        }
        match inside(io, from.ip(), &api, client, &stop).await {
            Some(idle) => io = idle,
            None => return,
        }
    }
}

/// Has it read by a server of HTTP; until it ends, or is idle in an overload.
async fn inside(
    io: Io,
    from: IpAddr,
    api: &impl House,
    client: Option<IpAddr>,
    stop: &CancellationToken,
) -> Option<Io> {
    let step = io.step.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let (api, step) = (api.clone(), step.clone());
        async move {
            let line = client.map(|_| request_line(&request));
            let answer = api.answer(request, is_local(from), &step).await;
            if let (Some(client), Some(line)) = (client, line) {
                log(client, &line, answer.status().as_u16());
            }
            step.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(8 * limits::HEADER_BYTES_MAX)
        .pipeline_flush(true)
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    let (mut stopping, mut stops) = (pin!(stop.cancelled()), false);
    let idle = poll_fn(|cx| {
        if !stops && stopping.as_mut().poll(cx).is_ready() {
            stops = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match Pin::new(&mut connection).poll(cx) {
            // A client that vanishes is no news.
            Poll::Ready(Ok(()) | Err(_)) => Poll::Ready(false),
            Poll::Pending if !stops && step.is_idle() && api.sheds() => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    });
    if !idle.await {
        return None;
    }
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    // Nothing, or it would not be idle.
    io.ahead = parts.read_buf;
    Some(io)
}

/// A stream, behind what was read of it before, of which it is known how far it is.
#[derive(Debug)]
struct Io {
    stream: TcpStream,
    ahead: Bytes,
    step: Arc<Step>,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if before < buf.filled().len() {
                self.step.came();
            }
        } else {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..count]);
            self.ahead.advance(count);
            self.step.came();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.step.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.step.closes();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection that waits outside: plain orders are refused while there is no room for them.
struct Doorstep {
    stream: TcpStream,
    /// What has come and is not refused here.
    ahead: Vec<u8>,
    /// Answers, and how much of them is gone.
    out: Vec<u8>,
    gone: usize,
    /// Something has come since the clock was last looked at.
    stirred: bool,
    /// It may read: nobody has told it yet that there is nothing, or it has passed the turnstile.
    reads: bool,
    ticket: Option<u64>,
}

impl Doorstep {
    fn new(Io { stream, ahead, .. }: Io) -> Self {
        let (ahead, out) = (ahead.into(), Vec::new());
        Self { stream, ahead, out, gone: 0, stirred: true, reads: true, ticket: None }
    }

    /// Until something comes that is for those inside: the stream, and what came. None: it is over.
    async fn wait(
        mut self,
        api: &impl House,
        client: Option<IpAddr>,
        stop: &CancellationToken,
    ) -> Option<(TcpStream, Bytes)> {
        let mut stopping = pin!(stop.cancelled());
        let mut patience = pin!(tokio::time::sleep(limits::HEADER_TIMEOUT));
        let comes_in = poll_fn(|cx| {
            if let Poll::Ready(comes_in) = self.poll(cx, api, client) {
                return Poll::Ready(comes_in);
            }
            if self.gone == self.out.len() && stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            while patience.as_mut().poll(cx).is_ready() {
                if !std::mem::take(&mut self.stirred) {
                    return Poll::Ready(false);
                }
                patience.as_mut().reset(Instant::now() + limits::HEADER_TIMEOUT);
            }
            Poll::Pending
        });
        comes_in.await.then_some((self.stream, self.ahead.into()))
    }

    /// Ready: something has come that is for those inside, or (false) it is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        api: &impl House,
        client: Option<IpAddr>,
    ) -> Poll<bool> {
        loop {
            while self.gone < self.out.len() {
                let sent = Pin::new(&mut self.stream).poll_write(cx, &self.out[self.gone..]);
                match ready!(sent) {
                    Ok(count) if 0 < count => self.gone += count,
                    Ok(_) | Err(_) => return Poll::Ready(false),
                }
            }
            (self.out, self.gone) = (Vec::new(), 0);
            if !self.ahead.is_empty() {
                return Poll::Ready(true);
            }
            if !self.reads && !api.turnstile().pass(&mut self.ticket, cx) {
                return Poll::Pending;
            }
            let mut room = [MaybeUninit::uninit(); GLANCE_BYTES];
            let mut room = ReadBuf::uninit(&mut room);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
            self.reads = read.is_ready();
            if ready!(read).is_err() {
                return Poll::Ready(false);
            }
            let mut came = room.filled();
            if came.is_empty() {
                return Poll::Ready(false);
            }
            self.stirred = true;
            while let Some(length) = plain::order(came)
                && api.turns_away()
            {
                api.write_refusal(&mut self.out);
                if let Some(client) = client {
                    log(client, "POST /orders HTTP/1.1", 503);
                }
                came = &came[length..];
            }
            self.ahead.extend_from_slice(came);
        }
    }
}

/// One line of the access log.
fn log(client: IpAddr, line: &str, status: u16) {
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

    use http::{Method, Response};
    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const ORDER: &str = "POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\n{}";
    const QUERY: &str = "GET /stocks/bear HTTP/1.1\r\nHost: shop\r\n\r\n";

    /// Inside everything is answered 200 with what was sent; outside, 503.
    #[derive(Clone)]
    struct Shop(Arc<(AtomicBool, AtomicBool, Turnstile)>);

    impl Shop {
        fn overload(&self, there_is: bool) {
            self.0.0.store(there_is, Ordering::Relaxed);
        }

        fn room(&self, there_is: bool) {
            self.0.1.store(there_is, Ordering::Relaxed);
        }
    }

    impl House for Shop {
        fn sheds(&self) -> bool {
            self.0.0.load(Ordering::Relaxed)
        }

        fn turns_away(&self) -> bool {
            self.sheds() && !self.0.1.load(Ordering::Relaxed)
        }

        fn turnstile(&self) -> &Turnstile {
            &self.0.2
        }

        fn write_refusal(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno");
        }

        async fn answer(&self, request: Request<Incoming>, _: bool, step: &Step) -> Answer {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            if head.method == Method::POST {
                step.read();
            }
            Response::new(Full::new(body))
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
    }

    /// On a runtime of one thread whoever is served has its turn to the end before its customer
    /// has one: so it is known who reads what comes next.
    #[tokio::test]
    async fn plain_orders_are_refused_outside_and_nothing_else_is_and_nothing_is_lost_on_the_way() {
        let shop =
            Shop(Arc::new((AtomicBool::new(false), AtomicBool::new(false), Turnstile::new())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut customer =
            Customer(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
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
        let (done, shown, no) = ("200 {}", "200 ", "503 no");
        assert_eq!(customer.send(ORDER, 1).await, [done]);
        shop.overload(true);
        assert_eq!(customer.send(ORDER, 1).await, [done], "it was inside already");
        assert_eq!(customer.send(ORDER, 1).await, [no]);
        assert_eq!(customer.send(&ORDER.repeat(3), 3).await, [no; 3]);
        // A query among orders goes inside, and so does what comes with it, in its order.
        let mixed = [ORDER, QUERY, ORDER].concat();
        let told = customer.send(&mixed, 3).await;
        assert_eq!(told, [no, shown, done]);
        assert_eq!(customer.send(ORDER, 1).await, [no], "it was idle after an order");
        // In two parts: the first is none, and is read together with the second.
        let (one, two) = ORDER.split_at(30);
        assert_eq!(customer.send(one, 0).await, [""; 0]);
        tokio::task::yield_now().await;
        assert_eq!(customer.send(two, 1).await, [done]);
        shop.room(true);
        assert_eq!(customer.send(ORDER, 1).await, [done], "there is room for it");
        shop.room(false);
        assert_eq!(customer.send(ORDER, 1).await, [no]);
        shop.overload(false);
        assert_eq!(customer.send(&[ORDER, QUERY].concat(), 2).await, [done, shown]);
        stop.cancel();
        served.await.unwrap();
        assert_eq!(customer.0.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
    }
}
