//! Bootstrap: starts the engine, and writes the first entry of a store, which names its members.
//!
//! Every replica without a log writes the same first entry by itself, so that no replica is
//! special. It does so when it has seen all the others, or after a bounded wait, the highest id
//! first: so the first leader is the highest replica that is up. A replica that is to join a store,
//! or that meets a store with a log, writes nothing and waits to be sent the log.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use super::backend::Backend;
use super::bounds::TERM_MAX;
use super::convert;
use super::state_machine::{Raft, StateMachine};
use super::transport::Transport;
use super::types::{Address, LogId, StoredMembership, Types};
use crate::config::Settings;
use crate::identity::Identity;
use crate::membership::{Members, Membership};
use crate::peers::Peers;
use crate::role::Reach;

/// How long a replica without a log waits for the other listed replicas once a majority is
/// reachable: replicas that are started by hand come one after another.
const GATHER_TIMEOUT: Duration = Duration::from_secs(2);

/// The extra wait of each lower rank, so that the highest id begins.
const RANK_DELAY: Duration = Duration::from_millis(100);

/// Starts the engine on its storage.
pub(crate) async fn start<G: Backend>(
    backend: &G,
    (settings, members): (&Settings, &Members),
    transport: Transport,
    mut log: G::Log,
    mut machine: StateMachine,
) -> Result<Raft, Stop> {
    let cannot = |error: &dyn std::fmt::Display| {
        Stop::Defect(format!(
            "the engine cannot start on {}: {error}; check the disk, then start the replica again",
            settings.data.display()
        ))
    };
    let mut ids = members.look(Membership::voters);
    ids.insert(settings.id);
    let ids: Vec<u64> = ids.into_iter().collect();
    let mut config = super::config(settings.id, &ids, &settings.cluster).map_err(|error| {
        Stop::Defect(format!("the engine's settings contradict each other: {error}"))
    })?;
    config.max_in_snapshot_log_to_keep = settings.log_kept();
    backend.tune(&mut config);
    let (applied, _) = machine.applied_state().await.map_err(|error| cannot(&error))?;
    cut_overruled(&mut log, applied).await.map_err(|error| cannot(&error))?;
    let voted = log.get_log_reader().await.read_vote().await.map_err(|error| cannot(&error))?;
    refuse_forged(voted.map_or(0, |vote| vote.leader_id.term), settings)?;
    let raft = Raft::new(settings.id, Arc::new(config), transport, log, machine);
    raft.await.map_err(|error| cannot(&error))
}

/// Rejects a vote for a term at the end of the range, which a replica accepted before such calls
/// were rejected. The replica can take part in no election any more, and must not vote in an
/// earlier term.
fn refuse_forged(voted: u64, settings: &Settings) -> Result<(), Stop> {
    if voted <= TERM_MAX {
        return Ok(());
    }
    let id = settings.id;
    let folder = settings.data.display();
    Err(Stop::Setup(format!(
        "replica {id} has voted in term {voted}, which no election of this store has reached: if a \
         majority of the replicas goes on without it, type `oppidum ctl replace --id {id} --with \
         NEW --address HOST:PORT`; else stop them all and type `oppidum ctl recover` with the \
         folder that holds {folder}"
    )))
}

/// Cuts off the end of a log that the history has overruled.
///
/// A follower applies a committed entry although its own disk does not have it yet: its history may
/// reach the disk before its log, and the power may fail in between. Then the log still holds an
/// earlier leader's entry at the index of the committed one. No replica counts on that entry any
/// more, and no entry after it was committed either. The engine would take it for corruption.
async fn cut_overruled<L>(log: &mut L, applied: Option<LogId>) -> io::Result<()>
where
    L: RaftLogStorage<Types>,
{
    let state = log.get_log_state().await?;
    let (Some(applied), Some(last)) = (applied, state.last_log_id) else { return Ok(()) };
    let is_overruled = last < applied && applied.index <= last.index;
    if !is_overruled {
        return Ok(());
    }
    let before = applied.index.saturating_sub(1)..applied.index;
    let stays = log.get_log_reader().await.try_get_log_entries(before).await?;
    let stays = stays.last().map(|entry| entry.log_id).or(state.last_purged_log_id);
    let index = last.index;
    tracing::warn!(
        index,
        "the log ends with {last}, where {applied} was decided: it is cut off there"
    );
    log.truncate_after(stays).await
}

