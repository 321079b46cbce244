//! The engine as the rest of the replica uses it: propose, confirm a read, watch the leader, hand
//! over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError,
};
use openraft::raft::TransferLeaderRequest;
use openraft::{ReadPolicy, ServerState};

use tokio::sync::watch;
use wire::exit::Stop;
use wire::problem::Problem;

use super::bootstrap;
use super::confirm::{self, CONFIRM_MAX};
use super::convert;
use super::divergence::DIVERGED;
use super::state_machine::Raft;
use super::transport::Transport;
use super::types::{Payload, Types, Vote};
use crate::history::open_error;
use crate::identity::Identity;
use crate::log_end::Position;
use crate::log_end::{Acknowledged, LogEnd};
use crate::problems;

/// The leader and the term, as the engine knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaderInfo {
    /// The leader, if one is known.
    pub(crate) leader: Option<u64>,
    /// The greatest term known here.
    pub(crate) term: u64,
}

/// A handle to the engine; clones share it.
#[derive(Clone)]
pub(crate) struct Engine {
    id: u64,
    raft: Raft,
    transport: Transport,
    leaders: watch::Receiver<LeaderInfo>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The engine's numbers for operators and other replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The last entry of this replica's log.
    pub(crate) last: Index,
    /// The last entry known here to be committed.
    pub(crate) committed: Index,
    /// The last entry that was purged from the log; 0: none.
    pub(crate) purged: Index,
    /// The log id up to which each follower's log is known to match; empty unless this replica
    /// leads.
    pub(crate) matched: BTreeMap<u64, Position>,
}

impl Engine {
    /// Wraps a running engine. The future resolves when the engine has stopped, with the reason.
    pub(crate) fn new(
        id: u64,
        raft: Raft,
        transport: Transport,
        identity: Arc<Identity>,
    ) -> (Self, impl Future<Output = Stop> + Send + 'static) {
        let (sender, leaders) = watch::channel(LeaderInfo::default());
        let follower = watch_engine(raft.clone(), sender, identity.clone());
        let failed = async move {
            let fatal = follower.await;
            let why = fatal.to_string();
            if why.contains(DIVERGED) { identity.diverged(&why) } else { stopped(&fatal) }
        };
        (Self { id, raft, transport, leaders }, failed)
    }

    /// This replica's id.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The engine itself, for this folder.
    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The current leader.
    pub(crate) fn leader(&self) -> LeaderInfo {
        *self.leaders.borrow()
    }

    /// A receiver of the current leader and of every change.
    pub(crate) fn watch_leader(&self) -> watch::Receiver<LeaderInfo> {
        self.leaders.clone()
    }

    /// Waits until a replica other than `dead` leads. False: none does within `patience`.
    pub(crate) async fn await_other_leader(&self, dead: u64, patience: Duration) -> bool {
        let mut leaders = self.leaders.clone();
        let other = leaders.wait_for(|now| now.leader.is_some_and(|leader| leader != dead));
        matches!(tokio::time::timeout(patience, other).await, Ok(Ok(_)))
    }

    /// Ends the lease of a lost leader: `to` may be elected at once, and stands if it is this
    /// replica.
    pub(crate) async fn end_lease(&self, to: u64) -> Result<(), Fatal<Types>> {
        let request = TransferLeaderRequest::new(self.vote(), to, None);
        self.raft.handle_transfer_leader(request).await.map(drop)
    }

    /// Stands for election.
    pub(crate) async fn stand(&self) -> Result<(), Fatal<Types>> {
        self.raft.trigger().elect(false).await
    }

    /// The last vote on this replica's disk.
    fn vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    /// How far this replica's log reaches, including everything received before this call: votes
    /// are judged by it.
    pub(crate) async fn last_log(&self) -> Position {
        let last = self.raft.with_raft_state(|state| state.log_ids.last().copied()).await;
        convert::position(last.ok().flatten().as_ref())
    }

    /// Where the log ends, with the term of the last vote. Read from the engine's own state,
    /// because its metrics lag behind a start. The error: the engine has stopped.
    pub(crate) async fn log_end(&self) -> Result<LogEnd, Stop> {
        let read = self.raft.with_raft_state(|state| LogEnd {
            term: state.vote_ref().leader_id.term,
            last: convert::position(state.log_ids.last()),
        });
        read.await.map_err(|fatal| stopped(&fatal))
    }

