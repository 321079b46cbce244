//! Core affinity: gives the load a core of its own. On a machine of two cores, a load of many
//! requests otherwise measures itself.

use std::fs;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// While this value lives, the thread that made it has a core for itself, and the given processes
/// have the others.
#[derive(Debug)]
pub(crate) struct OwnCore {
    pids: Vec<u32>,
    all: CpuSet,
}

impl OwnCore {
    /// Reserves the core from now on.
    pub(crate) fn keep(pids: Vec<u32>) -> Result<Self> {
        let all = sched_getaffinity(None).context("ask which cores there are")?;
        let Some(own) = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)) else {
            bail!("there is no core");
        };
        let (mut load, mut others) = (CpuSet::new(), all);
        load.set(own);
        others.unset(own);
        if others.count() == 0 {
            bail!("there is one core only: the load cannot have one for itself");
        }
        // Dropping this value undoes the change, even if `allow` has failed halfway.
        let kept = Self { pids, all };
        kept.allow(&load, &others)?;
        Ok(kept)
    }

    fn allow(&self, load: &CpuSet, others: &CpuSet) -> Result<()> {
        sched_setaffinity(None, load).context("keep the load to a core")?;
        // A thread that starts meanwhile may be seen only the second time; a thread may end
        // meanwhile.
        for pid in self.pids.iter().chain(&self.pids) {
            for thread in threads(*pid) {
                match sched_setaffinity(Some(thread), others) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => return Err(error).context("keep a thread to some cores"),
                }
            }
        }
        Ok(())
    }
}

/// The threads of a process; none, if the process has ended.
fn threads(pid: u32) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let names = tasks.map(|task| task.file_name());
    names.filter_map(|name| Pid::from_raw(name.to_str()?.parse().ok()?)).collect()
}

impl Drop for OwnCore {
    fn drop(&mut self) {
        // Allows again what was allowed before.
        let _ = self.allow(&self.all, &self.all);
    }
}
