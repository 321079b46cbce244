//! What the kernel says: the CPU time of processes, and what machine this is.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel counts a process's CPU time in hundredths of a second on every Linux we know.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time that a process has used, user and system.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_stat(&stat).with_context(|| format!("understand {path}"))
}

/// The CPU time of this process: the load.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu(std::process::id())
}

/// `pid (name) state …`: the name may hold anything, so fields count from its last parenthesis.
fn parse_stat(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

/// The machine in a line.
pub(crate) fn describe() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = said("uname", &["-sr"]);
    format!("{cores} cores, {}, {kernel}", model.unwrap_or("processor unknown"))
}

/// Today, and the compiler.
pub(crate) fn date() -> String {
    said("date", &["-u", "+%Y-%m-%d"])
}

pub(crate) fn compiler() -> String {
    said("rustc", &["--version"])
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
    fn cpu_time_is_user_and_system_whatever_the_process_is_called() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(parse_stat(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat("12 (a"), None);
    }

    #[test]
    fn this_process_has_a_cpu_time() {
        assert!(own_cpu().is_ok());
    }
}
