//! Takeover: what an elected replica does before it leads; and the upkeep of its role.
//!
//! An elected replica does not lead yet. It first confirms that it has applied every entry decided
//! before. Then it looks for a higher replica that is healthy, and hands over to it. Then it opens
//! the shop if that has not happened yet. Only after that it takes requests; requests that arrive
//! meanwhile wait.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ledger::codec::bulk;
use ledger::outcome::Outcome;
use ledger::shop::ShopState;
use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;

use crate::batcher::{Batcher, Propose};
use crate::config::Settings;
use crate::disk_space::DiskSpace;
use crate::history::view::View;
use crate::membership::{Members, Membership};
use crate::peers::Peers;
use crate::pending::Pending;
use crate::preempt::Preempt;
use crate::raft::engine::{Engine, LeaderInfo};
use crate::role::{Choice, Reach, Role, VoterView, choose, handed_in_vain};
use crate::transfer::TransferRequest;
use crate::watch::settling::Settling;
use crate::{problems, shop};

/// How often a waiting replica looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A leader that has not been heard for this long may lead no more: twelve heartbeats.
const LEADER_SILENCE_MAX: Duration = Duration::from_millis(600);

/// A replica without a leader for this long reports that there is no majority.
const NO_QUORUM_AFTER: Duration = Duration::from_millis(800);

/// How often a follower checks that its leader is heard.
const LEADER_CHECK_EVERY: Duration = Duration::from_millis(50);

/// The replica that this one last handed over to, and when.
pub(crate) type LastHandover = Arc<Mutex<Option<(u64, Instant)>>>;

/// What taking the lead needs.
#[derive(Clone)]
pub(crate) struct Takeover {
    pub(crate) settings: Arc<Settings>,
    pub(crate) engine: Engine,
    pub(crate) peers: Peers,
    pub(crate) members: Members,
    pub(crate) view: Arc<View>,
    pub(crate) disk_space: DiskSpace,
    /// This replica is about to stop: it takes no lead any more.
    pub(crate) closing: CancellationToken,
    pub(crate) handed: LastHandover,
}

impl std::fmt::Debug for Takeover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Takeover").finish_non_exhaustive()
    }
}

