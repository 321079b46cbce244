//! The local cluster: a whole store for one experiment, made of real processes on free ports, with
//! its data in a temporary folder. The experiment may kill, freeze and restart any process.
//!
//! No process outlives it: they stop when it ends, when this program is stopped, and when this
//! program is killed. The folder is removed too, unless this program is killed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;
use wire::status::StoreStatus;

use crate::http::Client;
use crate::inspect;
use crate::signals::Interrupt;
use crate::up::archive::{Archive, LogLine};
use crate::up::plan::{Plan, UpRequest};
use crate::up::supervisor::{AfterExit, Lines, Supervisor};

/// How long a cluster may take to open, to elect a leader, or to recover.
const CLUSTER_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a reading of the status may take.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause between two readings.
const PAUSE: Duration = Duration::from_millis(10);

/// How often opening is tried: a port that was free may be taken a moment later.
const TRIES: u32 = 3;

/// The folder of the replicas' folders.
const DATA: &str = "data";

/// The words in log lines that name a new leader, or entries sent to a returning replica.
const WORDS: [&str; 3] = ["New leader id: ", "sending missing logs", " is healthy!"];

/// A log filter that shows leaders and the entries sent to a returning replica, else only warnings.
pub(crate) const LEADERS: &str =
    "warn,order::takeover=info,order::raft::receiver=info,frontend::replicas=info";

/// The kind of cluster that an experiment needs.
#[derive(Clone, Debug)]
pub(crate) struct ClusterSpec {
    /// The classic API, and the built-in shop with the same name.
    pub(crate) dialect: &'static str,
    /// The text of another shop file. None: the built-in shop.
    pub(crate) shop: Option<String>,
    /// The number of frontends.
    pub(crate) frontends: u16,
    /// The number of catalogs.
    pub(crate) catalogs: u16,
    /// The number of products that each cache holds, or `off`.
    pub(crate) cache: String,
    /// The log filter of the processes: directives of `tracing`.
    pub(crate) log: &'static str,
}

impl ClusterSpec {
    /// The built-in shop, one frontend with the default cache, one catalog; only warnings are
    /// logged.
    pub(crate) fn new(dialect: &'static str) -> Self {
        let cache = "5".into();
        Self { dialect, shop: None, frontends: 1, catalogs: 1, cache, log: "warn" }
    }
}

/// A store for one experiment.
#[derive(Debug)]
pub(crate) struct LocalCluster {
    plan: Plan,
    supervisor: Supervisor,
    archive: Arc<Archive>,
    // Dropped last, after every process that writes into it.
    folder: TempDir,
}

/// Opens a cluster, runs `act` on it, and removes it, also after an error.
pub(crate) async fn with<T>(
    spec: &ClusterSpec,
    interrupt: &Interrupt,
    act: impl AsyncFnOnce(&LocalCluster) -> Result<T, Stop>,
) -> Result<T, Stop> {
    with_logs(spec, interrupt, |_, _| false, act).await
}

/// The same. `keep_logs` receives the result and the folder of the log lines, and decides whether
/// the folder stays.
pub(crate) async fn with_logs<T>(
    spec: &ClusterSpec,
    interrupt: &Interrupt,
    keep_logs: impl FnOnce(&Result<T, Stop>, &Path) -> bool,
    act: impl AsyncFnOnce(&LocalCluster) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let mut tries = 1;
    loop {
        let cluster = LocalCluster::start(spec)?;
        let done = match interrupt.unless(cluster.opened()).await {
            Ok(()) => tokio::select! {
                done = interrupt.unless(act(&cluster)) => done,
                stop = cluster.supervisor.failed() => Err(cluster.explain(&stop)),
            },
            Err(_) if tries < TRIES && cluster.log_contains("Address already in use") => {
                cluster.end(interrupt, false).await;
                tries += 1;
                continue;
            }
            Err(stop) => Err(stop),
        };
        let keep = keep_logs(&done, cluster.folder.path());
        cluster.end(interrupt, keep).await;
        return done;
    }
}

