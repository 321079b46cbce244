//! Torture of the real binary, built as it is deployed: one seed, for any number of minutes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::process::PROFILE;

/// How long the torture lasts, with which seed and which faults.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The length, in minutes.
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// The seed of all random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names of faults, separated by commas [default: all].
    #[arg(long, default_value = "")]
    faults: String,
    /// A store with certificates and API keys, and a hostile client beside the customers.
    #[arg(long)]
    locked: bool,
}

/// Builds the binary and tortures it. The run begins with a list of its faults, and of those left
/// out because they need root and disks of their own.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    println!("Building what is deployed: some ten minutes on two cores, the first time.");
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(root)
        .args(["test", "--profile", PROFILE, "--quiet", "-p", "oppidum", "--test", "e2e"])
        // The failpoints that tests set in a process are not part of what is deployed.
        .args(["--features", "failpoints", "--"])
        .args(["--nocapture", "no_acknowledged_order_is_lost_under_any_fault"])
        .env("OPPIDUM_TORTURE_SECONDS", (60 * options.minutes).to_string())
        .env("OPPIDUM_TORTURE_SEED", options.seed.to_string())
        .env("OPPIDUM_TORTURE_FAULTS", &options.faults)
        .env("OPPIDUM_TORTURE_LOCKED", u8::from(options.locked).to_string());
    match command.status().context("start cargo test")?.success() {
        true => Ok(()),
        false => bail!("something was lost, doubled or shown too old"),
    }
}
