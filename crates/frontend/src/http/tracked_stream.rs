//! The tracked stream: a connection as hyper sees it, one request at a time, each with a valid
//! head.
//!
//! hyper reads ahead, and those bytes are hard to recover. So hyper is given the bytes of one
//! request, and those of the next one only when it asks for another head:
//!
//! * a head that [`head::parse`] rejects never reaches hyper. To hyper the connection ends there,
//!   and [`TrackedStream::end`] has the answer;
//! * between two requests hyper holds no byte, so the connection can be taken from it;
//! * while the client does not read an answer, the next request is not read: at most one answer
//!   waits to be sent, and at most [`limits::SEND_TIMEOUT`] without progress.
//!
//! [`Framing`] decides where a request ends. This is its shell.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use wire::tls::stream::MaybeTlsStream;

use crate::http::framing::Framing;
use crate::http::head::{self, HeadParse, Rejection};
use crate::http::phase::RequestPhase;
use crate::http::send_timer::SendTimer;
use crate::limits;

/// The size of one read, in bytes: more than most requests have.
const READ_BYTES: usize = 8 * 1024;

/// A buffer that has grown beyond this, in bytes, is not kept: there are many connections.
const KEPT_BYTES: usize = 1_024;

/// The longest answer whose parts are joined before they are sent, in bytes.
const JOINED_BYTES_MAX: usize = 1_024;

/// Why no request follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client has closed its side.
    Closed,
    /// No request has arrived within the idle time.
    Idle,
    /// The bytes are no valid request.
    Rejected(Rejection),
}

/// The stream, the bytes read from it, and the position in its requests.
#[derive(Debug)]
pub(crate) struct TrackedStream {
    pub(crate) stream: MaybeTlsStream,
    /// Bytes that have arrived and were not given to hyper.
    pub(crate) unread: Vec<u8>,
    pub(crate) end: Option<End>,
    pub(crate) phase: Arc<RequestPhase>,
    /// This many bytes of `unread` belong to the request that hyper reads.
    granted: usize,
    /// The part of its body that has not arrived.
    body: Framing,
    /// This many bytes of `unread` were parsed without finding a whole head.
    checked: usize,
    patience: Patience,
    pub(crate) sending: SendTimer,
    /// Woken when the client has read its answers; until then nothing is read.
    reader: Option<Waker>,
}

impl TrackedStream {
    /// `unread`: bytes that have been read from the stream already. `idle`: how long the next
    /// request is awaited.
    pub(crate) fn new(stream: MaybeTlsStream, unread: Vec<u8>, idle: Duration) -> Self {
        Self {
            stream,
            unread,
            end: None,
            phase: Arc::new(RequestPhase::new()),
            granted: 0,
            body: Framing::of_length(0),
            checked: 0,
            patience: Patience::new(idle),
            sending: SendTimer::default(),
            reader: None,
        }
    }

