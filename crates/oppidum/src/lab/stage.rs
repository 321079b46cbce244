//! The stage: a whole store for one experiment, made of real processes, on free ports, with its
//! data in a temporary folder. Whoever holds it may kill, freeze and start again any process.
//!
//! Nothing outlives it: its processes stop when it ends, when this program is stopped, and when
//! this program is killed; the folder goes with it, unless this program is killed.

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
use crate::lab::interrupt::Interrupt;
use crate::shop;
use crate::up::archive::{Archive, Said};
use crate::up::plan::{Plan, Wishes};
use crate::up::supervisor::{Afterwards, Lines, Supervisor};

/// How long a store may take to open, or to be whole again.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a look at the store may take.
const LOOK: Duration = Duration::from_secs(2);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// How often opening is tried: a port that was free may be taken a moment later.
const TRIES: u32 = 3;

/// The words that tell who leads, and what a replica is sent that was away.
const WORDS: [&str; 3] = ["New leader id: ", "sending missing logs", " is healthy!"];

/// What kind of store an experiment wants.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// The classic API, and the built-in shop of that name.
    pub(crate) dialect: &'static str,
    /// How many pieces there are of each product. None: as the built-in shop has it.
    pub(crate) stock: Option<u64>,
    /// How many frontends.
    pub(crate) frontends: u16,
    /// How many catalogs.
    pub(crate) catalogs: u16,
    /// How many products each cache holds, or `off`.
    pub(crate) cache: String,
    /// What the processes say: directives of `tracing`.
    pub(crate) log: &'static str,
}

/// Says who leads and what a returning replica is sent, and else only what goes wrong.
pub(crate) const LEADERS: &str =
    "warn,order::leading=info,order::raft::receiver=info,frontend::replicas=info";

/// A store, made for the occasion.
#[derive(Debug)]
pub(crate) struct Stage {
    plan: Plan,
    supervisor: Supervisor,
    archive: Arc<Archive>,
    // Last: removed when nobody writes into it any more.
    folder: TempDir,
}

/// Makes a store, does something with it, and clears it away, however it went.
pub(crate) async fn with<T>(
    set: &Set,
    interrupt: &Interrupt,
    act: impl AsyncFnOnce(&Stage) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let mut tries = 1;
    let stage = loop {
        let stage = Stage::start(set)?;
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

impl Stage {
    fn start(set: &Set) -> Result<Self, Stop> {
        let made = tempfile::Builder::new().prefix("oppidum-lab-").tempdir();
        let folder = made.map_err(|e| Stop::Setup(format!("no temporary folder: {e}")))?;
        let shop = match set.stock {
            None => set.dialect.to_owned(),
            Some(pieces) => stocked(set.dialect, pieces, folder.path())?,
        };
        let plan = Plan::make(&Wishes {
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
            // A name of its own: whoever else gets to know a port of this store, while its process
            // is down, is told apart at the first word.
            cluster: folder.path().file_name().map(|name| name.to_string_lossy().into_owned()),
        })?;
        let archive = Arc::new(Archive::new(folder.path().to_owned(), &WORDS));
        let lines = Lines::Kept(archive.clone());
        let stop = CancellationToken::new();
        let supervisor = Supervisor::start(&plan, Afterwards::WhenTold, &lines, &stop)?;
        Ok(Self { plan, supervisor, archive, folder })
    }

    /// Waits until every process does its whole work.
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

    /// `kill -9`, and waits until the process is gone. False: it does not run.
    pub(crate) async fn kill(&self, name: &str) -> bool {
        if !self.supervisor.signal(name, Signal::KILL) {
            return false;
        }
        while self.pid(name).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Stops a process in its tracks: it keeps its connections and answers nobody. False: it does
    /// not run.
    pub(crate) fn freeze(&self, name: &str) -> bool {
        self.supervisor.signal(name, Signal::STOP)
    }

    /// Lets a frozen process go on. False: it does not run.
    pub(crate) fn thaw(&self, name: &str) -> bool {
        self.supervisor.signal(name, Signal::CONT)
    }

    /// Starts a process again that is down. False: it runs, or there is none of this name.
    pub(crate) fn restart(&self, name: &str) -> bool {
        self.supervisor.restart(name)
    }

    /// What was said of leaders and of returning replicas, so far.
    pub(crate) fn heard(&self) -> Vec<Said> {
        self.archive.heard()
    }

    /// The store as a frontend sees it: the first that answers.
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

    /// The replica that leads, once there is one.
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

    /// Waits until every process runs and does its whole work.
    pub(crate) async fn whole(&self) -> Result<(), Stop> {
        let began = Instant::now();
        while let Err(lack) = self.lack().await {
            patience(began, &lack)?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Waits until one process does its whole work, whatever the others do.
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

    /// Waits until all replicas stand at the same index: for a store that nobody uses just now.
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

    /// What is missing, if anything is.
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

    /// Why a process could not run, in its own last words.
    fn explain(&self, stop: &Stop) -> Stop {
        let named = self.names().into_iter().find(|name| stop.to_string().starts_with(name));
        let last = named.and_then(|name| self.archive.last(&name));
        Stop::Setup(last.unwrap_or_else(|| stop.to_string()))
    }

    /// Ends every process, and removes the folder.
    async fn end(self, interrupt: &Interrupt) {
        // A frozen process hears nothing.
        for name in self.names() {
            self.thaw(&name);
        }
        tokio::select! {
            () = self.supervisor.end() => {}
            () = interrupt.hurried() => {
                for name in self.names() {
                    self.supervisor.signal(&name, Signal::KILL);
                }
                self.supervisor.end().await;
            }
        }
        if let Err(error) = self.folder.close() {
            crate::lab::remark(format!("oppidum: the temporary folder stays behind: {error}"));
        }
    }
}

/// A shop file: the built-in shop of that name with so many pieces of everything.
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
