//! A process that a scenario has started and that runs on, with its output so far.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::manual::compare::{self, Line};
use crate::manual::page::Block;
use crate::manual::sandbox::eventually;

/// The time for which a slowed process runs, between two rests.
const RUNNING: Duration = Duration::from_millis(10);

/// The longest time for which a process is slowed.
const SLOWED_MAX: Duration = Duration::from_mins(1);

/// The number of output lines that an error shows.
const TAIL_LINES: usize = 60;

/// A running process, or a group of processes.
#[derive(Debug)]
pub(crate) struct Process {
    /// The name on the pages; `up` names its own processes.
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    pub(crate) fn new(name: &str, child: Child, output: PathBuf) -> Self {
        Self { name: name.to_owned(), child, output }
    }

    /// The output so far.
    pub(crate) fn printed(&self) -> Result<String> {
        let bytes = std::fs::read(&self.output).context("read an output")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The length of the output so far: all output after this mark is new.
    pub(crate) fn mark(&self) -> Result<usize> {
        Ok(self.printed()?.len())
    }

    /// Waits until the process has printed these words.
    pub(crate) fn until(&self, words: &str) -> Result<()> {
        self.until_after(0, words)
    }

    /// Waits until the process has printed these words after a mark.
    pub(crate) fn until_after(&self, mark: usize, words: &str) -> Result<()> {
        eventually(|| Ok(self.printed()?[mark..].contains(words).then_some(()))).with_context(
            || format!("{} never said `{words}`, but\n{}", self.name, self.tail(mark)),
        )
    }

    /// Waits until the process has printed the lines of a block of a page after a mark.
    pub(crate) fn says(&self, mark: usize, block: &Block) -> Result<()> {
        self.says_lines(mark, &block.lines()).with_context(|| block.to_string())
    }

    /// Waits until these lines of a page are printed after a mark, those of each process in order.
    pub(crate) fn says_lines(&self, mark: usize, page: &[&str]) -> Result<()> {
        let mut missing = String::new();
        eventually(|| {
            let printed = self.printed()?;
            let new = &printed[mark..];
            let lines: Vec<Line<'_>> = new.lines().map(|line| self.line(line)).collect();
            match compare::says_all(page, &lines) {
                Ok(()) => Ok(Some(())),
                Err(line) => {
                    line.clone_into(&mut missing);
                    Ok(None)
                }
            }
        })
        .with_context(|| {
            format!("the page says\n  {missing}\nand what was said is\n{}", self.tail(mark))
        })
    }

    /// Like `says_lines`, but another task prints the lines with these words, so they may stand
    /// anywhere among the others.
    pub(crate) fn says_apart(&self, mark: usize, page: &[&str], words: &str) -> Result<()> {
        let (apart, others): (Vec<&str>, Vec<&str>) =
            page.iter().partition(|line| line.contains(words));
        self.says_lines(mark, &apart)?;
        self.says_lines(mark, &others)
    }

    fn line<'a>(&'a self, line: &'a str) -> Line<'a> {
        compare::line_of_up(line)
            .unwrap_or_else(|| (self.name.as_str(), compare::without_time(line)))
    }

    /// The last lines after a mark, without those of single requests.
    fn tail(&self, mark: usize) -> String {
        let printed = self.printed().unwrap_or_default();
        let lines = printed.get(mark..).unwrap_or_default().lines();
        let lines: Vec<&str> = lines.filter(|line| !line.contains("HTTP/1.1\"")).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Sends a signal to the process and to those it has started, as a terminal does with Ctrl-C.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let group = format!("-{}", self.child.id());
        let sent = Command::new("kill").args([&format!("-{name}"), "--", &group]).status()?;
        match sent.success() {
            true => Ok(()),
            false => bail!("{} has ended before SIG{name}:\n{}", self.name, self.tail(0)),
        }
    }

    /// Lets the process run for a small part of the time only, as on a slow machine, until it has
    /// printed these words: it rests for `resting`, then it runs for 10 ms.
    pub(crate) fn slowed_until(&self, words: &str, resting: Duration) -> Result<()> {
        let limit = Instant::now() + SLOWED_MAX;
        while !self.printed()?.contains(words) {
            if limit < Instant::now() {
                bail!("{} never said `{words}`, but\n{}", self.name, self.tail(0));
            }
            // This is not a wait for an event: it sets the machine's speed.
            self.signal("STOP")?;
            std::thread::sleep(resting);
            self.signal("CONT")?;
            std::thread::sleep(RUNNING);
        }
        Ok(())
    }

    /// Waits for the end of the process; returns its exit code.
    pub(crate) fn end(&mut self) -> Result<i32> {
        let ended = eventually(|| Ok(self.child.try_wait()?));
        let status =
            ended.with_context(|| format!("{} does not end:\n{}", self.name, self.tail(0)))?;
        Ok(status.code().unwrap_or(-1))
    }

    /// Stops the process as Ctrl-C does, and expects exit code 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal("INT")?;
        match self.end()? {
            0 => Ok(()),
            code => bail!("{} ended with exit code {code}:\n{}", self.name, self.tail(0)),
        }
    }
}

/// A failed scenario leaves no process behind for the next one.
impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = format!("-{}", self.child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = self.child.wait();
        }
    }
}