    /// Waits for the head of the next request. False: none follows, and `end` says why.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.end.is_some() {
                return Poll::Ready(Ok(false));
            }
            if self.sending.is_stalled() {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            match self.parse() {
                HeadParse::Incomplete => {}
                HeadParse::Head { length, body } => {
                    (self.granted, self.body, self.checked) = (length, body, 0);
                    self.patience.ends();
                    self.phase.note_arrived();
                    self.phase.begun(false);
                    return Poll::Ready(Ok(true));
                }
                HeadParse::Rejected(rejection) => {
                    self.end = Some(End::Rejected(rejection));
                    continue;
                }
            }
            let begun = !self.unread.is_empty();
            self.phase.begun(begun);
            self.end = match self.fill(cx)? {
                Poll::Ready(0) if begun => Some(End::Rejected(head::CUT_OFF)),
                Poll::Ready(0) => Some(End::Closed),
                Poll::Ready(_) => continue,
                Poll::Pending => match ready!(self.patience.poll(begun, cx)) {
                    () if begun => Some(End::Rejected(head::TOO_SLOW)),
                    () => Some(End::Idle),
                },
            };
        }
    }

    /// Parses the head, but not again for each byte of a head that arrives byte by byte.
    fn parse(&mut self) -> HeadParse {
        if self.checked == 0 {
            // Blank lines before a request are ignored (RFC 9112, section 2.2).
            let blank = |bytes: &[u8]| match bytes {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => 0,
            };
            let mut lines = 0;
            while let more @ 1.. = blank(&self.unread[lines..]) {
                lines += more;
            }
            drop_first(&mut self.unread, lines);
            if matches!(self.unread[..], [] | [b'\r']) {
                return HeadParse::Incomplete;
            }
        }
        let seen = self.checked;
        let all = self.unread.len();
        // A first line beyond the limit is answered at once.
        let is_long = limits::URI_BYTES_MAX < all && !self.unread.contains(&b'\n');
        let is_news =
            seen == 0 || 2 * seen <= all || is_long || self.unread[seen..].contains(&b'\n');
        self.checked = all;
        if is_news { head::parse(&self.unread) } else { HeadParse::Incomplete }
    }

    /// Reads the available part of the body, so that an answer that does not depend on the body
    /// need not wait for it.
    fn take_body(&mut self, cx: &mut Context<'_>) {
        loop {
            self.granted += self.body.advance(&self.unread[self.granted..]);
            let wants = !self.body.is_complete() && self.unread.len() < READ_BYTES;
            // An end, or an error, shows again at the next read.
            if !wants || !matches!(self.fill(cx), Poll::Ready(Ok(1..))) {
                return;
            }
        }
    }

    /// Reads more bytes; 0: the stream has ended.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        self.unread.extend_from_slice(room.filled());
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Passes the result of a send on, and wakes the reader if no byte waits any more.
    fn sent(
        &mut self,
        sent: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let sent = self.sending.check(sent, cx);
        if !self.sending.is_stalled()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        sent
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.granted += this.body.advance(&this.unread[this.granted..]);
            if 0 < this.granted {
                let count = this.granted.min(buf.remaining());
                buf.put_slice(&this.unread[..count]);
                drop_first(&mut this.unread, count);
                this.granted -= count;
                this.phase.whole(this.granted == 0 && this.body.is_complete());
                return Poll::Ready(Ok(()));
            }
            if this.body.is_complete() {
                if !ready!(this.poll_head(cx))? {
                    return Poll::Ready(Ok(()));
                }
                this.take_body(cx);
            } else if this.body.is_malformed() || ready!(this.fill(cx))? == 0 {
                // hyper tells the API that the body is cut off.
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(sent, cx)
    }

    /// Joins the head and the body of a short answer: one `send` costs less than a `writev` of two
    /// parts. If hyper joined them, each connection would keep a buffer of its longest answer.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut joined = [0; JOINED_BYTES_MAX];
        let length = bufs.iter().map(|part| part.len()).sum();
        let sent = match joined.get_mut(..length) {
            Some(mut rest) => {
                for part in bufs {
                    let (here, after) = rest.split_at_mut(part.len());
                    here.copy_from_slice(part);
                    rest = after;
                }
                Pin::new(&mut self.stream).poll_write(cx, &joined[..length])
            }
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.sent(sent, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this when it holds no more bytes to send.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0);
        ready!(self.sent(sent, cx))?;
        self.phase.note_flushed();
        Poll::Ready(Ok(()))
    }

    /// hyper is done. [`linger`](crate::http::linger) closes the connection, after a last answer.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phase.closes();
        Poll::Ready(Ok(()))
    }
}

/// Time-outs for the next request, and for the rest of a head. Each connection has one timer, which
/// moves only when it fires too early or would fire too late: most requests leave it alone.
#[derive(Debug)]
struct Patience {
    /// The time-out for the rest of a head.
    within: Duration,
    /// The time-out for the next request.
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The deadline of the current wait, and whether it is for the rest of a head.
    waits: Option<(Instant, bool)>,
}

