//! One run of a replica on the simulated ground: the real replica, until it is dropped.

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::Config;
use order::Settings;
use order::history::block_source::BlockSource;
use order::history::view::View;
use order::history::write_demand::WritePace;
use order::raft::backend::{Backend, Opened};
use order::raft::state_machine::{Raft, StateMachine};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::disk::Handle;
use crate::disk::log::SimLog;

/// The parts of a running replica that the checker reads.
#[derive(Clone, Debug)]
pub struct ReplicaProbe {
    /// Its engine.
    pub raft: Raft,
    /// Its ledger.
    pub view: Arc<View>,
}

/// Where a running replica publishes its probe; empty while it does not run.
pub type Window = Arc<Mutex<Option<ReplicaProbe>>>;

/// The ground of one run.
#[derive(Debug)]
pub struct SimGround {
    /// The disk, as this run may use it.
    pub handle: Handle,
    /// Where to publish the probe.
    pub window: Window,
    /// How often the history is written.
    pub pace: WritePace,
    /// An injected fault: a restarted leader leads on without an election.
    pub restore: bool,
}

/// One run of a process, boxed so that it is compiled once, in this crate.
pub type Life = BoxFuture<'static, Result<(), Stop>>;

/// Runs a replica until it is stopped or fails.
pub fn replica(ground: SimGround, settings: Settings, stop: CancellationToken) -> Life {
    order::run_on(ground, settings, stop).boxed()
}

/// Runs a catalog.
pub fn catalog(settings: catalog::Settings, stop: CancellationToken) -> Life {
    catalog::run(settings, stop).boxed()
}

/// Runs a frontend.
pub fn frontend(settings: frontend::Settings, stop: CancellationToken) -> Life {
    frontend::run(settings, stop).boxed()
}

impl Backend for SimGround {
    type Log = SimLog;

    async fn open(
        &mut self,
        settings: &Settings,
        source: Arc<dyn BlockSource>,
    ) -> Result<Opened<SimLog>, Stop> {
        let log = self.handle.log();
        let file = (Path::new("blocks"), self.handle.file());
        let work = (self.pace, self.handle.hand());
        let opened = StateMachine::open_on(file, settings.windows, work, source);
        let (machine, view) = opened.map_err(|error| Stop::Setup(error.to_string()))?;
        // Opening the store writes as well, and takes time.
        self.handle.clone().took().await;
        Ok((log, machine, view))
    }

    fn tune(&self, config: &mut Config) {
        if self.restore {
            config.enable_leader_restore = Some(true);
        }
    }

    fn runs(&mut self, raft: &Raft, view: &Arc<View>) {
        *self.window.lock() = Some(ReplicaProbe { raft: raft.clone(), view: view.clone() });
    }
}
