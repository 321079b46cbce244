//! A stand-in for systemd in the sandbox: `systemctl` and `journalctl`, as far as the pages use
//! them.
//!
//! Each started unit has a supervisor, a process of its own that starts the unit's command as the
//! unit says (user, environment, folders, limits), receives its notifications, and restarts it when
//! the unit says so. A stop is a file and a SIGTERM; the unit's output goes to its journal. All
//! files are in `/run`, which the sandbox has for itself.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::manual::notify::{self, NotifySocket};
use crate::manual::sandbox::TOOLS;
use crate::manual::unit::{self, Unit};

/// The folder of the supervisors' files.
const STATE: &str = "/run/units";

/// The interval between two looks at a file that is awaited.
const LOOK: Duration = Duration::from_millis(10);

/// The files of a unit's supervisor, in `/run`.
struct Files {
    /// Exists while the unit is to be stopped.
    stop: PathBuf,
    /// Holds the id of the unit's process; exists while the supervisor lives.
    pid: PathBuf,
    /// Exists from the readiness of the unit's process to its end.
    ready: PathBuf,
    /// The socket for notifications.
    notify: PathBuf,
    journal: PathBuf,
}

impl Files {
    fn of(name: &str) -> Self {
        let name = name.strip_suffix(".service").unwrap_or(name);
        let file = |ending| PathBuf::from(STATE).join(format!("{name}.{ending}"));
        Self {
            stop: file("stop"),
            pid: file("pid"),
            ready: file("ready"),
            notify: file("notify"),
            journal: file("journal"),
        }
    }
}

/// `systemctl` with these arguments.
pub(crate) fn systemctl(arguments: &[String]) -> Result<()> {
    fs::create_dir_all(STATE).context("make the folder of units")?;
    let now = arguments.iter().any(|word| word == "--now");
    let mut words = arguments.iter().map(String::as_str).filter(|word| !word.starts_with("--"));
    let verb = words.next().unwrap_or_default();
    let names: Vec<&str> = words.collect();
    match verb {
        "daemon-reload" => Ok(()),
        "supervise" => supervise(names.first().copied().unwrap_or_default()),
        "enable" if now => each(&names, start),
        "disable" if now => each(&names, stop),
        "enable" | "disable" => each(&names, |name| read(name).map(|_| ())),
        "start" => each(&names, start),
        "stop" => each(&names, stop),
        "reload" => each(&names, reload),
        "restart" => each(&names, |name| stop(name).and_then(|()| start(name))),
        "is-active" => each(&names, |name| match Files::of(name).pid.exists() {
            true => Ok(()),
            false => bail!("inactive"),
        }),
        _ => bail!("the stand-in for systemd does not know `systemctl {verb}`"),
    }
}

fn each(names: &[&str], act: impl Fn(&str) -> Result<()>) -> Result<()> {
    if names.is_empty() {
        bail!("no unit is named");
    }
    names.iter().try_for_each(|name| act(name).with_context(|| format!("unit {name}")))
}

/// `journalctl -u UNIT`.
pub(crate) fn journalctl(arguments: &[String]) -> Result<()> {
    let at = arguments.iter().position(|word| word == "-u").context("which unit? `-u UNIT`")?;
    let name = arguments.get(at + 1).context("which unit? `-u UNIT`")?;
    let journal = Files::of(name).journal;
    let text =
        fs::read_to_string(&journal).with_context(|| format!("read {}", journal.display()))?;
    print!("{text}");
    Ok(())
}

fn read(name: &str) -> Result<Unit> {
    let (file, instance) = unit::file_of(name);
    let path = PathBuf::from("/etc/systemd/system").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    unit::parse(&text, &instance)
}

/// Starts a unit; waits until it is ready, if it says so, through restarts until it ends for good.
fn start(name: &str) -> Result<()> {
    let notifies = read(name)?.notifies;
    let files = Files::of(name);
    if files.pid.exists() {
        return Ok(());
    }
    let journal = journal(&files)?;
    let mut supervisor = Command::new("setsid");
    supervisor.arg(std::env::current_exe()?).args(["systemctl", "--", "supervise", name]);
    let output = journal.try_clone()?;
    supervisor.stdin(Stdio::null()).stdout(output).stderr(journal);
    let mut supervisor = supervisor.spawn().context("start a supervisor")?;
    let started = if notifies { &files.ready } else { &files.pid };
    let mut has_ended = false;
    await_file(|| {
        has_ended = supervisor.try_wait().is_ok_and(|end| end.is_some());
        started.exists() || has_ended
    });
    match notifies && has_ended {
        true => bail!("it ended before it was ready; see `journalctl -u {name}`"),
        false => Ok(()),
    }
}

fn reload(name: &str) -> Result<()> {
    let pid = fs::read_to_string(Files::of(name).pid).context("it does not run")?;
    let variables = [("MAINPID".to_owned(), pid.trim().to_owned())];
    let words = unit::expanded(&read(name)?.exec_reload, &variables);
    let (program, arguments) = words.split_first().context("the unit has no ExecReload")?;
    match Command::new(program).args(arguments).status()?.success() {
        true => Ok(()),
        false => bail!("{} failed", words.join(" ")),
    }
}

fn stop(name: &str) -> Result<()> {
    let files = Files::of(name);
    let Ok(pid) = fs::read_to_string(&files.pid) else { return Ok(()) };
    fs::write(&files.stop, "").context("say that it is to stop")?;
    signal("TERM", &pid);
    let limit = Instant::now() + Duration::from_secs(read(name)?.stop_seconds);
    await_file(|| !files.pid.exists() || limit < Instant::now());
    if files.pid.exists() {
        signal("KILL", &pid);
        bail!("it did not stop in time and was killed");
    }
    Ok(())
}

