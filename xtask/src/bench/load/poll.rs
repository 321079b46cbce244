//! Waits until a connection is ready, or for a tick of the clock, with epoll.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// The most events of one wait.
const EVENTS_MAX: usize = 1_024;

/// The number of the ticker: no connection has it.
const TICK: u64 = u64::MAX;

/// A connection that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) number: usize,
    /// The server has closed the connection, after all data that is still to be read.
    pub(crate) closed: bool,
}

/// One epoll instance, edge-triggered: a reported connection is read until no whole answer is left.
pub(crate) struct Poll {
    epoll: OwnedFd,
    /// The timer, which ticks as long as it is held.
    ticker: Option<OwnedFd>,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("create an epoll instance")?;
        Ok(Self { epoll, ticker: None, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// From now on [`wait`](Self::wait) returns at least this often. The timeout of a wait is in
    /// whole milliseconds, which is too coarse for starts that are microseconds apart.
    pub(crate) fn tick(&mut self, every: Duration) -> Result<()> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let ticker = timerfd_create(TimerfdClockId::Monotonic, flags).context("make a timer")?;
        let every = Timespec::try_from(every).context("take a timer's length")?;
        let times = Itimerspec { it_interval: every, it_value: every };
        timerfd_settime(&ticker, TimerfdTimerFlags::empty(), &times).context("set a timer")?;
        // Edge-triggered, so each tick is reported without reading the one before.
        let (data, flags) = (EventData::new_u64(TICK), EventFlags::IN | EventFlags::ET);
        epoll::add(&self.epoll, &ticker, data, flags).context("watch a timer")?;
        self.ticker = Some(ticker);
        Ok(())
    }

    /// Watches a connection under a number.
    pub(crate) fn add(&self, stream: &TcpStream, number: usize) -> Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(number as u64);
        epoll::add(&self.epoll, stream, data, flags).context("watch a connection")
    }

    /// Waits for at most `longest`, and adds the connections that are ready to `ready`.
    pub(crate) fn wait(&mut self, longest: Duration, ready: &mut Vec<Ready>) -> Result<()> {
        let longest = Timespec::try_from(longest).context("take a time to wait")?;
        self.events.clear();
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&longest));
        match waited {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for answers"),
        }
        let over = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        for event in &self.events {
            let (number, flags) = (event.data.u64(), event.flags);
            if let (true, Ok(number)) = (number != TICK, usize::try_from(number)) {
                ready.push(Ready { number, closed: flags.intersects(over) });
            }
        }
        Ok(())
    }
}
