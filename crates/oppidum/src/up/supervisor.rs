//! Keeps the children of `up` running: starts them, passes on what they say, starts them again,
//! ends them.
//!
//! A child's stdin is a pipe that nobody writes to: when `up` is gone, however it went, the pipe is
//! closed and the child stops by itself.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{self, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::exit::Stop;

use super::plan::{Child, Plan};
use crate::cli::Restart;

/// The pause before a child is started again: at least this, twice as long each time it dies young.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// A child that lived so long did not die young.
const YOUNG: Duration = Duration::from_secs(10);

/// How long a child may take to end in order.
const ENDING: Duration = Duration::from_secs(10);

/// Looks after all children.
#[derive(Debug)]
pub(super) struct Supervisor {
    pids: Arc<Mutex<BTreeMap<String, u32>>>,
    frontends: CancellationToken,
    others: CancellationToken,
    tasks: TaskTracker,
    failures: tokio::sync::Mutex<mpsc::Receiver<Stop>>,
}

impl Supervisor {
    pub(super) fn start(
        plan: &Plan,
        restart: Restart,
        stop: &CancellationToken,
    ) -> Result<Self, Stop> {
        let program = std::env::current_exe()
            .map_err(|error| Stop::Setup(format!("this program cannot be found: {error}")))?;
        let pids = Arc::new(Mutex::new(BTreeMap::new()));
        let (frontends, others) = (CancellationToken::new(), CancellationToken::new());
        let (tasks, (failed, failures)) = (TaskTracker::new(), mpsc::channel(1));
        for child in &plan.children {
            let is_frontend = child.name.starts_with("frontend");
            let keeper = Keeper {
                child: child.clone(),
                program: program.clone(),
                restart,
                pids: pids.clone(),
                end: if is_frontend { frontends.clone() } else { others.clone() },
                stopping: stop.clone(),
                failed: failed.clone(),
            };
            tasks.spawn(keeper.keep());
        }
        tasks.close();
        let failures = tokio::sync::Mutex::new(failures);
        Ok(Self { pids, frontends, others, tasks, failures })
    }

    /// The children's process ids, by name.
    pub(super) fn pids(&self) -> BTreeMap<String, u32> {
        self.pids.lock().clone()
    }

    /// Waits until a child says that it cannot run as it is told.
    pub(super) async fn failed(&self) -> Stop {
        match self.failures.lock().await.recv().await {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }

    /// Ends all children: frontends first, so that no request meets a half-closed store.
    pub(super) async fn end(&self) {
        self.frontends.cancel();
        let frontends_ended = async {
            while self.pids.lock().keys().any(|name| name.starts_with("frontend")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(ENDING, frontends_ended).await;
        self.others.cancel();
        self.tasks.wait().await;
    }
}

/// Looks after one child.
struct Keeper {
    child: Child,
    program: std::path::PathBuf,
    restart: Restart,
    pids: Arc<Mutex<BTreeMap<String, u32>>>,
    end: CancellationToken,
    stopping: CancellationToken,
    failed: mpsc::Sender<Stop>,
}

impl Keeper {
    async fn keep(self) {
        let mut pause = PAUSE;
        loop {
            let began = Instant::now();
            let status = match self.live().await {
                Ok(Some(status)) => status,
                Ok(None) => return,
                Err(stop) => {
                    let _ = self.failed.try_send(stop);
                    return;
                }
            };
            let name = &self.child.name;
            if self.stopping.is_cancelled() || self.end.is_cancelled() {
                return;
            }
            if status.code() == Some(2) {
                let why = format!("{name} cannot run as it is told; its line above says why");
                let _ = self.failed.try_send(Stop::Setup(why));
                return;
            }
            if self.restart == Restart::Never {
                eprintln!("oppidum: {name} is down ({}) and stays down", how(status));
                return;
            }
            pause = if YOUNG < began.elapsed() { PAUSE } else { (2 * pause).min(PAUSE_MAX) };
            eprintln!("oppidum: {name} is down ({}); starting it again in {pause:?}", how(status));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.end.cancelled() => return,
            }
        }
    }

    /// One life. None: it was ended by us.
    async fn live(&self) -> Result<Option<ExitStatus>, Stop> {
        let name = &self.child.name;
        let no = |error: std::io::Error| Stop::Setup(format!("{name} cannot be started: {error}"));
        let mut running = Command::new(&self.program)
            .args(&self.child.arguments)
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A signal from the terminal is for `up`, which ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(no)?;
        // Waiting for a child closes its stdin, which is what tells it to stop: it is held here.
        let held = running.stdin.take();
        let pid = running.id().unwrap_or(0);
        self.pids.lock().insert(name.clone(), pid);
        let out = running.stdout.take().map(|out| tokio::spawn(pass_on(out, name.clone())));
        let err = running.stderr.take().map(|err| tokio::spawn(pass_on(err, name.clone())));
        let waited = tokio::select! {
            status = running.wait() => status.map(Some),
            () = self.end.cancelled() => end(&mut running, held).await.map(|()| None),
        };
        for passing in [out, err].into_iter().flatten() {
            let _ = passing.await;
        }
        self.pids.lock().remove(name);
        waited.map_err(|error| Stop::Defect(format!("{name} cannot be waited for: {error}")))
    }
}

/// Ends a child in order, by closing its stdin; at last by force.
async fn end(
    running: &mut process::Child,
    held: Option<process::ChildStdin>,
) -> std::io::Result<()> {
    drop(held);
    if tokio::time::timeout(ENDING, running.wait()).await.is_err() {
        running.kill().await?;
    }
    Ok(())
}

async fn pass_on(from: impl AsyncRead + Unpin, name: String) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln!("{name:<12}| {line}");
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "gone".to_owned(),
    }
}
