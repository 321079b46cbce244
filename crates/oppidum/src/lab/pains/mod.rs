//! The pains, classic faults of shops, each as an experiment with a one-line result: oversell,
//! double-submit, stale.
//!
//! They test any store that speaks the classic API, this project's or another, and report whether
//! the promise held, with the first piece of evidence. An experiment that could not measure says
//! so; that is neither success nor failure.

pub(crate) mod api;

pub(crate) mod store_under_test;

pub(crate) mod stock;

pub(crate) mod experiment;

pub(crate) mod oversell;

mod double_submit;

mod stale;

use wire::exit::Stop;

use crate::cli::lab::Pain;
use crate::signals::Interrupt;

/// Runs the experiment. True: the promise held.
pub(super) async fn run(pain: &Pain, interrupt: &Interrupt) -> Result<bool, Stop> {
    match pain {
        Pain::Oversell(flags) => oversell::run(flags, interrupt).await,
        Pain::DoubleSubmit(flags) => double_submit::run(flags, interrupt).await,
        Pain::Stale(flags) => stale::run(flags, interrupt).await,
    }
}
