//! A store started by `oppidum up`, on free ports.

use std::path::Path;
use std::process::Stdio;

use super::{Process, get, post, until};

/// The store.
pub(crate) struct Town {
    /// `oppidum up` itself.
    pub(crate) up: Process,
    /// The public port of its first frontend.
    pub(crate) port: u16,
}

impl Town {
    /// Starts a store, and waits until it is open.
    pub(crate) fn start(folder: &Path, more: &[&str]) -> Self {
        let up = Process::start("up", folder, &arguments(more));
        Self::opened(up)
    }

    /// The same, from another binary and with another stderr.
    pub(crate) fn start_as(
        path: &Path,
        folder: &Path,
        err: impl Into<Stdio>,
        more: &[&str],
    ) -> Self {
        Self::opened(Process::start_as(path, folder, err, &[], &arguments(more)))
    }

    /// The same, with environment variables.
    pub(crate) fn start_with(folder: &Path, variables: &[(&str, &str)], more: &[&str]) -> Self {
        Self::opened(Process::start_with("up", folder, variables, &arguments(more)))
    }

    fn opened(up: Process) -> Self {
        let printed_before = up.printed_before();
        let port = until("the store is open", || {
            let out = up.stdout().split_off(printed_before);
            // The last lines of the opening: everything before has been written.
            out.contains("Ctrl-C").then_some(())?;
            let url = out.split("http://127.0.0.1:").nth(1)?;
            url.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
        });
        Self { up, port }
    }

    /// Places an order of the stock dialect. On a busy machine it may need more than one try.
    pub(crate) fn sells(&self) {
        const ORDER: &str = r#"{"name":"FishCo","quantity":1,"type":"buy"}"#;
        until("an order is placed", || (post(self.port, ORDER).status == 200).then_some(()));
    }

    /// The pids of the store's processes, by name, from its status.
    pub(crate) fn pids(&self) -> Vec<(String, u32)> {
        let status = get(self.port, "/status").json();
        let processes = status["processes"].as_array().unwrap().clone();
        let named = processes.iter().filter_map(|process| {
            let (role, id) = (process["role"].as_str()?, &process["id"]);
            let pid = u32::try_from(process["pid"].as_u64()?).ok()?;
            Some((if id.is_null() { role.to_owned() } else { format!("{role}-{id}") }, pid))
        });
        named.collect()
    }

    /// The pid of one process.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.pids().into_iter().find(|(own, _)| own == name).map(|(_, pid)| pid)
    }
}

fn arguments(more: &[&str]) -> Vec<String> {
    let arguments = [&["up", "--ports", "auto"], more].concat();
    arguments.iter().map(|text| (*text).to_owned()).collect()
}