/// Writes the first entry, on a replica that has no log.
pub(crate) async fn begin(
    raft: Raft,
    settings: Arc<Settings>,
    peers: Peers,
    stop: CancellationToken,
) {
    if !matches!(raft.is_initialized().await, Ok(false)) {
        return;
    }
    if settings.join {
        let id = settings.id;
        let own = settings.peers.iter().find(|peer| peer.id == id);
        let address = own.map_or("HOST:PORT", |peer| peer.address.as_str());
        return tracing::info!(
            "waiting to be added: `oppidum ctl member add --id {id} --address {address}`"
        );
    }
    tokio::select! {
        () = gather(&peers) => {}
        () = stop.cancelled() => return,
    }
    let ids = settings.ids();
    let rank = ids.iter().filter(|id| settings.id < **id).count();
    tokio::select! {
        () = tokio::time::sleep(RANK_DELAY * u32::try_from(rank).unwrap_or(u32::MAX)) => {}
        () = stop.cancelled() => return,
    }
    // The log may have arrived during the wait.
    if raft.is_initialized().await.unwrap_or(true) {
        return;
    }
    if peers.has_begun() {
        return tracing::info!("the others have a store already: waiting for its log");
    }
    let address = |peer: &wire::peers::Peer| (peer.id, Address { address: peer.address.clone() });
    let members: BTreeMap<u64, Address> = settings.peers.iter().map(address).collect();
    match raft.initialize(members).await {
        Ok(()) => tracing::debug!("began with replicas {ids:?}"),
        // Another replica began first, and its log has arrived.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(error) => tracing::error!("cannot begin the log: {error}"),
    }
}

/// How long a first start still waits for listed replicas: the pure core. No store can begin
/// without a majority, so the wait is counted from the moment a majority is reachable.
#[derive(Clone, Copy, Debug, Default)]
struct Gathering {
    /// When a majority was first reachable.
    majority_since: Option<Instant>,
}

impl Gathering {
    /// The remaining wait at `now`, with `reachable` of the `others` reachable; `None`: the store
    /// begins.
    fn left(&mut self, reachable: usize, others: usize, now: Instant) -> Option<Duration> {
        // With this replica itself, `reachable + 1` of `others + 1`.
        if reachable + 1 > others.div_ceil(2) {
            self.majority_since.get_or_insert(now);
        }
        let waited = self.majority_since.map_or(Duration::ZERO, |since| now - since);
        let left = GATHER_TIMEOUT.saturating_sub(waited);
        (reachable < others && !left.is_zero()).then_some(left)
    }
}

/// Waits until all listed replicas are reachable, or a majority has been reachable for
/// [`GATHER_TIMEOUT`].
async fn gather(peers: &Peers) {
    let mut gathering = Gathering::default();
    let mut table = peers.watch();
    loop {
        let left = {
            let table = table.borrow_and_update();
            let reachable = table.values().filter(|peer| peer.reach == Reach::Up).count();
            gathering.left(reachable, table.len(), Instant::now())
        };
        let Some(left) = left else { return };
        // A change of the table or the end of the wait: the loop checks again in either case.
        let _ = tokio::time::timeout(left, table.changed()).await;
    }
}

/// The engine's membership as last passed on, so that only changes are passed on.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The entry that named the members, and whether it is known to be applied here.
    last: Option<(Option<LogId>, bool)>,
}

