//! The read scheduler: decides, under overload, which of many ready connections is read next.
//!
//! A frontend runs its tasks in turns of one queue. When thousands of connections are ready, an
//! answer of the store to one of them waits behind them all, several times: to be read, forwarded
//! and sent. So ready connections wait in a queue of their own, at next to no cost, and are called
//! a few at a time; between two calls every other task has a turn.
//!
//! The length of this queue says how far the frontend is behind. Before there is a queue, two signs
//! show that the frontend falls behind: a task waits long for its turn, twice in a row, and the
//! listener always has another connection to accept. Both show before answers of the store are
//! late, and without any answers. A single long wait shows nothing: the system may have given the
//! core to another process.

use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The number of connections called per turn: each takes some ten microseconds, and all other tasks
/// wait for them.
const READS_PER_TURN: usize = 32;

/// With more waiting connections than this the frontend is behind, by about a millisecond.
const BACKLOG_MAX: usize = 96;

/// The event loop lags if a task waits this long for its turn twice in a row, or twice as long
/// once: an order needs several turns.
const LATE: Duration = Duration::from_millis(20);

/// If there was always another connection to accept for this long, more arrive than can be served.
/// A burst of some hundreds, or one after a pause of the whole machine, is accepted in less time.
const BACKLOG_AFTER: Duration = Duration::from_millis(200);

/// The pure core: a ticket queue. `W` wakes a connection that waits.
#[derive(Debug)]
struct ReadQueue<W> {
    waiting: VecDeque<W>,
    /// The number of connections called since the start: lower tickets may pass.
    called: u64,
    /// The number of connections that may still pass in this turn without waiting.
    free: usize,
}

impl<W> ReadQueue<W> {
    fn new() -> Self {
        Self { waiting: VecDeque::new(), called: 0, free: READS_PER_TURN }
    }

    /// A connection arrives, or asks again. True: it passes. False: it has a ticket, and is woken
    /// later.
    fn poll_turn(&mut self, ticket: &mut Option<u64>, waker: impl FnOnce() -> W) -> bool {
        match *ticket {
            Some(own) if own < self.called => *ticket = None,
            Some(_) => return false,
            None if self.waiting.is_empty() && 0 < self.free => self.free -= 1,
            None => {
                *ticket = Some(self.called + self.waiting.len() as u64);
                self.waiting.push_back(waker());
                return false;
            }
        }
        true
    }

    /// Begins the next turn. Returns the connections that may pass now.
    fn next_turn(&mut self) -> std::collections::vec_deque::Drain<'_, W> {
        let count = self.waiting.len().min(READS_PER_TURN);
        self.free = READS_PER_TURN - count;
        self.called += count as u64;
        self.waiting.drain(..count)
    }

    /// True if no connection waits, and none has passed since the last turn.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.free == READS_PER_TURN
    }
}

/// Measures how long tasks wait for their turn: pure, too.
#[derive(Debug, Default)]
struct LagMonitor {
    /// The beginning of the probe that is waiting for its turn, if there is one.
    since: Option<Instant>,
    /// The last probe waited long.
    was_late: bool,
    /// Turns take long; assumed until this time.
    late_until: Option<Instant>,
    /// Since when the listener has always had another connection to accept.
    backlog: Option<Instant>,
}

impl LagMonitor {
    /// Starts a probe, unless one is waiting. True: it was started.
    fn begin(&mut self, now: Instant) -> bool {
        let begins = self.since.is_none();
        self.since.get_or_insert(now);
        begins
    }

    /// The probe had its turn.
    fn end(&mut self, now: Instant) {
        let Some(since) = self.since.take() else { return };
        let took = now.saturating_duration_since(since);
        if self.patience() <= took {
            self.late_until = Some(now + took);
        }
        self.was_late = LATE <= took;
    }

    /// The wait from which on a probe counts as late.
    fn patience(&self) -> Duration {
        if self.was_late { LATE } else { 2 * LATE }
    }

    /// Notes whether a connection was waiting to be accepted.
    fn note_backlog(&mut self, waits: bool, now: Instant) {
        self.backlog = waits.then(|| self.backlog.unwrap_or(now));
    }

    fn is_late(&self, now: Instant) -> bool {
        let waited = |since| now.saturating_duration_since(since);
        self.since.is_some_and(|since| self.patience() <= waited(since))
            || self.backlog.is_some_and(|since| BACKLOG_AFTER <= waited(since))
            || self.late_until.is_some_and(|until| now < until)
    }
}

/// The scheduler that all connections share.
#[derive(Debug)]
pub(crate) struct ReadScheduler {
    line: Mutex<ReadQueue<Waker>>,
    turn: Mutex<LagMonitor>,
    stirs: Notify,
}

impl ReadScheduler {
    pub(crate) fn new() -> Self {
        let line = Mutex::new(ReadQueue::new());
        Self { line, turn: Mutex::default(), stirs: Notify::new() }
    }

    /// Notes whether the listener found a connection to accept.
    pub(crate) fn note_backlog(&self, waits: bool) {
        self.turn.lock().note_backlog(waits, Instant::now());
    }

