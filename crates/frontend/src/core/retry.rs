//! The retry policy of one order or batch: each order under its own key, one deadline, as many
//! tries as needed.
//!
//! A pure core: it is given the view of the replicas and the results of the tries, and decides
//! which replica to ask, how long to wait, or which problem the client gets. It never gives up on
//! an unknown outcome before the deadline, because only a retry with the same key shows it. It
//! never reports a definite problem when the order may have been decided.

use std::time::Duration;

use wire::problem::{Code, Problem};

use crate::limits::LEADERLESS_MAX;

/// A replica's report that there is no majority is believed once the request is this old: the
/// replica dials those that it misses every 50 ms.
const NO_QUORUM_BELIEVED_AFTER: Duration = Duration::from_millis(150);

/// The reachability of one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Connected, and heard from lately.
    Up,
    /// Its machine says that no process listens.
    Refused,
    /// Neither: connecting, cut off, or frozen.
    #[default]
    Silent,
}

/// The replicas as this frontend sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaView {
    /// The leader, by the hint of the highest term.
    pub leader: Option<u64>,
    /// Every replica of the store.
    pub replicas: Vec<(u64, Reach)>,
    /// A replica whose listed address belongs to another replica, and that replica.
    pub misplaced: Option<(u64, u64)>,
}

/// The next action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextTry {
    /// Ask this replica.
    Ask(u64),
    /// Wait for the view to change, at most this long.
    Wait(Duration),
    /// Dial the replicas that refused once more: the view only has the result of the last connect.
    Dial,
    /// The order was not placed: the client gets this problem.
    Refuse(Problem),
    /// The outcome is unknown, and the deadline has passed.
    Unknown,
}

/// The state of one request's tries.
#[derive(Clone, Debug)]
pub struct Retry {
    timeout: Duration,
    /// Some try may have been decided.
    unknown: bool,
    /// The earliest time of the next try, after a definite problem.
    not_before: Duration,
    tries: u32,
    /// The replicas that refused have been dialed again for this request.
    dialed: bool,
}

impl ReplicaView {
    fn count(&self, reach: Reach) -> usize {
        self.replicas.iter().filter(|(_, there)| *there == reach).count()
    }

    fn majority(&self) -> usize {
        self.replicas.len() / 2 + 1
    }

    /// True if more replicas refuse connections than a majority can spare.
    pub fn is_cut_off(&self) -> bool {
        self.replicas.len() - self.count(Reach::Refused) < self.majority()
    }

    /// The leader, if it is reachable.
    pub fn leader_up(&self) -> Option<u64> {
        let leader = self.leader?;
        self.replicas.contains(&(leader, Reach::Up)).then_some(leader)
    }
}

