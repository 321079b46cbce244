//! What to do next for one order, or for those that travel together: each under its own key, one
//! deadline, as many tries as it takes.
//!
//! A pure core: it is told what the replicas look like and how the tries went, and says whom to
//! ask, to wait, or what to tell the client. It never gives up on an unknown outcome before the
//! deadline, for only the same key again will tell; and it never says that nothing happened when
//! something may have.

use std::time::Duration;

use wire::problem::{Code, Problem};

use crate::limits::LEADERLESS_MAX;

/// A replica that says for this long that no majority is there is believed: it dials those that it
/// misses every 50 ms.
const NO_QUORUM_AFTER: Duration = Duration::from_millis(150);

/// How one replica looks from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Connected, and heard of lately.
    Up,
    /// Nobody listens there.
    Refused,
    /// Neither: connecting, cut off, or frozen.
    #[default]
    Silent,
}

/// The replicas as they look from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Who leads, by the hint of the highest term.
    pub leader: Option<u64>,
    /// Every replica of the store.
    pub replicas: Vec<(u64, Reach)>,
    /// A replica whose listed address is that of another one, and that one.
    pub misplaced: Option<(u64, u64)>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this replica.
    Ask(u64),
    /// Wait for the view to change, or so long.
    Wait(Duration),
    /// Connect once more to the replicas that refused: it is known only of the last connect.
    Dial,
    /// Nothing happened: tell the client so.
    Refuse(Problem),
    /// Nobody knows what happened, and the time is up.
    Unknown,
}

/// One request's way.
#[derive(Clone, Debug)]
pub struct Seek {
    patience: Duration,
    /// Some try may have been decided.
    unknown: bool,
    /// When a definite problem allows the next try.
    not_before: Duration,
    tries: u32,
    /// The replicas that refuse connections were dialed again for this request.
    dialed: bool,
}

impl View {
    fn count(&self, reach: Reach) -> usize {
        self.replicas.iter().filter(|(_, there)| *there == reach).count()
    }

    fn majority(&self) -> usize {
        self.replicas.len() / 2 + 1
    }

    /// So many refuse connections that no majority can be left.
    pub fn is_cut_off(&self) -> bool {
        self.replicas.len() - self.count(Reach::Refused) < self.majority()
    }

    /// The leader, if it can be asked.
    pub fn leader_up(&self) -> Option<u64> {
        let leader = self.leader?;
        self.replicas.contains(&(leader, Reach::Up)).then_some(leader)
    }
}

impl Seek {
    /// A request that may take so long.
    pub fn new(patience: Duration) -> Self {
        Self { patience, unknown: false, not_before: Duration::ZERO, tries: 0, dialed: false }
    }

    /// What to do next, `since` the request came.
    pub fn next(&self, view: &View, since: Duration) -> Step {
        let no_quorum = "no majority of the replicas is reachable: nothing was ordered";
        if self.patience <= since {
            if self.unknown {
                return Step::Unknown;
            }
            return Step::Refuse(problem(Code::NoLeader, "no leader was found in time"));
        }
        let left = self.patience.saturating_sub(since);
        if since < self.not_before {
            return Step::Wait(self.not_before.saturating_sub(since).min(left));
        }
        if let Some(leader) = view.leader_up() {
            return Step::Ask(leader);
        }
        if let Some((listed, found)) = view.misplaced.filter(|_| !self.unknown) {
            let why = format!(
                "this frontend's list of replicas is wrong, nothing was ordered: the address of \
                 replica {listed} is that of replica {found}"
            );
            return Step::Refuse(problem(Code::NoLeader, &why));
        }
        if view.is_cut_off() && !self.unknown {
            return match self.dialed {
                true => Step::Refuse(problem(Code::NoQuorum, no_quorum)),
                false => Step::Dial,
            };
        }
        let silent = view.count(Reach::Up) < view.majority();
        if silent && !self.unknown && LEADERLESS_MAX <= since {
            return Step::Refuse(problem(Code::NoQuorum, no_quorum));
        }
        let look_again = LEADERLESS_MAX.saturating_sub(since).max(Duration::from_millis(20));
        Step::Wait(look_again.min(left))
    }

