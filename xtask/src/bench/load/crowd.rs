//! Many clients in one thread: kept connections that never block, each with one request in flight.
//!
//! The load runs on the cores of what it measures, so it must be cheap: one write and one read per
//! request, one wait for all arrived answers, and no thread per client.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::answer::{self, Answer};
use super::poll::{Poll, Ready};
use super::script::{Expect, Heard, Script};

/// The initial size of an inbox, which grows with a longer answer.
const INBOX_BYTES: usize = 4 * 1_024;

/// The run fails if no awaited answer arrives within this time.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// One client.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    /// The server closed the idle connection: the client connects again before its next request.
    gone_off: bool,
    /// The number of requests sent.
    turn: u64,
    /// When the request in flight should have been sent. `None`: none is in flight.
    intended: Option<Instant>,
    /// When the request was sent.
    sent: Instant,
    outbox: Vec<u8>,
    /// The bytes of the outbox that are sent.
    gone: usize,
    inbox: Vec<u8>,
    /// The bytes of the inbox that are filled.
    filled: usize,
}

/// One answer, to one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) client: usize,
    /// The number of requests that this client has sent so far.
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
    /// When the last answer arrived, or the last wait for one began.
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

    /// From now on [`hear`](Self::hear) returns at least this often.
    pub(crate) fn tick(&mut self, every: Duration) -> Result<()> {
        self.poll.tick(every)
    }

    /// The number of clients.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// The number of requests in flight.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Adds a client, and returns its number.
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

    /// False after the server has closed this client's idle connection.
    #[cfg(test)]
    pub(crate) fn is_connected(&self, number: usize) -> bool {
        !self.clients[number].gone_off
    }

    /// Sends the next request of a client that has none in flight.
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

    /// Waits for at most `longest`, and adds the arrived answers to `said`.
    pub(crate) fn hear(&mut self, longest: Duration, said: &mut Vec<Said>) -> Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.poll.wait(longest, &mut ready)?;
        for Ready { number, closed } in ready.iter().copied() {
            self.read(number, said)?;
            // An event is reported once, so the closing is read after the last answer.
            if closed {
                self.read(number, said)?;
            }
        }
        self.ready = ready;
        if 0 < self.under_way && ANSWER_TIMEOUT < self.last.elapsed() {
            bail!("no answer has come for {ANSWER_TIMEOUT:?}, and {} are awaited", self.under_way);
        }
        Ok(())
    }

    fn read(&mut self, number: usize, said: &mut Vec<Said>) -> Result<()> {
        let client = &mut self.clients[number];
        client.flush()?;
        let Some(answer) = client.read()? else { return Ok(()) };
        let heard = self.expect.judge(&answer, &client.inbox[answer.body..answer.end])?;
        let Some(intended) = client.intended.take() else {
            bail!("an answer without a request in flight")
        };
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

/// Begins a connection without waiting for it. A write before the connection is established returns
/// `WouldBlock`; the connection is reported when it is writable. So a server whose accept queue is
/// full delays one client and not all of them.
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
    /// Writes as much of the outbox as the connection takes.
    fn flush(&mut self) -> Result<()> {
        while self.gone < self.outbox.len() {
            match self.stream.write(&self.outbox[self.gone..]) {
                Ok(0) => bail!("the server accepts no more data"),
                Ok(count) => self.gone += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("send a request"),
            }
        }
        Ok(())
    }

    /// Reads what has arrived. `None`: the answer is not complete yet.
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
                    // A read that leaves room has emptied the connection: later data is reported
                    // anew.
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
