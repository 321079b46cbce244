//! The network: connections between machines, in memory, with delays, cuts and deaths.
//!
//! Time goes in steps of a millisecond. What is written on one machine is due at the other a few
//! steps later, in order; over a cut line it is kept and tried again, as TCP does. A process that
//! dies closes its connections and its machine refuses new ones; a machine without power says
//! nothing at all until it is back, and then resets what is left of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;

use ground::luck::Luck;

use crate::trace;

/// A machine.
pub type HostId = u8;

/// How a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Its process runs.
    Up,
    /// It is on, and its process does not run.
    #[default]
    Gone,
    /// It has no power.
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

/// How long words take.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    /// At least so many steps.
    pub least: u64,
    /// Usually at most so many.
    pub most: u64,
    /// So often in a thousand times, ten times as long and more.
    pub spikes: u64,
}

/// The whole network. Clones share it.
#[derive(Clone, Debug)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    seed: u64,
    now: u64,
    delay: Delay,
    lives: BTreeMap<HostId, Life>,
    /// Words from the first to the second do not arrive.
    cuts: BTreeSet<(HostId, HostId)>,
    links: BTreeMap<u64, Link>,
    doors: BTreeMap<SocketAddr, Door>,
    next: u64,
}

#[derive(Debug)]
struct Link {
    to: SocketAddr,
    /// Of its own: in which order a dying process lets go of its connections must not matter.
    luck: Luck,
    stage: Stage,
    /// The one that connected, and the one that accepted.
    ends: [End; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The question is on its way.
    Asking(u64),
    /// The answer is on its way: yes or no.
    Answering(u64, bool),
    /// The answer is there.
    Answered(bool),
}

#[derive(Debug, Default)]
struct End {
    host: HostId,
    coming: VecDeque<(u64, Word)>,
    ready: BytesMut,
    over: Option<Over>,
    waker: Option<Waker>,
    /// Somebody holds this end.
    held: bool,
    /// This end has said that it says no more.
    shut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Ended,
    Reset,
}

#[derive(Debug)]
enum Word {
    Bytes(Bytes),
    End,
    Reset,
}

#[derive(Debug, Default)]
struct Door {
    backlog: VecDeque<u64>,
    waker: Option<Waker>,
}

impl Inner {
    fn life(&self, host: HostId) -> Life {
        self.lives.get(&host).copied().unwrap_or_default()
    }

    /// When a word that is sent now is due.
    fn due(&mut self, link: u64) -> u64 {
        let Delay { least, most, spikes } = self.delay;
        let Some(Link { luck, .. }) = self.links.get_mut(&link) else { return self.now + least };
        let usual = luck.between(least, most);
        let spike = luck.below(1_000) < spikes;
        self.now + if spike { usual + luck.between(10 * most, 40 * most) } else { usual }
    }

    /// When a word that did not get through is tried again.
    fn again(&mut self, link: u64) -> u64 {
        let later = self.links.get_mut(&link).map_or(60, |link| link.luck.between(10, 60));
        self.now + later
    }

    /// What is under way arrives also when its sender has lost power since.
    fn is_blocked(&self, from: HostId, to: HostId) -> bool {
        self.life(to) == Life::Dark || self.cuts.contains(&(from, to))
    }

    fn send(&mut self, link: u64, to: usize, word: Word) {
        let due = self.due(link);
        let Some(link) = self.links.get_mut(&link) else { return };
        let coming = &mut link.ends[to].coming;
        let last = coming.back().map_or(0, |(due, _)| *due);
        coming.push_back((due.max(last), word));
    }

