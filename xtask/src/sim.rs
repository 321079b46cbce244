//! Runs the simulator, a workspace of its own in `sim/`, for any number of seeds.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Which seeds to run, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The number of seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// The number of seeds that run at the same time.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Prints everything that happens; for one seed.
    #[arg(long)]
    trace: bool,
    /// Runs each seed twice, and compares the traces.
    #[arg(long)]
    twice: bool,
    /// Breaks this on purpose, and shows which seeds detect it: log-sync, file-sync, reopening or
    /// restore.
    #[arg(long, value_name = "WHAT")]
    broken: Option<String>,
}

/// Builds the simulator and runs it.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(root.join("sim"))
        .args(["run", "--quiet", "--"])
        .args(["--seeds", &options.seeds.to_string(), "--first", &options.first.to_string()])
        .args(["--threads", &options.threads.to_string()]);
    if options.trace {
        command.arg("--trace");
    }
    if options.twice {
        command.arg("--twice");
    }
    if let Some(what) = &options.broken {
        command.args(["--broken", what]);
    }
    match command.status().context("start the simulator")?.success() {
        true => Ok(()),
        false => bail!("a seed has failed"),
    }
}