impl LocalCluster {
    fn start(spec: &ClusterSpec) -> Result<Self, Stop> {
        let made = tempfile::Builder::new().prefix("oppidum-lab-").tempdir();
        let folder = made.map_err(|e| Stop::Setup(format!("no temporary folder: {e}")))?;
        let shop = match &spec.shop {
            None => spec.dialect.to_owned(),
            Some(text) => {
                let path = folder.path().join("shop.toml");
                let no = |e| Stop::Setup(format!("{} cannot be written: {e}", path.display()));
                std::fs::write(&path, text).map_err(no)?;
                path.display().to_string()
            }
        };
        let plan = Plan::make(&UpRequest {
            dialect: spec.dialect.into(),
            shop,
            port: None,
            auto: true,
            data: folder.path().join(DATA),
            frontends: spec.frontends,
            catalogs: spec.catalogs,
            cache: spec.cache.clone(),
            log: spec.log.into(),
            preempt: false,
            // Its experiments are compared with those of stores without certificates.
            tls: None,
            access_log: "off".into(),
            // A unique name: a process of another store that connects to one of these ports while
            // its process is down is rejected in the handshake.
            cluster: folder.path().file_name().map(|name| name.to_string_lossy().into_owned()),
        })?;
        let archive = Arc::new(Archive::new(folder.path().to_owned(), &WORDS));
        let lines = Lines::Kept(archive.clone());
        let stop = CancellationToken::new();
        let supervisor = Supervisor::start(&plan, AfterExit::WhenTold, &lines, &stop)?;
        Ok(Self { plan, supervisor, archive, folder })
    }

    /// Waits until every process is ready.
    async fn opened(&self) -> Result<(), Stop> {
        tokio::select! {
            whole = self.whole() => whole,
            stop = self.supervisor.failed() => Err(self.explain(&stop)),
        }
    }