    /// One link goes on by a step. False: nothing is left of it.
    fn step(&mut self, id: u64, wake: &mut Vec<Waker>) -> bool {
        let Some(link) = self.links.get(&id) else { return false };
        let (to, hosts) = (link.to, [link.ends[0].host, link.ends[1].host]);
        match link.stage {
            Stage::Asking(due) if due <= self.now => {
                let stage = if self.is_blocked(hosts[0], hosts[1]) {
                    Stage::Asking(self.again(id))
                } else {
                    let open = self.doors.contains_key(&to) && self.life(hosts[1]) == Life::Up;
                    if let Some(door) = self.doors.get_mut(&to).filter(|_| open) {
                        door.backlog.push_back(id);
                        wake.extend(door.waker.take());
                        self.set_held(id, 1, true);
                    }
                    Stage::Answering(self.due(id), open)
                };
                self.set_stage(id, stage, wake);
            }
            Stage::Answering(due, open) if due <= self.now => {
                let stage = match self.is_blocked(hosts[1], hosts[0]) {
                    true => Stage::Answering(self.again(id), open),
                    false => Stage::Answered(open),
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

    fn set_stage(&mut self, id: u64, stage: Stage, wake: &mut Vec<Waker>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.stage = stage;
        if matches!(stage, Stage::Answered(_)) {
            wake.extend(link.ends[0].waker.take());
        }
    }

    /// Hands over what is due at one end.
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
                // Nobody is there to try again: what was under way is lost.
                let lost = self.life(from) == Life::Dark;
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
                answer_reset |= matches!(word, Word::Bytes(_));
                continue;
            }
            match word {
                Word::Bytes(bytes) => end.ready.extend_from_slice(&bytes),
                Word::End => end.over = end.over.or(Some(Over::Ended)),
                Word::Reset => end.over = Some(Over::Reset),
            }
            wake.extend(end.waker.take());
        }
        if answer_reset {
            self.send(id, 1 - side, Word::Reset);
        }
    }
}

impl Net {
    /// A network on which nothing happens yet.
    pub fn new(seed: u64, delay: Delay) -> Self {
        let inner = Inner {
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

    /// One step: whatever is due arrives.
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

    /// A machine is like this now.
    pub fn set_life(&self, host: HostId, life: Life) {
        self.inner.lock().lives.insert(host, life);
    }

    /// How a machine is.
    pub fn life(&self, host: HostId) -> Life {
        self.inner.lock().life(host)
    }

    /// What the first machine says no longer arrives at the second, or does again.
    pub fn cut(&self, from: HostId, to: HostId, cut: bool) {
        let mut inner = self.inner.lock();
        match cut {
            true => inner.cuts.insert((from, to)),
            false => inner.cuts.remove(&(from, to)),
        };
    }

    /// All lines are whole again.
    pub fn mend(&self) {
        self.inner.lock().cuts.clear();
    }

    /// From now on words take so long.
    pub fn set_delay(&self, delay: Delay) {
        self.inner.lock().delay = delay;
    }

    /// Every connection, for a person who looks for what is stuck.
    pub fn describe(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let end = |end: &End| {
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
        inner.doors.insert(at, Door::default());
        Ok(Listening { net: self.clone(), at })
    }

    pub(crate) async fn connect(&self, from: HostId, to: SocketAddr) -> io::Result<Ended> {
        let ended = {
            let mut inner = self.inner.lock();
            let id = inner.next;
            inner.next += 1;
            let luck = Luck::new(inner.seed, &format!("link {id}"));
            let mine = End { host: from, held: true, ..End::default() };
            let theirs = End { host: host_of(to), ..End::default() };
            let stage = Stage::Asking(inner.now);
            inner.links.insert(id, Link { to, luck, stage, ends: [mine, theirs] });
            let due = inner.due(id);
            inner.set_stage(id, Stage::Asking(due), &mut Vec::new());
            Ended { net: self.clone(), link: id, side: 0 }
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

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<(Ended, SocketAddr)> {
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
        Poll::Ready((Ended { net: self.net.clone(), link: id, side: 1 }, from))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut inner = self.net.inner.lock();
        let Some(door) = inner.doors.remove(&self.at) else { return };
        for id in door.backlog {
            inner.set_held(id, 1, false);
            if inner.life(host_of(self.at)) != Life::Dark {
                inner.send(id, 0, Word::Reset);
            }
        }
    }
}

/// One end of a connection, held by a process.
#[derive(Debug)]
pub(crate) struct Ended {
    net: Net,
    link: u64,
    side: usize,
}

impl Ended {
    fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.net.inner.lock();
        let Some(link) = inner.links.get_mut(&self.link) else { return Poll::Ready(false) };
        match link.stage {
            Stage::Answered(open) => Poll::Ready(open),
            Stage::Asking(_) | Stage::Answering(..) => {
                link.ends[0].waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes what has arrived, at most `most` bytes of it. Nothing: it is over.
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
            Some(Over::Reset) => reset(),
            Some(Over::Ended) => Poll::Ready(Ok(Bytes::new())),
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
        if end.over == Some(Over::Reset) || end.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        trace::sent(inner.now, self.link, self.side, bytes);
        inner.send(self.link, 1 - self.side, Word::Bytes(Bytes::copy_from_slice(bytes)));
        Ok(())
    }

    /// Says that nothing more will come from here.
    pub(crate) fn shut(&self) {
        let mut inner = self.net.inner.lock();
        let Some(link) = inner.links.get_mut(&self.link) else { return };
        if !std::mem::replace(&mut link.ends[self.side].shut, true) {
            inner.send(self.link, 1 - self.side, Word::End);
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut inner = self.net.inner.lock();
        let Some(link) = inner.links.get_mut(&self.link) else { return };
        let end = &mut link.ends[self.side];
        (end.held, end.waker) = (false, None);
        let (host, said) = (end.host, std::mem::replace(&mut end.shut, true));
        // A machine without power says no goodbye.
        if inner.life(host) != Life::Dark && !said {
            inner.send(self.link, 1 - self.side, Word::End);
        }
    }
}
