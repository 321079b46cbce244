//! Which cores the load may use, and which what it measures: on a machine of two cores a load of
//! many requests otherwise measures itself.

use std::fs;

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// While this lives the thread that made it has a core for itself, and the processes that it was
/// given have the others.
#[derive(Debug)]
pub(crate) struct Apart {
    pids: Vec<u32>,
    all: CpuSet,
}

impl Apart {
    /// From now on.
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
        // From here on it is undone when it is dropped, also where it was not done whole.
        let apart = Self { pids, all };
        apart.allow(&load, &others)?;
        Ok(apart)
    }

    fn allow(&self, load: &CpuSet, others: &CpuSet) -> Result<()> {
        sched_setaffinity(None, load).context("keep the load to a core")?;
        for pid in &self.pids {
            let tasks = format!("/proc/{pid}/task");
            for task in fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))? {
                let name = task.with_context(|| format!("list {tasks}"))?.file_name();
                let thread = name.to_str().and_then(|name| name.parse().ok());
                let thread = thread.and_then(Pid::from_raw).context("understand a thread's id")?;
                sched_setaffinity(Some(thread), others).context("keep a thread to some cores")?;
            }
        }
        Ok(())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // A process that has ended needs no core.
        let _ = self.allow(&self.all, &self.all);
    }
}
