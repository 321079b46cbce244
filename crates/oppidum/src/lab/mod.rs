//! The lab: each experiment with such a store is one command, with numbers and a picture.
//!
//! Experiments run on stores of their own, made of real processes on free ports with data in a
//! temporary folder, or on a running one. They measure at the client, say what they found in words
//! and with the exit code, and write what the words rest on into files.

mod sweep;

mod cache;

mod failover;

pub(crate) mod stage;

pub(crate) mod elections;

pub(crate) mod interrupt;

mod chart;

mod progress;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use wire::exit::Stop;

use crate::cli_lab::{Lab, LabOn};
use crate::pains;
use interrupt::Interrupt;

/// Does an experiment. False: it came to nothing, or found something wrong.
pub(crate) async fn run(lab: Lab) -> Result<bool, Stop> {
    match lab.on {
        LabOn::Sweep(flags) => sweep::run(&flags, &Interrupt::listen()?).await,
        LabOn::Cache(flags) => cache::run(&flags, &Interrupt::listen()?).await,
        LabOn::Failover(flags) => failover::run(&flags, &Interrupt::listen()?).await,
        LabOn::Pain(pain) => pains::run(pain).await,
    }
}

/// Prints an answer. Without a reader what was begun is still ended in order.
pub(crate) fn tell(line: impl Display) {
    answer!("{line}");
}

/// Says something on the way.
pub(crate) fn remark(line: impl Display) {
    note!("{line}");
}

/// Makes the folder for an experiment's files, before anything is measured in vain.
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
