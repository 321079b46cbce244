//! A local cluster for one experiment: this program as `up --ephemeral`, a child that ends with
//! this process, however this process ends.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use wire::exit::Stop;

use crate::cli::values::DialectName;
use crate::inspect;

/// The file for the store's stderr.
const LOG: &str = "store.log";

/// Three frontends, so that the three copies of a request each go through another one.
const FRONTENDS: usize = 3;

/// How long the store may take to open, on a loaded machine.
const OPENING: Duration = Duration::from_mins(1);

/// How long the store may take to stop in order.
const CLOSING: Duration = Duration::from_secs(30);

/// How long an election may take after the leader's death.
const SUCCESSION: Duration = Duration::from_secs(20);

/// The leading replica, as a process.
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

/// A running local cluster. Dropping it kills the processes.
pub(crate) struct LocalCluster {
    child: Child,
    /// Closed when this process ends, which stops the child.
    _held: Option<ChildStdin>,
    told: Lines<BufReader<ChildStdout>>,
    /// The folder of the shop file and the store's log.
    folder: TempDir,
    urls: Vec<String>,
}

impl LocalCluster {
    /// Starts the processes; [`LocalCluster::opened`] waits until the store is open.
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
            // Ctrl-C goes to this process, which stops the child in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| no("the store cannot be started", error))?;
        let held = child.stdin.take();
        let out = child.stdout.take().ok_or_else(|| Stop::Defect("a pipe is missing".into()))?;
        let told = BufReader::new(out).lines();
        Ok(Self { child, _held: held, told, folder, urls: Vec::new() })
    }

    /// Waits until the store is open; returns its public addresses.
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

    /// Why the store did not open, by the last error in its log.
    fn failed(&self) -> Stop {
        let said = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
        let last = said.lines().rfind(|line| line.starts_with("oppidum: "));
        let last = last.map_or("it says nothing", |line| line.trim_start_matches("oppidum: "));
        Stop::Setup(format!("a store of our own did not open: {last}"))
    }

    /// The current leader.
    pub(crate) async fn leader(&self) -> Result<Leader, Stop> {
        let url = self.urls.first().map_or("", String::as_str);
        let store = inspect::fetch(url).await?;
        let leader = store.leading();
        let leader = leader.and_then(|process| process.id.zip(process.pid));
        let (id, pid) =
            leader.ok_or_else(|| Stop::Setup("the local cluster has no leader".into()))?;
        Ok(Leader { id, pid })
    }

    /// Waits for the next leader: another replica, or the same one restarted.
    pub(crate) async fn successor(&self, of: Leader) -> Result<(), Stop> {
        let began = Instant::now();
        while began.elapsed() < SUCCESSION {
            if self.leader().await.is_ok_and(|leader| leader != of) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Stop::Setup(format!("no replica replaced {} as leader within {SUCCESSION:?}", of.id)))
    }

    /// Stops the store in order. With `keep` its log is kept; returns the log's path.
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