    /// A try came back with a problem. `luck` in 0..1 spreads those who try again. Some problems
    /// are for the client at once, if nothing can have happened.
    pub fn failed(&mut self, problem: &Problem, since: Duration, luck: f64) -> Option<Problem> {
        self.unknown |= !problem.definite;
        self.tries = self.tries.saturating_add(1);
        let final_now = match problem.code {
            Code::Overloaded | Code::DiskFull | Code::Malformed => true,
            // A replica, too, knows only what its last connects came to.
            Code::NoQuorum => NO_QUORUM_AFTER <= since,
            Code::Unknown
            | Code::NotLeader
            | Code::NoLeader
            | Code::TimedOut
            | Code::Lost
            | Code::Starting
            | Code::WrongLedger
            | Code::Refused => false,
        };
        if final_now && !self.unknown {
            return Some(problem.clone());
        }
        // 2, 4, 8, … at most 64 ms, spread over its upper half.
        let step = Duration::from_millis(1 << self.tries.min(6));
        let pause = step.mul_f64(0.5 + 0.5 * luck.clamp(0.0, 1.0));
        self.not_before = since + pause;
        None
    }

    /// The replicas that refuse connections have been dialed again.
    pub fn dialed(&mut self) {
        self.dialed = true;
    }

    /// The try was given up because somebody else leads now: it may yet have been decided.
    pub fn abandoned(&mut self) {
        self.unknown = true;
    }

    /// True when some try may have been decided.
    pub fn is_unknown(&self) -> bool {
        self.unknown
    }
}

