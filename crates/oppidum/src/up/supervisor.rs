//! The supervisor: starts the children of `up`, forwards their lines, restarts them, and stops
//! them.
//!
//! A child's stdin is a pipe without data: when `up` ends, even by a kill, the pipe closes and the
//! child stops by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{self, Command};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::exit::Stop;

use super::archive::Archive;
use super::plan::{Child, OVERRIDDEN, Plan};
use super::restart::{self, Backoff, End};

/// How long a child must be unable to run before that counts as settled: ports and folders of a
/// store that has just stopped become free within this time.
const UNABLE_AFTER: Duration = Duration::from_secs(1);

/// The pause before a child is retried whose port another process has borrowed.
const PAUSE: Duration = Duration::from_millis(250);

/// The most bytes of a child's line that are forwarded at once; a longer line is split.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// How often a restarted child may find its port borrowed.
const BORROWED_MAX: u32 = 20;

/// How long a child may take to stop in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The action when a child dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterExit {
    /// It is started again.
    Again,
    /// It stays down.
    Never,
    /// It stays down until [`Supervisor::restart`].
    WhenTold,
}

/// The destination of the children's lines.
#[derive(Clone, Debug)]
pub(crate) enum Lines {
    /// To stderr, each with its child's name.
    Shown,
    /// To the archive.
    Kept(Arc<Archive>),
}

/// Supervises all children.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pids: Arc<Mutex<BTreeMap<String, u32>>>,
    /// Notified to restart a child.
    restarts: BTreeMap<String, Arc<Notify>>,
    frontends: CancellationToken,
    others: CancellationToken,
    tasks: TaskTracker,
    failures: tokio::sync::Mutex<mpsc::Receiver<Stop>>,
    unusable: watch::Receiver<BTreeSet<String>>,
    names: Vec<String>,
}

impl Supervisor {
    pub(crate) fn start(
        plan: &Plan,
        afterwards: AfterExit,
        lines: &Lines,
        stop: &CancellationToken,
    ) -> Result<Self, Stop> {
        let program = std::env::current_exe()
            .map_err(|error| Stop::Setup(format!("this program cannot be found: {error}")))?;
        let pids = Arc::new(Mutex::new(BTreeMap::new()));
        let frontends = CancellationToken::new();
        let others = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (failed, failures) = mpsc::channel(1);
        let (cannot_run, unusable) = watch::channel(BTreeSet::new());
        let cannot_run = Arc::new(cannot_run);
        let mut restarts = BTreeMap::new();
        for child in &plan.children {
            let restart = Arc::new(Notify::new());
            restarts.insert(child.name.clone(), restart.clone());
            let is_frontend = child.name.starts_with("frontend");
            let keeper = ChildKeeper {
                child: child.clone(),
                program: program.clone(),
                afterwards,
                lines: lines.clone(),
                restart,
                pids: pids.clone(),
                end: if is_frontend { frontends.clone() } else { others.clone() },
                stopping: stop.clone(),
                failed: failed.clone(),
                cannot_run: cannot_run.clone(),
            };
            tasks.spawn(keeper.keep());
        }
        tasks.close();
        let failures = tokio::sync::Mutex::new(failures);
        let names = plan.children.iter().map(|child| child.name.clone()).collect();
        Ok(Self { pids, restarts, frontends, others, tasks, failures, unusable, names })
    }

