//! The status: what a replica reports about itself at `/status`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ledger::shop::ShopState;
use ledger::terms::Index;
use tokio::sync::watch;
use wire::cross_origin::name_of;
use wire::metrics::Page;
use wire::peers::Peer;
use wire::serve::Facts;
use wire::status::ProcessStatus;

use crate::disk_space::{DiskSpace, Level};
use crate::history::view::View;
use crate::leader_metrics::LeaderMetrics;
use crate::membership::Members;
use crate::peers::Peers;
use crate::raft::engine::Engine;
use crate::readiness::{Situation, readiness};
use crate::role::Role;
use crate::voting::VOTING_VALID;
use crate::watch::settling::Settling;

/// The sources of the status.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) members: Members,
    pub(crate) view: Arc<View>,
    pub(crate) settling: Settling,
    pub(crate) disk_space: DiskSpace,
    pub(crate) peers: Peers,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) leaders: Arc<LeaderMetrics>,
    /// The data folder.
    pub(crate) data: PathBuf,
}

impl Facts for Status {
    fn is_called(&self, name: &str) -> bool {
        let is_host = |address: &String| name_of(address).eq_ignore_ascii_case(name);
        self.members.look(|now| now.addresses.values().any(is_host))
            || self.members.hinted().any(is_host)
    }

    fn status(&self) -> ProcessStatus {
        let role = *self.role.borrow();
        let marks = self.engine.marks();
        let watchers = self.settling.watchers().len();
        let settled = self.settling.settled();
        let fenced = self.settling.fenced_count();
        let disk_space = self.disk_space.seen();
        let roster = self.members.now().roster();
        let ids = |peers: &[Peer]| peers.iter().map(|peer| peer.id).collect();
        self.view.read(|ledger| ProcessStatus {
            role: "order".into(),
            id: Some(self.id),
            pid: Some(std::process::id()),
            address: self.address.to_string(),
            ready: self.is_ready(role, marks.committed, ledger.applied()),
            version: env!("CARGO_PKG_VERSION").into(),
            ledger_id: ledger.ledger_id().map(|ledger_id| ledger_id.to_string()),
            leader: role.leader(self.id),
            term: Some(role.term()),
            first_index: Some(marks.purged.0 + 1),
            last_index: Some(marks.last.0),
            committed_index: Some(marks.committed.0),
            applied_index: Some(ledger.applied().0),
            settled_index: Some(settled.0),
            next_order_number: Some(ledger.next_order_number().0),
            digest: Some(ledger.digest().to_string()),
            digest_index: Some(ledger.applied().0),
            products: u64::try_from(ledger.product_count()).ok(),
            watchers: u64::try_from(watchers).ok(),
            let_go: Some(fenced),
            free_bytes: disk_space.free,
            disk_full: (disk_space.level != Level::Normal).then_some(true),
            voters: Some(ids(&roster.voters)),
            learners: Some(ids(&roster.learners)),
            ..ProcessStatus::default()
        })
    }

    fn ready(&self) -> bool {
        let role = *self.role.borrow();
        let marks = self.engine.marks();
        self.is_ready(role, marks.committed, self.view.read(ShopState::applied))
    }

    fn measure(&self, page: &mut Page<'_>) {
        self.write_metrics(page);
    }

    fn readiness(&self) -> Result<(), String> {
        let leader = self.role.borrow().leader(self.id);
        let voting = leader.and_then(|leader| self.peers.voting(leader, VOTING_VALID));
        let applied = self.view.read(ShopState::applied).0;
        self.members.look(|now| {
            let id = self.id;
            let configs = now.configs.as_slice();
            let voting = voting.as_ref();
            readiness(&Situation { id, leader, applied, configs, voting })
        })
    }
}

impl Status {
    /// `ready` in the status: the leader is known, and the known committed entries are applied. The
    /// page `/readyz` requires more.
    fn is_ready(&self, role: Role, committed: Index, applied: Index) -> bool {
        role.leader(self.id).is_some() && committed <= applied
    }
}
