//! The scenarios: which blocks are run, on which machines, and what happens around them.

mod damage;
mod deaths;
mod deploy;
mod disks;
mod gateways;
mod hosts;
mod lost;
mod mishaps;
mod start;
mod terminals;
mod up;

use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::manual::page::Block;
use crate::manual::stage::Stage;

/// One story of a store, from its start to its end.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) play: fn(&Stage<'_>) -> Result<()>,
}

/// All scenarios, the longest first.
pub(crate) const SCENARIOS: [Scenario; 16] = [
    Scenario { name: "nginx", play: gateways::nginx },
    Scenario { name: "haproxy", play: gateways::haproxy },
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
    Scenario { name: "mishaps", play: mishaps::play },
    Scenario { name: "two-of-three", play: deaths::two_of_three },
    Scenario { name: "does-not-start", play: start::play },
    Scenario { name: "locked", play: deploy::locked },
];

/// A block that the chore cannot run.
struct NotRun {
    heading: &'static str,
    place: usize,
    why: &'static str,
    /// Fails if the reason does not hold, or if the block does not fit the repository.
    check: fn(&Block, &Stage<'_>) -> Result<()>,
}

/// All such blocks, on the page on deploying.
const NOT_RUN: [NotRun; 4] = [
    NotRun {
        heading: "The program",
        place: 1,
        why: "it takes eight minutes, and the gate has built the program with another profile",
        check: builds_what_is_installed,
    },
    NotRun {
        heading: "From the Debian package",
        place: 1,
        why: "`cargo xtask packages` builds the package",
        check: builds_the_package,
    },
    NotRun {
        heading: "From the Debian package",
        place: 2,
        why: "`cargo xtask packages` runs it in a booted Debian",
        check: installs_this_version,
    },
    NotRun {
        heading: "Containers",
        place: 1,
        why: "no Docker daemon and no registry can be reached from these machines",
        check: has_no_docker,
    },
];

/// Notes these blocks as not run.
pub(crate) fn name_those_not_run(stage: &Stage<'_>) -> Result<()> {
    NOT_RUN.iter().try_for_each(|block| {
        let NotRun { heading, place, why, check } = block;
        check(stage.book.not_run("deploy.md", heading, *place, why)?, stage)
    })
}

/// Fails unless the chore of the package is typed.
fn builds_the_package(block: &Block, _: &Stage<'_>) -> Result<()> {
    match block.text.trim() == "cargo xtask packages --build" {
        true => Ok(()),
        false => bail!("{block}: another command than the one that is checked"),
    }
}

/// Fails unless the page installs the package of this version.
fn installs_this_version(block: &Block, _: &Stage<'_>) -> Result<()> {
    match block.text.contains(&format!("oppidum_{}_amd64.deb", env!("CARGO_PKG_VERSION"))) {
        true => Ok(()),
        false => bail!("{block}: the package of another version"),
    }
}

/// Fails unless the profile exists in the workspace, and the next block installs what it builds.
fn builds_what_is_installed(block: &Block, stage: &Stage<'_>) -> Result<()> {
    let words: Vec<&str> = block.text.split_whitespace().collect();
    let ["cargo", "build", "--profile", profile, "--locked", "-p", "oppidum"] = words[..] else {
        bail!("{block}: another command than the one that is checked");
    };
    let manifest = std::fs::read_to_string(stage.checkout.join("Cargo.toml"))?;
    let section = format!("[profile.{profile}]");
    ensure!(manifest.lines().any(|line| line == section), "{block}: no profile {profile}");
    let built = format!("target/{profile}/oppidum");
    let installs = stage.deploy("The program", 2)?;
    ensure!(installs.text.contains(&built), "{installs}: {built} is not what it installs");
    Ok(())
}

/// Fails unless there is no daemon, and the file and the services that the block names exist.
fn has_no_docker(block: &Block, stage: &Stage<'_>) -> Result<()> {
    let daemon = Command::new("docker").args(["version"]).output();
    let reached = daemon.is_ok_and(|answer| answer.status.success());
    ensure!(!reached, "{block}: a Docker daemon answers, so this block can be run");
    let words: Vec<&str> = block.text.split_whitespace().collect();
    for pair in words.windows(2) {
        match pair {
            ["-f", file] => ensure!(stage.checkout.join(file).is_file(), "{block}: no {file}"),
            ["exec", service] => {
                let text = std::fs::read_to_string(stage.checkout.join("deploy/compose.yaml"))?;
                let line = format!("  {service}:");
                ensure!(
                    text.lines().any(|it| it.starts_with(&line)),
                    "{block}: no service {service}"
                );
            }
            _ => {}
        }
    }
    Ok(())
}