impl Followed {
    /// Passes on a change of the engine's membership: at once the members and, when the entry is
    /// applied, that no other replica belongs to the store any more.
    pub(super) fn look(
        &mut self,
        stored: &StoredMembership,
        applied: Option<&LogId>,
        identity: &Identity,
    ) {
        let at = *stored.log_id();
        let is_applied = at.as_ref() <= applied;
        if self.last.replace((at, is_applied)) == Some((at, is_applied)) {
            return;
        }
        let now = convert::membership(stored);
        let ids = now.addresses.keys().copied().collect();
        let begun = !now.voters().is_empty();
        identity.members().set(now);
        if is_applied && begun {
            identity.settle(&ids);
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::type_config::TypeConfigExt;

    use super::*;
    use crate::raft::log_store::LogStore;
    use crate::raft::types::{Entry, LeaderId};

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 1 }, index }
    }

    /// The last entry after the cut, of a log with the entries 0 to 5 of term 1.
    async fn cut(purged: Option<u64>, applied: LogId) -> Option<LogId> {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogStore::open(folder.path(), None).unwrap();
        let blank = |index| Entry { log_id: id(1, index), payload: EntryPayload::Blank };
        let (done, flushed) = Types::oneshot();
        let done = openraft::storage::IOFlushed::signal(done);
        log.append((0..=5).map(blank), done).await.unwrap();
        flushed.await.unwrap().unwrap();
        if let Some(index) = purged {
            log.purge(id(1, index)).await.unwrap();
        }
        cut_overruled(&mut log, Some(applied)).await.unwrap();
        log.get_log_state().await.unwrap().last_log_id
    }

    #[test]
    fn a_replica_with_a_forged_vote_does_not_start_and_names_the_commands() {
        let settings = crate::config::tests::three();
        assert!(refuse_forged(7, &settings).is_ok() && refuse_forged(TERM_MAX, &settings).is_ok());
        let Err(Stop::Setup(line)) = refuse_forged(u64::MAX, &settings) else { panic!() };
        assert!(line.contains("ctl recover") && line.contains("ctl replace"), "{line}");
    }

    /// Kind: replicas that are started one after another, by hand.
    #[test]
    fn a_first_start_waits_a_bounded_time_for_the_listed_replicas() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut gathering = Gathering::default();
        let mut left = |reachable, millis| gathering.left(reachable, 4, start + ms(millis));
        assert_eq!(left(0, 0), Some(GATHER_TIMEOUT));
        assert_eq!(left(1, 60_000), Some(GATHER_TIMEOUT), "without a majority no store begins");
        assert_eq!(left(2, 61_000), Some(GATHER_TIMEOUT), "three of five");
        assert_eq!(left(3, 62_000), Some(ms(1_000)), "2 s in all, and not for each");
        assert_eq!(
            left(1, 62_010),
            Some(ms(990)),
            "a replica that comes and goes does not restart the wait"
        );
        assert_eq!(left(4, 62_020), None, "all are reachable");
        assert_eq!(left(3, 63_000), None, "one replica never becomes reachable");
        let mut gathering = Gathering::default();
        assert_eq!(gathering.left(1, 2, start), Some(GATHER_TIMEOUT));
        assert_eq!(gathering.left(2, 2, start + ms(1)), None);
        assert_eq!(Gathering::default().left(0, 0, start), None, "a store of one replica");
    }

    #[tokio::test]
    async fn an_overruled_end_of_the_log_is_cut_off() {
        assert_eq!(cut(None, id(2, 5)).await, Some(id(1, 4)));
        assert_eq!(cut(None, id(2, 3)).await, Some(id(1, 2)));
        assert_eq!(
            cut(Some(2), id(2, 3)).await,
            Some(id(1, 2)),
            "the entry before the cut is purged already"
        );
    }

    #[tokio::test]
    async fn a_log_without_an_overruled_end_is_unchanged() {
        for applied in [id(1, 3), id(1, 5), id(1, 7), id(2, 6)] {
            assert_eq!(cut(None, applied).await, Some(id(1, 5)), "{applied}");
        }
    }
}