impl Retry {
    /// A request that may take `timeout` in total.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, unknown: false, not_before: Duration::ZERO, tries: 0, dialed: false }
    }

    /// The next action, `since` the request arrived.
    pub fn next(&self, view: &ReplicaView, since: Duration) -> NextTry {
        let no_quorum = "no majority of the replicas is reachable: nothing was ordered";
        if self.timeout <= since {
            if self.unknown {
                return NextTry::Unknown;
            }
            return NextTry::Refuse(problem(Code::NoLeader, "no leader was found in time"));
        }
        let left = self.timeout.saturating_sub(since);
        if since < self.not_before {
            return NextTry::Wait(self.not_before.saturating_sub(since).min(left));
        }
        if let Some(leader) = view.leader_up() {
            return NextTry::Ask(leader);
        }
        if let Some((listed, found)) = view.misplaced.filter(|_| !self.unknown) {
            let why = format!(
                "this frontend's list of replicas is wrong, nothing was ordered: the address of \
                 replica {listed} is that of replica {found}"
            );
            return NextTry::Refuse(problem(Code::NoLeader, &why));
        }
        if view.is_cut_off() && !self.unknown {
            if !self.dialed {
                return NextTry::Dial;
            }
            return NextTry::Refuse(problem(Code::NoQuorum, no_quorum));
        }
        let silent = view.count(Reach::Up) < view.majority();
        if silent && !self.unknown && LEADERLESS_MAX <= since {
            return NextTry::Refuse(problem(Code::NoQuorum, no_quorum));
        }
        let look_again = LEADERLESS_MAX.saturating_sub(since).max(Duration::from_millis(20));
        NextTry::Wait(look_again.min(left))
    }

    /// A try failed with a problem. `random` in 0..1 spreads the retries of different requests.
    /// `Some`: the client gets this problem at once; only if no try can have been decided.
    pub fn failed(&mut self, problem: &Problem, since: Duration, random: f64) -> Option<Problem> {
        self.unknown |= !problem.definite;
        self.tries = self.tries.saturating_add(1);
        let final_now = match problem.code {
            Code::Overloaded | Code::DiskFull | Code::Malformed | Code::NotPermitted => true,
            // A replica, too, only knows the results of its last connects.
            Code::NoQuorum => NO_QUORUM_BELIEVED_AFTER <= since,
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
        let pause = step.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        self.not_before = since + pause;
        None
    }

    /// The replicas that refused connections have been dialed again.
    pub fn dialed(&mut self) {
        self.dialed = true;
    }

    /// The try was abandoned because another replica leads now: it may have been decided.
    pub fn abandoned(&mut self) {
        self.unknown = true;
    }

    /// True if some try may have been decided.
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

    fn view(leader: Option<u64>, reach: [Reach; 3]) -> ReplicaView {
        let replicas = [123, 345, 456].into_iter().zip(reach).collect();
        ReplicaView { leader, replicas, misplaced: None }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_order_is_sent_to_the_leader() {
        let retry = Retry::new(ms(5_000));
        assert_eq!(retry.next(&view(Some(456), [Up, Up, Up]), ms(0)), NextTry::Ask(456));
        assert_eq!(retry.next(&view(Some(345), [Refused, Up, Up]), ms(0)), NextTry::Ask(345));
    }

    #[test]
    fn without_a_majority_writes_are_refused_within_a_second() {
        let mut retry = Retry::new(ms(5_000));
        let refused =
            |step| matches!(step, NextTry::Refuse(problem) if problem.code == Code::NoQuorum);
        assert_eq!(retry.next(&view(None, [Up, Refused, Refused]), ms(0)), NextTry::Dial);
        retry.dialed();
        assert!(refused(retry.next(&view(None, [Up, Refused, Refused]), ms(0))));
        assert!(matches!(retry.next(&view(None, [Up, Silent, Silent]), ms(0)), NextTry::Wait(_)));
        assert!(refused(retry.next(&view(None, [Up, Silent, Silent]), ms(900))));
    }

    /// Kind: the result of the last connect, taken for the present state.
    #[test]
    fn a_reachable_leader_is_asked_regardless_of_the_other_replicas() {
        let mut retry = Retry::new(ms(5_000));
        let two_refused = view(Some(456), [Refused, Refused, Up]);
        assert_eq!(retry.next(&two_refused, ms(0)), NextTry::Ask(456));
        // The leader is lost, and a restarted replica has not been dialed since.
        let gone = view(Some(456), [Refused, Up, Refused]);
        assert_eq!(retry.next(&gone, ms(0)), NextTry::Dial);
        retry.dialed();
        assert!(matches!(retry.next(&view(None, [Up, Up, Refused]), ms(5)), NextTry::Wait(_)));
        let mut retry = Retry::new(ms(5_000));
        let no_quorum = Problem::definite(Code::NoQuorum, "a replica says so");
        assert_eq!(retry.failed(&no_quorum, ms(10), 0.0), None);
        assert_eq!(retry.failed(&no_quorum, ms(150), 0.0), Some(no_quorum));
    }

    #[test]
    fn swapped_addresses_in_the_list_of_replicas_are_reported_at_once() {
        let retry = Retry::new(ms(5_000));
        let crossed = |leader| ReplicaView {
            misplaced: Some((123, 456)),
            ..view(Some(leader), [Silent, Up, Silent])
        };
        let NextTry::Refuse(told) = retry.next(&crossed(456), ms(0)) else { panic!() };
        assert!(told.definite && told.message.contains("replica 123 is that of replica 456"));
        assert_eq!(
            retry.next(&crossed(345), ms(0)),
            NextTry::Ask(345),
            "the leader is not misplaced"
        );
    }

    #[test]
    fn an_order_waits_for_a_failover() {
        let retry = Retry::new(ms(5_000));
        let choosing = view(None, [Up, Up, Refused]);
        assert!(matches!(retry.next(&choosing, ms(0)), NextTry::Wait(_)));
        assert!(matches!(retry.next(&choosing, ms(4_999)), NextTry::Wait(_)));
        assert!(matches!(retry.next(&choosing, ms(5_000)), NextTry::Refuse(_)));
    }

    #[test]
    fn an_unknown_outcome_is_retried_and_never_reported_as_definite() {
        let mut retry = Retry::new(ms(5_000));
        let lost = Problem::indefinite(Code::Lost, "broke");
        assert_eq!(retry.failed(&lost, ms(10), 1.0), None);
        assert!(matches!(
            retry.next(&view(Some(345), [Up, Up, Refused]), ms(10)),
            NextTry::Wait(_)
        ));
        assert_eq!(retry.next(&view(Some(345), [Up, Up, Refused]), ms(20)), NextTry::Ask(345));
        assert!(matches!(
            retry.next(&view(None, [Up, Refused, Refused]), ms(20)),
            NextTry::Wait(_)
        ));
        let full = Problem::definite(Code::Overloaded, "full");
        assert_eq!(retry.failed(&full, ms(30), 0.0), None, "the first try may have been decided");
        assert_eq!(retry.next(&view(None, [Up, Refused, Refused]), ms(5_000)), NextTry::Unknown);
    }

    #[test]
    fn overload_is_reported_at_once() {
        let mut retry = Retry::new(ms(5_000));
        let full = Problem::definite(Code::Overloaded, "full");
        assert_eq!(retry.failed(&full, ms(0), 0.0), Some(full));
    }

    #[test]
    fn an_abandoned_try_may_have_been_decided() {
        let mut retry = Retry::new(ms(5_000));
        retry.abandoned();
        assert!(retry.is_unknown());
        let full = Problem::definite(Code::Overloaded, "full");
        assert_eq!(retry.failed(&full, ms(0), 0.0), None);
        for reach in [[Up, Refused, Refused], [Up, Silent, Silent]] {
            assert!(
                matches!(retry.next(&view(None, reach), ms(900)), NextTry::Wait(_)),
                "{reach:?}"
            );
        }
        assert_eq!(retry.next(&view(None, [Up, Silent, Silent]), ms(5_000)), NextTry::Unknown);
    }

    #[test]
    fn an_unreachable_leader_is_not_asked() {
        let retry = Retry::new(ms(5_000));
        for reach in [Silent, Refused] {
            let step = retry.next(&view(Some(456), [Up, Up, reach]), ms(0));
            assert!(matches!(step, NextTry::Wait(_)), "{reach:?}: {step:?}");
        }
    }

    #[test]
    fn a_problem_that_a_retry_cannot_cure_is_reported_at_once() {
        for code in [Code::Overloaded, Code::DiskFull, Code::Malformed] {
            let problem = Problem::definite(code, "no");
            assert_eq!(Retry::new(ms(5_000)).failed(&problem, ms(0), 0.0), Some(problem), "{code}");
        }
        // The replica may rely on connects of a moment ago.
        let no_quorum = Problem::definite(Code::NoQuorum, "no");
        assert_eq!(Retry::new(ms(5_000)).failed(&no_quorum, ms(0), 0.0), None);
        let late = Retry::new(ms(5_000)).failed(&no_quorum, NO_QUORUM_BELIEVED_AFTER, 0.0);
        assert_eq!(late, Some(no_quorum));
        for code in [Code::NotLeader, Code::NoLeader, Code::Lost, Code::Starting, Code::Refused] {
            let problem = Problem::definite(code, "not yet");
            assert_eq!(Retry::new(ms(5_000)).failed(&problem, ms(0), 0.0), None, "{code}");
        }
    }
}
