//! The lab store: a whole store for one experiment, made of real processes on free ports, with its
//! data in a temporary folder. The experiment may kill, freeze and restart any process.
//!
//! No process outlives it: they stop when it ends, when this program is stopped, and when this
//! program is killed. The folder is removed too, unless this program is killed.

use std::fmt::Write as _;
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
use crate::shop;
use crate::signals::Interrupt;
use crate::up::archive::{Archive, LogLine};
use crate::up::plan::{Plan, UpRequest};
use crate::up::supervisor::{AfterExit, Lines, Supervisor};

/// How long a store may take to open, or to recover.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a reading of the status may take.
const LOOK: Duration = Duration::from_secs(2);

/// The pause between two readings.
const PAUSE: Duration = Duration::from_millis(10);

/// How often opening is tried: a port that was free may be taken a moment later.
const TRIES: u32 = 3;

/// The words in log lines that name a new leader, or entries sent to a returning replica.
const WORDS: [&str; 3] = ["New leader id: ", "sending missing logs", " is healthy!"];

/// The kind of store that an experiment needs.
#[derive(Clone, Debug)]
pub(crate) struct StoreSpec {
    /// The classic API, and the built-in shop with the same name.
    pub(crate) dialect: &'static str,
    /// The stock of each product. None: as in the built-in shop.
    pub(crate) stock: Option<u64>,
    /// The number of frontends.
    pub(crate) frontends: u16,
    /// The number of catalogs.
    pub(crate) catalogs: u16,
    /// The number of products that each cache holds, or `off`.
    pub(crate) cache: String,
    /// The log filter of the processes: directives of `tracing`.
    pub(crate) log: &'static str,
}

/// A log filter that shows leaders and the entries sent to a returning replica, else only warnings.
pub(crate) const LEADERS: &str =
    "warn,order::takeover=info,order::raft::receiver=info,frontend::replicas=info";

/// A store for one experiment.
#[derive(Debug)]
pub(crate) struct LabStore {
    plan: Plan,
    supervisor: Supervisor,
    archive: Arc<Archive>,
    // Dropped last, after every process that writes into it.
    folder: TempDir,
}

/// Opens a store, runs `act` on it, and removes it, also after an error.
pub(crate) async fn with<T>(
    set: &StoreSpec,
    interrupt: &Interrupt,
    act: impl AsyncFnOnce(&LabStore) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let mut tries = 1;
    let stage = loop {
        let stage = LabStore::start(set)?;
        match interrupt.unless(stage.opened()).await {
            Ok(()) => break stage,
            Err(stop) => {
                let taken = stage.lines_say("Address already in use");
                stage.end(interrupt).await;
                if tries == TRIES || !taken {
                    return Err(stop);
                }
                tries += 1;
            }
        }
    };
    let done = tokio::select! {
        done = interrupt.unless(act(&stage)) => done,
        stop = stage.supervisor.failed() => Err(stage.explain(&stop)),
    };
    stage.end(interrupt).await;
    done
}

