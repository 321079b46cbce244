//! Who of a pile of connections is read next, in an overload.
//!
//! A frontend does its work in turns of one queue. When thousands of connections have something to
//! say, an answer of the store that is on its way to one of them waits behind them all, and that
//! several times: to be read, to be handed on, to be sent. So connections stand in a line of their
//! own, cost next to nothing while they do, and are called a few at a time, between which everybody
//! else has a turn.
//!
//! How long the line is says how far the frontend is behind. Before there is a line, how long
//! whatever is to be done waits for its turn, twice in a row, says that it falls behind, and so do
//! connections that always wait to be accepted: before the answers of the store are late, and when
//! there are none. Once is none: the system may have given its core to somebody else.

use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// So many are called at a time: each takes some ten microseconds, and whatever else there is to do
/// waits for them.
const CALLED: usize = 32;

/// With more than so many in line the frontend is behind: a millisecond or so.
const BEHIND: usize = 96;

/// When whatever is to be done waits this long for its turn, and did so the time before, or waits
/// twice as long, the frontend has more to do than it can: an order needs several turns.
const LATE: Duration = Duration::from_millis(20);

/// When for so long there was always another connection to accept, more come than can be served. A
/// crowd of some hundreds that comes at once, or after a pause of the whole machine, is let in
/// within less.
const KNOCKING: Duration = Duration::from_millis(200);

/// The pure core. `W` wakes one who waits.
#[derive(Debug)]
struct Line<W> {
    waiting: VecDeque<W>,
    /// How many were called since it began: tickets below this may pass.
    called: u64,
    /// How many may yet pass in this turn without standing in line.
    free: usize,
}

impl<W> Line<W> {
    fn new() -> Self {
        Self { waiting: VecDeque::new(), called: 0, free: CALLED }
    }

    /// One comes, or asks again: true, and it has passed. Otherwise it has a ticket, and is woken.
    fn pass(&mut self, ticket: &mut Option<u64>, waker: impl FnOnce() -> W) -> bool {
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

    /// The next turn begins: who may pass now.
    fn turn(&mut self) -> std::collections::vec_deque::Drain<'_, W> {
        let count = self.waiting.len().min(CALLED);
        self.free = CALLED - count;
        self.called += count as u64;
        self.waiting.drain(..count)
    }

    /// Nobody waits, and nobody has passed since the last turn.
    fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.free == CALLED
    }
}

/// How long whatever is to be done waits for its turn: pure, too.
#[derive(Debug, Default)]
struct Turn {
    /// Since when somebody waits for it only to see how long that takes.
    since: Option<Instant>,
    /// The last turn took long.
    was_late: bool,
    /// Turns take long; until then that is believed.
    late_until: Option<Instant>,
    /// Since when there has always been another connection to accept.
    knocking: Option<Instant>,
}

impl Turn {
    /// Somebody begins to wait, if nobody does.
    fn begin(&mut self, now: Instant) -> bool {
        let begins = self.since.is_none();
        self.since.get_or_insert(now);
        begins
    }

    /// It was their turn.
    fn end(&mut self, now: Instant) {
        let Some(since) = self.since.take() else { return };
        let took = now.saturating_duration_since(since);
        if self.patience() <= took {
            self.late_until = Some(now + took);
        }
        self.was_late = LATE <= took;
    }

    /// How long somebody may wait.
    fn patience(&self) -> Duration {
        if self.was_late { LATE } else { 2 * LATE }
    }

    /// Somebody was there to be accepted, or nobody.
    fn knock(&mut self, somebody: bool, now: Instant) {
        self.knocking = somebody.then(|| self.knocking.unwrap_or(now));
    }

    fn is_late(&self, now: Instant) -> bool {
        let waited = |since| now.saturating_duration_since(since);
        self.since.is_some_and(|since| self.patience() <= waited(since))
            || self.knocking.is_some_and(|since| KNOCKING <= waited(since))
            || self.late_until.is_some_and(|until| now < until)
    }
}

/// The line that all connections share.
#[derive(Debug)]
pub(crate) struct Turnstile {
    line: Mutex<Line<Waker>>,
    turn: Mutex<Turn>,
    stirs: Notify,
}

impl Turnstile {
    pub(crate) fn new() -> Self {
        let (line, turn) = (Mutex::new(Line::new()), Mutex::default());
        Self { line, turn, stirs: Notify::new() }
    }

    /// Somebody was there to be accepted when it was looked, or nobody.
    pub(crate) fn knock(&self, somebody: bool) {
        self.turn.lock().knock(somebody, Instant::now());
    }

    /// Whatever is to be done waits for long. Asked when an order has come, and so from time to
    /// time it is seen how long it takes until somebody's turn.
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