fn await_file(is_so: impl FnMut() -> bool) {
    let mut is_so = is_so;
    while !is_so() {
        std::thread::sleep(LOOK);
    }
}

fn signal(name: &str, pid: &str) {
    // The process may have ended just now.
    let _ = Command::new("kill").args([&format!("-{name}"), pid.trim()]).status();
}

fn journal(files: &Files) -> Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(&files.journal);
    opened.with_context(|| format!("open {}", files.journal.display()))
}

/// Runs a unit until it is stopped, or ends for good.
fn supervise(name: &str) -> Result<()> {
    let (files, unit) = (Files::of(name), read(name)?);
    let _ = fs::remove_file(&files.stop);
    let ended = run(&unit, &files);
    for file in [&files.pid, &files.ready, &files.notify, &files.stop] {
        let _ = fs::remove_file(file);
    }
    ended
}

fn run(unit: &Unit, files: &Files) -> Result<()> {
    make_state_directory(unit)?;
    let socket = unit.notifies.then(|| NotifySocket::open(&files.notify)).transpose()?;
    loop {
        let mut command = command(unit)?;
        if let Some(socket) = &socket {
            command.env("NOTIFY_SOCKET", &socket.path);
            let timeout = unit.watchdog_seconds.map(|seconds| (seconds * 1_000_000).to_string());
            command.envs(timeout.map(|timeout| ("WATCHDOG_USEC", timeout)));
        }
        let journal = journal(files)?;
        command.stdin(Stdio::null()).stdout(journal.try_clone()?).stderr(journal);
        let mut child = command.spawn().context("start the unit's command")?;
        fs::write(&files.pid, child.id().to_string()).context("note the process")?;
        // A stop that came before this note has signalled the process before this one.
        if files.stop.exists() {
            signal("TERM", &child.id().to_string());
        }
        let pid = child.id().to_string();
        let kill = || signal("KILL", &pid);
        let status = match &socket {
            Some(socket) => notify::attend(&mut child, unit, socket, &files.ready, kill)?,
            None => child.wait().context("wait for the unit's command")?,
        };
        let _ = fs::remove_file(&files.ready);
        println!("systemd: {}", how(status));
        if files.stop.exists() || !unit::is_restarted(unit, status.code()) {
            return Ok(());
        }
        let again = Instant::now() + Duration::from_secs(unit.restart_seconds);
        await_file(|| files.stop.exists() || again <= Instant::now());
        if files.stop.exists() {
            return Ok(());
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    }
}

fn make_state_directory(unit: &Unit) -> Result<()> {
    let Some(name) = &unit.state_directory else { return Ok(()) };
    let mode = unit.state_directory_mode.as_deref().unwrap_or("0755");
    let mut install = Command::new("install");
    install.args(["-d", "-m", mode]);
    if let Some(user) = &unit.user {
        install.args(["-o", user, "-g", user]);
    }
    match install.arg(format!("/var/lib/{name}")).status()?.success() {
        true => Ok(()),
        false => bail!("the state directory {name} cannot be made"),
    }
}

/// The unit's command, in the environment that the unit asks for.
fn command(unit: &Unit) -> Result<Command> {
    let mut steps = vec!["set -e".to_owned()];
    if unit.read_only_system {
        let state = unit.state_directory.as_deref().unwrap_or_default();
        steps.push(format!("mount --rbind /var/lib/{state} /var/lib/{state}"));
        steps.push("mount -o remount,bind,ro /".to_owned());
    }
    if let Some(mask) = &unit.umask {
        steps.push(format!("umask {mask}"));
    }
    if let Some(files) = &unit.limit_nofile {
        // A container may not raise the limit above its own.
        steps.push(format!("ulimit -n {files} 2>/dev/null || ulimit -n $(ulimit -H -n)"));
    }
    if let Some(folder) = &unit.working_directory {
        steps.push(format!("cd {folder}"));
    }
    let batch = if unit.scheduled_as_batch { "chrt --batch 0" } else { "" };
    let privileges = if unit.no_new_privileges { "--no-new-privs" } else { "" };
    let user = unit.user.as_deref().unwrap_or("root");
    let rights = format!("--clear-groups --reuid={user} --regid={user} {privileges}");
    steps.push(format!("exec {batch} setpriv {rights} \"$@\""));
    let script = steps.join("; ");
    let mut command = Command::new("unshare");
    let environment = environment(unit, user)?;
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.args(unit::expanded(&unit.exec_start, &environment));
    command.env_clear().envs(environment);
    Ok(command)
}

fn environment(unit: &Unit, user: &str) -> Result<Vec<(String, String)>> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut all: Vec<(String, String)> =
        [("PATH", path), ("USER", user), ("LOGNAME", user), ("LANG", "C.UTF-8")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
    all.extend(unit.environment.iter().cloned());
    for (file, may_be_missing) in &unit.environment_files {
        match fs::read_to_string(file) {
            Ok(text) => all.extend(unit::variables(&text)?),
            Err(_) if *may_be_missing => {}
            Err(error) => return Err(error).with_context(|| format!("read {file}")),
        }
    }
    Ok(all)
}

/// The scripts on the sandbox's `PATH` by which the pages' commands reach this program.
pub(crate) fn shims() -> [(&'static str, String); 2] {
    let shim = |name| format!("#!/bin/sh\nexec {TOOLS}/xtask {name} -- \"$@\"\n");
    [("systemctl", shim("systemctl")), ("journalctl", shim("journalctl"))]
}
