//! One life of a replica on the simulated ground: the real one, until it is dropped.

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::Config;
use order::Settings;
use order::raft::ground::{Ground, Opened};
use order::raft::snapshots::BlockSource;
use order::raft::state_machine::StateMachine;
use order::raft::types::Raft;
use order::raft::view::View;
use order::raft::writer::Pace;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::disk::Handle;
use crate::disk::log::SimLog;

/// What can be seen of a running replica from outside the world.
#[derive(Clone, Debug)]
pub struct Inside {
    /// Its engine.
    pub raft: Raft,
    /// Its ledger.
    pub view: Arc<View>,
}

/// Where a running replica can be seen; empty while it does not run.
pub type Window = Arc<Mutex<Option<Inside>>>;

/// The ground of one life.
#[derive(Debug)]
pub struct SimGround {
    /// The disk, as this life may use it.
    pub handle: Handle,
    /// Where to show what is inside.
    pub window: Window,
    /// How often the history is written.
    pub pace: Pace,
    /// Broken on purpose: a leader that restarts leads on without an election.
    pub restore: bool,
}

/// The life of a process. Boxed here, so that it is built here, once.
pub type Life = BoxFuture<'static, Result<(), Stop>>;

/// Runs a replica until it is told to stop, or cannot go on.
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

impl Ground for SimGround {
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
        // Opening writes as well, and takes its time.
        self.handle.clone().took().await;
        Ok((log, machine, view))
    }

    fn tune(&self, config: &mut Config) {
        if self.restore {
            config.enable_leader_restore = Some(true);
        }
    }

    fn runs(&mut self, raft: &Raft, view: &Arc<View>) {
        *self.window.lock() = Some(Inside { raft: raft.clone(), view: view.clone() });
    }
}
