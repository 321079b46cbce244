//! Every chore of the repository, as one program: `cargo xtask <chore>`.
//!
//! `ci` is the gate; `tidy` is the part of it that no compiler checks. Only `fix`, `bench`,
//! `dashboard` and `release --record` write into the repository.

#![expect(clippy::print_stdout, reason = "a chore talks to the person who runs it")]

mod bench;
mod ci;
mod dashboard;
mod drill;
mod manual;
mod model;
mod packages;
mod profile;
mod release;
mod sim;
mod tidy;
mod torture;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The chores of the repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// The gate: formatting, lints, tidy, documentation, licences, every test. Never writes.
    Ci,
    /// Formats, and applies what clippy can fix by itself.
    Fix,
    /// The rules of the repository that no compiler checks.
    Tidy,
    /// Writes the dashboard for Grafana; `tidy` checks that it is current.
    Dashboard,
    /// Measures rates, latencies and CPU, each beside a comparison; writes docs/performance.md.
    Bench(bench::Options),
    /// Profiles the CPU of one process under load with `perf`: a table and a flame graph.
    Profile(profile::Options),
    /// Runs every procedure of the operators' pages, word for word, on machines of its own.
    Manual(manual::Options),
    /// Builds the Debian package, and follows its life in a booted Debian.
    Packages(packages::Options),
    /// Records a release in releases/, or builds and packs it into target/release-VERSION/.
    Release(release::Options),
    /// Runs the exact model of the watch protocol for many seeds, or for one with its trace.
    Model(model::Options),
    /// Runs the whole store in a simulated world for many seeds, or for one with its trace.
    Sim(sim::Options),
    /// Backs a store up under load, verifies and restores the backup; prints the times.
    Drill(drill::Options),
    /// Kills, freezes and restarts processes while clients order; then checks everything.
    Torture(torture::Options),
    /// The bare HTTP handler that `bench` compares with.
    #[command(hide = true)]
    Bare,
    /// The stand-in for systemd on the machines of `manual`.
    #[command(hide = true)]
    Systemctl { arguments: Vec<String> },
    /// The journal of that stand-in.
    #[command(hide = true)]
    Journalctl { arguments: Vec<String> },
}

fn main() -> ExitCode {
    match run(&Cli::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: &Chore) -> Result<()> {
    match chore {
        Chore::Ci => ci::ci(&root()),
        Chore::Fix => ci::fix(&root()),
        Chore::Tidy => tidy::run(&root()),
        Chore::Dashboard => dashboard::write(&root()),
        Chore::Bench(options) => bench::run(&root(), options),
        Chore::Profile(options) => profile::run(&root(), options),
        Chore::Packages(options) => packages::run(&root(), options),
        Chore::Release(options) => release::run(&root(), options),
        Chore::Model(options) => model::run(&root(), options),
        Chore::Sim(options) => sim::run(&root(), options),
        Chore::Drill(options) => drill::run(&root(), options),
        Chore::Torture(options) => torture::run(&root(), options),
        Chore::Manual(options) => manual::run(&root(), options),
        Chore::Bare => bench::bare::serve(),
        Chore::Systemctl { arguments } => manual::systemd::systemctl(arguments),
        Chore::Journalctl { arguments } => manual::systemd::journalctl(arguments),
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
