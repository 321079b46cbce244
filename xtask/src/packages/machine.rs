//! A Debian under a real systemd, booted by `systemd-nspawn`.
//!
//! Its root is made once by `mmdebstrap` and kept; each boot writes to an overlay on a tmpfs, which
//! is gone afterwards. Its network is a namespace of its own, with a loopback only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::deb;

/// The longest wait for an expected result.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// The interval between two looks for such a result.
const LOOK: Duration = Duration::from_millis(200);

/// The Debian, and its packages.
const SUITE: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,curl,iproute2,procps";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The namespaces in which `systemd-nspawn` runs.
const UNSHARE: [&str; 5] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Why no such machine can be booted here, if there is a reason.
pub(crate) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let tools = ["mmdebstrap", "systemd-nspawn", "nsenter", "dpkg-deb", "strip"];
    let is_missing = |tool: &&str| {
        let asked = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
        !asked.is_ok_and(|status| status.success())
    };
    let missing: Vec<&str> = tools.into_iter().filter(is_missing).collect();
    if !missing.is_empty() {
        let names = missing.join(", ");
        return Some(format!("{names}: apt-get install mmdebstrap systemd-container binutils"));
    }
    let probe = Command::new("unshare").args(UNSHARE).arg("true").output();
    match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Makes the root, if it is not there.
pub(crate) fn root(cache: &Path) -> Result<PathBuf> {
    let root = cache.join(SUITE);
    if !root.exists() {
        // Under its name only once it is whole.
        let unfinished = cache.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(cache)?;
        // What it mounts in the root is unmounted with its namespace, also if it is interrupted.
        let mut make = Command::new("unshare");
        make.args([
            "--mount",
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            &format!("--include={PACKAGES}"),
            SUITE,
        ]);
        deb::run(make.arg(&unfinished))?;
        fs::rename(&unfinished, &root)?;
    }
    Ok(root)
}

/// A booted machine.
#[derive(Debug)]
pub(crate) struct Machine {
    nspawn: Child,
    /// Its first process, seen from outside.
    init: u32,
    console: PathBuf,
}

impl Machine {
    /// Boots; the folder `share` is `/share` inside.
    pub(crate) fn boot(root: &Path, share: &Path) -> Result<Self> {
        let console = share.join("console");
        let output = File::create(&console).context("make a file for the console")?;
        // The machine ends with the chore, also if that is killed: its processes are in a namespace
        // whose first process is killed then.
        let mut nspawn = Command::new("setpriv");
        nspawn.args(["--pdeathsig", "KILL", "unshare"]).args(UNSHARE).arg("systemd-nspawn");
        nspawn.args(["--quiet", "--register=no", "--keep-unit", "--private-network"]);
        nspawn.args(["--volatile=overlay", "--hostname=oppidum-test", "--boot"]);
        nspawn.arg(format!("--bind-ro={}:/share", share.display()));
        nspawn.arg("--directory").arg(root).stdin(Stdio::null());
        nspawn.stdout(output.try_clone()?).stderr(output);
        let nspawn = nspawn.spawn().context("start systemd-nspawn")?;
        let mut machine = Self { nspawn, init: 0, console };
        let ancestor = machine.nspawn.id();
        machine.init = machine.until("systemd starts", || Ok(first_process(ancestor)))?;
        machine.until("systemd has booted", || {
            let (_, text) = machine.run("systemctl is-system-running || true")?;
            Ok(["running", "degraded"].contains(&text.trim()).then_some(()))
        })?;
        Ok(machine)
    }

    /// Runs a script inside; returns its exit code and its output.
    pub(crate) fn run(&self, script: &str) -> Result<(i32, String)> {
        let mut command = Command::new("timeout");
        command.args(["90", "nsenter", "--all", "--target", &self.init.to_string()]);
        command.args(["env", "-i", PATH, "HOME=/root", "LANG=C.UTF-8"]);
        command.args(["sh", "-e", "-c", &format!("cd; exec 2>&1; {script}")]);
        let output = command.stdin(Stdio::null()).output().context("start nsenter")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code().unwrap_or(-1), text))
    }

    /// Runs a script that must not fail; returns its output.
    pub(crate) fn ok(&self, script: &str) -> Result<String> {
        match self.run(script)? {
            (0, text) => Ok(text),
            (code, text) => {
                let (_, journal) = self.run("journalctl --no-pager -n 40 || true")?;
                bail!("exit code {code} of\n{script}\nwhich printed\n{text}\njournal:\n{journal}")
            }
        }
    }

    /// Runs a script until it does not fail; returns its output.
    pub(crate) fn eventually(&self, what: &str, script: &str) -> Result<String> {
        let mut last = String::new();
        let found = self.until(what, || {
            let (code, text) = self.run(script)?;
            last.clone_from(&text);
            Ok((code == 0).then_some(text))
        });
        found.with_context(|| format!("{script}\nprinted at last\n{last}"))
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let limit = Instant::now() + WAIT_MAX;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if limit < Instant::now() {
                let console = fs::read_to_string(&self.console).unwrap_or_default();
                bail!("not within {WAIT_MAX:?}: {what}; the console says\n{console}");
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// The first process of the machine among the descendants of a process.
fn first_process(ancestor: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{ancestor}/task/{ancestor}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find_map(|pid: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        if name.trim() == "systemd" { Some(pid) } else { first_process(pid) }
    })
}

/// All processes of the machine end with its namespace.
impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}
