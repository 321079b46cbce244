//! Failover by proof of death: milliseconds instead of an election timeout.
//!
//! Each replica holds a stream to each other one, whose only meaning is to break. When the leader's
//! breaks *and* a fresh connect is refused, its process is gone, and nobody needs to wait for its
//! lease to run out. The survivors tell each other how far their logs reach; the one whose log
//! reaches furthest (of equals the highest id) stands at once, the others stop waiting for the dead
//! one's lease. The votes themselves are as strict as ever, so a wrong guess costs a moment and no
//! order.
//!
//! Silence proves nothing by itself. But a leader that a majority, each for itself, has not heard
//! for longer than its lease can decide nothing any more, so the same survivors choose in the same
//! way, without the random wait that keeps strangers from standing all at once. One that was asleep
//! itself listens anew first: it was deaf, not the leader silent. Whatever this leaves undecided is
//! left to the engine's own timeouts.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::raft::TransferLeaderRequest;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use crate::members::Members;
use crate::peers::{PeerView, Peers, Position};
use crate::role::Reach;

/// How long the survivors wait for each other's word before they go by what they know.
const HEARING: Duration = Duration::from_millis(15);

/// A leader that was not heard for this long is silent: seven heartbeats, longer than its lease.
const SILENT: Duration = Duration::from_millis(350);

/// How often it is looked whether the leader is heard.
const LISTEN: Duration = Duration::from_millis(25);

/// Whoever comes so late to look was asleep, and may have missed what the leader said.
const ASLEEP: Duration = Duration::from_millis(50);

/// How long those who do not hear the leader wait for a majority that does not hear it either: two
/// looks.
const AGREEING: Duration = Duration::from_millis(50);

/// How long one who stands is given to win.
const STANDING: Duration = Duration::from_millis(120);

/// So often it is tried; then the ordinary timeouts have it.
const ROUNDS_MAX: u32 = 8;

/// A leader that is lost, and how far the log of the one who says so reaches.
pub(crate) type Mourning = Option<(u64, Position)>;

/// What a survivor should do about a dead leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The leader is not known to be dead, or too few are left to choose another.
    Leave,
    /// Somebody reachable has not said yet how far its log reaches.
    Hear,
    /// This replica is the one to stand.
    Stand,
    /// That one is.
    Yield(u64),
}

/// A leader that is gone, or as good as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Whom the survivors lost.
    pub(crate) leader: u64,
    /// Its process is known to be dead; else it is silent.
    pub(crate) proven: bool,
}

impl Loss {
    /// Judges it as replica `me` sees it, with its own log reaching to `last_log`.
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

    /// What to do when the others have had their time to speak.
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

/// It was there, and now nobody listens at its address.
fn is_dead(peer: PeerView) -> bool {
    peer.reach == Reach::Refused && peer.was_up
}

/// Whether the leader is heard, for one who may have been asleep: the pure core of listening.
#[derive(Clone, Copy, Debug)]
struct Listener {
    /// When it looked last.
    looked: Instant,
    /// Since when it has looked without a gap.
    awake: Instant,
}

impl Listener {
    fn new(now: Instant) -> Self {
        Self { looked: now, awake: now }
    }

