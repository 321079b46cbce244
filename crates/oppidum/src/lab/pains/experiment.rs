//! One experiment with a pain: the store it runs on, its result, and how the result is printed.

use std::path::Path;

use ::frontend::classic::Dialect;
use wire::exit::Stop;

use super::store_under_test::{StoreUnderTest, discover};
use crate::cli::lab::StoreChoice;
use crate::lab::cluster::{self, ClusterSpec, LocalCluster};
use crate::signals::Interrupt;

/// Three frontends, so that the three copies of a request each go through another one.
const FRONTENDS: u16 = 3;

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

/// The result, or why the experiment could not end.
type Measured = Result<ExperimentResult, Stop>;

/// Runs an experiment on the given store, or on a local cluster with this shop file, and prints its
/// result. True: the promise held.
pub(super) async fn run(
    pain: &str,
    at: &StoreChoice,
    shop: String,
    interrupt: &Interrupt,
    measure: impl AsyncFnOnce(&StoreUnderTest, Option<&LocalCluster>) -> Measured,
) -> Result<bool, Stop> {
    let dialect = at.dialect.map(|dialect| dialect.0);
    let found = if at.url.is_empty() {
        let dialect = dialect.unwrap_or(Dialect::Stock);
        let spec = ClusterSpec {
            shop: Some(shop),
            frontends: FRONTENDS,
            catalogs: 2,
            log: "info",
            ..ClusterSpec::new(dialect.name())
        };
        let keep_logs = |found: &Measured, folder: &Path| {
            let held = matches!(found, Ok(ExperimentResult::Held(_)));
            if !held {
                note!("{pain}: what the store said is in {}", folder.display());
            }
            !held
        };
        note!("{pain}: opening a store of our own, eight processes");
        cluster::with_logs(&spec, interrupt, keep_logs, async |cluster| {
            let store = discover(&cluster.urls(), Some(dialect), &[]).await?;
            measure(&store, Some(cluster)).await
        })
        .await
    } else {
        let measuring = async {
            let store = discover(&at.url, dialect, at.product.as_slice()).await?;
            measure(&store, None).await
        };
        interrupt.unless(measuring).await
    };
    if found.is_err() && interrupt.stop.is_cancelled() {
        return print(pain, Err(Stop::Setup("interrupted".into())));
    }
    print(pain, found)
}

/// Prints the result. An experiment without a measurement goes to stderr, with exit code 2.
fn print(pain: &str, found: Measured) -> Result<bool, Stop> {
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
