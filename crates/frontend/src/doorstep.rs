//! Where plain orders are served without coming in.
//!
//! What an order needs of HTTP is its key, its body and where it ends. On the doorstep these are
//! read from its bytes, the order is placed, and the answer is written: a server of HTTP, which
//! can do so much more, takes some 4 us more for that (docs/decisions/0021). Whatever else comes is
//! for those inside. In an overload orders for which there is no room are refused here, with an
//! answer that is ready.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use wire::net::TcpStream;

use crate::access_log::{Answered, RequestLine};
use crate::connection::{Client, House, Written, log};
use crate::plain::{self, Seen};
use crate::send_timer::SendTimer;
use crate::tracked_stream::drop_first;

/// A request that has come in part may take so long to come whole before those inside wait for it,
/// who tell its client when it takes too long.
const PART_MAX: Duration = Duration::from_millis(500);

/// How a connection leaves the doorstep.
pub(crate) enum Leaves {
    /// Something has come that is for those inside.
    Inside(Comes),
    /// It is to be closed behind the answer that was just sent.
    Closes(TcpStream),
    /// It is broken, was idle for long, or is idle at a stop.
    Gone,
}

/// A connection that leaves the doorstep for those inside.
pub(crate) struct Comes {
    pub(crate) stream: TcpStream,
    /// What has come and is not served.
    pub(crate) ahead: Vec<u8>,
    /// It was served meanwhile.
    pub(crate) served: bool,
}

/// A connection that waits outside.
pub(crate) struct Doorstep {
    stream: TcpStream,
    /// What has come and is not served yet.
    ahead: Vec<u8>,
    /// Answers, and how much of them is gone.
    out: Vec<u8>,
    gone: usize,
    /// When the last request began to come, or was served.
    stirred: Instant,
    /// How many orders were.
    served: usize,
    /// It may read: nobody has told it yet that there is nothing, or it has passed the turnstile.
    reads: bool,
    ticket: Option<u64>,
    /// It ends with what is in `out`.
    ends: bool,
    pub(crate) sending: SendTimer,
}

impl Doorstep {
    /// `ahead`: what has been read from the stream already.
    pub(crate) fn new(stream: TcpStream, ahead: Vec<u8>) -> Self {
        let (out, sending) = (Vec::new(), SendTimer::default());
        let (stirred, served, reads, ends) = (Instant::now(), 0, true, false);
        Self { stream, ahead, out, gone: 0, stirred, served, reads, ticket: None, ends, sending }
    }

    /// Until something comes that is for those inside, or it is over.
    pub(crate) async fn serve(mut self, api: &impl House, client: &Client) -> Leaves {
        let stop = client.place.closing();
        let mut stopping = pin!(stop.cancelled());
        let mut patience = pin!(tokio::time::sleep(api.idle()));
        // The clock is set for a request of which a part has come.
        let mut part = false;
        loop {
            let came = poll_fn(|cx| {
                if let Poll::Ready(came) = self.poll(cx, api, client) {
                    return Poll::Ready(came);
                }
                let sent = self.gone == self.out.len();
                if sent && stopping.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(!self.ahead.is_empty() && !client.place.is_evicted());
                }
                if part != (sent && !self.ahead.is_empty()) {
                    part = !part;
                    let patient = if part { PART_MAX } else { api.idle() };
                    patience.as_mut().reset(Instant::now() + patient);
                }
                while patience.as_mut().poll(cx).is_ready() {
                    let ends = self.stirred + api.idle();
                    if part || ends <= Instant::now() {
                        return Poll::Ready(part);
                    }
                    patience.as_mut().reset(ends);
                }
                Poll::Pending
            });
            if !came.await {
                let closes = self.ends && self.gone == self.out.len();
                return if closes { Leaves::Closes(self.stream) } else { Leaves::Gone };
            }
            let Seen::Order(order) = plain::see(&self.ahead) else {
                let Self { stream, ahead, served, .. } = self;
                return Leaves::Inside(Comes { stream, ahead, served: 0 < served });
            };
            client.place.note_request();
            let began = Instant::now();
            let answer = api.order(&order).await;
            self.ends = order.last || stop.is_cancelled() || api.drains();
            api.write(&mut self.out, &answer, self.ends);
            if api.access_log().is_on() {
                log(api, client, &RequestLine::Order, &answer, began);
            }
            let length = order.length;
            self.done(length);
            client.place.note_idle();
        }
    }

    /// The first `length` bytes of what has come are served.
    fn done(&mut self, length: usize) {
        drop_first(&mut self.ahead, length);
        self.stirred = Instant::now();
        self.served += 1;
    }

    /// Ready: something has come that is not refused here, or (false) it is over.
    fn poll(&mut self, cx: &mut Context<'_>, api: &impl House, client: &Client) -> Poll<bool> {
        loop {
            while self.gone < self.out.len() {
                let sent = Pin::new(&mut self.stream).poll_write(cx, &self.out[self.gone..]);
                match ready!(self.sending.check(sent, cx)) {
                    Ok(count) if 0 < count => self.gone += count,
                    Ok(_) | Err(_) => return Poll::Ready(false),
                }
            }
            let gone = std::mem::take(&mut self.gone);
            drop_first(&mut self.out, gone);
            if self.ends {
                return Poll::Ready(false);
            }
            self.refuse(api, client);
            if !self.out.is_empty() {
                continue;
            }
            if !self.ahead.is_empty() && plain::see(&self.ahead) != Seen::Part {
                return Poll::Ready(true);
            }
            if !self.reads && api.sheds() && !api.turnstile().pass(&mut self.ticket, cx) {
                return Poll::Pending;
            }
            let mut room = [MaybeUninit::uninit(); plain::BYTES_MAX];
            let mut room = ReadBuf::uninit(&mut room);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
            self.reads = read.is_ready();
            if ready!(read).is_err() {
                return Poll::Ready(false);
            }
            if room.filled().is_empty() {
                // Nothing more comes. Of a part of a request, those inside know what to say.
                return Poll::Ready(!self.ahead.is_empty());
            }
            // Who goes on sending parts of one request is not stirring.
            if self.ahead.is_empty() {
                self.stirred = Instant::now();
            }
            self.ahead.extend_from_slice(room.filled());
        }
    }

    /// Refuses what has come, as far as it is plain orders for which there is no room.
    fn refuse(&mut self, api: &impl House, client: &Client) {
        while api.sheds()
            && !api.drains()
            && let Seen::Order(order) = plain::see(&self.ahead)
            && !order.last
            && api.turns_away()
        {
            let Written { id, bytes } = api.write_refusal(&mut self.out, &order);
            api.access_log().note(&Answered {
                client: client.address,
                request: &RequestLine::Order,
                status: 503,
                bytes,
                took: Duration::ZERO,
                id: &self.out[id],
            });
            let length = order.length;
            self.done(length);
        }
    }
}
