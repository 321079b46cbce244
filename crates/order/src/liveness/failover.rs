//! Failover by proof of death: milliseconds instead of an election timeout.
//!
//! Each replica keeps a liveness stream to each other replica. When the leader's stream breaks
//! *and* a fresh connect is refused, its process is gone, and no survivor needs to wait for its
//! lease to run out. The survivors exchange how far their logs reach. The survivor with the longest
//! log (among equals, the highest id) stands for election at once; the others break the dead
//! leader's lease. Votes follow Raft's ordinary rules, so a wrong guess costs a moment and no
//! order.
//!
//! Silence alone proves nothing. But a leader can decide nothing once each replica of a majority
//! has not heard it for longer than its lease. The same survivors then choose in the same way,
//! without the random wait that keeps replicas from standing at the same time. A replica that was
//! itself suspended restarts its silence timer: it may have missed heartbeats of a live leader.
//! Every other case is left to the engine's own timeouts.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::log_end::Position;
use crate::membership::Members;
use crate::peers::{PeerView, Peers};
use crate::raft::engine::Engine;
use crate::role::Reach;

/// How long the survivors wait for each other's reports before they decide without the missing
/// ones.
const REPORT_TIMEOUT: Duration = Duration::from_millis(15);

/// A leader that was not heard for this long is silent: seven heartbeats, longer than its lease.
pub(crate) const LEADER_SILENCE: Duration = Duration::from_millis(350);

/// How often a replica checks whether it hears the leader.
const LISTEN_INTERVAL: Duration = Duration::from_millis(25);

/// A replica that checks this late was suspended, and may have missed the leader's heartbeats.
const SUSPENDED_AFTER: Duration = Duration::from_millis(50);

/// How long replicas that do not hear the leader wait for a majority that does not hear it either:
/// two checks.
const AGREEMENT_TIMEOUT: Duration = Duration::from_millis(50);

/// How long a candidate has to win.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(120);

/// The number of failover attempts; after them the engine's ordinary timeouts decide.
const ROUNDS_MAX: u32 = 8;

/// The lost leader, and how far the log of the reporting replica reaches.
pub(crate) type ReportedLoss = Option<(u64, Position)>;

/// What a survivor does about a lost leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The leader is not known to be dead, or too few replicas are left to elect another.
    Leave,
    /// A reachable replica has not reported yet how far its log reaches.
    Hear,
    /// This replica stands for election.
    Stand,
    /// The named replica stands for election.
    Yield(u64),
}

/// A leader that is dead or silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The lost leader.
    pub(crate) leader: u64,
    /// True: its process is known to be dead. False: it is silent.
    pub(crate) proven: bool,
}

impl Loss {
    /// The verdict of replica `me`, whose own log reaches to `last_log`.
    pub(crate) fn judge(
        self,
        me: u64,
        last_log: Position,
        peers: &BTreeMap<u64, PeerView>,
    ) -> Verdict {
        let Self { leader, proven } = self;
        let voters = || peers.iter().filter(|(_, peer)| !peer.learner);
        let majority = voters().count().div_ceil(2) + 1;
        let is_dead = peers.get(&leader).is_some_and(|dead| is_dead(*dead));
        let there = || voters().filter(|(id, p)| **id != leader && p.reach == Reach::Up);
        if proven != is_dead || there().count() + 1 < majority {
            return Verdict::Leave;
        }
        let agree = there().filter(|(_, peer)| peer.knows_dead == Some(leader)).count();
        let enough = if proven { there().count() } else { majority - 1 };
        if agree < enough {
            return Verdict::Hear;
        }
        best(me, last_log, leader, peers)
    }

    /// The verdict after the time for reports has passed.
    fn judge_at_last(
        self,
        me: u64,
        last_log: Position,
        peers: &BTreeMap<u64, PeerView>,
    ) -> Verdict {
        match self.judge(me, last_log, peers) {
            Verdict::Hear if self.proven => best(me, last_log, self.leader, peers),
            Verdict::Hear => Verdict::Leave,
            verdict => verdict,
        }
    }
}

