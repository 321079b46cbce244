//! The pains, classic faults of shops, each as an experiment with a one-line result: oversell,
//! double-submit, stale.
//!
//! They test any store that speaks the classic API, this project's or another, and report whether
//! the promise held, with the first piece of evidence. An experiment that could not measure says
//! so; that is neither success nor failure.

pub(crate) mod api;

pub(crate) mod store_under_test;

mod cluster;

pub(crate) mod oversell;

mod double_submit;

mod stale;

use wire::exit::Stop;

use crate::cli::lab::{Pain, StoreChoice};
use crate::cli::values::DialectName;
use crate::signals::Interrupt;
use ::frontend::classic::Dialect;
use cluster::LocalCluster;
use store_under_test::{StoreUnderTest, look_around};

/// The result of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExperimentResult {
    /// The promise held; the observation.
    Held(String),
    /// The promise was broken; the first piece of evidence.
    Broken(String),
    /// Nothing was measured; the reason.
    Unmeasured(String),
}

/// Runs the experiment. True: the promise held.
pub(crate) async fn run(pain: Pain) -> Result<bool, Stop> {
    match pain {
        Pain::Oversell(flags) => oversell::run(flags).await,
        Pain::DoubleSubmit(flags) => double_submit::run(flags).await,
        Pain::Stale(flags) => stale::run(flags).await,
    }
}

/// Runs an experiment on the given store, or on a local cluster with this shop, and prints its
/// result. True: the promise held.
async fn tried(
    pain: &str,
    at: &StoreChoice,
    shop: &str,
    experiment: impl AsyncFnOnce(
        &StoreUnderTest,
        Option<&LocalCluster>,
    ) -> Result<ExperimentResult, Stop>,
) -> Result<bool, Stop> {
    let dialect = at.dialect.map(|dialect| dialect.0);
    let interrupt = Interrupt::listen()?;
    if !at.url.is_empty() {
        let looking = async {
            let around = look_around(&at.url, dialect, at.product.as_slice()).await?;
            experiment(&around, None).await
        };
        let found = tokio::select! {
            found = looking => found,
            () = interrupt.stop.cancelled() => Err(Stop::Setup("interrupted".into())),
        };
        return told(pain, found);
    }
    let dialect = dialect.unwrap_or(Dialect::Stock);
    note!("{pain}: opening a store of our own, eight processes");
    let mut town = LocalCluster::start(DialectName(dialect), shop)?;
    let living = async {
        let urls = town.opened().await?;
        let around = look_around(&urls, Some(dialect), &[]).await?;
        experiment(&around, Some(&town)).await
    };
    let found = tokio::select! {
        found = living => found,
        () = interrupt.stop.cancelled() => Err(Stop::Setup("interrupted".into())),
    };
    let keep = !matches!(found, Ok(ExperimentResult::Held(_)));
    if let Some(path) = town.close(keep).await {
        note!("{pain}: what the store said is in {}", path.display());
    }
    told(pain, found)
}

/// Prints the result. An experiment without a measurement goes to stderr, with exit code 2.
fn told(pain: &str, found: Result<ExperimentResult, Stop>) -> Result<bool, Stop> {
    match found {
        Ok(ExperimentResult::Held(what)) => answer!("{pain}: held: {what}"),
        Ok(ExperimentResult::Broken(what)) => {
            answer!("{pain}: NOT HELD: {what}");
            return Ok(false);
        }
        Ok(ExperimentResult::Unmeasured(why)) | Err(Stop::Setup(why)) => {
            return Err(Stop::Setup(format!("{pain}: not measured: {why}")));
        }
        Err(defect) => return Err(defect),
    }
    Ok(true)
}

/// The lines of one product in a shop file.
fn product(name: &str, quantity: u32) -> String {
    format!("[[product]]\nname = \"{name}\"\nprice = 9.99\nquantity = {quantity}\n\n")
}

/// A count with its noun: `1 order`, `2 orders`.
pub(crate) fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

/// The first four numbers of a list, as a text.
pub(crate) fn few(numbers: &[u64]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = numbers.iter().take(SHOWN).map(|n| format!("#{n}")).collect();
    match numbers.len() {
        more if SHOWN < more => format!("{}, …", shown.join(", ")),
        _ => shown.join(", "),
    }
}
