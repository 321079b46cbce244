//! The lab: each experiment is one command, with numbers and a picture.
//!
//! Experiments run on a local cluster, made of real processes on free ports with data in a
//! temporary folder, or on a running store. They measure at the client, report the result in words
//! and with the exit code, and write the data behind it to files.

mod sweep;

mod cache;

mod failover;

pub(crate) mod pains;

pub(crate) mod cluster;

pub(crate) mod elections;

mod files;

mod chart;

mod progress;

use wire::exit::Stop;

use crate::cli::lab::{Lab, LabOn};
use crate::signals::Interrupt;

/// Runs an experiment. False: it measured nothing, or a check failed.
pub(crate) async fn run(lab: Lab) -> Result<bool, Stop> {
    let interrupt = Interrupt::listen()?;
    match lab.on {
        LabOn::Sweep(flags) => sweep::run(&flags, &interrupt).await,
        LabOn::Cache(flags) => cache::run(&flags, &interrupt).await,
        LabOn::Failover(flags) => failover::run(&flags, &interrupt).await,
        LabOn::Pain(pain) => pains::run(&pain, &interrupt).await,
    }
}
