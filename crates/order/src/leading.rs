//! Taking the lead, and saying who has it.
//!
//! Being elected is not yet leading. A fresh leader first makes sure of everything that was decided
//! before it; then it looks for a higher replica that is as good, and hands over to it; then it
//! opens the shop if nobody has. Only after that it takes requests. Those that come meanwhile wait.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ledger::codec::bulk;
use ledger::ledger::Ledger;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;

use crate::batcher::{Batcher, Propose};
use crate::config::Settings;
use crate::control::Wish;
use crate::handover::Preempt;
use crate::load::Load;
use crate::members::{Members, Now};
use crate::peers::Peers;
use crate::raft::engine::{Engine, Leadership};
use crate::raft::view::View;
use crate::role::{Choice, Reach, Rival, Role, choose, handed_in_vain};
use crate::room::Room;
use crate::settling::Settling;
use crate::{problems, shop};

/// How often it looks while it waits.
const LOOK: Duration = Duration::from_millis(5);

/// A leader that has not been heard for this long may be none any more: twelve heartbeats.
const SILENCE: Duration = Duration::from_millis(600);

/// Without a leader for this long, a replica says that there is no majority.
const FORSAKEN: Duration = Duration::from_millis(800);

/// How often a follower looks whether its leader is heard.
const LISTEN: Duration = Duration::from_millis(50);

/// To whom this replica last handed over, and when.
pub(crate) type Handed = Arc<Mutex<Option<(u64, Instant)>>>;

/// What taking the lead needs.
#[derive(Clone)]
pub(crate) struct Chair {
    pub(crate) settings: Arc<Settings>,
    pub(crate) engine: Engine,
    pub(crate) peers: Peers,
    pub(crate) members: Members,
    pub(crate) view: Arc<View>,
    pub(crate) room: Room,
    /// This replica is about to stop: it takes no lead any more.
    pub(crate) closing: CancellationToken,
    pub(crate) handed: Handed,
}

impl std::fmt::Debug for Chair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chair").finish_non_exhaustive()
    }
}