    /// What follower `id` has acknowledged to this replica in its present term; `None` unless this
    /// replica leads and the follower has acknowledged.
    pub(crate) fn acknowledged_by(&self, id: u64) -> Option<Acknowledged> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // Without a match the follower may not even know of the term.
        let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?;
        let committed = metrics.local_committed.as_ref().map_or(0, |id| id.index);
        let last = convert::position(Some(matched));
        Some(Acknowledged::to_leader(metrics.current_term, last, committed))
    }

    /// The current marks of the log.
    pub(crate) fn marks(&self) -> Marks {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.iter().flatten();
        Marks {
            last: Index(metrics.last_log_index.unwrap_or(0)),
            purged: Index(metrics.purged.as_ref().map_or(0, |id| id.index)),
            committed: Index(metrics.local_committed.as_ref().map_or(0, |id| id.index)),
            matched: matched.map(|(id, at)| (*id, convert::position(at.as_ref()))).collect(),
        }
    }

    /// Proposes one entry: the bytes of a batch. Resolves when the entry is applied here.
    pub(crate) fn propose(
        &self,
        batch: Vec<u8>,
    ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>> {
        let raft = self.raft.clone();
        let payload = Payload(batch.into());
        async move {
            match raft.client_write(payload).await {
                Ok(done) => Ok((Index(done.log_id.index), done.data.outcomes.to_vec())),
                Err(error) => Err(refused(error)),
            }
        }
        .boxed()
    }

    /// Confirms with a majority that this replica leads. Returns the index that a read started
    /// before this call must see; that index is applied on return.
    ///
    /// The index is the engine's. Both the engine and the calls of [`confirm`] must agree that this
    /// replica leads: the engine alone may take an old answer for a new one.
    pub(crate) async fn confirm(&self) -> Result<Index, Problem> {
        let index = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let upheld = confirm::is_upheld(&self.raft, self.id, &self.transport);
        let both = async { tokio::try_join!(index, async { Ok(upheld.await) }) };
        match tokio::time::timeout(CONFIRM_MAX, both).await {
            Ok(Ok((at, true))) => Ok(Index(at.index())),
            Ok(Ok((_, false))) => Err(problems::unsure()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(elsewhere(&forward))
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(problems::no_quorum())
            }
            Ok(Err(RaftError::Fatal(_))) => Err(problems::stopping()),
        }
    }

    /// Asks the engine to hand leadership to `to`. Nothing is decided here until that replica
    /// leads.
    pub(crate) async fn hand_over(&self, to: u64) {
        if let Err(error) = self.raft.trigger().transfer_leader(to).await {
            tracing::debug!("cannot hand over to {to}: {error}");
        }
    }

    /// As soon as a leader is known, stops standing for election after timeouts. A fault for tests.
    pub(crate) async fn forget_timeouts(self) {
        let mut leaders = self.leaders.clone();
        if leaders.wait_for(|now| now.leader.is_some()).await.is_ok() {
            self.raft.runtime_config().elect(false);
        }
    }

    /// Stops the engine.
    pub(crate) async fn shut_down(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::debug!("the engine did not stop cleanly: {error}");
        }
    }
}

/// Watches the engine until it has stopped, and returns the reason.
async fn watch_engine(
    raft: Raft,
    leaders: watch::Sender<LeaderInfo>,
    identity: Arc<Identity>,
) -> Fatal<Types> {
    let mut metrics = raft.metrics();
    let mut followed = bootstrap::Followed::default();
    loop {
        let now = {
            let metrics = metrics.borrow_watched();
            if let Err(fatal) = &metrics.running_state {
                return fatal.clone();
            }
            followed.look(&metrics.membership_config, metrics.last_applied.as_ref(), &identity);
            // A replica that stopped leading may still be named by its own vote for a moment.
            let stale =
                metrics.current_leader == Some(metrics.id) && metrics.state != ServerState::Leader;
            let leader = if stale { None } else { metrics.current_leader };
            LeaderInfo { leader, term: metrics.current_term }
        };
        leaders.send_if_modified(|known| std::mem::replace(known, now) != now);
        if metrics.changed().await.is_err() {
            return Fatal::Stopped;
        }
    }
}

/// The problem of an entry that the engine rejected or lost.
fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> Problem {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => elsewhere(&forward),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => problems::lost(),
        RaftError::APIError(other) => problems::malformed(other.to_string()),
        RaftError::Fatal(_) => problems::unknown(),
    }
}

/// Not appended: another replica leads, or this leader cannot append just now.
fn elsewhere(forward: &ForwardToLeader<Types>) -> Problem {
    match (forward.reason, forward.leader_id) {
        (ForwardReason::LeaseExpired, _) => problems::unsure(),
        (ForwardReason::NotLeader, Some(leader)) => problems::not_leader(leader),
        (ForwardReason::NotLeader | ForwardReason::LeadershipTransfer, _) => problems::no_leader(),
    }
}

/// The engine has stopped for good: the process stops too, with advice for the operator.
fn stopped(fatal: &Fatal<Types>) -> Stop {
    let why = fatal.to_string();
    Stop::Defect(format!("the replica stopped: {why}; {}", open_error::advice(&why)))
}