/// True when the peer was up, and now no process listens at its address.
fn is_dead(peer: PeerView) -> bool {
    peer.reach == Reach::Refused && peer.was_up
}

/// Decides whether the leader is silent, on a replica that may have been suspended: the pure core.
#[derive(Clone, Copy, Debug)]
struct Listener {
    /// The time of the last check.
    looked: Instant,
    /// Since when the checks have come without a gap.
    awake_since: Instant,
}

impl Listener {
    fn new(now: Instant) -> Self {
        Self { looked: now, awake_since: now }
    }

    /// Checks: has the leader, last heard at `last_heard`, been silent too long while this replica
    /// was awake?
    fn is_silent(&mut self, last_heard: Option<Instant>, now: Instant) -> bool {
        if LISTEN_INTERVAL + SUSPENDED_AFTER < now - self.looked {
            self.awake_since = now;
        }
        self.looked = now;
        last_heard.is_some_and(|last_heard| {
            LEADER_SILENCE <= now.saturating_duration_since(last_heard.max(self.awake_since))
        })
    }
}

/// The best candidate, by the reports received so far.
pub(crate) fn best(
    me: u64,
    last_log: Position,
    leader: u64,
    peers: &BTreeMap<u64, PeerView>,
) -> Verdict {
    let is_eligible = |peer: &PeerView| peer.reach == Reach::Up && !peer.learner;
    let others = peers.iter().filter(|(id, peer)| **id != leader && is_eligible(peer));
    let best = others.map(|(id, peer)| (peer.last_log, *id)).max();
    match best {
        Some((reaches, id)) if (last_log, me) < (reaches, id) => Verdict::Yield(id),
        _ => Verdict::Stand,
    }
}