impl Chair {
    /// Follows the engine's choices until `stop`, keeps `role` true, and fulfils the operator's
    /// `wishes`.
    pub(crate) async fn run(
        self,
        role: watch::Sender<Role>,
        batcher: Batcher,
        mut wishes: mpsc::Receiver<Wish>,
        stop: CancellationToken,
    ) {
        let me = self.settings.id;
        let mut leaders = self.engine.watch_leader();
        let mut peers = self.peers.watch();
        let (mut announced, mut alone) = (None, None);
        let mut preempt = Preempt::default();
        loop {
            let now = *leaders.borrow_and_update();
            let part = self.part(now, &mut alone);
            // One that leads already, and still may, need not take the lead again.
            let leads_on = part == Role::Choosing { term: now.term }
                && (*role.borrow() == Role::Leading { term: now.term }
                    || self.closing.is_cancelled());
            if !leads_on {
                role.send_if_modified(|role| std::mem::replace(role, part) != part);
            }
            if let Role::Following { leader, .. } = part {
                announce(&mut announced, leader);
            }
            if matches!(part, Role::Choosing { .. }) && !leads_on {
                let taken = tokio::select! {
                    taken = self.take(now.term) => taken,
                    changed = leaders.changed() => if changed.is_ok() { continue } else { return },
                    () = stop.cancelled() => return,
                };
                match taken {
                    Ok(()) if self.closing.is_cancelled() => {}
                    Ok(()) => {
                        announce(&mut announced, me);
                        role.send_replace(Role::Leading { term: now.term });
                    }
                    // Not sure of the lead: try again, unless somebody else has it by now.
                    Err(problem) => {
                        tracing::debug!("cannot take the lead yet: {}", problem.message);
                        tokio::select! {
                            () = tokio::time::sleep(LOOK) => continue,
                            () = stop.cancelled() => return,
                        }
                    }
                }
            }
            let own = *role.borrow();
            if let Some(better) = self.better(own, &mut preempt)
                && let Err(why) = self.hand_over(better, &role, &batcher).await
            {
                tracing::debug!("{better} is not given the lead: {why}");
            }
            // A leader looks whether a majority is left, a follower whether its leader is heard.
            tokio::select! {
                Some(wish) = wishes.recv() => {
                    self.peers.set_wished(true);
                    let done = self.hand_over(wish.to, &role, &batcher).await;
                    self.peers.set_wished(false);
                    // An operator who has gone away sees it in the status.
                    let _ = wish.tell.send(done);
                }
                changed = leaders.changed() => if changed.is_err() { return },
                changed = peers.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LISTEN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Follows the leader that the engine names, as long as it is heard: an engine that cannot win
    /// an election goes on naming the dead one. `alone` is since when nobody leads.
    fn part(&self, now: Leadership, alone: &mut Option<Instant>) -> Role {
        let term = now.term;
        match now.leader {
            // So many of the others refuse connections that no majority is left: whatever the
            // engine still calls this replica, nothing can be decided here.
            Some(leader) if leader == self.settings.id && self.is_cut_off() => {
                alone.get_or_insert_with(Instant::now);
                Role::Alone { term, forsaken: true }
            }
            Some(leader) if leader == self.settings.id => {
                *alone = None;
                Role::Choosing { term }
            }
            Some(leader) if self.peers.is_leading(leader, SILENCE) => {
                *alone = None;
                Role::Following { leader, term }
            }
            _ => {
                let since = alone.get_or_insert_with(Instant::now);
                Role::Alone { term, forsaken: FORSAKEN <= since.elapsed() }
            }
        }
    }

    /// For a leader whose disk is full: the highest replica that has room and is not behind.
    fn roomier(&self) -> Option<u64> {
        if !self.room.wants_successor(&self.peers, self.members.look(Now::majority)) {
            return None;
        }
        let rivals = self.rivals().into_iter();
        let able = rivals.filter(|rival| {
            rival.reach == Reach::Up && rival.lag.is_some_and(|lag| lag <= Rival::LAG_MAX)
        });
        able.map(|rival| rival.id).max()
    }

    /// With `--preempt`: a higher replica that has been healthy for long, unless this one leads
    /// by wish of the operator.
    fn better(&self, role: Role, preempt: &mut Preempt) -> Option<u64> {
        let Role::Leading { term } = role else {
            *preempt = Preempt::default();
            return None;
        };
        if let Some(roomier) = self.roomier() {
            return Some(roomier);
        }
        if !self.settings.preempt || self.peers.asked_in() == Some(term) {
            return None;
        }
        preempt.look(self.settings.id, &self.rivals(), Instant::now())
    }

    fn is_cut_off(&self) -> bool {
        !self.peers.may_decide(self.settings.id, &self.members)
    }

    /// All that comes between being elected and leading.
    async fn take(&self, term: u64) -> Result<(), Problem> {
        let began = Instant::now();
        let in_vain = handed_in_vain(*self.handed.lock(), began);
        self.engine.confirm().await?;
        // Another gave the lead to this one, because the operator wished it so.
        let was_asked = self.peers.was_asked(term);
        loop {
            if was_asked {
                break;
            }
            let mut rivals = self.rivals();
            rivals.retain(|rival| Some(rival.id) != in_vain);
            match choose(self.settings.id, &rivals, began.elapsed()) {
                Choice::HandOver(better) => {
                    tracing::debug!("handing over to {better} in term {term}");
                    *self.handed.lock() = Some((better, Instant::now()));
                    self.engine.hand_over(better).await;
                    // Nothing is decided here until another one leads, which ends this.
                    return std::future::pending().await;
                }
                Choice::Wait => tokio::time::sleep(LOOK).await,
                Choice::Lead => break,
            }
        }
        self.open_shop().await
    }

    /// The other voters, compared with this replica's log.
    pub(crate) fn rivals(&self) -> Vec<Rival> {
        let (marks, table) = (self.engine.marks(), self.peers.now());
        let matched = |id| marks.matched.get(&id).copied().flatten();
        let voters = table.iter().filter(|(_, peer)| !peer.learner);
        voters.map(|(id, peer)| peer.rival(*id, matched(*id), marks.last)).collect()
    }

    async fn open_shop(&self) -> Result<(), Problem> {
        if self.view.read(Ledger::is_open) {
            return Ok(());
        }
        let opening = Load::One(shop::opening(&self.settings.shop));
        let settled = self.view.read(Ledger::settled);
        self.engine.propose(batch(&self.view, settled, &[opening])).await?;
        tracing::info!("the shop is open, from {}", self.settings.shop_source);
        Ok(())
    }

    /// Waits until somebody else leads, if this replica does and somebody else could. It has said
    /// goodbye: the others choose by themselves.
    pub(crate) async fn leave(&self, patience: Duration) {
        let me = self.settings.id;
        let others = self.peers.now();
        let is_there = |id| others.get(&id).is_some_and(|peer| peer.reach == Reach::Up);
        let can_go = self.members.look(|now| now.can_decide(is_there));
        if self.engine.leader().leader == Some(me) && can_go {
            self.engine.await_other_leader(me, patience).await;
        }
    }
}

/// Waits until nothing is on its way and no answer waits, but not longer than `patience`.
pub(crate) async fn wait_for_idle(batcher: &Batcher, settling: &Settling, patience: Duration) {
    let idle = async {
        while !batcher.is_idle() || 0 < settling.held() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    // A request that is not answered by then is told that its outcome is unknown; its frontend asks
    // the next leader.
    let _ = tokio::time::timeout(patience, idle).await;
}

/// The bytes of a batch, stamped now, that tells the followers what is settled.
pub(crate) fn batch(view: &View, settled: Index, loads: &[Load]) -> Vec<u8> {
    let log_time = view.read(Ledger::log_time);
    bulk::entry(view.clock.stamp(log_time), settled, loads.iter().map(Load::part))
}

/// The way from the batcher to the log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) engine: Engine,
    pub(crate) view: Arc<View>,
    pub(crate) settling: Settling,
}

impl Propose for Log {
    fn propose(
        &self,
        loads: Vec<Load>,
    ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>> {
        self.engine.propose(batch(&self.view, self.settling.settled(), &loads))
    }
}

/// Says who leads, once per change.
fn announce(announced: &mut Option<u64>, leader: u64) {
    if announced.replace(leader) != Some(leader) {
        tracing::info!("New leader id: {leader}");
    }
}

/// Why nothing can be decided here, seen from a replica that does not lead.
pub(crate) fn elsewhere(role: Role, may_decide: bool) -> Problem {
    match role {
        Role::Following { leader, .. } => problems::not_leader(leader),
        Role::Alone { forsaken: true, .. } => problems::no_quorum(),
        _ if !may_decide => problems::no_quorum(),
        _ => problems::no_leader(),
    }
}