    /// True if tasks wait long for their turn. Called for each order that arrives, which starts a
    /// probe from time to time.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        let mut turn = self.turn.lock();
        let begins = turn.begin(now);
        let late = turn.is_late(now);
        drop(turn);
        if begins {
            self.stirs.notify_one();
        }
        late
    }

    /// True if the connection may be read now. If not, it keeps its ticket, and is woken when it
    /// may.
    pub(crate) fn poll_turn(&self, ticket: &mut Option<u64>, cx: &Context<'_>) -> bool {
        let mut line = self.line.lock();
        let quiet = line.is_idle();
        let passes = line.poll_turn(ticket, || cx.waker().clone());
        drop(line);
        if quiet {
            self.stirs.notify_one();
        }
        passes
    }

    /// True if more connections wait than can be read within about a millisecond.
    pub(crate) fn has_backlog(&self) -> bool {
        BACKLOG_MAX < self.line.lock().waiting.len()
    }

    /// Calls the waiting connections, forever.
    pub(crate) async fn run(&self) {
        loop {
            if self.line.lock().is_idle() {
                self.stirs.notified().await;
            }
            self.turn.lock().end(Instant::now());
            if self.line.lock().is_idle() {
                continue;
            }
            // Until the connections that were called, and all other ready tasks, have had their
            // turn.
            tokio::task::yield_now().await;
            let called: Vec<Waker> = self.line.lock().next_turn().collect();
            for waker in called {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_read_in_order_and_a_few_per_turn() {
        let mut line = ReadQueue::new();
        let mut tickets = vec![None; 3 * READS_PER_TURN];
        let passed = |line: &mut ReadQueue<usize>, tickets: &mut [Option<u64>]| {
            let asked = tickets.iter_mut().enumerate();
            let passed =
                asked.filter_map(|(who, ticket)| line.poll_turn(ticket, || who).then_some(who));
            passed.collect::<Vec<_>>()
        };
        assert!(line.is_idle());
        let first: Vec<usize> = (0..READS_PER_TURN).collect();
        assert_eq!(passed(&mut line, &mut tickets), first, "the first connections need not wait");
        assert_eq!(
            passed(&mut line, &mut tickets[READS_PER_TURN..]),
            [0; 0],
            "a second call does not help"
        );
        for turn in 1..3 {
            let next: Vec<usize> = (turn * READS_PER_TURN..(turn + 1) * READS_PER_TURN).collect();
            assert_eq!(line.next_turn().collect::<Vec<_>>(), next);
            let mut late = None;
            assert!(
                !line.poll_turn(&mut late, || usize::MAX),
                "no new connection overtakes those that were called"
            );
            line.waiting.pop_back();
            let called = &mut tickets[turn * READS_PER_TURN..(turn + 1) * READS_PER_TURN];
            assert_eq!(passed(&mut line, called).len(), READS_PER_TURN);
        }
        assert!(!line.is_idle());
        assert_eq!(line.next_turn().count(), 0);
        assert!(line.is_idle(), "all have passed");
    }

    #[test]
    fn a_series_of_slow_turns_counts_as_lag_and_a_single_one_does_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut turn = LagMonitor::default();
        assert!(!turn.is_late(at(0)));
        assert!(turn.begin(at(0)));
        assert!(!turn.begin(at(5)), "one probe at a time");
        turn.end(at(39));
        assert!(!turn.is_late(at(100)), "it was the first late probe, and none is waiting");
        assert!(turn.begin(at(100)));
        assert!(!turn.is_late(at(119)));
        assert!(turn.is_late(at(120)), "the second late probe");
        turn.end(at(130));
        assert!(turn.is_late(at(159)));
        assert!(!turn.is_late(at(160)));
        turn.begin(at(200));
        turn.end(at(219));
        turn.begin(at(220));
        assert!(!turn.is_late(at(259)), "the first late probe again");
        assert!(turn.is_late(at(260)), "but twice as late");
        turn.end(at(270));
        assert!(turn.is_late(at(319)));
        assert!(!turn.is_late(at(320)));
    }

    #[test]
    fn connections_that_keep_waiting_to_be_accepted_count_as_lag() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut turn = LagMonitor::default();
        for ms in [0, 10, 199] {
            turn.note_backlog(true, at(ms));
            assert!(!turn.is_late(at(ms)));
        }
        assert!(turn.is_late(at(200)));
        turn.note_backlog(false, at(201));
        assert!(!turn.is_late(at(201)));
        turn.note_backlog(true, at(202));
        assert!(!turn.is_late(at(401)));
    }

    #[tokio::test]
    async fn every_connection_of_a_backlog_gets_its_turn() {
        let scheduler = std::sync::Arc::new(ReadScheduler::new());
        let all: Vec<_> = (0..10 * BACKLOG_MAX)
            .map(|_| {
                let scheduler = scheduler.clone();
                tokio::spawn(async move {
                    let mut ticket = None;
                    std::future::poll_fn(|cx| match scheduler.poll_turn(&mut ticket, cx) {
                        true => std::task::Poll::Ready(()),
                        false => std::task::Poll::Pending,
                    })
                    .await;
                })
            })
            .collect();
        while !scheduler.has_backlog() {
            tokio::task::yield_now().await;
        }
        tokio::select! {
            () = scheduler.run() => {}
            all = futures::future::join_all(all) => assert!(all.iter().all(Result::is_ok)),
        }
        assert!(!scheduler.has_backlog());
    }
}