    /// The frontends' public addresses.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.plan.urls()
    }

    /// The first frontend's public address.
    pub(crate) fn url(&self) -> String {
        self.urls().into_iter().next().unwrap_or_default()
    }

    /// The processes, in the order in which they were started.
    pub(crate) fn names(&self) -> Vec<String> {
        self.plan.children.iter().map(|child| child.name.clone()).collect()
    }

    /// The pid of a process. None: it is down.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.supervisor.pids().get(name).copied()
    }

    /// `kill -9`; waits until the process is gone. False: it was not running.
    pub(crate) async fn kill(&self, name: &str) -> bool {
        if !self.supervisor.signal(name, Signal::KILL) {
            return false;
        }
        while self.pid(name).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Kills a process, or freezes it: then it keeps its connections and answers no request. False:
    /// it was not running.
    pub(crate) async fn inject_fault(&self, name: &str, freeze: bool) -> bool {
        if freeze { self.supervisor.signal(name, Signal::STOP) } else { self.kill(name).await }
    }

    /// Resumes a frozen process. False: it was not running.
    pub(crate) fn thaw(&self, name: &str) -> bool {
        self.supervisor.signal(name, Signal::CONT)
    }

    /// Restarts a process that is down. False: it is running, or no process has this name.
    pub(crate) fn restart(&self, name: &str) -> bool {
        self.supervisor.restart(name)
    }

    /// The log lines about leaders and returning replicas so far.
    pub(crate) fn matched(&self) -> Vec<LogLine> {
        self.archive.matched()
    }

    /// The store's status from the first frontend that answers.
    pub(crate) async fn status(&self) -> Result<StoreStatus, Stop> {
        let mut last = Stop::Setup("there is no frontend".into());
        for url in self.urls() {
            match tokio::time::timeout(STATUS_TIMEOUT, inspect::fetch(&url)).await {
                Ok(Ok(status)) => return Ok(status),
                Ok(Err(stop)) => last = stop,
                Err(_) => last = Stop::Setup(format!("{url} does not answer")),
            }
        }
        Err(last)
    }

    /// Waits for a leader; returns its id.
    pub(crate) async fn leader(&self) -> Result<u64, Stop> {
        until(async || {
            let leader = self.status().await.ok().and_then(|status| status.leader);
            leader.ok_or_else(|| "there is no leader".into())
        })
        .await
    }

    /// Waits until another replica leads than `former`.
    pub(crate) async fn successor(&self, former: u64) -> Result<(), Stop> {
        until(async || {
            let leader = self.status().await.ok().and_then(|status| status.leader);
            match leader {
                Some(leader) if leader != former => Ok(()),
                _ => Err(format!("no replica replaced {former} as leader")),
            }
        })
        .await
    }

    /// Waits until every process is ready and there is a leader.
    pub(crate) async fn whole(&self) -> Result<(), Stop> {
        until(async || self.lack().await).await
    }

    /// Waits until one process is ready, regardless of the other ones.
    pub(crate) async fn serves(&self, name: &str) -> Result<(), Stop> {
        let child = self.plan.children.iter().find(|child| child.name == name);
        let Some(child) = child else { return Err(Stop::Setup(format!("there is no {name}"))) };
        until(async || is_ready(&format!("http://{}", child.address), name).await).await
    }

    /// Waits until all replicas have applied the same index: for a store without requests.
    pub(crate) async fn level(&self) -> Result<(), Stop> {
        until(async || {
            let status = self.status().await.map_err(|stop| stop.to_string())?;
            let replicas = status.processes.iter().filter(|process| process.role == "order");
            let mut applied: Vec<_> = replicas.map(|replica| replica.applied_index).collect();
            applied.dedup();
            match applied.as_slice() {
                [Some(_)] => Ok(()),
                _ => Err("the replicas stand at different indexes".into()),
            }
        })
        .await
    }

    /// The first process that is not ready, or a missing leader, as an error.
    async fn lack(&self) -> Result<(), String> {
        for url in self.urls() {
            is_ready(&url, &format!("the frontend at {url}")).await?;
        }
        let status = self.status().await.map_err(|stop| stop.to_string())?;
        for process in &status.processes {
            let name = process.id.map_or(process.role.clone(), |id| format!("order-{id}"));
            if let Some(error) = &process.error {
                return Err(format!("{name}: {error}"));
            }
            if !process.ready {
                return Err(format!("{name} is not ready"));
            }
        }
        status.leader.map(|_| ()).ok_or_else(|| "there is no leader".into())
    }

    fn log_contains(&self, words: &str) -> bool {
        let last = self.plan.children.iter().filter_map(|child| self.archive.last(&child.name));
        last.into_iter().any(|line| line.contains(words))
    }

    /// Why a process could not run: its last log line.
    fn explain(&self, stop: &Stop) -> Stop {
        let named = self.names().into_iter().find(|name| stop.to_string().starts_with(name));
        let last = named.and_then(|name| self.archive.last(&name));
        Stop::Setup(last.unwrap_or_else(|| stop.to_string()))
    }

    /// Stops every process, and removes the folder; with `keep` the log lines stay in it.
    async fn end(self, interrupt: &Interrupt, keep: bool) {
        // A frozen process does not react.
        for name in self.names() {
            self.thaw(&name);
        }
        self.supervisor.end(&interrupt.hurry).await;
        if keep {
            // Best effort: the data may stay, too.
            let _ = std::fs::remove_dir_all(self.folder.keep().join(DATA));
        } else if let Err(error) = self.folder.close() {
            note!("oppidum: the temporary folder stays behind: {error}");
        }
    }
}

/// Asks a process whether it is ready; the error names it.
async fn is_ready(url: &str, name: &str) -> Result<(), String> {
    let client = Client::with_answer_timeout(url, STATUS_TIMEOUT);
    let ready = client.map_err(|stop| stop.to_string())?.get("/readyz").await;
    let is_ready = ready.is_ok_and(|reply| reply.status == 200);
    if is_ready { Ok(()) } else { Err(format!("{name} is not ready")) }
}

/// Repeats a reading until nothing is lacking; after [`CLUSTER_TIMEOUT`] the last lack is the
/// error.
async fn until<T>(look: impl AsyncFn() -> Result<T, String>) -> Result<T, Stop> {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(_) if began.elapsed() < CLUSTER_TIMEOUT => tokio::time::sleep(PAUSE).await,
            Err(lack) => {
                let why = format!("the store is not whole after {CLUSTER_TIMEOUT:?}: {lack}");
                return Err(Stop::Setup(why));
            }
        }
    }
}
