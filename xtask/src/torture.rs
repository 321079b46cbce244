//! Torture of the real binary, built as it is deployed, for as long as one likes: one seed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::process::PROFILE;

/// What to do to it, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How long, in minutes.
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// What follows from what.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names of faults, separated by commas [default: all].
    #[arg(long, default_value = "")]
    faults: String,
}

/// Builds the binary and tortures it. It says at its start which faults there are, and which are
/// left out because they need root and disks of their own.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    println!("Building what is deployed: some ten minutes on two cores, the first time.");
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(root)
        .args(["test", "--profile", PROFILE, "--quiet", "-p", "oppidum", "--test", "e2e"])
        // What a test puts into a process is not in what is deployed.
        .args(["--features", "failpoints", "--"])
        .args(["--nocapture", "nothing_is_lost_whatever_happens"])
        .env("OPPIDUM_TORTURE_SECONDS", (60 * options.minutes).to_string())
        .env("OPPIDUM_TORTURE_SEED", options.seed.to_string())
        .env("OPPIDUM_TORTURE_FAULTS", &options.faults);
    match command.status().context("start cargo test")?.success() {
        true => Ok(()),
        false => bail!("something was lost, doubled or shown too old"),
    }
}