    /// Looks: was the leader, last `heard` then, silent for too long while this one was awake?
    fn is_silent(&mut self, heard: Option<Instant>, now: Instant) -> bool {
        if LISTEN + ASLEEP < now - self.looked {
            self.awake = now;
        }
        self.looked = now;
        heard.is_some_and(|heard| SILENT <= now.saturating_duration_since(heard.max(self.awake)))
    }
}

/// Who should stand, by what is known now.
pub(crate) fn best(
    me: u64,
    last_log: Position,
    leader: u64,
    peers: &BTreeMap<u64, PeerView>,
) -> Verdict {
    let stands = |peer: &PeerView| peer.reach == Reach::Up && !peer.learner;
    let others = peers.iter().filter(|(id, peer)| **id != leader && stands(peer));
    let best = others.map(|(id, peer)| (peer.last_log, *id)).max();
    match best {
        Some((reaches, id)) if (last_log, me) < (reaches, id) => Verdict::Yield(id),
        _ => Verdict::Stand,
    }
}

/// Watches over the leader until `stop`. `mourning` tells those who hold the streams whom to report
/// dead.
pub(crate) async fn run(
    engine: Engine,
    peers: Peers,
    members: Members,
    mourning: watch::Sender<Mourning>,
    stop: CancellationToken,
) {
    let mut table = peers.watch();
    let mut leaders = engine.watch_leader();
    let mut listener = Listener::new(Instant::now());
    let (mut last, mut given_up) = (None, None);
    loop {
        last = leaders.borrow_and_update().leader.or(last);
        let silent = {
            let heard = last.and_then(|leader| peers.heard(leader));
            listener.is_silent(heard, Instant::now())
        };
        let loss = last.and_then(|leader| {
            let proven = table.borrow_and_update().get(&leader).copied().is_some_and(is_dead);
            (proven || silent).then_some(Loss { leader, proven })
        });
        // One without a vote has no say in who succeeds.
        let loss = loss.filter(|_| members.look(|now| now.is_voter(engine.id())));
        given_up = given_up.filter(|given_up| loss == Some(*given_up));
        if let Some(loss) = loss.filter(|_| given_up.is_none()) {
            tokio::select! {
                in_vain = succeed(&engine, &peers, &mourning, loss) => {
                    given_up = in_vain.then_some(loss);
                }
                () = stop.cancelled() => return,
            }
        }
        if loss.is_none() || given_up.is_some() {
            mourning.send_if_modified(|mourned| mourned.take().is_some());
        }
        tokio::select! {
            changed = table.changed() => if changed.is_err() { return },
            changed = leaders.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LISTEN) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Rounds of hearing and standing, until somebody leads or nothing is lost after all. True: all
/// rounds were in vain, the ordinary timeouts have it.
async fn succeed(
    engine: &Engine,
    peers: &Peers,
    mourning: &watch::Sender<Mourning>,
    loss: Loss,
) -> bool {
    let (me, lost) = (engine.id(), loss.leader);
    for round in 0..ROUNDS_MAX {
        if loss.proven {
            last_words(peers, lost).await;
        }
        let last_log = engine.last_log().await;
        mourning.send_replace(Some((lost, last_log)));
        let Some(verdict) = hear(me, last_log, peers, loss).await else { return false };
        if engine.leader().leader.is_some_and(|leader| leader != lost) {
            return false;
        }
        if round == 0 {
            peers.set_lost(lost);
            let to = if let Verdict::Yield(id) = verdict { id } else { me };
            let how = if loss.proven { "dead" } else { "silent" };
            tracing::debug!("{lost} is {how}, {to} is to succeed it");
            let request = TransferLeaderRequest::new(engine.vote(), to, None);
            if let Err(error) = engine.raft().handle_transfer_leader(request).await {
                tracing::debug!("cannot break the lease of {lost}: {error}");
            }
        } else if verdict == Verdict::Stand
            && let Err(error) = engine.raft().trigger().elect(false).await
        {
            tracing::debug!("cannot stand for election: {error}");
        }
        if engine.await_other_leader(lost, STANDING).await {
            return false;
        }
        mourning.send_replace(None);
    }
    true
}

/// Waits until nothing more comes from the dead, but not for long: what is still in the sockets may
/// make a log longer, and a vote is judged by all of it.
async fn last_words(peers: &Peers, dead: u64) {
    let mut table = peers.watch();
    let ended = table.wait_for(|table| table.get(&dead).is_none_or(|peer| peer.reading == 0));
    // Either way the choosing goes on.
    let _ = tokio::time::timeout(HEARING, ended).await;
}

/// Waits until the reachable replicas have said how far their logs reach, but not for long. `None`:
/// the leader is not lost after all, or too few are left.
async fn hear(me: u64, last_log: Position, peers: &Peers, loss: Loss) -> Option<Verdict> {
    let mut table = peers.watch();
    let until = Instant::now() + if loss.proven { HEARING } else { AGREEING };
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
    fn only_a_proven_death_is_acted_upon_and_only_by_the_best() {
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
    fn a_learner_has_no_say_in_who_succeeds() {
        let dead = peer(Reach::Refused, true, 0, false);
        let learner = PeerView { learner: true, ..peer(Reach::Up, true, 9, false) };
        let mut peers = BTreeMap::from([(456, dead), (567, learner)]);
        peers.insert(345, peer(Reach::Up, true, 5, true));
        assert_eq!(DEAD.judge(123, Some((1, 456, 6)), &peers), Verdict::Stand);
        peers.get_mut(&345).unwrap().reach = Reach::Refused;
        assert_eq!(DEAD.judge(123, Some((1, 456, 6)), &peers), Verdict::Leave);
    }

    #[test]
    fn of_five_two_dead_leave_a_majority_and_three_do_not() {
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
    fn a_silent_leader_is_given_up_only_by_a_majority_that_does_not_hear_it() {
        use Reach::{Refused, Unknown, Up};
        let silence = Loss { leader: 456, proven: false };
        // A frozen process keeps its streams open, one behind a broken network does not.
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
        // Found dead meanwhile: that is another matter, and judged anew.
        let peers =
            BTreeMap::from([(456, peer(Refused, true, 5, false)), (123, peer(Up, true, 5, true))]);
        assert_eq!(silence.judge(345, Some((1, 456, 5)), &peers), Verdict::Leave);
    }

    #[test]
    fn who_was_asleep_listens_anew() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut listener = Listener::new(at(0));
        assert!(!listener.is_silent(None, at(25)), "never heard: no leader to miss");
        for ms in (50..350).step_by(25) {
            assert!(!listener.is_silent(Some(at(0)), at(ms)), "{ms}");
        }
        assert!(listener.is_silent(Some(at(0)), at(350)));
        assert!(!listener.is_silent(Some(at(351)), at(375)), "it has spoken");
        // Two seconds later: what it said meanwhile lies in the sockets.
        assert!(!listener.is_silent(Some(at(375)), at(2_400)));
        for ms in (2_425..2_750).step_by(25) {
            assert!(!listener.is_silent(Some(at(375)), at(ms)), "{ms}");
        }
        assert!(listener.is_silent(Some(at(375)), at(2_750)));
    }
}
