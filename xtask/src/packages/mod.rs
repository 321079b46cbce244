//! The package, run for real: built, installed in a Debian, and followed under a real systemd.
//!
//! ```text
//! deb.rs: the package ──► machine.rs: a booted Debian ◄── life.rs: installed, broken, purged
//! ```

mod deb;
mod life;
mod machine;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

pub(crate) use machine::obstacle;

use crate::bench::process::{PROFILE, target};

/// The version of the package: that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to do with the package.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Options {
    /// Only builds the package
    #[arg(long)]
    build: bool,
    /// Packs the debug build that is there: for a check of the package, not for hosts
    #[arg(long)]
    built: bool,
}

impl Options {
    /// A check of the package, with the debug build that is there.
    pub(crate) fn built() -> Self {
        Self { built: true, ..Self::default() }
    }
}

/// Builds the package and, unless only that is asked for, follows its life.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if !options.build
        && let Some(why) = obstacle()
    {
        let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        println!("!!! NOT CHECKED: the package cannot be installed here: {why} !!!");
        return if is_ci { bail!("the package was not checked") } else { Ok(()) };
    }
    let target = target(root);
    let folder = target.join("packages");
    std::fs::create_dir_all(&folder)?;
    let profile = if options.built { "debug" } else { PROFILE };
    if !options.built {
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(root).args(["build", "--locked", "--profile", PROFILE, "-p", "oppidum"]);
        deb::run(&mut build)?;
    }
    let program = target.join(profile).join("oppidum");
    let package = timed("packed", || deb::pack(root, &program, &folder))?;
    println!("{}", package.display());
    if options.build {
        return Ok(());
    }
    let debian = timed("Debian made", || machine::root(&folder.join("debian")))?;
    let share = folder.join("share");
    std::fs::create_dir_all(&share)?;
    std::fs::copy(&package, share.join("oppidum.deb"))?;
    let machine = timed("booted", || machine::Machine::boot(&debian, &share))?;
    life::follow(root, &machine)
}

/// Does one step, and prints its time.
fn timed<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = step();
    let end = if done.is_ok() { "" } else { ": FAILED" };
    println!("{what}{end}, {:.1} s", began.elapsed().as_secs_f64());
    done
}
