//! What the kernel reports: CPU time and memory of processes, and a description of the machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit};

/// The kernel counts a process's CPU time in hundredths of a second on every Linux we know.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// User and system time of the process itself.
    pub(crate) own: Duration,
    /// User and system time of its children that have ended and were waited for.
    pub(crate) children: Duration,
    /// The process that started this one.
    pub(crate) parent: u32,
}

/// The CPU time that a process has used, user and system.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    Ok(used(&pid.to_string())?.own)
}

/// The CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Result<Duration> {
    Ok(used("thread-self")?.own)
}

/// The CPU time of this process: the load.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu(std::process::id())
}

/// The CPU time of the children of this process that have ended and were waited for.
pub(crate) fn children_cpu() -> Result<Duration> {
    Ok(used("self")?.children)
}

/// The CPU time of `who`, a folder of `/proc`.
fn used(who: &str) -> Result<Used> {
    let path = format!("/proc/{who}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_stat(&stat).with_context(|| format!("understand {path}"))
}

/// The CPU time of a process and of the processes that it has started, ended or not.
pub(crate) fn cpu_of_family(pid: u32) -> Result<Duration> {
    let mut whole = Duration::ZERO;
    for entry in fs::read_dir("/proc").context("list processes")? {
        let name = entry.context("list processes")?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Ok(other) = name.parse::<u32>() else { continue };
        // A process may have ended since the listing; its parent counts its time then.
        let Ok(used) = used(name) else { continue };
        if other == pid || used.parent == pid {
            whole += used.own + used.children;
        }
    }
    Ok(whole)
}

/// Parses `pid (name) state …`. The name may hold anything, so fields count from its last
/// parenthesis.
fn parse_stat(stat: &str) -> Option<Used> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
    let both = |at: usize| Some(TICK * number(at)?.checked_add(number(at + 1)?)?);
    Some(Used { own: both(11)?, children: both(13)?, parent: number(1)? })
}

/// The memory of a process that is in RAM, in MB.
pub(crate) fn memory(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_memory(&status).with_context(|| format!("find the memory in {path}"))
}

fn parse_memory(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kilobytes) / 1_024.0)
}

/// Lets this process and its children open as many files as the machine allows: an open loop needs
/// a connection for each request that waits.
pub(crate) fn open_many_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // If this fails, fewer connections can be made, and a run that needs more reports that.
    let wanted = Rlimit { current: limit.maximum, ..limit };
    let _ = rustix::process::setrlimit(Resource::Nofile, wanted);
}

/// The number of files that this process may have open.
pub(crate) fn open_files_max() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// While this value lives, the thread that made it has the highest priority, where that is allowed
/// (root). A load that waits for the processes it measures would be late because of them.
#[derive(Debug)]
pub(crate) struct Ahead {
    before: Option<i32>,
}

impl Ahead {
    /// Raises the priority from now on.
    pub(crate) fn go() -> Self {
        let before = rustix::process::getpriority_process(None).ok();
        let first = rustix::process::setpriority_process(None, -20);
        Self { before: before.filter(|_| first.is_ok()) }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // A thread that may raise its priority may lower it again.
            let _ = rustix::process::setpriority_process(None, before);
        }
    }
}

/// The machine, in one line.
pub(crate) fn describe(folder: &Path) -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = said("uname", &["-sr"]);
    // A line with the column's name, then the value.
    let disk = said("df", &["--output=fstype", &folder.display().to_string()]);
    let disk = disk.lines().last().unwrap_or("unknown").trim();
    format!("{cores} cores, {}, {kernel}, {disk}", model.unwrap_or("processor unknown"))
}

/// How busy the machine is with other things: the load average of the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Today's date.
pub(crate) fn date() -> String {
    said("date", &["-u", "+%Y-%m-%d"])
}

/// The compiler, and how the measured programs were compiled and are scheduled.
pub(crate) fn compiler() -> String {
    let scheduled = if super::process::is_batch() { ", under `SCHED_BATCH`" } else { "" };
    let version = said("rustc", &["--version"]);
    format!("{version}, `--profile {}`{scheduled}", super::process::PROFILE)
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_for_any_process_name() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 7 3 20 0 9 0 1 2 3";
        let (own, children) = (Duration::from_secs(2), Duration::from_millis(100));
        assert_eq!(parse_stat(stat), Some(Used { own, children, parent: 1 }));
        assert_eq!(parse_stat("12 (a"), None);
    }

    #[test]
    fn memory_is_what_is_in_ram() {
        let status = "Name:\toppidum\nVmPeak:\t  999 kB\nVmRSS:\t   10240 kB\nThreads:\t4\n";
        assert_eq!(parse_memory(status), Some(10.0));
        assert_eq!(parse_memory("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn this_process_has_a_cpu_time_and_memory() {
        let pid = std::process::id();
        assert!(own_cpu().is_ok() && thread_cpu().is_ok());
        assert!(memory(pid).is_ok_and(|memory| 0.0 < memory));
        assert!(cpu_of_family(pid).is_ok());
    }
}
