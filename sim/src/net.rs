//! The network: connections between machines, in memory, with delays, cuts and crashes.
//!
//! Time passes in steps of one millisecond. Bytes written on one machine are due at the other a few
//! steps later, in order; over a cut link they are kept and sent again, as TCP does. When a process
//! dies, its connections close and its machine refuses new ones. A machine without power sends
//! nothing until it is back, and then resets the connections that are left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;

use ground::rng::Rng;

use crate::trace;

/// A machine.
pub type HostId = u8;

/// The state of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MachineState {
    /// Its process runs.
    Up,
    /// The machine is on, and its process does not run.
    #[default]
    Gone,
    /// The machine has no power.
    Dark,
}

/// The address of a port on a machine.
pub fn address(host: HostId, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

fn host_of(address: SocketAddr) -> HostId {
    match address.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

/// The delay of a message.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    /// The least number of steps.
    pub least: u64,
    /// The usual maximum, in steps.
    pub most: u64,
    /// Of a thousand messages, this many take at least ten times as long.
    pub spikes: u64,
}

/// The whole network. Clones share it.
#[derive(Clone, Debug)]
pub struct Net {
    inner: Arc<Mutex<NetState>>,
}

#[derive(Debug)]
struct NetState {
    seed: u64,
    now: u64,
    delay: Delay,
    lives: BTreeMap<HostId, MachineState>,
    /// Messages from the first machine to the second do not arrive.
    cuts: BTreeSet<(HostId, HostId)>,
    links: BTreeMap<u64, Link>,
    doors: BTreeMap<SocketAddr, ListenQueue>,
    next: u64,
}

#[derive(Debug)]
struct Link {
    to: SocketAddr,
    /// Per link: the order in which a dying process drops its connections must not matter.
    luck: Rng,
    stage: ConnectionState,
    /// The end that connected, and the end that accepted.
    ends: [HalfConnection; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    /// The request to connect is in flight.
    Asking(u64),
    /// The answer is in flight: accepted or refused.
    Answering(u64, bool),
    /// The answer has arrived.
    Answered(bool),
}

#[derive(Debug, Default)]
struct HalfConnection {
    host: HostId,
    coming: VecDeque<(u64, Segment)>,
    ready: BytesMut,
    over: Option<ClosedBy>,
    waker: Option<Waker>,
    /// A process holds this end.
    held: bool,
    /// This end sends no more.
    shut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClosedBy {
    Ended,
    Reset,
}

#[derive(Debug)]
enum Segment {
    Bytes(Bytes),
    End,
    Reset,
}

#[derive(Debug, Default)]
struct ListenQueue {
    backlog: VecDeque<u64>,
    waker: Option<Waker>,
}

impl NetState {
    fn life(&self, host: HostId) -> MachineState {
        self.lives.get(&host).copied().unwrap_or_default()
    }

    /// The step at which a message sent now is due.
    fn due(&mut self, link: u64) -> u64 {
        let Delay { least, most, spikes } = self.delay;
        let Some(Link { luck, .. }) = self.links.get_mut(&link) else { return self.now + least };
        let usual = luck.between(least, most);
        let spike = luck.below(1_000) < spikes;
        self.now + if spike { usual + luck.between(10 * most, 40 * most) } else { usual }
    }

    /// The step at which a blocked message is sent again.
    fn again(&mut self, link: u64) -> u64 {
        let later = self.links.get_mut(&link).map_or(60, |link| link.luck.between(10, 60));
        self.now + later
    }

    /// A message in flight arrives even if its sender has lost power since.
    fn is_blocked(&self, from: HostId, to: HostId) -> bool {
        self.life(to) == MachineState::Dark || self.cuts.contains(&(from, to))
    }

    fn send(&mut self, link: u64, to: usize, word: Segment) {
        let due = self.due(link);
        let Some(link) = self.links.get_mut(&link) else { return };
        let coming = &mut link.ends[to].coming;
        let last = coming.back().map_or(0, |(due, _)| *due);
        coming.push_back((due.max(last), word));
    }

    /// Advances one link by a step. False: the link can be forgotten.
    fn step(&mut self, id: u64, wake: &mut Vec<Waker>) -> bool {
        let Some(link) = self.links.get(&id) else { return false };
        let (to, hosts) = (link.to, [link.ends[0].host, link.ends[1].host]);
        match link.stage {
            ConnectionState::Asking(due) if due <= self.now => {
                let stage = if self.is_blocked(hosts[0], hosts[1]) {
                    ConnectionState::Asking(self.again(id))
                } else {
                    let open =
                        self.doors.contains_key(&to) && self.life(hosts[1]) == MachineState::Up;
                    if let Some(door) = self.doors.get_mut(&to).filter(|_| open) {
                        door.backlog.push_back(id);
                        wake.extend(door.waker.take());
                        self.set_held(id, 1, true);
                    }
                    ConnectionState::Answering(self.due(id), open)
                };
                self.set_stage(id, stage, wake);
            }
            ConnectionState::Answering(due, open) if due <= self.now => {
                let stage = match self.is_blocked(hosts[1], hosts[0]) {
                    true => ConnectionState::Answering(self.again(id), open),
                    false => ConnectionState::Answered(open),
                };
                self.set_stage(id, stage, wake);
            }
            _ => {}
        }
        for side in [0, 1] {
            self.deliver(id, side, hosts, wake);
        }
        let Some(link) = self.links.get(&id) else { return false };
        link.ends.iter().any(|end| end.held || !end.coming.is_empty())
    }

    fn set_held(&mut self, id: u64, side: usize, held: bool) {
        if let Some(link) = self.links.get_mut(&id) {
            link.ends[side].held = held;
        }
    }

    fn set_stage(&mut self, id: u64, stage: ConnectionState, wake: &mut Vec<Waker>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.stage = stage;
        if matches!(stage, ConnectionState::Answered(_)) {
            wake.extend(link.ends[0].waker.take());
        }
    }

    /// Delivers the messages that are due at one end.
    fn deliver(&mut self, id: u64, side: usize, hosts: [HostId; 2], wake: &mut Vec<Waker>) {
        let (from, to) = (hosts[1 - side], hosts[side]);
        let mut answer_reset = false;
        loop {
            let Some(link) = self.links.get(&id) else { return };
            let Some((due, _)) = link.ends[side].coming.front() else { break };
            if self.now < *due {
                break;
            }
            if self.is_blocked(from, to) {
                // The sender is gone and cannot send again: messages in flight are lost.
                let lost = self.life(from) == MachineState::Dark;
                let again = self.again(id);
                let Some(link) = self.links.get_mut(&id) else { return };
                let coming = &mut link.ends[side].coming;
                if lost {
                    coming.clear();
                } else if let Some(first) = coming.front_mut() {
                    first.0 = again;
                }
                break;
            }
            let Some(link) = self.links.get_mut(&id) else { return };
            let end = &mut link.ends[side];
            let Some((_, word)) = end.coming.pop_front() else { break };
            if !end.held {
                answer_reset |= matches!(word, Segment::Bytes(_));
                continue;
            }
            match word {
                Segment::Bytes(bytes) => end.ready.extend_from_slice(&bytes),
                Segment::End => end.over = end.over.or(Some(ClosedBy::Ended)),
                Segment::Reset => end.over = Some(ClosedBy::Reset),
            }
            wake.extend(end.waker.take());
        }
        if answer_reset {
            self.send(id, 1 - side, Segment::Reset);
        }
    }
}

impl Net {
    /// A network without connections.
    pub fn new(seed: u64, delay: Delay) -> Self {
        let inner = NetState {
            seed,
            now: 0,
            delay,
            lives: BTreeMap::new(),
            cuts: BTreeSet::new(),
            links: BTreeMap::new(),
            doors: BTreeMap::new(),
            next: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The time, in steps since the beginning.
    pub fn now(&self) -> u64 {
        self.inner.lock().now
    }

    /// One step: every message that is due arrives.
    pub fn step(&self) {
        let mut wake = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.now += 1;
            let ids: Vec<u64> = inner.links.keys().copied().collect();
            for id in ids {
                if !inner.step(id, &mut wake) {
                    inner.links.remove(&id);
                }
            }
        }
        wake.into_iter().for_each(Waker::wake);
    }

    /// Sets the state of a machine.
    pub fn set_life(&self, host: HostId, life: MachineState) {
        self.inner.lock().lives.insert(host, life);
    }

    /// The state of a machine.
    pub fn life(&self, host: HostId) -> MachineState {
        self.inner.lock().life(host)
    }

    /// Cuts the link from the first machine to the second, or restores it.
    pub fn cut(&self, from: HostId, to: HostId, cut: bool) {
        let mut inner = self.inner.lock();
        match cut {
            true => inner.cuts.insert((from, to)),
            false => inner.cuts.remove(&(from, to)),
        };
    }

    /// Restores all links.
    pub fn repair(&self) {
        self.inner.lock().cuts.clear();
    }

    /// Sets the delay of messages from now on.
    pub fn set_delay(&self, delay: Delay) {
        self.inner.lock().delay = delay;
    }

    /// A description of every connection, for a human who looks for a stuck one.
    pub fn describe(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let end = |end: &HalfConnection| {
            let due = end.coming.front().map(|(due, _)| *due);
            let (held, ready, coming) = (end.held, end.ready.len(), end.coming.len());
            let waits = end.waker.is_some();
            format!("held {held} waits {waits} ready {ready} coming {coming} due {due:?}")
        };
        let line = |(id, link): (&u64, &Link)| {
            let [from, to] = &link.ends;
            let (stage, a, b) = (link.stage, end(from), end(to));
            format!("link {id} {} to {}: {stage:?}; {a}; {b}", from.host, link.to)
        };
        inner.links.iter().map(line).collect()
    }

    pub(crate) fn listen(&self, at: SocketAddr) -> io::Result<Listening> {
        let mut inner = self.inner.lock();
        if inner.doors.contains_key(&at) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        inner.doors.insert(at, ListenQueue::default());
        Ok(Listening { net: self.clone(), at })
    }

    pub(crate) async fn connect(&self, from: HostId, to: SocketAddr) -> io::Result<ConnectionEnd> {
        let ended = {
            let mut inner = self.inner.lock();
            let id = inner.next;
            inner.next += 1;
            let luck = Rng::new(inner.seed, &format!("link {id}"));
            let mine = HalfConnection { host: from, held: true, ..HalfConnection::default() };
            let theirs = HalfConnection { host: host_of(to), ..HalfConnection::default() };
            let stage = ConnectionState::Asking(inner.now);
            inner.links.insert(id, Link { to, luck, stage, ends: [mine, theirs] });
            let due = inner.due(id);
            inner.set_stage(id, ConnectionState::Asking(due), &mut Vec::new());
            ConnectionEnd { net: self.clone(), link: id, side: 0 }
        };
        let answered = std::future::poll_fn(|cx| ended.poll_answer(cx)).await;
        match answered {
            true => Ok(ended),
            false => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// A listener.
#[derive(Debug)]
pub(crate) struct Listening {
    net: Net,
    at: SocketAddr,
}

impl Listening {
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<(ConnectionEnd, SocketAddr)> {
        let mut inner = self.net.inner.lock();
        let Some(door) = inner.doors.get_mut(&self.at) else { return Poll::Pending };
        let Some(id) = door.backlog.pop_front() else {
            door.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let mut from = self.at;
        if let Some(link) = inner.links.get(&id) {
            from = address(link.ends[0].host, 49_152);
        }
        Poll::Ready((ConnectionEnd { net: self.net.clone(), link: id, side: 1 }, from))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut inner = self.net.inner.lock();
        let Some(door) = inner.doors.remove(&self.at) else { return };
        for id in door.backlog {
            inner.set_held(id, 1, false);
            if inner.life(host_of(self.at)) != MachineState::Dark {
                inner.send(id, 0, Segment::Reset);
            }
        }
    }
}

/// One end of a connection, held by a process.
#[derive(Debug)]
pub(crate) struct ConnectionEnd {
    net: Net,
    link: u64,
    side: usize,
}

impl ConnectionEnd {
    fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.net.inner.lock();
        let Some(link) = inner.links.get_mut(&self.link) else { return Poll::Ready(false) };
        match link.stage {
            ConnectionState::Answered(open) => Poll::Ready(open),
            ConnectionState::Asking(_) | ConnectionState::Answering(..) => {
                link.ends[0].waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes the bytes that have arrived, at most `most` of them. Empty: the connection is closed.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        let mut inner = self.net.inner.lock();
        let reset = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        let Some(link) = inner.links.get_mut(&self.link) else { return reset() };
        let end = &mut link.ends[self.side];
        if end.ready.has_remaining() {
            let count = most.min(end.ready.len());
            return Poll::Ready(Ok(end.ready.split_to(count).freeze()));
        }
        match end.over {
            Some(ClosedBy::Reset) => reset(),
            Some(ClosedBy::Ended) => Poll::Ready(Ok(Bytes::new())),
            None => {
                end.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Sends, at once and in order.
    pub(crate) fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.net.inner.lock();
        let link = inner.links.get(&self.link).ok_or(io::ErrorKind::BrokenPipe)?;
        let end = &link.ends[self.side];
        if end.over == Some(ClosedBy::Reset) || end.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        trace::sent(inner.now, self.link, self.side, bytes);
        inner.send(self.link, 1 - self.side, Segment::Bytes(Bytes::copy_from_slice(bytes)));
        Ok(())
    }

    /// Closes this end for sending.
    pub(crate) fn shut(&self) {
        let mut inner = self.net.inner.lock();
        let Some(link) = inner.links.get_mut(&self.link) else { return };
        if !std::mem::replace(&mut link.ends[self.side].shut, true) {
            inner.send(self.link, 1 - self.side, Segment::End);
        }
    }
}

impl Drop for ConnectionEnd {
    fn drop(&mut self) {
        let mut inner = self.net.inner.lock();
        let Some(link) = inner.links.get_mut(&self.link) else { return };
        let end = &mut link.ends[self.side];
        (end.held, end.waker) = (false, None);
        let (host, said) = (end.host, std::mem::replace(&mut end.shut, true));
        // A machine without power sends no close.
        if inner.life(host) != MachineState::Dark && !said {
            inner.send(self.link, 1 - self.side, Segment::End);
        }
    }
}