fn problem(code: Code, message: &str) -> Problem {
    let after = Some(Duration::from_secs(1));
    Problem { retry_after: after, ..Problem::definite(code, message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reach::{Refused, Silent, Up};

    fn view(leader: Option<u64>, reach: [Reach; 3]) -> View {
        let replicas = [123, 345, 456].into_iter().zip(reach).collect();
        View { leader, replicas, misplaced: None }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_leader_is_asked() {
        let seek = Seek::new(ms(5_000));
        assert_eq!(seek.next(&view(Some(456), [Up, Up, Up]), ms(0)), Step::Ask(456));
        assert_eq!(seek.next(&view(Some(345), [Refused, Up, Up]), ms(0)), Step::Ask(345));
    }

    #[test]
    fn a_lone_survivor_refuses_writes_at_once_or_within_a_second() {
        let mut seek = Seek::new(ms(5_000));
        let refused =
            |step| matches!(step, Step::Refuse(problem) if problem.code == Code::NoQuorum);
        assert_eq!(seek.next(&view(None, [Up, Refused, Refused]), ms(0)), Step::Dial);
        seek.dialed();
        assert!(refused(seek.next(&view(None, [Up, Refused, Refused]), ms(0))));
        assert!(matches!(seek.next(&view(None, [Up, Silent, Silent]), ms(0)), Step::Wait(_)));
        assert!(refused(seek.next(&view(None, [Up, Silent, Silent]), ms(900))));
    }

    /// The kind: what the last connect came to, taken for what is so now.
    #[test]
    fn a_leader_that_is_up_is_asked_whatever_the_others_look_like() {
        let mut seek = Seek::new(ms(5_000));
        let two_refused = view(Some(456), [Refused, Refused, Up]);
        assert_eq!(seek.next(&two_refused, ms(0)), Step::Ask(456));
        // The leader has just gone, and one that was restarted has not been dialed since.
        let gone = view(Some(456), [Refused, Up, Refused]);
        assert_eq!(seek.next(&gone, ms(0)), Step::Dial);
        seek.dialed();
        assert!(matches!(seek.next(&view(None, [Up, Up, Refused]), ms(5)), Step::Wait(_)));
        let mut seek = Seek::new(ms(5_000));
        let no_quorum = Problem::definite(Code::NoQuorum, "a replica says so");
        assert_eq!(seek.failed(&no_quorum, ms(10), 0.0), None);
        assert_eq!(seek.failed(&no_quorum, ms(150), 0.0), Some(no_quorum));
    }

    #[test]
    fn a_list_with_ids_and_addresses_crossed_is_told_at_once() {
        let seek = Seek::new(ms(5_000));
        let crossed = |leader| View {
            misplaced: Some((123, 456)),
            ..view(Some(leader), [Silent, Up, Silent])
        };
        let Step::Refuse(told) = seek.next(&crossed(456), ms(0)) else { panic!() };
        assert!(told.definite && told.message.contains("replica 123 is that of replica 456"));
        assert_eq!(seek.next(&crossed(345), ms(0)), Step::Ask(345), "the leader is in its place");
    }

    #[test]
    fn a_failover_is_waited_for() {
        let seek = Seek::new(ms(5_000));
        let choosing = view(None, [Up, Up, Refused]);
        assert!(matches!(seek.next(&choosing, ms(0)), Step::Wait(_)));
        assert!(matches!(seek.next(&choosing, ms(4_999)), Step::Wait(_)));
        assert!(matches!(seek.next(&choosing, ms(5_000)), Step::Refuse(_)));
    }

    #[test]
    fn an_unknown_outcome_is_asked_again_and_never_called_nothing() {
        let mut seek = Seek::new(ms(5_000));
        let lost = Problem::indefinite(Code::Lost, "broke");
        assert_eq!(seek.failed(&lost, ms(10), 1.0), None);
        assert!(matches!(seek.next(&view(Some(345), [Up, Up, Refused]), ms(10)), Step::Wait(_)));
        assert_eq!(seek.next(&view(Some(345), [Up, Up, Refused]), ms(20)), Step::Ask(345));
        assert!(matches!(seek.next(&view(None, [Up, Refused, Refused]), ms(20)), Step::Wait(_)));
        let full = Problem::definite(Code::Overloaded, "full");
        assert_eq!(seek.failed(&full, ms(30), 0.0), None, "the first try may have been decided");
        assert_eq!(seek.next(&view(None, [Up, Refused, Refused]), ms(5_000)), Step::Unknown);
    }

    #[test]
    fn overload_is_told_at_once() {
        let mut seek = Seek::new(ms(5_000));
        let full = Problem::definite(Code::Overloaded, "full");
        assert_eq!(seek.failed(&full, ms(0), 0.0), Some(full));
    }

    #[test]
    fn a_try_that_was_given_up_may_have_been_decided() {
        let mut seek = Seek::new(ms(5_000));
        seek.abandoned();
        assert!(seek.is_unknown());
        let full = Problem::definite(Code::Overloaded, "full");
        assert_eq!(seek.failed(&full, ms(0), 0.0), None);
        for reach in [[Up, Refused, Refused], [Up, Silent, Silent]] {
            assert!(matches!(seek.next(&view(None, reach), ms(900)), Step::Wait(_)), "{reach:?}");
        }
        assert_eq!(seek.next(&view(None, [Up, Silent, Silent]), ms(5_000)), Step::Unknown);
    }

    #[test]
    fn a_leader_that_is_not_there_is_not_asked() {
        let seek = Seek::new(ms(5_000));
        for reach in [Silent, Refused] {
            let step = seek.next(&view(Some(456), [Up, Up, reach]), ms(0));
            assert!(matches!(step, Step::Wait(_)), "{reach:?}: {step:?}");
        }
    }

    #[test]
    fn what_another_try_would_not_cure_is_told_at_once() {
        for code in [Code::Overloaded, Code::DiskFull, Code::Malformed] {
            let problem = Problem::definite(code, "no");
            assert_eq!(Seek::new(ms(5_000)).failed(&problem, ms(0), 0.0), Some(problem), "{code}");
        }
        // The replica may go by connects of a moment ago.
        let no_quorum = Problem::definite(Code::NoQuorum, "no");
        assert_eq!(Seek::new(ms(5_000)).failed(&no_quorum, ms(0), 0.0), None);
        let late = Seek::new(ms(5_000)).failed(&no_quorum, NO_QUORUM_AFTER, 0.0);
        assert_eq!(late, Some(no_quorum));
        for code in [Code::NotLeader, Code::NoLeader, Code::Lost, Code::Starting, Code::Refused] {
            let problem = Problem::definite(code, "not yet");
            assert_eq!(Seek::new(ms(5_000)).failed(&problem, ms(0), 0.0), None, "{code}");
        }
    }
}
