//! A stage: the pages and machines of a scenario, and the steps that follow a block.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::manual::compare;
use crate::manual::page::{Block, Book};
use crate::manual::process::Process;
use crate::manual::sandbox::{self, CHECKOUT, Host, Printed, eventually};

/// The pages, the checkout, and the machines of one attempt.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) book: &'a Book,
    pub(crate) checkout: &'a Path,
    /// The end of its machines' names: each attempt has machines of its own.
    ending: &'static str,
    hosts: Mutex<Vec<Host>>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(book: &'a Book, checkout: &'a Path, ending: &'static str) -> Self {
        Self { book, checkout, ending, hosts: Mutex::default() }
    }

    fn note(&self, hosts: &[Host]) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(hosts);
    }

    /// A block of the operators' page.
    pub(crate) fn operating(&self, heading: &str, place: usize) -> Result<&'a Block> {
        self.book.block("operating.md", heading, place)
    }

    /// A block of the page on deploying.
    pub(crate) fn deploy(&self, heading: &str, place: usize) -> Result<&'a Block> {
        self.book.block("deploy.md", heading, place)
    }

    /// A machine without the program.
    pub(crate) fn empty_host(&self, name: &str) -> Result<Host> {
        let host = sandbox::one(self.checkout, &format!("{name}{}", self.ending))?;
        self.note(std::slice::from_ref(&host));
        Ok(host)
    }

    /// A machine with the program.
    pub(crate) fn host(&self, name: &str) -> Result<Host> {
        self.empty_host(name)?.with_program()
    }

    /// Three machines without the program.
    pub(crate) fn three_hosts(&self, name: &str) -> Result<[Host; 3]> {
        let hosts = sandbox::three(self.checkout, &format!("{name}{}", self.ending))?;
        self.note(&hosts);
        Ok(hosts)
    }
}

/// Processes that are left on its machines end with the stage, and slow no later scenario.
impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let hosts = self.hosts.get_mut().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().for_each(Host::end_all);
    }
}

impl Host {
    /// Follows a block as it stands, and compares the output: all of it for a console block,
    /// nothing for plain commands. Returns the output.
    pub(crate) fn follow(&self, block: &Block) -> Result<String> {
        match block.language.as_str() {
            "sh" => self.follow_with(block, ""),
            "console" => {
                for (command, page) in block.session() {
                    let printed = self.run(&command)?;
                    let page: Vec<&str> = page.iter().map(String::as_str).collect();
                    same(block, &page, &printed.text)?;
                }
                Ok(String::new())
            }
            other => bail!("{block}: no scenario follows a block of {other}"),
        }
    }

    /// Types a block of commands, and `answer` after it, where a command asks for input.
    pub(crate) fn follow_with(&self, block: &Block, answer: &str) -> Result<String> {
        let printed = self.type_in(&block.text, answer)?;
        match printed.code {
            0 => Ok(printed.text),
            code => bail!("{block}: exit code {code}; it printed\n{}", printed.text),
        }
    }

    /// Runs a block of commands, and compares the output with another block.
    pub(crate) fn follow_and_see(&self, block: &Block, output: &Block) -> Result<()> {
        let printed = self.follow(block)?;
        same(output, &output.lines(), &printed)
    }
}

/// Fails unless the whole output is as the lines of the page say.
pub(crate) fn same(block: &Block, page: &[&str], printed: &str) -> Result<()> {
    match compare::same_lines(page, printed) {
        Ok(()) => Ok(()),
        Err(difference) => bail!("{block}: {difference}"),
    }
}

/// Fails unless a command ended with this exit code, and with this line of the page as its last.
pub(crate) fn ends_with(block: &Block, code: i32, line: &str, printed: &Printed) -> Result<()> {
    let last = printed.text.lines().last().unwrap_or_default();
    if printed.code != code || !compare::same(line, last) {
        bail!(
            "{block}: the page says exit code {code} and\n  {line}\nand it was exit code {} and\n  \
             {last}\nin\n{}",
            printed.code,
            printed.text
        );
    }
    Ok(())
}

