//! Many clients in one thread: kept connections that never block, each with one request under way.
//!
//! The load runs on the cores of what it measures, so it should cost little: one write and one
//! read per request, one wait for as many answers as there are, and not a thread per client.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::answer::{self, Answer};
use super::poll::{Poll, Ready};
use super::script::{Expect, Heard, Script};

/// Room for an answer; it grows when one is longer.
const INBOX_BYTES: usize = 4 * 1_024;

/// An answer that takes longer than this ends the run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One client.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    /// The server has let it go while it had nothing to say: it connects again before it has.
    gone_off: bool,
    /// How many requests it has sent.
    turn: u64,
    /// When the request under way should have been sent. None: none is under way.
    intended: Option<Instant>,
    /// When it was sent.
    sent: Instant,
    outbox: Vec<u8>,
    /// How much of the outbox is gone.
    gone: usize,
    inbox: Vec<u8>,
    /// How much of the inbox is filled.
    filled: usize,
}

/// One answer, to one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) client: usize,
    /// How many requests this client has sent so far.
    pub(crate) turn: u64,
    pub(crate) heard: Heard,
    /// When the request should have been sent, when it was, and when its answer was read.
    pub(crate) intended: Instant,
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
}

/// All clients of a run.
pub(crate) struct Crowd<'a> {
    address: SocketAddr,
    script: &'a Script,
    expect: Expect,
    poll: Poll,
    clients: Vec<Client>,
    ready: Vec<Ready>,
    /// When the last answer came, or the last wait for one began.
    last: Instant,
    under_way: usize,
}

impl<'a> Crowd<'a> {
    pub(crate) fn new(address: &str, script: &'a Script, expect: Expect) -> Result<Self> {
        Ok(Self {
            address: address.parse().with_context(|| format!("understand {address}"))?,
            script,
            expect,
            poll: Poll::new()?,
            clients: Vec::new(),
            ready: Vec::new(),
            last: Instant::now(),
            under_way: 0,
        })
    }

    /// From now on [`hear`](Self::hear) returns this often at least.
    pub(crate) fn tick(&mut self, every: Duration) -> Result<()> {
        self.poll.tick(every)
    }

    /// How many clients there are.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// How many requests are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// One more client; its number.
    pub(crate) fn join(&mut self) -> Result<usize> {
        let stream = connect(self.address)?;
        let number = self.clients.len();
        self.poll.add(&stream, number)?;
        let now = Instant::now();
        self.clients.push(Client {
            stream,
            gone_off: false,
            turn: 0,
            intended: None,
            sent: now,
            outbox: Vec::new(),
            gone: 0,
            inbox: vec![0; INBOX_BYTES],
            filled: 0,
        });
        Ok(number)
    }

    /// Whether the server has not let this client go.
    #[cfg(test)]
    pub(crate) fn is_connected(&self, number: usize) -> bool {
        !self.clients[number].gone_off
    }

    /// A client, which has nothing under way, sends its next request.
    pub(crate) fn send(&mut self, number: usize, intended: Instant) -> Result<()> {
        let client = &mut self.clients[number];
        if client.gone_off {
            client.stream = connect(self.address)?;
            client.gone_off = false;
            self.poll.add(&client.stream, number)?;
        }
        assert!(client.intended.is_none(), "a client has one request under way");
        client.outbox.clear();
        client.gone = 0;
        self.script.write(number, client.turn, &mut client.outbox);
        client.turn += 1;
        client.sent = Instant::now();
        client.intended = Some(intended);
        if self.under_way == 0 {
            self.last = client.sent;
        }
        self.under_way += 1;
        client.flush()
    }

    /// Waits for at most `longest`, and adds the answers that have come to `said`.
    pub(crate) fn hear(&mut self, longest: Duration, said: &mut Vec<Said>) -> Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.poll.wait(longest, &mut ready)?;
        for Ready { number, closed } in ready.iter().copied() {
            self.read(number, said)?;
            // What was reported once is not reported again: the end is read with the last answer.
            if closed {
                self.read(number, said)?;
            }
        }
        self.ready = ready;
        if 0 < self.under_way && PATIENCE < self.last.elapsed() {
            bail!("no answer has come for {PATIENCE:?}, and {} are awaited", self.under_way);
        }
        Ok(())
    }

    fn read(&mut self, number: usize, said: &mut Vec<Said>) -> Result<()> {
        let client = &mut self.clients[number];
        client.flush()?;
        let Some(answer) = client.read()? else { return Ok(()) };
        let heard = self.expect.judge(&answer, &client.inbox[answer.body..answer.end])?;
        let Some(intended) = client.intended.take() else { bail!("an answer that nobody awaits") };
        if client.filled != answer.end {
            bail!("more than one answer to one request");
        }
        client.filled = 0;
        let (turn, sent, at) = (client.turn, client.sent, Instant::now());
        self.last = at;
        self.under_way -= 1;
        said.push(Said { client: number, turn, heard, intended, sent, at });
        Ok(())
    }
}

/// Begins a connection and does not wait for it: what is written before it is there comes back as
/// "not now", and the connection is reported when it can be written to. So a server whose queue of
/// new connections is full holds up one client and not all of them.
fn connect(address: SocketAddr) -> Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None);
    let socket = socket.context("make a socket")?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error).with_context(|| format!("connect to {address}")),
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).context("switch Nagle's algorithm off")?;
    Ok(stream)
}

impl Client {
    /// Writes what the connection takes of the outbox.
    fn flush(&mut self) -> Result<()> {
        while self.gone < self.outbox.len() {
            match self.stream.write(&self.outbox[self.gone..]) {
                Ok(0) => bail!("the server takes nothing any more"),
                Ok(count) => self.gone += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("send a request"),
            }
        }
        Ok(())
    }

    /// Reads what there is. None: no whole answer yet.
    fn read(&mut self) -> Result<Option<Answer>> {
        loop {
            if self.filled == self.inbox.len() {
                self.inbox.resize(2 * self.inbox.len(), 0);
            }
            match self.stream.read(&mut self.inbox[self.filled..]) {
                Ok(0) if self.intended.is_none() => {
                    self.gone_off = true;
                    return Ok(None);
                }
                Ok(0) => bail!("the server hung up"),
                Ok(count) => {
                    self.filled += count;
                    let answer = answer::parse(&self.inbox[..self.filled])?;
                    // A read that does not fill the room has emptied the connection: whatever
                    // comes later is reported anew.
                    if answer.is_some() || self.filled < self.inbox.len() {
                        return Ok(answer);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read an answer"),
            }
        }
    }
}
