//! A replica on its simulated machine: the real one, on a simulated ground.

use std::path::Path;
use std::time::Duration;

use ground::disk::{Crash, Disk, DiskCopy};
use ground::life::{self, ReplicaProbe, SimGround, Window};
use ledger::ledger::Windows;
use order::raft::types::LogId;
use order::{Faults, Settings};
use wire::peers::Peer;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;

use crate::machine::{Ending, Host};
use crate::net::{self, HostId, MachineState, Net};
use crate::plan::{self, Plan};

/// The port on which a replica listens.
const PORT: u16 = 1117;

/// How long to wait for a snapshot.
const PURGING: Duration = Duration::from_secs(5);

/// A replica, its machine and its disk.
#[derive(Debug)]
pub struct Replica {
    /// The replica's id.
    pub id: u64,
    /// The replica's machine.
    pub host: Host,
    /// The replica's disk, which outlives its process.
    pub disk: Disk,
    window: Window,
    settings: Settings,
    restore: bool,
}

/// A copy of a replica's data folder.
#[derive(Clone, Debug)]
pub struct FolderCopy {
    /// The copied log and history.
    pub disk: DiskCopy,
    identity: Vec<u8>,
}

impl FolderCopy {
    /// True when the copy was made after this start.
    pub fn remembers(&self, start: &str) -> bool {
        String::from_utf8_lossy(&self.identity).contains(start)
    }
}

/// The machine of the replica at this place.
pub fn host(place: usize) -> HostId {
    HostId::try_from(place + 1).unwrap_or(HostId::MAX)
}

/// The addresses of all replicas, as in each process's configuration.
pub fn peers(plan: &Plan) -> Vec<Peer> {
    let peer = |(place, id)| Peer { id, address: net::address(host(place), PORT).to_string() };
    plan.ids().into_iter().enumerate().map(peer).collect()
}

impl Replica {
    /// The replica at this place, not started. Its identity is kept in `folder`, a real one.
    pub fn new(plan: &Plan, place: usize, net: &Net, folder: &Path) -> Self {
        let id = plan.ids()[place];
        let settings = Settings {
            preempt: false,
            join: false,
            id,
            peers: peers(plan),
            listen: net::address(host(place), PORT),
            data: folder.join(format!("order-{id}")),
            cluster: "sim".into(),
            shop: plan::shop(),
            shop_source: "the plan".into(),
            root_key: None,
            windows: Windows::default(),
            times: Times::default(),
            rules: Rules::default(),
            reserve: None,
            credentials: None,
            faults: Faults::default(),
        };
        Self {
            id,
            host: Host::new(host(place), &format!("order-{id}"), net),
            disk: Disk::new(plan.seed, id, plan.broken.lies),
            window: Window::default(),
            settings,
            restore: plan.broken.restore,
        }
    }

    /// Starts the replica's process.
    pub fn start(&mut self, seed: u64) {
        let ground = SimGround {
            handle: self.disk.open(),
            window: self.window.clone(),
            pace: plan::PACE,
            restore: self.restore,
        };
        let settings = self.settings.clone();
        self.host.start(seed, |stop| life::replica(ground, settings, stop));
    }

    /// The process dies, or its machine loses power.
    pub fn crash(&mut self, how: Crash) {
        self.disk.crash(how);
        self.window.lock().take();
        self.host.end(match how {
            Crash::Kill => MachineState::Gone,
            Crash::Power => MachineState::Dark,
        });
    }

    /// A copy of the data folder, while the process does not run.
    ///
    /// # Panics
    ///
    /// When the replica has never run.
    pub fn copy(&self) -> FolderCopy {
        let identity = std::fs::read(self.identity()).expect("a replica that ran has an identity");
        FolderCopy { disk: self.disk.copy(), identity }
    }

    /// Replaces the data folder with a copy, as an operator would.
    ///
    /// # Panics
    ///
    /// When the folder of the run is gone.
    pub fn put_back(&self, copy: &FolderCopy) {
        self.disk.put_back(&copy.disk);
        std::fs::write(self.identity(), &copy.identity).expect("the folder can be written");
    }

    /// The random number of the latest start, as its identity file has it; `None` before the first.
    pub fn last_start(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.identity()).ok()?;
        let (_, last) = text.split_once("\nlast = [")?;
        let (last, _) = last.split_once(']')?;
        last.split('"').rfind(|word| word.len() == 16).map(str::to_owned)
    }

    /// True when this replica has met that start of another.
    pub fn met(&self, start: &str) -> bool {
        std::fs::read_to_string(self.identity()).is_ok_and(|text| text.contains(start))
    }

    fn identity(&self) -> std::path::PathBuf {
        self.settings.data.join("identity.toml")
    }

    /// Makes a snapshot, and purges the log up to it except for `kept` entries.
    pub fn purge(&self, kept: u64) {
        let Some(inside) = self.inside() else { return };
        self.host.spawn(async move {
            let ReplicaProbe { raft, view } = inside;
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
            let target = view.applied_log_id().map_or(0, |id| id.index);
            let reaches = |at: u64| move |id: &LogId| at <= id.index;
            let made = raft.wait(Some(PURGING));
            let made = made.metrics(
                |metrics| metrics.snapshot.as_ref().is_some_and(reaches(target)),
                "a snapshot is made",
            );
            if made.await.is_ok() && kept < target {
                // The replica may stop meanwhile.
                let _ = raft.trigger().purge_log(target - kept).await;
            }
        });
    }

    /// Runs the process for one step. Returns its result, if it has ended.
    pub fn step(&mut self) -> Option<Ending> {
        let ended = self.host.step();
        if ended.is_some() {
            self.window.lock().take();
        }
        ended
    }

    /// The probe of the replica, while it runs.
    pub fn inside(&self) -> Option<ReplicaProbe> {
        self.window.lock().clone()
    }
}
