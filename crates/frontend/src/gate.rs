//! How many orders a frontend lets in at once, so that those it lets in are answered soon.
//!
//! A burst is let in whole, as far as memory allows: it is over soon. But when every order has
//! taken longer than [`AIM`] for [`PATIENT`], more come than can be done, and without a bound each
//! would wait longer than the one before it. From then on no more are let in than are answered
//! within [`AIM`]: orders under way, divided by those answered per second, is how long each takes
//! (Little, "A Proof for the Queuing Formula: L = λW", 1961). Whoever comes beyond that is refused
//! at once, which costs little, and may come again. That a queue is judged by how long it stands
//! and not by how long it is, is from Nichols and Jacobson, "Controlling Queue Delay", 2012.
//!
//! When answers stop, because a leader died or is being chosen, none of this is a measure: orders
//! are let in, and what has piled up when answers flow again is given the time to drain. A store
//! that was not overloaded before refuses nobody because of it.
//!
//! A frontend that has itself more to do than it can does not wait for that: more are let in than
//! are answered soon only while it keeps up, and up to [`ORDERS_BURST_MAX`].
//!
//! [`Gate`] decides and has no clock; [`Door`] is the shell that counts who comes out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::{ORDERS_BURST_MAX, ORDERS_OPEN_MIN, REQUESTS_OPEN_MAX};

/// An order should be answered within this, in an overload too.
const AIM: Duration = Duration::from_millis(20);

/// So long all orders may take longer than that before anybody is refused.
const PATIENT: Duration = Duration::from_millis(200);

/// An overload is over when nobody was refused for this long.
const OVER: Duration = Duration::from_secs(1);

/// For so long answers are counted before the rate is reckoned anew.
const WINDOW: Duration = Duration::from_millis(50);

/// Without an answer for this long they have stopped flowing. No longer than [`AIM`]: as many as
/// are answered within it find room until then.
const STOPPED: Duration = AIM;

/// Of what has piled up, each answer takes away so much more than itself: where no more than three
/// come for four that are answered, nobody is refused.
const DRAIN: f64 = 0.25;

/// The pure core: counts, and lets in or not.
#[derive(Debug)]
struct Gate {
    under_way: usize,
    /// The last answer.
    answered: Instant,
    /// The last answer that came soon.
    soon: Instant,
    /// When somebody was refused last.
    refused: Option<Instant>,
    /// The window that is being counted: since when, and how many.
    window: (Instant, u32),
    /// Answers per second.
    rate: f64,
    /// What has piled up while answers did not flow, and is not drained yet.
    pile: f64,
}

impl Gate {
    fn new(now: Instant) -> Self {
        let (answered, soon, window) = (now, now, (now, 0));
        Self { under_way: 0, answered, soon, refused: None, window, rate: 0.0, pile: 0.0 }
    }

    /// One comes: true, and it is under way. `late`: the frontend itself has more to do than it
    /// can.
    fn enter(&mut self, late: bool, now: Instant) -> bool {
        if self.under_way == 0 {
            // Nobody waited for an answer.
            (self.soon, self.answered) = (now, now);
        }
        if late {
            // It has not piled up for want of answers.
            self.pile = 0.0;
        }
        let flows = now.saturating_duration_since(self.answered) < STOPPED;
        let strained = PATIENT <= now.saturating_duration_since(self.soon);
        let limit = match flows {
            _ if late || self.sheds(now) || (strained && flows) => self.limit(),
            true => self.limit().max(ORDERS_BURST_MAX),
            false => REQUESTS_OPEN_MAX,
        };
        let enters = self.under_way < limit;
        self.under_way += usize::from(enters);
        if (flows || late) && !enters {
            self.refused = Some(now);
        }
        enters
    }

    /// One has come who would be refused by [`enter`](Self::enter) in an overload, or comes in one
    /// that the frontend itself is `behind` with: true, and it is refused.
    fn turns_away(&mut self, behind: bool, now: Instant) -> bool {
        let away = self.sheds(now) && (behind || self.limit() <= self.under_way);
        if away {
            self.refused = Some(now);
        }
        away
    }

    /// One that was let in at `entered` leaves. `answered`: the store has decided it.
    fn leave(&mut self, entered: Instant, answered: bool, now: Instant) {
        if answered {
            let stopped = STOPPED <= now.saturating_duration_since(self.answered);
            if stopped && !self.sheds(now) {
                self.pile = count(self.under_way);
            }
            self.pile = (self.pile - DRAIN).max(0.0);
            self.answered = now;
            if now.saturating_duration_since(entered) < AIM {
                self.soon = now;
            }
            self.reckon(now);
        }
        self.under_way = self.under_way.saturating_sub(1);
    }

