//! A store on one machine, each process started by hand in a terminal of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::manual::page::Block;
use crate::manual::process::Process;
use crate::manual::sandbox::{Host, Printed};
use crate::manual::stage::ends_with;

/// The store, with the flags of its replicas.
#[derive(Debug)]
pub(crate) struct Terminals {
    pub(crate) host: Host,
    flags: String,
    replicas: BTreeMap<u64, Process>,
    others: Vec<Process>,
}

impl Terminals {
    /// Starts three replicas with these flags, a catalog and a frontend, and waits until 456 leads.
    pub(crate) fn open(host: Host, flags: &str) -> Result<Self> {
        let replicas = BTreeMap::new();
        let mut store = Self { host, flags: flags.to_owned(), replicas, others: Vec::new() };
        store.start_others()?;
        for id in [123, 345, 456] {
            store.start(id)?;
        }
        store.host.let_456_lead()?;
        Ok(store)
    }

    /// Starts a catalog and a frontend, in place of those before.
    pub(crate) fn start_others(&mut self) -> Result<()> {
        self.kill_others();
        for name in ["catalog", "frontend"] {
            self.others.push(self.host.start(name, &format!("exec oppidum {name}"))?);
        }
        Ok(())
    }

    /// `kill -9` for the catalog and the frontend.
    pub(crate) fn kill_others(&mut self) {
        self.others.clear();
    }

    /// The command that starts a replica.
    fn command(&self, id: u64) -> String {
        format!("oppidum order --id {id} {}", self.flags)
    }

    /// Starts a replica with the store's flags.
    pub(crate) fn start(&mut self, id: u64) -> Result<()> {
        let command = self.command(id);
        self.start_as(id, &command)
    }

    /// Starts a replica with this command.
    pub(crate) fn start_as(&mut self, id: u64, command: &str) -> Result<()> {
        let process = self.host.start(&id.to_string(), &format!("exec {command}"))?;
        self.replicas.insert(id, process);
        Ok(())
    }

    /// The process of a replica.
    pub(crate) fn replica(&self, id: u64) -> Result<&Process> {
        self.replicas.get(&id).with_context(|| format!("{id} was never started"))
    }

    fn replica_mut(&mut self, id: u64) -> Result<&mut Process> {
        self.replicas.get_mut(&id).with_context(|| format!("{id} was never started"))
    }

    /// Stops a replica, which must end with exit code 0.
    pub(crate) fn stop(&mut self, id: u64) -> Result<()> {
        self.replica(id)?.signal("TERM")?;
        let code = self.replica_mut(id)?.end()?;
        ensure!(code == 0, "{id} stopped with exit code {code}");
        Ok(())
    }

    /// `kill -9` of a replica.
    pub(crate) fn kill(&mut self, id: u64) -> Result<()> {
        self.replica(id)?.signal("KILL")?;
        self.replica_mut(id)?.end().map(|_| ())
    }

    /// Waits until a replica has ended by itself; returns its output and its exit code.
    pub(crate) fn end_of(&mut self, id: u64) -> Result<Printed> {
        let code = self.replica_mut(id)?.end()?;
        Ok(Printed { code, text: self.replica(id)?.printed()? })
    }

    /// Starts a replica that must end with this code, and with this line of a page as its last.
    pub(crate) fn refuses(&mut self, id: u64, block: &Block, code: i32, line: &str) -> Result<()> {
        self.start(id)?;
        ends_with(block, code, line, &self.end_of(id)?)
    }

    /// A file of a replica's folder, seen from outside.
    pub(crate) fn data(&self, id: u64, file: &str) -> std::path::PathBuf {
        self.host.path(&format!("/srv/oppidum-data/order-{id}/{file}"))
    }
}
