//! Three replicas in one process, on real disks, that can be killed and restarted one at a time.
//!
//! They communicate by plain calls through [`Routes`]. A replica without a route cannot be reached.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger::ledger::Windows;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use order::history::block_source::NoSource;
use order::history::manifest::Manifest;
use order::history::view::View;
use order::history::write_demand::WritePace;
use order::raft::log_store::LogStore;
use order::raft::state_machine::Raft;
use order::raft::state_machine::StateMachine;
use order::raft::types::{Address, Payload, Snapshot, Types, Vote};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::kit::killed;

pub(crate) const IDS: [u64; 3] = [1, 2, 3];

/// The time limit for events that must happen. Nothing takes nearly as long.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The replicas that can be reached.
#[derive(Clone, Default)]
pub(crate) struct Routes(Arc<Mutex<BTreeMap<u64, Raft>>>);

/// One running replica.
pub(crate) struct Replica {
    pub(crate) raft: Raft,
    pub(crate) view: Arc<View>,
    pub(crate) log: LogStore,
    folder: TempDir,
}

/// The running replicas.
pub(crate) struct Cluster {
    pub(crate) replicas: BTreeMap<u64, Replica>,
    routes: Routes,
    restore: Option<bool>,
}

impl Cluster {
    /// Three replicas, the third of which leads. `restore` is the engine's setting for restarted
    /// leaders.
    pub(crate) async fn start(restore: Option<bool>) -> Self {
        let mut cluster = Self { replicas: BTreeMap::new(), routes: Routes::default(), restore };
        for id in IDS {
            cluster.launch(id, tempfile::tempdir().unwrap()).await;
        }
        let members = IDS.map(|id| (id, Address { address: format!("replica-{id}") }));
        let third = &cluster.replicas[&3].raft;
        third.initialize(BTreeMap::from(members)).await.unwrap();
        third.wait(Some(WAIT_TIMEOUT)).current_leader(3, "the third leads").await.unwrap();
        cluster
    }

    /// Starts a replica on an existing folder.
    pub(crate) async fn launch(&mut self, id: u64, folder: TempDir) {
        let log = LogStore::open(&folder.path().join("log"), None).unwrap();
        let (machine, view) = open(folder.path());
        let mut config = order::raft::config(id, &IDS, "test").unwrap();
        config.enable_leader_restore = self.restore;
        let routes = self.routes.clone();
        let raft = Raft::new(id, Arc::new(config), routes, log.clone(), machine).await.unwrap();
        self.routes.0.lock().insert(id, raft.clone());
        self.replicas.insert(id, Replica { raft, view, log, folder });
    }

    /// Kills a replica. Returns a copy of what its disk holds at this moment.
    pub(crate) async fn kill(&mut self, id: u64) -> TempDir {
        self.routes.0.lock().remove(&id);
        let replica = self.replicas.remove(&id).unwrap();
        let left = killed(replica.folder.path());
        replica.raft.shutdown().await.unwrap();
        left
    }

    /// Enables or disables elections. Disabled: the lease of the last leader seems never to end.
    pub(crate) fn set_elections(&self, on: bool) {
        for replica in self.replicas.values() {
            replica.raft.runtime_config().elect(on);
        }
    }

    /// Writes through the current leader; retries until the entry is acknowledged. Returns its
    /// index.
    pub(crate) async fn write(&self, payload: &Payload) -> Option<u64> {
        let trying = async {
            loop {
                for replica in self.replicas.values() {
                    if let Ok(answer) = replica.raft.client_write(payload.clone()).await {
                        return answer.log_id.index;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT_TIMEOUT, trying).await.ok()
    }

    /// Waits until a replica has applied an index. False: the time limit has passed.
    pub(crate) async fn reaches(&self, id: u64, index: u64) -> bool {
        let mut applied = self.replicas[&id].view.applied();
        let reached = applied.wait_for(|applied| index <= applied.0);
        tokio::time::timeout(WAIT_TIMEOUT, reached).await.is_ok_and(|reached| reached.is_ok())
    }
}

/// A state machine that writes no history: after a crash all its state comes from the log.
fn open(folder: &Path) -> (StateMachine, Arc<View>) {
    let pace = WritePace { every: Duration::from_hours(1), ..WritePace::default() };
    StateMachine::open(folder, Windows::default(), pace, Arc::new(NoSource)).unwrap()
}

/// The route to one replica.
pub(crate) struct Route {
    routes: Routes,
    target: u64,
}

impl Route {
    fn raft(&self) -> Result<Raft, Unreachable<Types>> {
        let raft = self.routes.0.lock().get(&self.target).cloned();
        raft.ok_or_else(|| unreachable(&"no replica has this id"))
    }
}

fn unreachable(why: &impl ToString) -> Unreachable<Types> {
    Unreachable::new(&AnyError::error(why.to_string()))
}

impl RaftNetworkFactory<Types> for Routes {
    type Network = Route;

    async fn new_client(&mut self, target: u64, _: &Address) -> Route {
        Route { routes: self.clone(), target }
    }
}

impl RaftNetworkV2<Types> for Route {
    type SnapshotData = Manifest;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Ok(self.raft()?.append_entries(request).await.map_err(|error| unreachable(&error))?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.raft()?.vote(request).await.map_err(|error| unreachable(&error))?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.raft()?.pre_vote(request).await.map_err(|error| unreachable(&error))?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let installed = self.raft()?.install_full_snapshot(vote, snapshot).await;
        Ok(installed.map_err(|error| unreachable(&error))?)
    }
}