/// The output of `oppidum status --json`.
#[derive(Debug)]
pub(crate) struct Status(Value);

impl Status {
    pub(crate) fn read(printed: &Printed) -> Self {
        Self(serde_json::from_str(&printed.text).unwrap_or(Value::Null))
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        self.0["leader"].as_u64()
    }

    /// A number in the row of a replica.
    pub(crate) fn number_of(&self, id: u64, name: &str) -> Option<u64> {
        let mut rows = self.0["processes"].as_array()?.iter();
        rows.find(|row| row["id"] == id)?[name].as_u64()
    }

    /// True if there is a leader, and `replicas` replicas that are ready, level and all voters.
    fn is_whole(&self, replicas: usize) -> bool {
        let all = self.0["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let orders: Vec<&Value> = all.iter().filter(|row| row["role"] == "order").collect();
        let Some(first) = orders.first() else { return false };
        let level = |row: &&Value| {
            let voters = row["voters"].as_array().map_or(0, Vec::len);
            row["ready"] == true
                && row["applied_index"] == first["applied_index"]
                && row["applied_index"].is_u64()
                && voters == replicas
        };
        self.leader().is_some() && orders.len() == replicas && orders.iter().all(level)
    }
}

impl Host {
    /// Waits until `replicas` replicas vote, and all of them are ready and have applied the same.
    pub(crate) fn await_store(&self, replicas: usize) -> Result<()> {
        let is_so = |printed: &Printed| Status::read(printed).is_whole(replicas);
        self.until("all replicas are there", "oppidum status --json", is_so).map(|_| ())
    }

    /// Waits until a replica leads; returns its id.
    pub(crate) fn await_leader(&self) -> Result<u64> {
        let script = "oppidum status --json";
        let has_one = |printed: &Printed| Status::read(printed).leader().is_some();
        let text = self.until("a replica leads", script, has_one)?;
        Status::read(&Printed { code: 0, text }).leader().context("a replica leads")
    }

    /// Waits until all three replicas are there, and transfers leadership to 456, as on the pages.
    pub(crate) fn let_456_lead(&self) -> Result<()> {
        self.await_store(3)?;
        if self.await_leader()? != 456 {
            self.ok("oppidum ctl transfer --to 456")?;
        }
        Ok(())
    }

    /// Two customers order and query; every order must be confirmed.
    pub(crate) fn order(&self, requests: u32) -> Result<()> {
        let load = format!("oppidum load --clients 2 --requests {requests} -p 0.9 --quiet");
        self.ok(&load).map(|_| ())
    }

    /// Follows a console block again and again, until the output is as on the page.
    pub(crate) fn ask(&self, block: &Block) -> Result<()> {
        let mut last = None;
        let asked = eventually(|| match self.follow(block) {
            Ok(_) => Ok(Some(())),
            Err(error) => {
                last = Some(error);
                Ok(None)
            }
        });
        asked.map_err(|error| last.unwrap_or(error))
    }

    /// Customers who order until they are stopped, with another copy of the program. Exit code 2
    /// says that no frontend was there at the start: it is being restarted.
    pub(crate) fn customers(&self) -> Result<Customers> {
        let enough = "/tmp/enough";
        let script = format!(
            "rm -f {enough}; while [ ! -e {enough} ]; do
             {CHECKOUT}/target/fast/oppidum load --clients 2 --requests 20 -p 0.9 --quiet ||
             test $? = 2; done"
        );
        let process = self.start("customers", &script)?;
        Ok(Customers { process, enough: self.path(enough) })
    }
}

/// Customers who order, in one run of the load after the other.
#[derive(Debug)]
pub(crate) struct Customers {
    process: Process,
    enough: PathBuf,
}

impl Customers {
    /// Stops the customers, and fails unless each of their orders was confirmed.
    pub(crate) fn go_home(mut self) -> Result<()> {
        std::fs::write(&self.enough, "").context("tell the customers")?;
        match self.process.end()? {
            0 => Ok(()),
            code => {
                bail!("a customer was let down, exit code {code}:\n{}", self.process.printed()?)
            }
        }
    }
}