impl Patience {
    fn new(idle: Duration) -> Self {
        Self { within: limits::HEADER_TIMEOUT, idle, timer: None, waits: None }
    }

    fn ends(&mut self) {
        self.waits = None;
    }

    /// Ready: the time-out has ended. `begun`: a part of a head has arrived.
    fn poll(&mut self, begun: bool, cx: &mut Context<'_>) -> Poll<()> {
        let until = match self.waits {
            Some((until, same)) if same == begun => until,
            _ => Instant::now() + if begun { self.within } else { self.idle },
        };
        self.waits = Some((until, begun));
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if until < timer.deadline() {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if until <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

/// Drops the first `count` bytes; thousands of connections keep no large buffers.
pub(crate) fn drop_first(bytes: &mut Vec<u8>, count: usize) {
    if count < bytes.len() {
        bytes.drain(..count);
    } else if bytes.capacity() <= KEPT_BYTES {
        bytes.clear();
    } else {
        *bytes = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const ORDER: &[u8] = b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\n{}";
    const QUERY: &[u8] = b"GET /stocks HTTP/1.1\r\nHost: shop\r\n\r\n";
    const CHUNKS: &[u8] =
        b"POST /orders HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n\
          2\r\n{}\r\n0\r\n\r\n";

    /// A stream, and its other end.
    async fn pair() -> (TrackedStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let stream = MaybeTlsStream::Plain(stream);
        (TrackedStream::new(stream, Vec::new(), Duration::from_mins(1)), client)
    }

    async fn read(tracked: &mut TrackedStream) -> Vec<u8> {
        let mut room = vec![0; 2 * READ_BYTES];
        let count = tracked.read(&mut room).await.unwrap();
        room.truncate(count);
        room
    }

    #[tokio::test]
    async fn hyper_gets_one_request_at_a_time_wherever_reads_split_it() {
        let (mut tracked, mut client) = pair().await;
        client.write_all(&[ORDER, CHUNKS, b"\r\n\n", QUERY, ORDER].concat()).await.unwrap();
        client.shutdown().await.unwrap();
        for request in [ORDER, CHUNKS, QUERY, ORDER] {
            assert_eq!(read(&mut tracked).await, request);
            assert!(tracked.phase.is_whole());
        }
        assert_eq!(read(&mut tracked).await, b"");
        assert_eq!(tracked.end, Some(End::Closed));
        let (mut tracked, mut client) = pair().await;
        let sending = tokio::spawn(async move {
            for byte in [ORDER, b"\r\n", CHUNKS, QUERY].concat() {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        });
        for request in [ORDER, CHUNKS, QUERY] {
            let mut came = Vec::new();
            while came.is_empty() || !tracked.phase.is_whole() {
                came.extend(read(&mut tracked).await);
                assert!(request.starts_with(&came));
            }
            assert_eq!(came, request);
        }
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn an_invalid_request_ends_the_stream_after_the_answers_before_it() {
        let cut_off = &ORDER[..20];
        for (bytes, status) in [
            (b"\x16\x03\x01\x02\x00\x01".as_slice(), 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (cut_off, 400),
        ] {
            let (mut tracked, mut client) = pair().await;
            client.write_all(&[QUERY, bytes].concat()).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(read(&mut tracked).await, QUERY);
            for _ in 0..2 {
                assert_eq!(read(&mut tracked).await, b"");
            }
            let Some(End::Rejected(rejection)) = tracked.end else { panic!("{:?}", tracked.end) };
            assert_eq!(rejection.status.as_u16(), status, "{bytes:?}");
        }
    }

    /// Kind: a head that is too long already, and is awaited because little of it is new.
    #[tokio::test]
    async fn a_first_line_that_is_too_long_is_rejected_at_once_wherever_reads_split_it() {
        let line = [b"GET /".as_slice(), &[b'a'; 2_100]].concat();
        for middle in [10, 1_500, 2_048] {
            let (mut tracked, mut client) = pair().await;
            let (one, two) = line.split_at(middle);
            client.write_all(one).await.unwrap();
            let mut room = [0; 1];
            assert!(futures::poll!(std::pin::pin!(tracked.read(&mut room))).is_pending());
            client.write_all(two).await.unwrap();
            assert_eq!(read(&mut tracked).await, b"");
            let Some(End::Rejected(rejection)) = tracked.end else { panic!("{:?}", tracked.end) };
            assert_eq!(rejection.status.as_u16(), 414, "{middle}");
        }
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_cut_off() {
        let head = &CHUNKS[..CHUNKS.len() - 12];
        for tail in [b"2\r\n{}x\r\n0\r\n\r\n".as_slice(), b"2\r\n{"] {
            let (mut tracked, mut client) = pair().await;
            client.write_all(&[head, tail].concat()).await.unwrap();
            client.shutdown().await.unwrap();
            assert!(read(&mut tracked).await.starts_with(head));
            assert!(!tracked.phase.is_whole());
            assert_eq!(read(&mut tracked).await, b"", "hyper sees the end of the stream");
            assert!(!tracked.phase.is_whole());
        }
    }

    #[tokio::test]
    async fn a_slow_head_is_answered_and_an_idle_connection_is_not() {
        let soon = Duration::from_millis(20);
        let (mut tracked, mut client) = pair().await;
        tracked.patience.within = soon;
        client.write_all(&ORDER[..30]).await.unwrap();
        assert_eq!(read(&mut tracked).await, b"");
        assert_eq!(tracked.end, Some(End::Rejected(head::TOO_SLOW)));
        let (mut tracked, mut client) = pair().await;
        tracked.patience.idle = soon;
        client.write_all(b"\r\n").await.unwrap();
        assert_eq!(read(&mut tracked).await, b"");
        assert_eq!(tracked.end, Some(End::Idle));
    }

    /// Kind: a timer that is left alone, and fires for an earlier wait.
    #[tokio::test]
    async fn each_wait_has_its_whole_time_and_a_shorter_wait_is_not_prolonged() {
        let (idle, within) = (Duration::from_millis(40), Duration::from_millis(20));
        let mut patience = Patience::new(idle);
        let poll = |patience: &mut Patience, begun| {
            std::future::poll_fn(|cx| Poll::Ready(patience.poll(begun, cx).is_ready()))
                .now_or_never()
        };
        assert_eq!(poll(&mut patience, false), Some(false));
        // A request arrives and is at work, while the timer runs.
        patience.ends();
        tokio::time::sleep(idle / 2).await;
        let began = Instant::now();
        std::future::poll_fn(|cx| patience.poll(false, cx)).await;
        assert!(idle <= began.elapsed(), "{:?}", began.elapsed());
        let mut patience = Patience { within, ..Patience::new(Duration::from_hours(1)) };
        assert_eq!(poll(&mut patience, false), Some(false));
        let slow_head = std::future::poll_fn(|cx| patience.poll(true, cx));
        tokio::time::timeout(Duration::from_secs(20), slow_head).await.unwrap();
    }

    /// Kind: a byte that is lost or doubled where an answer is as long as the buffer that joins it.
    #[tokio::test]
    async fn the_parts_of_an_answer_arrive_whole_and_in_order() {
        for (head, body) in [(0, 1), (9, 0), (200, 60), (600, 424), (600, 425), (600, 9_000)] {
            let (mut tracked, mut client) = pair().await;
            let answer: Vec<u8> = (0..=250).cycle().take(head + body).collect();
            let mut sent = 0;
            while sent < answer.len() {
                let (head, body) = answer.split_at(head.max(sent));
                let parts =
                    [IoSlice::new(head.get(sent..).unwrap_or_default()), IoSlice::new(body)];
                sent += tracked.write_vectored(&parts).await.unwrap();
            }
            drop(tracked);
            let mut arrived = Vec::new();
            client.read_to_end(&mut arrived).await.unwrap();
            assert_eq!(arrived, answer, "{head} and {body} bytes");
        }
    }
}
