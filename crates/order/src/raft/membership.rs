//! Starting the engine, and the first entry of a store's life: who belongs to it.
//!
//! Every replica that has no log yet writes the same first entry by itself, so that no replica is
//! special. It does so once it has seen all the others, or has waited for them long enough, the
//! highest id first: so the first leader is the highest that is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use super::ground::Ground;
use super::state_machine::StateMachine;
use super::transport::Transport;
use super::types::{Address, Raft};
use crate::config::Settings;
use crate::peers::Peers;
use crate::role::Reach;

/// How long a replica without a log waits for the others before it begins without them.
const GATHERING: Duration = Duration::from_millis(1_500);

/// How much longer each rank waits, so that the highest begins.
const RANK: Duration = Duration::from_millis(100);

/// Starts the engine on its storage.
pub(crate) async fn start<G: Ground>(
    ground: &G,
    settings: &Settings,
    transport: Transport,
    log: G::Log,
    machine: StateMachine,
) -> Result<Raft, Stop> {
    let mut config =
        super::config(settings.id, &settings.ids(), &settings.cluster).map_err(|error| {
            Stop::Defect(format!("the engine's settings contradict each other: {error}"))
        })?;
    config.max_in_snapshot_log_to_keep = settings.log_kept();
    ground.tune(&mut config);
    Raft::new(settings.id, Arc::new(config), transport, log, machine).await.map_err(|error| {
        Stop::Defect(format!(
            "the engine cannot start on {}: {error}; check the disk, then start the replica again",
            settings.data.display()
        ))
    })
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
    let mut table = peers.watch();
    let all_there = table.wait_for(|table| table.values().all(|peer| peer.reach == Reach::Up));
    tokio::select! {
        _ = tokio::time::timeout(GATHERING, all_there) => {}
        () = stop.cancelled() => return,
    }
    let ids = settings.ids();
    let rank = ids.iter().filter(|id| settings.id < **id).count();
    tokio::select! {
        () = tokio::time::sleep(RANK * u32::try_from(rank).unwrap_or(u32::MAX)) => {}
        () = stop.cancelled() => return,
    }
    let address = |peer: &wire::peers::Peer| (peer.id, Address { address: peer.address.clone() });
    let members: BTreeMap<u64, Address> = settings.peers.iter().map(address).collect();
    match raft.initialize(members).await {
        Ok(()) => tracing::debug!("began with replicas {ids:?}"),
        // Another replica began first, and its log is here already.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(error) => tracing::error!("cannot begin the log: {error}"),
    }
}