    fn reckon(&mut self, now: Instant) {
        let (since, answers) = &mut self.window;
        *answers += 1;
        let span = now.saturating_duration_since(*since);
        if WINDOW <= span {
            self.rate = f64::from(*answers) / span.as_secs_f64();
            self.window = (now, 0);
        }
    }

    /// There is an overload.
    fn sheds(&self, now: Instant) -> bool {
        self.refused.is_some_and(|last| now.saturating_duration_since(last) < OVER)
    }

    fn limit(&self) -> usize {
        let limit = (self.rate * AIM.as_secs_f64()).max(self.pile);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let limit = limit.min(count(REQUESTS_OPEN_MAX)) as usize;
        limit.max(ORDERS_OPEN_MIN)
    }
}

#[expect(clippy::cast_precision_loss, reason = "bounded by the greatest number of requests")]
fn count(requests: usize) -> f64 {
    requests as f64
}

/// The gate that orders go through.
#[derive(Debug)]
pub(crate) struct Door {
    gate: Mutex<Gate>,
    /// There may be an overload: what can be asked without a lock.
    sheds: AtomicBool,
}

impl Door {
    /// Nobody is inside.
    pub(crate) fn new() -> Self {
        Self { gate: Mutex::new(Gate::new(Instant::now())), sheds: AtomicBool::new(false) }
    }

    /// There is an overload. Without one, neither a lock nor the clock is needed to say so.
    pub(crate) fn sheds(&self) -> bool {
        self.sheds.load(Ordering::Relaxed) && {
            let sheds = self.gate.lock().sheds(Instant::now());
            self.sheds.store(sheds, Ordering::Relaxed);
            sheds
        }
    }

    /// One has come for whom there is no room: it may be refused, whatever it wants to order.
    pub(crate) fn turns_away(&self, behind: bool) -> bool {
        self.sheds() && self.gate.lock().turns_away(behind, Instant::now())
    }

    /// Lets one in, or not. `late`: the frontend itself has more to do than it can.
    pub(crate) fn enter(&self, late: bool, entered: Instant) -> Option<Guest<'_>> {
        let mut gate = self.gate.lock();
        let enters = gate.enter(late, entered);
        self.sheds.store(gate.sheds(entered), Ordering::Relaxed);
        drop(gate);
        enters.then(|| Guest { door: self, entered, answered: false })
    }
}

/// One that was let in; leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    door: &'a Door,
    entered: Instant,
    answered: bool,
}

