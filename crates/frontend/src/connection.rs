//! One public connection: who reads it, and when that changes.
//!
//! Usually a server of HTTP does, and the API answers. In an overload, when a connection is between
//! two requests, it is taken from that server and waits on the [`Doorstep`]: there a plain order is
//! refused by its bytes alone, with an answer that is ready, and costs half as much. The first that
//! is let in, or is anything else, gets a server of its own again. So a pile of connections costs
//! little memory, too.

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

use crate::api::Api;
use crate::limits;
use crate::plain;
use crate::step::Step;

/// As much is read at a time on the doorstep: a dozen orders.
const GLANCE_BYTES: usize = 2_048;

/// Serves one connection to its end; after `stop`, to the end of the request that is at work.
pub(crate) async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    api: Api,
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
            match Doorstep::new(io.stream).wait(&api, client, &stop).await {
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
    api: &Api,
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
    // Nothing has come since it was idle, or it would not be.
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
    fn new(stream: TcpStream) -> Self {
        let (ahead, out) = (Vec::new(), Vec::new());
        Self { stream, ahead, out, gone: 0, stirred: true, reads: true, ticket: None }
    }

    /// Until something comes that is for those inside: the stream, and what came. None: it is over.
    async fn wait(
        mut self,
        api: &Api,
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
    fn poll(&mut self, cx: &mut Context<'_>, api: &Api, client: Option<IpAddr>) -> Poll<bool> {
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
