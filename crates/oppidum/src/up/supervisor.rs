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
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{self, Command};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::exit::Stop;

use super::archive::Archive;
use super::plan::{Child, Plan};

/// The pause before a child is started again: at least this, twice as long each time it dies young.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// A child that lived so long did not die young.
const YOUNG: Duration = Duration::from_secs(10);

/// How often a child that was told to start again may find its port borrowed.
const BORROWED_MAX: u32 = 20;

/// How long a child may take to end in order.
const ENDING: Duration = Duration::from_secs(10);

/// What becomes of a child that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It is started again.
    Again,
    /// It stays down.
    Never,
    /// It stays down until [`Supervisor::restart`].
    WhenTold,
}

/// Where the children's lines go.
#[derive(Clone, Debug)]
pub(crate) enum Lines {
    /// To stderr, each with its child's name.
    Shown,
    /// Aside.
    Kept(Arc<Archive>),
}

/// Looks after all children.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pids: Arc<Mutex<BTreeMap<String, u32>>>,
    /// Knocked at to start a child again.
    doors: BTreeMap<String, Arc<Notify>>,
    frontends: CancellationToken,
    others: CancellationToken,
    tasks: TaskTracker,
    failures: tokio::sync::Mutex<mpsc::Receiver<Stop>>,
}

impl Supervisor {
    pub(crate) fn start(
        plan: &Plan,
        afterwards: Afterwards,
        lines: &Lines,
        stop: &CancellationToken,
    ) -> Result<Self, Stop> {
        let program = std::env::current_exe()
            .map_err(|error| Stop::Setup(format!("this program cannot be found: {error}")))?;
        let pids = Arc::new(Mutex::new(BTreeMap::new()));
        let (frontends, others) = (CancellationToken::new(), CancellationToken::new());
        let (tasks, (failed, failures)) = (TaskTracker::new(), mpsc::channel(1));
        let mut doors = BTreeMap::new();
        for child in &plan.children {
            let door = Arc::new(Notify::new());
            doors.insert(child.name.clone(), door.clone());
            let is_frontend = child.name.starts_with("frontend");
            let keeper = Keeper {
                child: child.clone(),
                program: program.clone(),
                afterwards,
                lines: lines.clone(),
                door,
                pids: pids.clone(),
                end: if is_frontend { frontends.clone() } else { others.clone() },
                stopping: stop.clone(),
                failed: failed.clone(),
            };
            tasks.spawn(keeper.keep());
        }
        tasks.close();
        let failures = tokio::sync::Mutex::new(failures);
        Ok(Self { pids, doors, frontends, others, tasks, failures })
    }

    /// Sends a signal to a child. False: it does not run.
    pub(crate) fn signal(&self, name: &str, signal: Signal) -> bool {
        // Held while the signal is sent: a pid is taken off the list as soon as it was waited for.
        let pids = self.pids.lock();
        let pid = pids.get(name).and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Starts a child again that is down. False: it runs, or there is none of this name.
    pub(crate) fn restart(&self, name: &str) -> bool {
        let down = !self.pids.lock().contains_key(name);
        let door = self.doors.get(name).filter(|_| down);
        door.inspect(|door| door.notify_one()).is_some()
    }

    /// The children's process ids, by name.
    pub(crate) fn pids(&self) -> BTreeMap<String, u32> {
        self.pids.lock().clone()
    }

    /// Waits until a child says that it cannot run as it is told.
    pub(crate) async fn failed(&self) -> Stop {
        match self.failures.lock().await.recv().await {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }

    /// Ends all children: frontends first, so that no request meets a half-closed store.
    pub(crate) async fn end(&self) {
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
    afterwards: Afterwards,
    lines: Lines,
    door: Arc<Notify>,
    pids: Arc<Mutex<BTreeMap<String, u32>>>,
    end: CancellationToken,
    stopping: CancellationToken,
    failed: mpsc::Sender<Stop>,
}

impl Keeper {
    async fn keep(self) {
        let (mut pause, mut borrowed) = (PAUSE, None);
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
            if status.code() == Some(2)
                && let Some(times) = borrowed.filter(|times| *times < BORROWED_MAX)
            {
                // While it was down somebody had its port for a connection of his own.
                borrowed = Some(times + 1);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if status.code() == Some(2) {
                let why = format!("{name} cannot run as it is told; its line above says why");
                let _ = self.failed.try_send(Stop::Setup(why));
                return;
            }
            match self.afterwards {
                Afterwards::Never => {
                    eprintln!("oppidum: {name} is down ({}) and stays down", how(status));
                    return;
                }
                Afterwards::WhenTold => {
                    tokio::select! {
                        () = self.door.notified() => {}
                        () = self.end.cancelled() => return,
                    }
                    borrowed = Some(0);
                    continue;
                }
                Afterwards::Again => {}
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
        let lines = || (name.clone(), self.lines.clone());
        let out = running.stdout.take().map(|out| tokio::spawn(pass_on(out, lines())));
        let err = running.stderr.take().map(|err| tokio::spawn(pass_on(err, lines())));
        let waited = tokio::select! {
            status = running.wait() => status.map(Some),
            () = self.end.cancelled() => end(&mut running, held).await.map(|()| None),
        };
        self.pids.lock().remove(name);
        for passing in [out, err].into_iter().flatten() {
            let _ = passing.await;
        }
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

async fn pass_on(from: impl AsyncRead + Unpin, (name, to): (String, Lines)) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match &to {
            Lines::Shown => eprintln!("{name:<12}| {line}"),
            Lines::Kept(archive) => archive.take(&name, &line),
        }
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
