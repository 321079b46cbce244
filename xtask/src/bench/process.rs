//! A measured process, and single requests over HTTP.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::bench::machine;

/// How long a process may take to be ready, unless that time is what is measured.
pub(crate) const READY_MAX: Duration = Duration::from_mins(1);

/// How long a process may take to end by itself.
const ENDING_MAX: Duration = Duration::from_secs(10);

/// A process that is killed when it is dropped: `kill -9` is a supported way to stop.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Held open: a process of the store stops when its stdin closes, so none outlives a killed
    /// bench.
    _stdin: Option<ChildStdin>,
    lines: PathBuf,
}

impl Process {
    /// Starts a process; its output goes to `lines`.
    pub(crate) fn start(command: &mut Command, lines: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&lines);
        let file = file.with_context(|| format!("write {}", lines.display()))?;
        let again = file.try_clone().context("share a file")?;
        let command = command.stdin(Stdio::piped()).stdout(file).stderr(again);
        // The machine's own settings must not reach the process.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("OPPIDUM_") || name == "ORDER_SERVICE_ID" {
                command.env_remove(name);
            }
        }
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdin = child.stdin.take();
        Ok(Self { child, _stdin: stdin, lines })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time that the process has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        machine::cpu(self.pid())
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the process has ended by itself; kills it if that takes too long.
    pub(crate) fn wait(&mut self) {
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < ENDING_MAX {
            thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Sends a signal, such as SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("take a pid")?;
        rustix::process::kill_process(pid, signal).context("send a signal")
    }

    /// Waits until `address` reports that it is ready.
    pub(crate) fn await_ready(&mut self, address: &str) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < READY_MAX {
            if is_ready(address) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                bail!("a process has ended ({status}): {}", self.last_lines());
            }
            // Short compared with everything that is measured this way.
            thread::sleep(Duration::from_millis(2));
        }
        bail!("{address} is not ready after {READY_MAX:?}: {}", self.last_lines())
    }

    /// The last lines of the process's output.
    pub(crate) fn last_lines(&self) -> String {
        let said = fs::read_to_string(&self.lines).unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The bare handler: this program, built like the store.
#[derive(Debug)]
pub(crate) struct Bare {
    process: Process,
    /// `host:port`.
    pub(crate) address: String,
}

impl Bare {
    pub(crate) fn start(root: &Path, folder: &Path) -> Result<Self> {
        let lines = folder.join("bare.lines");
        // The output of an earlier run would be taken for this one's.
        let _ = fs::remove_file(&lines);
        let mut command = measured(released(root, "xtask"));
        let mut process = Process::start(command.arg("bare"), lines.clone())?;
        let began = Instant::now();
        let address = loop {
            let said = fs::read_to_string(&lines).unwrap_or_default();
            match said.strip_prefix("http://").and_then(|rest| rest.split_once('\n')) {
                Some((address, _)) => break address.to_owned(),
                None if READY_MAX < began.elapsed() => bail!("the bare handler does not start"),
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        process.await_ready(&address)?;
        Ok(Self { process, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The CPU time that the handler has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.process.cpu()
    }
}

/// The command of a measured server, or of one that it is compared with: scheduled as batch, like
/// the units of `deploy/`, where `chrt` of util-linux may do so. A thread that wakes such a server
/// runs on to the end of its time slice.
pub(crate) fn measured(program: impl AsRef<OsStr>) -> Command {
    if !is_batch() {
        return Command::new(program);
    }
    let mut command = Command::new("chrt");
    command.args(["--batch", "0"]).arg(program);
    command
}

/// True if `chrt` may schedule servers as batch.
pub(crate) fn is_batch() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| {
        let mut tried = Command::new("chrt");
        let tried = tried.args(["--batch", "0", "true"]).stdout(Stdio::null());
        tried.stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    })
}

/// The profile of what is measured: that of what is deployed (`Cargo.toml`).
pub(crate) const PROFILE: &str = "fast";

/// Builds the store and the bare handler as they are deployed.
pub(crate) fn build(root: &Path) -> Result<()> {
    if !released(root, "oppidum").exists() {
        println!("Building what is deployed: some ten minutes on two cores, once.");
    }
    let arguments = ["build", "--profile", PROFILE, "--package", "oppidum", "--package", "xtask"];
    let status = Command::new(env!("CARGO")).current_dir(root).args(arguments).status();
    match status.context("start cargo")?.success() {
        true => Ok(()),
        false => bail!("the program does not build"),
    }
}

/// Runs this program again, built like the store: the load's CPU costs count in the measurement.
pub(crate) fn again_optimized(root: &Path) -> Result<()> {
    let mut command = Command::new(released(root, "xtask"));
    let status = command.args(std::env::args_os().skip(1)).status();
    match status.context("start the optimized program")?.success() {
        true => Ok(()),
        false => bail!("the optimized program failed; see the lines above"),
    }
}

/// Cargo's target folder.
pub(crate) fn target(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target.map_or_else(|| root.join("target"), |path| root.join(path))
}

/// A program that [`build`] has built.
pub(crate) fn released(root: &Path, program: &str) -> PathBuf {
    target(root).join(PROFILE).join(program)
}

/// True if `address` reports that it is ready.
pub(crate) fn is_ready(address: &str) -> bool {
    ask(address, "GET", "/readyz", "").is_ok_and(|(status, _)| status == 200)
}

/// Sends one request on a connection of its own; returns status and body.
pub(crate) fn ask(address: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).context("set the timeout")?;
    let length = body.len();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let ask = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{kind}\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(ask.as_bytes()).context("ask")?;
    let mut answer = BufReader::new(stream);
    let (mut line, mut status) = (String::new(), None);
    while answer.read_line(&mut line).context("read the answer")? != 0 && line != "\r\n" {
        status = status.or_else(|| line.get(9..12)?.parse().ok());
        line.clear();
    }
    let mut body = String::new();
    answer.read_to_string(&mut body).context("read the body")?;
    Ok((status.context("find the status")?, body))
}
