//! Failover by proof of death: milliseconds instead of an election timeout.
//!
//! Each replica holds a stream to each other one, whose only meaning is to break. When the leader's
//! breaks *and* a fresh connect is refused, its process is gone, and nobody needs to wait for its
//! lease to run out. The survivors tell each other how far their logs reach; the one whose log
//! reaches furthest (of equals the highest id) stands at once, the others stop waiting for the dead
//! one's lease. The votes themselves are as strict as ever, so a wrong guess costs a moment and no
//! order.
//!
//! Silence proves nothing: a replica that does not answer is left to the ordinary timeouts.

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

/// How long one who stands is given to win.
const STANDING: Duration = Duration::from_millis(120);

/// So often it is tried; then the ordinary timeouts have it.
const ROUNDS_MAX: u32 = 8;

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

/// Judges the death of `leader` as replica `me` sees it, with its own log reaching to `last_log`.
pub(crate) fn judge(
    me: u64,
    last_log: Position,
    leader: u64,
    peers: &BTreeMap<u64, PeerView>,
) -> Verdict {
    let Some(dead) = peers.get(&leader) else { return Verdict::Leave };
    if dead.reach != Reach::Refused || !dead.was_up {
        return Verdict::Leave;
    }
    let voters = || peers.iter().filter(|(_, peer)| !peer.learner);
    let majority = voters().count().div_ceil(2) + 1;
    let there = || voters().filter(|(_, peer)| peer.reach == Reach::Up);
    if there().count() + 1 < majority {
        return Verdict::Leave;
    }
    if there().any(|(_, peer)| peer.knows_dead != Some(leader)) {
        return Verdict::Hear;
    }
    best(me, last_log, leader, peers)
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
    mourning: watch::Sender<Option<u64>>,
    stop: CancellationToken,
) {
    let mut table = peers.watch();
    let mut leaders = engine.watch_leader();
    let (mut last, mut given_up) = (None, None);
    loop {
        let known = leaders.borrow_and_update().leader;
        last = known.or(last);
        given_up = given_up.filter(|dead| last == Some(*dead));
        let is_dead = {
            let view = table.borrow_and_update();
            last.and_then(|leader| view.get(&leader))
                .is_some_and(|peer| peer.reach == Reach::Refused && peer.was_up)
        };
        // One without a vote has no say in who succeeds.
        let votes = members.look(|now| now.is_voter(engine.id()));
        if let Some(dead) = last.filter(|_| is_dead && votes && given_up.is_none()) {
            tokio::select! {
                in_vain = succeed(&engine, &peers, &mourning, dead) => {
                    given_up = in_vain.then_some(dead);
                }
                () = stop.cancelled() => return,
            }
            mourning.send_replace(None);
        }
        tokio::select! {
            changed = table.changed() => if changed.is_err() { return },
            changed = leaders.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Rounds of hearing and standing, until somebody leads or the proof no longer holds. True: all
/// rounds were in vain, the ordinary timeouts have it.
async fn succeed(
    engine: &Engine,
    peers: &Peers,
    mourning: &watch::Sender<Option<u64>>,
    dead: u64,
) -> bool {
    let me = engine.id();
    for round in 0..ROUNDS_MAX {
        mourning.send_replace(Some(dead));
        let Some(verdict) = hear(engine, peers, dead).await else { return false };
        if engine.leader().leader.is_some_and(|leader| leader != dead) {
            return false;
        }
        if round == 0 {
            let to = if let Verdict::Yield(id) = verdict { id } else { me };
            tracing::debug!("{dead} is dead, {to} is to succeed it");
            let request = TransferLeaderRequest::new(engine.vote(), to, None);
            if let Err(error) = engine.raft().handle_transfer_leader(request).await {
                tracing::debug!("cannot break the lease of {dead}: {error}");
            }
        } else if verdict == Verdict::Stand
            && let Err(error) = engine.raft().trigger().elect(false).await
        {
            tracing::debug!("cannot stand for election: {error}");
        }
        if engine.await_other_leader(dead, STANDING).await {
            return false;
        }
        mourning.send_replace(None);
    }
    true
}

/// Waits until every reachable replica has said how far its log reaches, but not for long. `None`:
/// the leader is not dead after all, or too few are left.
async fn hear(engine: &Engine, peers: &Peers, dead: u64) -> Option<Verdict> {
    let mut table = peers.watch();
    let until = Instant::now() + HEARING;
    loop {
        let (me, last_log) = (engine.id(), engine.last_log());
        let verdict = judge(me, last_log, dead, &table.borrow_and_update());
        match verdict {
            Verdict::Leave => return None,
            Verdict::Stand | Verdict::Yield(_) => return Some(verdict),
            Verdict::Hear => {}
        }
        if tokio::time::timeout_at(until, table.changed()).await.is_err() {
            return Some(best(me, last_log, dead, &table.borrow()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(judge(me, Some((1, 456, 5)), 456, &peers), verdict, "{name}");
        }
        // The lower of two equals yields.
        let peers = BTreeMap::from([(456, dead), (345, peer(Up, true, 5, true))]);
        assert_eq!(judge(123, Some((1, 456, 5)), 456, &peers), Verdict::Yield(345));
        // A later term beats a greater index.
        assert_eq!(judge(123, Some((2, 345, 1)), 456, &peers), Verdict::Stand);
    }

    #[test]
    fn a_learner_has_no_say_in_who_succeeds() {
        let dead = peer(Reach::Refused, true, 0, false);
        let learner = PeerView { learner: true, ..peer(Reach::Up, true, 9, false) };
        let mut peers = BTreeMap::from([(456, dead), (567, learner)]);
        peers.insert(345, peer(Reach::Up, true, 5, true));
        assert_eq!(judge(123, Some((1, 456, 6)), 456, &peers), Verdict::Stand);
        peers.get_mut(&345).unwrap().reach = Reach::Refused;
        assert_eq!(judge(123, Some((1, 456, 6)), 456, &peers), Verdict::Leave);
    }

    #[test]
    fn of_five_two_dead_leave_a_majority_and_three_do_not() {
        let up = peer(Reach::Up, true, 5, true);
        let dead = peer(Reach::Refused, true, 5, false);
        let mut peers = BTreeMap::from([(5, dead), (1, dead), (2, up), (4, up)]);
        for peer in peers.values_mut() {
            peer.knows_dead = Some(5);
        }
        assert_eq!(judge(3, Some((1, 456, 5)), 5, &peers), Verdict::Yield(4));
        peers.get_mut(&4).unwrap().reach = Reach::Refused;
        assert_eq!(judge(3, Some((1, 456, 5)), 5, &peers), Verdict::Leave);
    }
}
