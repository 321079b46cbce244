//! The scenarios: which blocks are run, on which machines, and what happens around them.

mod damage;
mod deaths;
mod deploy;
mod disks;
mod hosts;
mod lost;
mod start;
mod terminals;
mod up;

use anyhow::Result;

use crate::manual::page::Book;
use crate::manual::stage::Stage;

/// One story of a store, from its start to its end.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) play: fn(&Stage<'_>) -> Result<()>,
}

/// All of them, the longest first.
pub(crate) const SCENARIOS: [Scenario; 12] = [
    Scenario { name: "lost", play: lost::play },
    Scenario { name: "away", play: deaths::away_for_long },
    Scenario { name: "one-host", play: deploy::one_host },
    Scenario { name: "backup", play: deploy::backup },
    Scenario { name: "disk-full", play: disks::full },
    Scenario { name: "three-hosts", play: hosts::deployed },
    Scenario { name: "by-hand", play: hosts::by_hand },
    Scenario { name: "damage", play: damage::play },
    Scenario { name: "sync-fails", play: disks::sync_fails },
    Scenario { name: "up", play: up::play },
    Scenario { name: "two-of-three", play: deaths::two_of_three },
    Scenario { name: "does-not-start", play: start::play },
];

/// Blocks that nothing here can run, and why.
const NOT_RUN: [(&str, &str, usize, &str); 2] = [
    ("deploy.md", "The program", 1, "the gate builds the program, with another profile"),
    ("deploy.md", "Containers", 1, "it needs a Docker daemon and images from a registry"),
];

/// Notes those blocks as not run.
pub(crate) fn name_those_not_run(book: &Book) -> Result<()> {
    NOT_RUN
        .iter()
        .try_for_each(|(page, heading, place, why)| book.not_run(page, heading, *place, why))
}