/// Watches the leader until `stop`. `reported_loss` gives the liveness streams the lost leader to
/// report.
pub(crate) async fn run(
    engine: Engine,
    peers: Peers,
    members: Members,
    reported_loss: watch::Sender<ReportedLoss>,
    stop: CancellationToken,
) {
    let mut table = peers.watch();
    let mut leaders = engine.watch_leader();
    let mut listener = Listener::new(Instant::now());
    let mut last = None;
    let mut given_up = None;
    loop {
        last = leaders.borrow_and_update().leader.or(last);
        let silent = {
            let last_heard = last.and_then(|leader| peers.last_heard(leader));
            listener.is_silent(last_heard, Instant::now())
        };
        let loss = last.and_then(|leader| {
            let proven = table.borrow_and_update().get(&leader).copied().is_some_and(is_dead);
            (proven || silent).then_some(Loss { leader, proven })
        });
        // A replica without a vote takes no part in the failover.
        let loss = loss.filter(|_| members.look(|now| now.is_voter(engine.id())));
        given_up = given_up.filter(|given_up| loss == Some(*given_up));
        if let Some(loss) = loss.filter(|_| given_up.is_none()) {
            tokio::select! {
                in_vain = succeed(&engine, &peers, &reported_loss, loss) => {
                    given_up = in_vain.then_some(loss);
                }
                () = stop.cancelled() => return,
            }
        }
        if loss.is_none() || given_up.is_some() {
            reported_loss.send_if_modified(|loss| loss.take().is_some());
        }
        tokio::select! {
            changed = table.changed() => if changed.is_err() { return },
            changed = leaders.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LISTEN_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Failover attempts, until another replica leads or the leader is not lost after all. True: all
/// attempts failed, and the engine's ordinary timeouts decide.
async fn succeed(
    engine: &Engine,
    peers: &Peers,
    reported_loss: &watch::Sender<ReportedLoss>,
    loss: Loss,
) -> bool {
    let me = engine.id();
    let lost = loss.leader;
    for round in 0..ROUNDS_MAX {
        if loss.proven {
            drain_inbound(peers, lost).await;
        }
        let last_log = engine.last_log().await;
        reported_loss.send_replace(Some((lost, last_log)));
        let Some(verdict) = hear(me, last_log, peers, loss).await else { return false };
        if engine.leader().leader.is_some_and(|leader| leader != lost) {
            return false;
        }
        if round == 0 {
            peers.set_lost(lost);
            let to = if let Verdict::Yield(id) = verdict { id } else { me };
            let how = if loss.proven { "dead" } else { "silent" };
            tracing::debug!("{lost} is {how}, {to} is to succeed it");
            if let Err(error) = engine.end_lease(to).await {
                tracing::debug!("cannot break the lease of {lost}: {error}");
            }
        } else if verdict == Verdict::Stand
            && let Err(error) = engine.stand().await
        {
            tracing::debug!("cannot stand for election: {error}");
        }
        if engine.await_other_leader(lost, ELECTION_TIMEOUT).await {
            return false;
        }
        reported_loss.send_replace(None);
    }
    true
}

/// Drains the dead leader's connections, for at most [`REPORT_TIMEOUT`]: data still in the sockets
/// may make a log longer, and a vote is judged by the whole log.
async fn drain_inbound(peers: &Peers, dead: u64) {
    let mut table = peers.watch();
    let ended = table.wait_for(|table| table.get(&dead).is_none_or(|peer| peer.reading == 0));
    // The failover continues in either case.
    let _ = tokio::time::timeout(REPORT_TIMEOUT, ended).await;
}

/// Waits for the reports of the reachable replicas, for at most [`REPORT_TIMEOUT`] or
/// [`AGREEMENT_TIMEOUT`]. `None`: the leader is not lost after all, or too few replicas are left.
async fn hear(me: u64, last_log: Position, peers: &Peers, loss: Loss) -> Option<Verdict> {
    let mut table = peers.watch();
    let until = Instant::now() + if loss.proven { REPORT_TIMEOUT } else { AGREEMENT_TIMEOUT };
    loop {
        let mut verdict = loss.judge(me, last_log, &table.borrow_and_update());
        if verdict == Verdict::Hear
            && tokio::time::timeout_at(until, table.changed()).await.is_err()
        {
            verdict = loss.judge_at_last(me, last_log, &table.borrow());
        }
        match verdict {
            Verdict::Leave => return None,
            Verdict::Stand | Verdict::Yield(_) => return Some(verdict),
            Verdict::Hear => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: Loss = Loss { leader: 456, proven: true };

    fn peer(reach: Reach, was_up: bool, index: u64, knows_dead: bool) -> PeerView {
        PeerView {
            reach,
            was_up,
            last_log: Some((1, 456, index)),
            knows_dead: knows_dead.then_some(456),
            ..PeerView::default()
        }
    }

    #[test]
    fn only_the_best_survivor_stands_and_only_after_a_proven_death() {
        use Reach::{Refused, Unknown, Up};
        let dead = peer(Refused, true, 0, false);
        let cases = [
            ("alive", 345, peer(Up, true, 0, false), peer(Up, true, 5, true), Verdict::Leave),
            ("silent", 345, peer(Unknown, true, 0, false), peer(Up, true, 5, true), Verdict::Leave),
            (
                "never met",
                345,
                peer(Refused, false, 0, false),
                peer(Up, true, 5, true),
                Verdict::Leave,
            ),
            ("alone", 345, dead, peer(Refused, true, 5, true), Verdict::Leave),
            ("alone in silence", 345, dead, peer(Unknown, true, 5, true), Verdict::Leave),
            ("not heard yet", 345, dead, peer(Up, true, 5, false), Verdict::Hear),
            ("equal logs, higher id", 345, dead, peer(Up, true, 5, true), Verdict::Stand),
            ("a longer log beats the id", 345, dead, peer(Up, true, 6, true), Verdict::Yield(123)),
            ("a shorter log", 345, dead, peer(Up, true, 4, true), Verdict::Stand),
        ];
        for (name, me, leader, other, verdict) in cases {
            let peers = BTreeMap::from([(456, leader), (123, other)]);
            assert_eq!(DEAD.judge(me, Some((1, 456, 5)), &peers), verdict, "{name}");
        }
        // The lower of two equals yields.
        let peers = BTreeMap::from([(456, dead), (345, peer(Up, true, 5, true))]);
        assert_eq!(DEAD.judge(123, Some((1, 456, 5)), &peers), Verdict::Yield(345));
        // A later term beats a greater index.
        assert_eq!(DEAD.judge(123, Some((2, 345, 1)), &peers), Verdict::Stand);
    }

    #[test]
    fn a_learner_takes_no_part_in_a_failover() {
        let dead = peer(Reach::Refused, true, 0, false);
        let learner = PeerView { learner: true, ..peer(Reach::Up, true, 9, false) };
        let mut peers = BTreeMap::from([(456, dead), (567, learner)]);
        peers.insert(345, peer(Reach::Up, true, 5, true));
        assert_eq!(DEAD.judge(123, Some((1, 456, 6)), &peers), Verdict::Stand);
        peers.get_mut(&345).unwrap().reach = Reach::Refused;
        assert_eq!(DEAD.judge(123, Some((1, 456, 6)), &peers), Verdict::Leave);
    }

    #[test]
    fn five_replicas_fail_over_with_two_dead_and_not_with_three() {
        let five = Loss { leader: 5, proven: true };
        let up = peer(Reach::Up, true, 5, true);
        let dead = peer(Reach::Refused, true, 5, false);
        let mut peers = BTreeMap::from([(5, dead), (1, dead), (2, up), (4, up)]);
        for peer in peers.values_mut() {
            peer.knows_dead = Some(5);
        }
        assert_eq!(five.judge(3, Some((1, 456, 5)), &peers), Verdict::Yield(4));
        peers.get_mut(&4).unwrap().reach = Reach::Refused;
        assert_eq!(five.judge(3, Some((1, 456, 5)), &peers), Verdict::Leave);
    }

    #[test]
    fn a_silent_leader_is_replaced_only_if_a_majority_does_not_hear_it() {
        use Reach::{Refused, Unknown, Up};
        let silence = Loss { leader: 456, proven: false };
        // A frozen process keeps its streams open; a process behind a broken network does not.
        for frozen in [peer(Up, true, 5, false), peer(Unknown, true, 5, false)] {
            let cases = [
                ("hears it", peer(Up, true, 5, false), Verdict::Hear, Verdict::Leave),
                ("does not hear it", peer(Up, true, 5, true), Verdict::Stand, Verdict::Stand),
                ("longer log", peer(Up, true, 6, true), Verdict::Yield(123), Verdict::Yield(123)),
                ("gone", peer(Refused, true, 5, true), Verdict::Leave, Verdict::Leave),
                ("out of reach", peer(Unknown, true, 5, true), Verdict::Leave, Verdict::Leave),
            ];
            for (name, other, verdict, at_last) in cases {
                let peers = BTreeMap::from([(456, frozen), (123, other)]);
                assert_eq!(silence.judge(345, Some((1, 456, 5)), &peers), verdict, "{name}");
                let chosen = silence.judge_at_last(345, Some((1, 456, 5)), &peers);
                assert_eq!(chosen, at_last, "{name}");
            }
        }
        // A leader found dead meanwhile is a new loss, with its own verdict.
        let peers =
            BTreeMap::from([(456, peer(Refused, true, 5, false)), (123, peer(Up, true, 5, true))]);
        assert_eq!(silence.judge(345, Some((1, 456, 5)), &peers), Verdict::Leave);
    }

    #[test]
    fn a_suspended_replica_restarts_its_silence_timer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut listener = Listener::new(at(0));
        assert!(!listener.is_silent(None, at(25)), "never heard: no leader to miss");
        for ms in (50..350).step_by(25) {
            assert!(!listener.is_silent(Some(at(0)), at(ms)), "{ms}");
        }
        assert!(listener.is_silent(Some(at(0)), at(350)));
        assert!(!listener.is_silent(Some(at(351)), at(375)), "a heartbeat arrived");
        // Two seconds later: the leader's heartbeats of that time are still in the sockets.
        assert!(!listener.is_silent(Some(at(375)), at(2_400)));
        for ms in (2_425..2_750).step_by(25) {
            assert!(!listener.is_silent(Some(at(375)), at(ms)), "{ms}");
        }
        assert!(listener.is_silent(Some(at(375)), at(2_750)));
    }
}
