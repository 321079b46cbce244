//! What is measured: a whole store of its own, and the bare handler, each on a free port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::bench::machine;

/// How long a process may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);

/// A process that serves HTTP; it ends with this.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// `host:port`.
    pub(crate) address: String,
}

impl Running {
    /// Starts `command`, whose output names the URL that it serves, and waits until it is ready.
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let output = child.stdout.take().context("take the output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let address = loop {
            line.clear();
            if output.read_line(&mut line).context("read the output")? == 0 {
                bail!("{command:?} ended before it said where it serves");
            }
            if let Some(address) = address(&line) {
                break address;
            }
        };
        // What else it says is read, so that it never waits for us, and thrown away.
        thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let running = Self { child, address };
        running.wait()?;
        Ok(running)
    }

    /// The bare handler: a release build of this program.
    pub(crate) fn bare(root: &Path) -> Result<Self> {
        Self::start(Command::new(released(root, "xtask")).arg("bare"))
    }

    fn wait(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < READY_MAX {
            if get(&self.address, "/readyz").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("http://{} is not ready after {READY_MAX:?}", self.address)
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        machine::cpu(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The store's own way to end: it stops its children and clears its folders.
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-INT", &pid]).status();
        let began = Instant::now();
        while asked.as_ref().is_ok_and(std::process::ExitStatus::success)
            && began.elapsed() < Duration::from_secs(10)
        {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A whole store, in a folder of its own.
#[derive(Debug)]
pub(crate) struct Store {
    /// Held so that the store lives as long as this.
    _up: Running,
    pids: Vec<u32>,
    frontend: u32,
    pub(crate) address: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    processes: Vec<Process>,
}

#[derive(Debug, Deserialize)]
struct Process {
    role: String,
    pid: Option<u32>,
}

impl Store {
    /// Starts a store that keeps nothing. What is measured is built for release before: [`build`].
    pub(crate) fn start(root: &Path, catalogs: u16) -> Result<Self> {
        let up = ["up", "--ephemeral", "--ports", "auto", "--access-log", "off", "--log", "warn"];
        let mut command = Command::new(released(root, "oppidum"));
        command.args(up).args(["--catalogs", &catalogs.to_string()]);
        let up = Running::start(&mut command)?;
        let (_, status) = get(&up.address, "/status")?;
        let status: Status = serde_json::from_str(&status).context("understand /status")?;
        let (mut pids, mut frontend) = (vec![up.child.id()], None);
        for process in status.processes {
            let pid = process.pid.with_context(|| format!("a {} tells no pid", process.role))?;
            pids.push(pid);
            if process.role == "frontend" {
                frontend = Some(pid);
            }
        }
        let (address, frontend) = (up.address.clone(), frontend.context("find the frontend")?);
        Ok(Self { _up: up, pids, frontend, address })
    }

    /// The CPU time that its frontend has used.
    pub(crate) fn frontend_cpu(&self) -> Result<Duration> {
        machine::cpu(self.frontend)
    }

    /// The CPU time that all its processes have used together.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.pids.iter().map(|pid| machine::cpu(*pid)).sum()
    }
}

/// Builds the store and the bare handler for release.
pub(crate) fn build(root: &Path) -> Result<()> {
    let arguments = ["build", "--release", "--package", "oppidum", "--package", "xtask"];
    let status = Command::new(env!("CARGO")).current_dir(root).args(arguments).status();
    match status.context("start cargo")?.success() {
        true => Ok(()),
        false => bail!("the program does not build"),
    }
}

fn released(root: &Path, program: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root.join("target"), |path| root.join(path));
    target.join("release").join(program)
}

/// The first `http://host:port` of a line; 0.0.0.0 is reached by loopback.
fn address(line: &str) -> Option<String> {
    let rest = line.split_once("http://")?.1;
    let end = rest.find(|c: char| !(c.is_alphanumeric() || ".:-".contains(c)));
    let address = &rest[..end.unwrap_or(rest.len())];
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    Some(format!("{}:{port}", if host == "0.0.0.0" { "127.0.0.1" } else { host }))
}

/// One GET on a connection of its own: status and body.
fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).context("set the patience")?;
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).context("ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("find the body")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("find the status")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_a_process_says() {
        let line = "Starting Front End Server on http://0.0.0.0:1234\n";
        assert_eq!(address(line).as_deref(), Some("127.0.0.1:1234"));
        assert_eq!(
            address("  http://127.0.0.1:40001/, try it").as_deref(),
            Some("127.0.0.1:40001")
        );
        assert_eq!(address("no URL here"), None);
    }
}
