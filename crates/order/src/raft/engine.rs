//! The engine as the rest of the replica sees it: propose, confirm a read, see who leads, hand
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
use openraft::{ReadPolicy, ServerState};

use tokio::sync::watch;
use wire::exit::Stop;
use wire::problem::Problem;

use super::divergence::DIVERGED;
use super::open_error;
use super::transport::Transport;
use super::types::{Payload, Raft, Types, Vote};
use super::{letters, membership, round};
use crate::identity::Identity;
use crate::log_end::{Acknowledged, LogEnd};
use crate::peers::Position;
use crate::problems;

/// A read that a majority does not confirm within this is given up.
pub(crate) const CONFIRM_MAX: Duration = Duration::from_millis(800);

/// Who leads, as the engine knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// The leader, if one is known.
    pub(crate) leader: Option<u64>,
    /// The greatest term seen.
    pub(crate) term: u64,
}

/// A handle of the engine; clones share it.
#[derive(Clone)]
pub(crate) struct Engine {
    id: u64,
    raft: Raft,
    transport: Transport,
    leaders: watch::Receiver<Leadership>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The numbers of the engine that people and other replicas want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The last entry of this replica's log.
    pub(crate) last: Index,
    /// The last entry known here to be committed.
    pub(crate) committed: Index,
    /// The last entry that the log has let go of; 0: none.
    pub(crate) purged: Index,
    /// How far each follower's log is known to be equal; empty unless this replica leads.
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
        let (sender, leaders) = watch::channel(Leadership::default());
        let follower = watch_engine(raft.clone(), sender, identity.clone());
        let failed = async move {
            let fatal = follower.await;
            let why = fatal.to_string();
            match why.contains(DIVERGED) {
                true => identity.diverged(&why),
                false => stopped(&fatal),
            }
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

    /// Who leads, now.
    pub(crate) fn leader(&self) -> Leadership {
        *self.leaders.borrow()
    }

    /// Who leads, and every change of it.
    pub(crate) fn watch_leader(&self) -> watch::Receiver<Leadership> {
        self.leaders.clone()
    }

    /// Waits until somebody other than `dead` leads. False: not within `patience`.
    pub(crate) async fn await_other_leader(&self, dead: u64, patience: Duration) -> bool {
        let mut leaders = self.leaders.clone();
        let other = leaders.wait_for(|now| now.leader.is_some_and(|leader| leader != dead));
        matches!(tokio::time::timeout(patience, other).await, Ok(Ok(_)))
    }

    /// The last vote on this replica's disk.
    pub(super) fn vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    /// How far this replica's log reaches, with all that was received before this was asked: what
    /// a vote is judged by.
    pub(crate) async fn last_log(&self) -> Position {
        let last = self.raft.with_raft_state(|state| state.log_ids.last().copied()).await;
        letters::position(last.ok().flatten().as_ref())
    }

    /// Where the log ends, with the term of the last vote. From the engine's own state: what it
    /// publishes lags behind a start. The error: the engine has stopped.
    pub(crate) async fn log_end(&self) -> Result<LogEnd, Stop> {
        let read = self.raft.with_raft_state(|state| LogEnd {
            term: state.vote_ref().leader_id.term,
            last: letters::position(state.log_ids.last()),
        });
        read.await.map_err(|fatal| stopped(&fatal))
    }

    /// What follower `id` has acknowledged to this replica in its present term; `None` unless it
    /// leads, and the follower has.
    pub(crate) fn acknowledged_by(&self, id: u64) -> Option<Acknowledged> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // Without a match it may not even know of the term.
        let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?;
        let committed = metrics.local_committed.as_ref().map_or(0, |id| id.index);
        let last = letters::position(Some(matched));
        Some(Acknowledged::to_leader(metrics.current_term, last, committed))
    }

    /// Where the log stands.
    pub(crate) fn marks(&self) -> Marks {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.iter().flatten();
        Marks {
            last: Index(metrics.last_log_index.unwrap_or(0)),
            purged: Index(metrics.purged.as_ref().map_or(0, |id| id.index)),
            committed: Index(metrics.local_committed.as_ref().map_or(0, |id| id.index)),
            matched: matched.map(|(id, at)| (*id, letters::position(at.as_ref()))).collect(),
        }
    }

    /// Proposes one entry: the bytes of a batch. Resolves when it is applied here.
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

    /// Confirms with a majority that this replica leads. The index up to which a read that started
    /// before now must see; it is applied when this returns.
    ///
    /// The index is the engine's. That this replica leads both it and a [round] of questions must
    /// say: an old answer can pass for a new one with the engine.
    pub(crate) async fn confirm(&self) -> Result<Index, Problem> {
        let index = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let upheld = round::is_upheld(&self.raft, self.id, &self.transport);
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

    /// Asks the engine to hand leadership to `to`. Until that one leads nothing is decided here.
    pub(crate) async fn hand_over(&self, to: u64) {
        if let Err(error) = self.raft.trigger().transfer_leader(to).await {
            tracing::debug!("cannot hand over to {to}: {error}");
        }
    }

    /// Once somebody leads, never stands again because a leader is silent. A fault for tests.
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

/// Follows the engine until it has stopped, and says why.
async fn watch_engine(
    raft: Raft,
    leaders: watch::Sender<Leadership>,
    identity: Arc<Identity>,
) -> Fatal<Types> {
    let mut metrics = raft.metrics();
    let mut followed = membership::Followed::default();
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
            Leadership { leader, term: metrics.current_term }
        };
        leaders.send_if_modified(|known| std::mem::replace(known, now) != now);
        if metrics.changed().await.is_err() {
            return Fatal::Stopped;
        }
    }
}

/// Why the engine did not take an entry, or lost it.
fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> Problem {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => elsewhere(&forward),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => problems::lost(),
        RaftError::APIError(other) => problems::malformed(other.to_string()),
        RaftError::Fatal(_) => problems::unknown(),
    }
}

/// Not appended: somebody else leads, or this one cannot just now.
fn elsewhere(forward: &ForwardToLeader<Types>) -> Problem {
    match (forward.reason, forward.leader_id) {
        (ForwardReason::LeaseExpired, _) => problems::unsure(),
        (ForwardReason::NotLeader, Some(leader)) => problems::not_leader(leader),
        (ForwardReason::NotLeader | ForwardReason::LeadershipTransfer, _) => problems::no_leader(),
    }
}

/// The engine has stopped for good: so does the process, and says what a person can do.
fn stopped(fatal: &Fatal<Types>) -> Stop {
    let why = fatal.to_string();
    Stop::Defect(format!("the replica stopped: {why}; {}", open_error::advice(&why)))
}
