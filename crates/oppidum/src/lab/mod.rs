//! The lab: each experiment is one command, with numbers and a picture.
//!
//! Experiments run on a lab store, made of real processes on free ports with data in a temporary
//! folder, or on a running store. They measure at the client, report the result in words and with
//! the exit code, and write the data behind it to files.

mod sweep;

mod cache;

mod failover;

pub(crate) mod pains;

pub(crate) mod cluster;

pub(crate) mod elections;

mod chart;

mod progress;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use wire::exit::Stop;

use crate::cli::lab::{Lab, LabOn};
use crate::signals::Interrupt;

/// Runs an experiment. False: it measured nothing, or a check failed.
pub(crate) async fn run(lab: Lab) -> Result<bool, Stop> {
    match lab.on {
        LabOn::Sweep(flags) => sweep::run(&flags, &Interrupt::listen()?).await,
        LabOn::Cache(flags) => cache::run(&flags, &Interrupt::listen()?).await,
        LabOn::Failover(flags) => failover::run(&flags, &Interrupt::listen()?).await,
        LabOn::Pain(pain) => pains::run(pain).await,
    }
}

/// Prints an answer. Even if stdout is closed, the experiment still ends in order.
pub(crate) fn tell(line: impl Display) {
    answer!("{line}");
}

/// Prints progress to stderr.
pub(crate) fn remark(line: impl Display) {
    note!("{line}");
}

/// Creates the folder for an experiment's files, before the measurement, so that it is not lost.
fn folder(out: &Path) -> Result<(), Stop> {
    std::fs::create_dir_all(out).map_err(|error| {
        Stop::Setup(format!("the folder {} cannot be made: {error}", out.display()))
    })
}

/// Writes one of an experiment's files.
fn write(out: &Path, name: &str, text: &str) -> Result<PathBuf, Stop> {
    let path = out.join(name);
    match std::fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(error) => Err(Stop::Setup(format!("{} cannot be written: {error}", path.display()))),
    }
}