    /// Sends a signal to a child. False: it does not run.
    pub(crate) fn signal(&self, name: &str, signal: Signal) -> bool {
        // Locked while the signal is sent: a pid is removed from the list as soon as it is reaped.
        let pids = self.pids.lock();
        let pid = pids.get(name).and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Restarts a child that is down. False: it is running, or no child has this name.
    pub(crate) fn restart(&self, name: &str) -> bool {
        let down = !self.pids.lock().contains_key(name);
        let restart = self.restarts.get(name).filter(|_| down);
        restart.inspect(|restart| restart.notify_one()).is_some()
    }

    /// The children's process ids, by name.
    pub(crate) fn pids(&self) -> BTreeMap<String, u32> {
        self.pids.lock().clone()
    }

    /// Waits until it is settled that the store cannot open; returns the reason.
    pub(crate) async fn cannot_open(&self) -> Stop {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let mut unusable = self.unusable.clone();
        loop {
            if let Some(why) = restart::cannot_open(&names, &unusable.borrow_and_update()) {
                return Stop::Setup(why);
            }
            if unusable.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// In an experiment: waits until a child cannot run with its settings.
    pub(crate) async fn failed(&self) -> Stop {
        match self.failures.lock().await.recv().await {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }

    /// Stops all children in order; kills them once `hurry` is cancelled.
    pub(crate) async fn end(&self, hurry: &CancellationToken) {
        tokio::select! {
            () = self.end_in_order() => {}
            () = hurry.cancelled() => {
                for name in self.pids().keys() {
                    self.signal(name, Signal::KILL);
                }
                self.end_in_order().await;
            }
        }
    }

    /// Stops the frontends first, so that no request reaches a half-stopped store.
    async fn end_in_order(&self) {
        self.frontends.cancel();
        let frontends_ended = async {
            while self.pids.lock().keys().any(|name| name.starts_with("frontend")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(STOP_TIMEOUT, frontends_ended).await;
        self.others.cancel();
        self.tasks.wait().await;
    }
}

/// Supervises one child.
struct ChildKeeper {
    child: Child,
    program: std::path::PathBuf,
    afterwards: AfterExit,
    lines: Lines,
    restart: Arc<Notify>,
    pids: Arc<Mutex<BTreeMap<String, u32>>>,
    end: CancellationToken,
    stopping: CancellationToken,
    failed: mpsc::Sender<Stop>,
    cannot_run: Arc<watch::Sender<BTreeSet<String>>>,
}

/// How one run of a child ended.
enum ChildRun {
    /// The program could not be started.
    NotStarted(std::io::Error),
    /// It ended by itself.
    Ended(ExitStatus),
    /// The supervisor stopped it.
    OverByUs,
}

impl ChildKeeper {
    async fn keep(self) {
        match self.afterwards {
            AfterExit::WhenTold => self.keep_when_told().await,
            AfterExit::Again | AfterExit::Never => self.keep_running().await,
        }
    }

    /// Keeps a child of `up` running, independent of the other children.
    async fn keep_running(self) {
        let name = &self.child.name;
        let mut backoff = Backoff::new();
        let mut unusable_since = None;
        loop {
            let began = Instant::now();
            let (end, how) = match self.live().await {
                ChildRun::OverByUs => return,
                ChildRun::NotStarted(error) => {
                    (End::CannotRun, format!("cannot be started: {error}"))
                }
                ChildRun::Ended(status) if status.code() == Some(2) => (
                    End::CannotRun,
                    "cannot run with its settings (exit code 2); its line above says why".into(),
                ),
                ChildRun::Ended(status) => (End::Died, format!("is down ({})", how(status))),
            };
            if self.stopping.is_cancelled() || self.end.is_cancelled() {
                return;
            }
            let never = self.afterwards == AfterExit::Never;
            match end {
                End::Died => unusable_since = None,
                End::CannotRun => drop(unusable_since.get_or_insert(began)),
            }
            let settled =
                unusable_since.is_some_and(|since: Instant| UNABLE_AFTER <= since.elapsed());
            self.note_usable(end == End::Died || !(settled || never));
            if never {
                note!("oppidum: {name} {how} and stays down");
                return;
            }
            let pause = backoff.next(end, began.elapsed());
            note!("oppidum: {name} {how}; starting it again in {pause:?}");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.end.cancelled() => return,
            }
        }
    }

    /// Runs a child of an experiment, which decides when it restarts. A child that cannot run with
    /// its settings ends the experiment.
    async fn keep_when_told(self) {
        let mut borrowed = None;
        loop {
            let cannot_run = match self.live().await {
                ChildRun::OverByUs => return,
                ChildRun::NotStarted(error) => {
                    let why = format!("{} cannot be started: {error}", self.child.name);
                    let _ = self.failed.try_send(Stop::Setup(why));
                    return;
                }
                ChildRun::Ended(status) => status.code() == Some(2),
            };
            if self.stopping.is_cancelled() || self.end.is_cancelled() {
                return;
            }
            if cannot_run {
                let Some(times) = borrowed.filter(|times| *times < BORROWED_MAX) else {
                    let why = format!(
                        "{} cannot run with its settings; its line above says why",
                        self.child.name
                    );
                    let _ = self.failed.try_send(Stop::Setup(why));
                    return;
                };
                // While it was down, another process borrowed its port for an outgoing connection.
                borrowed = Some(times + 1);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            tokio::select! {
                () = self.restart.notified() => {}
                () = self.end.cancelled() => return,
            }
            borrowed = Some(0);
        }
    }

    /// Records whether this child is one of those that cannot run.
    fn note_usable(&self, usable: bool) {
        let name = &self.child.name;
        self.cannot_run.send_if_modified(|unusable| {
            if usable { unusable.remove(name) } else { unusable.insert(name.clone()) }
        });
    }

    /// Runs the child once, to its end.
    async fn live(&self) -> ChildRun {
        let name = &self.child.name;
        let started = without_given(Command::new(&self.program))
            .args(&self.child.arguments)
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A signal from the terminal goes to `up`, which stops its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut running = match started {
            Ok(running) => running,
            Err(error) => return ChildRun::NotStarted(error),
        };
        // Waiting for a child closes its stdin, and closing that stops the child: it is kept here.
        let held = running.stdin.take();
        let pid = running.id().unwrap_or(0);
        self.pids.lock().insert(name.clone(), pid);
        let lines = &self.lines;
        let out = running.stdout.take();
        let out = out.map(|out| tokio::spawn(pass_on(out, name.clone(), lines.clone())));
        let err = running.stderr.take();
        let err = err.map(|err| tokio::spawn(pass_on(err, name.clone(), lines.clone())));
        let waited = tokio::select! {
            status = running.wait() => status.map(ChildRun::Ended),
            () = self.end.cancelled() => end(&mut running, held).await.map(|()| ChildRun::OverByUs),
        };
        self.pids.lock().remove(name);
        for passing in [out, err].into_iter().flatten() {
            let _ = passing.await;
        }
        // A process that cannot be waited for is killed when its handle is dropped.
        waited.unwrap_or_else(ChildRun::NotStarted)
    }
}

/// Hides from a child the variables of the settings that it gets by flags.
fn without_given(mut command: Command) -> Command {
    for name in OVERRIDDEN.iter().flat_map(|setting| setting.variables) {
        command.env_remove(name);
    }
    command
}

/// Stops a child in order, by closing its stdin; after [`STOP_TIMEOUT`] by force.
async fn end(
    running: &mut process::Child,
    held: Option<process::ChildStdin>,
) -> std::io::Result<()> {
    drop(held);
    if tokio::time::timeout(STOP_TIMEOUT, running.wait()).await.is_err() {
        running.kill().await?;
    }
    Ok(())
}

async fn pass_on(from: impl AsyncRead + Unpin, name: String, to: Lines) {
    let mut bytes = Vec::new();
    let mut from = BufReader::new(from);
    loop {
        bytes.clear();
        let read = (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await;
        if !read.is_ok_and(|count| 0 < count) {
            return;
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\n', '\r']);
        match &to {
            Lines::Shown => note!("{name:<12}| {line}"),
            Lines::Kept(archive) => archive.take(&name, line),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: `OPPIDUM_LISTEN` for one process, on which all replicas then listen.
    #[test]
    fn a_child_does_not_see_the_variables_that_up_overrides() {
        let command = without_given(Command::new("oppidum"));
        let removed: Vec<_> = command.as_std().get_envs().map(|(name, _)| name).collect();
        for name in ["OPPIDUM_LISTEN", "OPPIDUM_ORDERS", "OPPIDUM_HOST", "ORDER_SERVICE_ID"] {
            assert!(removed.iter().any(|removed| *removed == name), "{name}: {removed:?}");
        }
    }
}