    /// Whether one may pass now. If not, it is woken when it may, and shows its ticket.
    pub(crate) fn pass(&self, ticket: &mut Option<u64>, cx: &Context<'_>) -> bool {
        let mut line = self.line.lock();
        let quiet = line.is_quiet();
        let passes = line.pass(ticket, || cx.waker().clone());
        drop(line);
        if quiet {
            self.stirs.notify_one();
        }
        passes
    }

    /// More wait than can be read within a millisecond or so.
    pub(crate) fn is_behind(&self) -> bool {
        BEHIND < self.line.lock().waiting.len()
    }

    /// Calls those who wait, for ever.
    pub(crate) async fn run(&self) {
        loop {
            if self.line.lock().is_quiet() {
                self.stirs.notified().await;
            }
            self.turn.lock().end(Instant::now());
            if self.line.lock().is_quiet() {
                continue;
            }
            // Until all who were called, and whoever else has something to do, had their turn.
            tokio::task::yield_now().await;
            let called: Vec<Waker> = self.line.lock().turn().collect();
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
    fn those_who_come_are_called_in_order_a_few_at_a_time() {
        let mut line = Line::new();
        let mut tickets = vec![None; 3 * CALLED];
        let passed = |line: &mut Line<usize>, tickets: &mut [Option<u64>]| {
            let asked = tickets.iter_mut().enumerate();
            let passed = asked.filter_map(|(who, ticket)| line.pass(ticket, || who).then_some(who));
            passed.collect::<Vec<_>>()
        };
        assert!(line.is_quiet());
        let first: Vec<usize> = (0..CALLED).collect();
        assert_eq!(passed(&mut line, &mut tickets), first, "who comes first need not wait");
        assert_eq!(passed(&mut line, &mut tickets[CALLED..]), [0; 0], "asking again is no use");
        for turn in 1..3 {
            let next: Vec<usize> = (turn * CALLED..(turn + 1) * CALLED).collect();
            assert_eq!(line.turn().collect::<Vec<_>>(), next);
            let mut late = None;
            assert!(!line.pass(&mut late, || usize::MAX), "nobody overtakes those who were called");
            line.waiting.pop_back();
            let called = &mut tickets[turn * CALLED..(turn + 1) * CALLED];
            assert_eq!(passed(&mut line, called).len(), CALLED);
        }
        assert!(!line.is_quiet());
        assert_eq!(line.turn().count(), 0);
        assert!(line.is_quiet(), "all have passed");
    }

    #[test]
    fn turns_that_take_long_are_noticed_and_believed_for_as_long_and_a_single_one_is_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut turn = Turn::default();
        assert!(!turn.is_late(at(0)));
        assert!(turn.begin(at(0)));
        assert!(!turn.begin(at(5)), "one is enough");
        turn.end(at(39));
        assert!(!turn.is_late(at(100)), "it was the first, and nobody waits");
        assert!(turn.begin(at(100)));
        assert!(!turn.is_late(at(119)));
        assert!(turn.is_late(at(120)), "it is the second");
        turn.end(at(130));
        assert!(turn.is_late(at(159)));
        assert!(!turn.is_late(at(160)));
        turn.begin(at(200));
        turn.end(at(219));
        turn.begin(at(220));
        assert!(!turn.is_late(at(259)), "it is the first again");
        assert!(turn.is_late(at(260)), "but takes as long as two");
        turn.end(at(270));
        assert!(turn.is_late(at(319)));
        assert!(!turn.is_late(at(320)));
    }

    #[test]
    fn connections_that_always_wait_to_be_accepted_are_a_sign_too() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut turn = Turn::default();
        for ms in [0, 10, 199] {
            turn.knock(true, at(ms));
            assert!(!turn.is_late(at(ms)));
        }
        assert!(turn.is_late(at(200)));
        turn.knock(false, at(201));
        assert!(!turn.is_late(at(201)));
        turn.knock(true, at(202));
        assert!(!turn.is_late(at(401)));
    }

    #[tokio::test]
    async fn all_of_a_pile_pass() {
        let turnstile = std::sync::Arc::new(Turnstile::new());
        let all: Vec<_> = (0..10 * BEHIND)
            .map(|_| {
                let turnstile = turnstile.clone();
                tokio::spawn(async move {
                    let mut ticket = None;
                    std::future::poll_fn(|cx| match turnstile.pass(&mut ticket, cx) {
                        true => std::task::Poll::Ready(()),
                        false => std::task::Poll::Pending,
                    })
                    .await;
                })
            })
            .collect();
        while !turnstile.is_behind() {
            tokio::task::yield_now().await;
        }
        tokio::select! {
            () = turnstile.run() => {}
            all = futures::future::join_all(all) => assert!(all.iter().all(Result::is_ok)),
        }
        assert!(!turnstile.is_behind());
    }
}