impl Takeover {
    /// Follows the engine's elections until `stop`, maintains `role`, and serves the operator's
    /// transfer requests from `transfers`.
    pub(crate) async fn run(
        self,
        role: watch::Sender<Role>,
        batcher: Batcher,
        mut transfers: mpsc::Receiver<TransferRequest>,
        stop: CancellationToken,
    ) {
        let me = self.settings.id;
        let mut leaders = self.engine.watch_leader();
        let mut peers = self.peers.watch();
        let mut announced = None;
        let mut alone = None;
        let mut preempt = Preempt::default();
        loop {
            let now = *leaders.borrow_and_update();
            let part = self.role(now, &mut alone);
            // A replica that leads already, and still may, need not take the lead again.
            let leads_on = part == Role::TakingOver { term: now.term }
                && (*role.borrow() == Role::Leading { term: now.term }
                    || self.closing.is_cancelled());
            if !leads_on {
                role.send_if_modified(|role| std::mem::replace(role, part) != part);
            }
            if let Role::Following { leader, .. } = part {
                log_leader(&mut announced, leader);
            }
            if matches!(part, Role::TakingOver { .. }) && !leads_on {
                let taken = tokio::select! {
                    taken = self.take(now.term) => taken,
                    changed = leaders.changed() => if changed.is_ok() { continue } else { return },
                    () = stop.cancelled() => return,
                };
                match taken {
                    Ok(()) if self.closing.is_cancelled() => {}
                    Ok(()) => {
                        log_leader(&mut announced, me);
                        role.send_replace(Role::Leading { term: now.term });
                    }
                    // Not sure of the lead: try again, unless another replica has it by now.
                    Err(problem) => {
                        tracing::debug!("cannot take the lead yet: {}", problem.message);
                        tokio::select! {
                            () = tokio::time::sleep(POLL_INTERVAL) => continue,
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
            // A leader checks that a majority is left, a follower that its leader is heard.
            tokio::select! {
                Some(transfer) = transfers.recv() => {
                    self.peers.set_transfer_requested(true);
                    let done = self.hand_over(transfer.to, &role, &batcher).await;
                    self.peers.set_transfer_requested(false);
                    // An operator that has hung up sees it in the status.
                    let _ = transfer.reply.send(done);
                }
                changed = leaders.changed() => if changed.is_err() { return },
                changed = peers.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LEADER_CHECK_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The role by the leader that the engine names, while that leader is heard: an engine that
    /// cannot win an election goes on naming a dead leader. `alone` is since when there is no
    /// leader.
    fn role(&self, now: LeaderInfo, alone: &mut Option<Instant>) -> Role {
        let term = now.term;
        match now.leader {
            // Too many of the others refuse connections, and no majority is left: nothing can be
            // decided here, even if the engine still calls this replica the leader.
            Some(leader) if leader == self.settings.id && self.is_cut_off() => {
                alone.get_or_insert_with(Instant::now);
                Role::Leaderless { term, no_quorum: true }
            }
            Some(leader) if leader == self.settings.id => {
                *alone = None;
                Role::TakingOver { term }
            }
            Some(leader) if self.peers.is_leading(leader, LEADER_SILENCE_MAX) => {
                *alone = None;
                Role::Following { leader, term }
            }
            _ => {
                let since = alone.get_or_insert_with(Instant::now);
                Role::Leaderless { term, no_quorum: NO_QUORUM_AFTER <= since.elapsed() }
            }
        }
    }

    /// For a leader whose disk is full: the highest replica that has space and is not behind.
    fn peer_with_space(&self) -> Option<u64> {
        if !self.disk_space.wants_successor(&self.peers, self.members.look(Membership::majority)) {
            return None;
        }
        let voter_views = self.voter_views().into_iter();
        let able = voter_views.filter(|voter| {
            voter.reach == Reach::Up && voter.lag.is_some_and(|lag| lag <= VoterView::LAG_MAX)
        });
        able.map(|voter| voter.id).max()
    }

    /// The replica to hand over to, if any: one with disk space, or with `--preempt` a higher one
    /// that has been healthy for a while ([`Preempt`]), unless this replica leads because the
    /// operator asked for it.
    fn better(&self, role: Role, preempt: &mut Preempt) -> Option<u64> {
        let Role::Leading { term } = role else {
            *preempt = Preempt::default();
            return None;
        };
        if let Some(peer) = self.peer_with_space() {
            return Some(peer);
        }
        if !self.settings.preempt || self.peers.asked_term() == Some(term) {
            return None;
        }
        preempt.look(self.settings.id, &self.voter_views(), Instant::now())
    }

    fn is_cut_off(&self) -> bool {
        !self.peers.may_decide(self.settings.id, &self.members)
    }

    /// The steps from being elected to leading.
    async fn take(&self, term: u64) -> Result<(), Problem> {
        let began = Instant::now();
        let in_vain = handed_in_vain(*self.handed.lock(), began);
        self.engine.confirm().await?;
        // The former leader gave the lead to this replica because the operator asked for it.
        let was_asked_to_lead = self.peers.was_asked_to_lead(term);
        loop {
            if was_asked_to_lead {
                break;
            }
            let mut voter_views = self.voter_views();
            voter_views.retain(|voter| Some(voter.id) != in_vain);
            match choose(self.settings.id, &voter_views, began.elapsed()) {
                Choice::HandOver(better) => {
                    tracing::debug!("handing over to {better} in term {term}");
                    *self.handed.lock() = Some((better, Instant::now()));
                    self.engine.hand_over(better).await;
                    // Nothing is decided here until another replica leads, which cancels this.
                    return std::future::pending().await;
                }
                Choice::Wait => tokio::time::sleep(POLL_INTERVAL).await,
                Choice::Lead => break,
            }
        }
        self.open_shop().await
    }

    /// The other voters, compared with this replica's log.
    pub(crate) fn voter_views(&self) -> Vec<VoterView> {
        let marks = self.engine.marks();
        let table = self.peers.now();
        let matched = |id| marks.matched.get(&id).copied().flatten();
        let voters = table.iter().filter(|(_, peer)| !peer.learner);
        voters.map(|(id, peer)| peer.voter_view(*id, matched(*id), marks.last)).collect()
    }

    async fn open_shop(&self) -> Result<(), Problem> {
        if self.view.read(ShopState::is_open) {
            return Ok(());
        }
        let first = shop::first_entry(&self.settings);
        let first: Vec<_> = first.iter().map(Pending::lone).collect();
        let settled = self.view.read(ShopState::settled);
        self.engine.propose(batch(&self.view, settled, &first)).await?;
        tracing::info!("the shop is open, from {}", self.settings.shop_source);
        Ok(())
    }

    /// Waits until another replica leads, if this one does and the others can decide. This replica
    /// has said goodbye: the others elect a leader by themselves.
    pub(crate) async fn leave(&self, timeout: Duration) {
        let me = self.settings.id;
        let others = self.peers.now();
        let is_there = |id| others.get(&id).is_some_and(|peer| peer.reach == Reach::Up);
        let can_go = self.members.look(|now| now.can_decide(is_there));
        if self.engine.leader().leader == Some(me) && can_go {
            self.engine.await_other_leader(me, timeout).await;
        }
    }
}

/// Waits until no entry is in flight and no answer is held, at most for `timeout`.
pub(crate) async fn wait_for_idle(batcher: &Batcher, settling: &Settling, timeout: Duration) {
    let idle = async {
        while !batcher.is_idle() || 0 < settling.held() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    // A request that is not answered by then gets an unknown outcome; its frontend asks the next
    // leader.
    let _ = tokio::time::timeout(timeout, idle).await;
}

/// The bytes of a batch, stamped now, with the settled index for the followers.
pub(crate) fn batch(view: &View, settled: Index, requests: &[Pending]) -> Vec<u8> {
    let log_time = view.read(ShopState::log_time);
    bulk::entry(view.clock.stamp(log_time), settled, requests.iter().map(Pending::encoded))
}

/// Proposes the batcher's entries to the engine.
#[derive(Debug)]
pub(crate) struct LogProposer {
    pub(crate) engine: Engine,
    pub(crate) view: Arc<View>,
    pub(crate) settling: Settling,
}

impl Propose for LogProposer {
    fn propose(
        &self,
        requests: Vec<Pending>,
    ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>> {
        self.engine.propose(batch(&self.view, self.settling.settled(), &requests))
    }
}

/// Logs the leader, once per change.
fn log_leader(announced: &mut Option<u64>, leader: u64) {
    if announced.replace(leader) != Some(leader) {
        tracing::info!(leader, "New leader id: {leader}");
    }
}

/// Why nothing can be decided here, seen from a replica that does not lead.
pub(crate) fn cannot_decide(role: Role, may_decide: bool) -> Problem {
    match role {
        Role::Following { leader, .. } => problems::not_leader(leader),
        Role::Leaderless { no_quorum: true, .. } => problems::no_quorum(),
        _ if !may_decide => problems::no_quorum(),
        _ => problems::no_leader(),
    }
}
