//! Runs the exact model of the watch protocol, for any number of seeds: optimized, on one thread.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Which seeds to run, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The number of seeds.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Prints everything that happened; for one seed.
    #[arg(long)]
    trace: bool,
    /// Breaks this rule on purpose, and stops at the first seed that detects it.
    #[arg(long, value_name = "NAME")]
    break_rule: Option<String>,
}

/// Builds the model and runs it.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(root)
        .args(["test", "--release", "--quiet", "-p", "oppidum", "--test", "model", "--"])
        .args(["--nocapture", "no_seed_shows"])
        .env("OPPIDUM_MODEL_SEEDS", options.seeds.to_string())
        .env("OPPIDUM_MODEL_FIRST", options.first.to_string());
    if options.trace {
        command.env("OPPIDUM_MODEL_TRACE", "1");
    }
    if let Some(rule) = &options.break_rule {
        command.env("OPPIDUM_MODEL_MUTANT", rule);
    }
    let status = command.status().context("start cargo test")?;
    match status.success() {
        true => Ok(()),
        false => bail!("a seed has failed"),
    }
}
