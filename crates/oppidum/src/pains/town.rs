//! A store of our own, for as long as an experiment lasts: this very program as `up --ephemeral`,
//! a child that ends with us, however we end.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use wire::exit::Stop;

use crate::inspect;
use crate::roles::DialectName;

/// The file that holds what the store says.
const LOG: &str = "store.log";

/// How many frontends it has: three, so that a request sent three times takes three ways.
const FRONTENDS: usize = 3;

/// How long it may take to open, on a machine that has other things to do as well.
const OPENING: Duration = Duration::from_mins(1);

/// How long it may take to close in order.
const CLOSING: Duration = Duration::from_secs(30);

/// How long a dead leader may go without a successor.
const SUCCESSION: Duration = Duration::from_secs(20);

/// A replica that leads, as a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) id: u64,
    pid: u32,
}

impl Leader {
    /// `kill -9`.
    pub(crate) fn kill(self) -> Result<(), Stop> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Stop::Defect(format!("{} is no process", self.pid)))?;
        kill_process(pid, Signal::KILL)
            .map_err(|error| Stop::Setup(format!("the leader cannot be killed: {error}")))
    }
}

/// A running store of our own. Dropped, it is ended by force.
pub(crate) struct Town {
    child: Child,
    /// Closed when we are gone, which tells the child to end.
    _held: Option<ChildStdin>,
    told: Lines<BufReader<ChildStdout>>,
    /// The shop file, and what the store says while it runs.
    folder: TempDir,
    urls: Vec<String>,
}

impl Town {
    /// Starts the processes. It is open when [`Town::opened`] says so.
    pub(crate) fn start(dialect: DialectName, shop: &str) -> Result<Self, Stop> {
        let no = |what: &str, error: std::io::Error| Stop::Setup(format!("{what}: {error}"));
        let folder = tempfile::Builder::new().prefix("oppidum-lab-").tempdir();
        let folder = folder.map_err(|error| no("no temporary folder", error))?;
        let file = folder.path().join("shop.toml");
        std::fs::write(&file, shop).map_err(|error| no("the shop cannot be written", error))?;
        let log = std::fs::File::create(folder.path().join(LOG));
        let log = log.map_err(|error| no("the store's lines cannot be kept", error))?;
        let program = std::env::current_exe();
        let program = program.map_err(|error| no("this program cannot be found", error))?;
        let (frontends, dialect) = (FRONTENDS.to_string(), dialect.to_string());
        let mut child = Command::new(program)
            .args(["up", "--ephemeral", "--ports", "auto", "--catalogs", "2"])
            .args(["--frontends", &frontends, "--dialect", &dialect])
            .args(["--access-log", "off", "--stop-with-stdin", "--shop"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for us, who end it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| no("the store cannot be started", error))?;
        let held = child.stdin.take();
        let out = child.stdout.take().ok_or_else(|| Stop::Defect("a pipe is missing".into()))?;
        let told = BufReader::new(out).lines();
        Ok(Self { child, _held: held, told, folder, urls: Vec::new() })
    }

    /// Waits until it is open; its public addresses.
    pub(crate) async fn opened(&mut self) -> Result<Vec<String>, Stop> {
        let reading = async {
            while let Ok(Some(line)) = self.told.next_line().await {
                if let Some(urls) = line.strip_prefix("The store is open: ") {
                    return urls.split_whitespace().map(str::to_owned).collect();
                }
            }
            Vec::new()
        };
        self.urls = tokio::time::timeout(OPENING, reading).await.unwrap_or_default();
        if self.urls.len() == FRONTENDS {
            return Ok(self.urls.clone());
        }
        Err(self.failed())
    }

    /// Why it did not open, as it said itself.
    fn failed(&self) -> Stop {
        let said = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
        let last = said.lines().rfind(|line| line.starts_with("oppidum: "));
        let last = last.map_or("it says nothing", |line| line.trim_start_matches("oppidum: "));
        Stop::Setup(format!("a store of our own did not open: {last}"))
    }

    /// Who leads.
    pub(crate) async fn leader(&self) -> Result<Leader, Stop> {
        let url = self.urls.first().map_or("", String::as_str);
        let store = inspect::fetch(url).await?;
        let leader = store.leading();
        let leader = leader.and_then(|process| process.id.zip(process.pid));
        let (id, pid) = leader.ok_or_else(|| Stop::Setup("nobody leads our own store".into()))?;
        Ok(Leader { id, pid })
    }

    /// Waits until somebody leads after this one: another, or the same replica anew.
    pub(crate) async fn successor(&self, of: Leader) -> Result<(), Stop> {
        let began = Instant::now();
        while began.elapsed() < SUCCESSION {
            if self.leader().await.is_ok_and(|leader| leader != of) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Stop::Setup(format!("nobody followed {} as leader within {SUCCESSION:?}", of.id)))
    }

    /// Ends it in order. Where something went wrong, what it said is kept; where.
    pub(crate) async fn close(mut self, keep: bool) -> Option<PathBuf> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::INT);
        }
        if tokio::time::timeout(CLOSING, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        keep.then(|| self.folder.keep().join(LOG))
    }
}