impl LabStore {
    fn start(set: &StoreSpec) -> Result<Self, Stop> {
        let made = tempfile::Builder::new().prefix("oppidum-lab-").tempdir();
        let folder = made.map_err(|e| Stop::Setup(format!("no temporary folder: {e}")))?;
        let shop = match set.stock {
            None => set.dialect.to_owned(),
            Some(pieces) => stocked(set.dialect, pieces, folder.path())?,
        };
        let plan = Plan::make(&UpRequest {
            dialect: set.dialect.into(),
            shop,
            port: None,
            auto: true,
            data: folder.path().join("data"),
            frontends: set.frontends,
            catalogs: set.catalogs,
            cache: set.cache.clone(),
            log: set.log.into(),
            preempt: false,
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

    /// Freezes a process: it keeps its connections and answers no request. False: it was not
    /// running.
    pub(crate) fn freeze(&self, name: &str) -> bool {
        self.supervisor.signal(name, Signal::STOP)
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
    pub(crate) fn heard(&self) -> Vec<LogLine> {
        self.archive.heard()
    }

    /// The store's status from the first frontend that answers.
    pub(crate) async fn status(&self) -> Result<StoreStatus, Stop> {
        let mut last = Stop::Setup("there is no frontend".into());
        for url in self.urls() {
            match tokio::time::timeout(LOOK, inspect::fetch(&url)).await {
                Ok(Ok(status)) => return Ok(status),
                Ok(Err(stop)) => last = stop,
                Err(_) => last = Stop::Setup(format!("{url} does not answer")),
            }
        }
        Err(last)
    }

    /// Waits for a leader; returns its id.
    pub(crate) async fn leader(&self) -> Result<u64, Stop> {
        let began = Instant::now();
        loop {
            if let Ok(StoreStatus { leader: Some(leader), .. }) = self.status().await {
                return Ok(leader);
            }
            patience(began, "there is no leader")?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until every process is ready and there is a leader.
    pub(crate) async fn whole(&self) -> Result<(), Stop> {
        let began = Instant::now();
        while let Err(lack) = self.lack().await {
            patience(began, &lack)?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Waits until one process is ready, regardless of the other ones.
    pub(crate) async fn serves(&self, name: &str) -> Result<(), Stop> {
        let child = self.plan.children.iter().find(|child| child.name == name);
        let Some(child) = child else { return Err(Stop::Setup(format!("there is no {name}"))) };
        let began = Instant::now();
        let url = format!("http://{}", child.address);
        loop {
            let ready = Client::patient_for(&url, LOOK)?.get("/readyz").await;
            if ready.is_ok_and(|reply| reply.status == 200) {
                return Ok(());
            }
            patience(began, &format!("{name} is not ready"))?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until all replicas have applied the same index: for a store without requests.
    pub(crate) async fn level(&self) -> Result<(), Stop> {
        let began = Instant::now();
        loop {
            let status = self.status().await?;
            let replicas = status.processes.iter().filter(|process| process.role == "order");
            let mut applied: Vec<_> = replicas.map(|replica| replica.applied_index).collect();
            applied.dedup();
            if applied.len() == 1 && applied[0].is_some() {
                return Ok(());
            }
            patience(began, "the replicas stand at different indexes")?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The first process that is not ready, or a missing leader, as an error.
    async fn lack(&self) -> Result<(), String> {
        for url in self.urls() {
            let patient = Client::patient_for(&url, LOOK);
            let mut client = patient.map_err(|stop| stop.to_string())?;
            let ready = client.get("/readyz").await;
            if !ready.is_ok_and(|reply| reply.status == 200) {
                return Err(format!("the frontend at {url} is not ready"));
            }
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

    fn lines_say(&self, words: &str) -> bool {
        let last = self.plan.children.iter().filter_map(|child| self.archive.last(&child.name));
        last.into_iter().any(|line| line.contains(words))
    }

    /// Why a process could not run: its last log line.
    fn explain(&self, stop: &Stop) -> Stop {
        let named = self.names().into_iter().find(|name| stop.to_string().starts_with(name));
        let last = named.and_then(|name| self.archive.last(&name));
        Stop::Setup(last.unwrap_or_else(|| stop.to_string()))
    }

    /// Stops every process, and removes the folder.
    async fn end(self, interrupt: &Interrupt) {
        // A frozen process does not react.
        for name in self.names() {
            self.thaw(&name);
        }
        self.supervisor.end(&interrupt.hurry).await;
        if let Err(error) = self.folder.close() {
            crate::lab::remark(format!("oppidum: the temporary folder stays behind: {error}"));
        }
    }
}

/// Writes a shop file: the built-in shop of that name with `pieces` of every product.
fn stocked(name: &str, pieces: u64, folder: &Path) -> Result<String, Stop> {
    let (shop, _) = shop::load(name, shop::Age::New)?;
    let mut text = String::new();
    for product in shop.products {
        let cents = product.price.get();
        let (whole, rest) = (cents / 100, cents % 100);
        // Names of the built-in shops need no escapes.
        let _ = writeln!(
            text,
            "[[product]]\nname = \"{}\"\nprice = {whole}.{rest:02}\nquantity = {pieces}\n",
            product.name.as_str()
        );
    }
    let path = folder.join("shop.toml");
    let no = |error| Stop::Setup(format!("{} cannot be written: {error}", path.display()));
    std::fs::write(&path, text).map_err(no)?;
    Ok(path.display().to_string())
}

fn patience(began: Instant, lack: &str) -> Result<(), Stop> {
    if began.elapsed() < PATIENCE {
        return Ok(());
    }
    Err(Stop::Setup(format!("the store is not whole after {PATIENCE:?}: {lack}")))
}