impl Guest<'_> {
    /// The store has decided it.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.door.gate.lock().leave(self.entered, self.answered, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A store that answers `does` orders per millisecond, in order, but none while it is `down`.
    struct Store {
        does: usize,
        down: std::ops::Range<u64>,
    }

    /// What came of four seconds.
    #[derive(Debug, Default)]
    struct Came {
        refused: usize,
        /// The longest wait, in milliseconds: in the first half second, and after it.
        longest: [u64; 2],
    }

    /// Lets as many come in each millisecond as `comes` says.
    fn live(store: &Store, comes: impl Fn(u64) -> usize) -> Came {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut gate, mut line, mut came) = (Gate::new(start), VecDeque::new(), Came::default());
        for ms in 0..4_000 {
            for _ in 0..comes(ms) {
                match gate.enter(false, at(ms)) {
                    true => line.push_back(ms),
                    false => came.refused += 1,
                }
            }
            if store.down.contains(&ms) {
                continue;
            }
            // The last of them are answered in the next millisecond.
            for entered in line.drain(..store.does.min(line.len())) {
                let longest = &mut came.longest[usize::from(500 <= ms)];
                *longest = (*longest).max(ms - entered);
                gate.leave(at(entered), true, at(ms));
            }
        }
        came
    }

    #[test]
    fn of_twice_what_can_be_done_half_is_refused_and_the_rest_is_answered_soon() {
        for does in [10, 40, 100] {
            let came = live(&Store { does, down: 0..0 }, |_| 2 * does);
            let half = does * 4_000;
            assert!((half * 8 / 10..=half).contains(&came.refused), "{does}: {came:?}");
            assert!(came.longest[0] <= 300 && came.longest[1] <= 30, "{does}: {came:?}");
        }
    }

    #[test]
    fn an_overload_stays_bounded_when_the_disk_stalls() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut gate, mut line, mut most) = (Gate::new(start), VecDeque::new(), 0);
        for ms in 0..4_000 {
            for _ in 0..20 {
                if gate.enter(false, at(ms)) {
                    line.push_back(ms);
                }
            }
            // Every tenth of a second nothing is answered for 30 ms.
            let does = if ms % 100 < 30 { 0 } else { 10 };
            for entered in line.drain(..does.min(line.len())) {
                gate.leave(at(entered), true, at(ms));
            }
            if 2_000 < ms {
                most = most.max(gate.under_way);
            }
        }
        assert!(most <= ORDERS_OPEN_MIN, "{most}");
    }

    #[test]
    fn whoever_is_refused_makes_no_room() {
        let door = Door::new();
        let guests: Vec<_> = std::iter::from_fn(|| door.enter(false, Instant::now()))
            .take(REQUESTS_OPEN_MAX)
            .collect();
        assert!(ORDERS_BURST_MAX <= guests.len());
        let inside = door.gate.lock().under_way;
        assert_eq!(inside, guests.len());
        let refused = (0..10).filter(|_| door.enter(false, Instant::now()).is_none()).count();
        assert_eq!(door.gate.lock().under_way, inside + 10 - refused);
        drop(guests);
        assert_eq!(door.gate.lock().under_way, 0);
    }

    #[test]
    fn orders_are_turned_away_only_in_an_overload_and_while_there_is_no_room() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gate = Gate::new(start);
        assert!(!gate.turns_away(true, at(0)), "nobody was refused yet");
        while gate.enter(false, at(1)) {}
        assert_eq!(gate.under_way, ORDERS_BURST_MAX);
        assert!(gate.turns_away(false, at(2)), "there is no room");
        for _ in ORDERS_OPEN_MIN..=ORDERS_BURST_MAX {
            gate.leave(at(1), true, at(3));
        }
        assert!(!gate.turns_away(false, at(4)), "there is room again");
        assert!(gate.turns_away(true, at(5)), "there is, but the frontend is behind");
        assert!(!gate.turns_away(true, at(5) + OVER), "the overload is over");
    }

    #[test]
    fn a_frontend_that_is_late_does_not_wait_for_answers_to_be_late_too() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        while gate.enter(true, now) {}
        assert_eq!(gate.under_way, ORDERS_OPEN_MIN);
        assert!(gate.sheds(now));
    }

    #[test]
    fn a_burst_is_served_whole() {
        let came = live(&Store { does: 10, down: 0..0 }, |ms| if ms == 9 { 1_900 } else { 1 });
        assert_eq!(came.refused, 0, "{came:?}");
        assert!(came.longest[0] < 250, "{came:?}");
    }

    #[test]
    fn nobody_is_refused_because_a_leader_died() {
        for down in [1_000..1_030, 1_000..1_400, 1_000..1_700] {
            let came = live(&Store { does: 10, down: down.clone() }, |_| 7);
            assert_eq!(came.refused, 0, "{down:?}");
        }
        // But memory is bounded, however long it lasts.
        assert!(0 < live(&Store { does: 10, down: 1_000..3_000 }, |_| 7).refused);
    }

    #[test]
    fn a_slow_store_still_has_a_crowd_under_way() {
        // Two orders per second would never be answered soon.
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gate = Gate::new(start);
        assert!(gate.enter(false, at(0)));
        for ms in (500..10_000).step_by(500) {
            for _ in 0..2 {
                assert!(gate.enter(false, at(ms)));
            }
            gate.leave(at(ms - 500), true, at(ms));
        }
        assert!(gate.under_way < ORDERS_OPEN_MIN);
        let refused = (0..ORDERS_OPEN_MIN).filter(|_| !gate.enter(false, at(9_501))).count();
        assert_eq!(gate.under_way, ORDERS_OPEN_MIN, "{refused} were refused");
        gate.leave(at(9_501), false, at(9_502));
        assert!(gate.enter(false, at(9_502)), "one who went away makes room");
        assert!(!gate.enter(false, at(9_502)));
    }

    #[test]
    fn one_that_goes_away_unanswered_is_no_answer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gate = Gate::new(start);
        assert!(gate.enter(false, at(0)) && gate.enter(false, at(0)));
        gate.leave(at(0), false, at(60));
        assert_eq!((gate.answered, gate.soon, gate.window.1), (at(0), at(0), 0));
        gate.leave(at(0), true, at(60));
        assert_eq!((gate.answered, gate.soon), (at(60), at(0)), "an answer, and a late one");
    }

    #[test]
    fn an_overload_lasts_for_as_long_as_orders_are_turned_away() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        while gate.enter(true, start) {}
        let mut now = start;
        for _ in 0..4 {
            now += OVER / 2;
            assert!(gate.turns_away(true, now), "the last one was half of it ago");
        }
        assert!(!gate.sheds(now + OVER));
    }
}
