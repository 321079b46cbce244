//! The pains of the trade, each as an experiment of one line: the same piece sold twice, the same
//! request placed twice, a stock shown that is no longer true.
//!
//! They are made on any store that speaks the classic API, ours or somebody else's, and say what
//! they found there: the promise held, or it did not, with the first piece of evidence. What could
//! not be measured is said to be so; it is no finding.

pub(crate) mod flags;

pub(crate) mod front;

pub(crate) mod around;

mod town;

pub(crate) mod oversell;

mod double_submit;

mod stale;

use wire::exit::Stop;

use crate::roles::DialectName;
use crate::signals::Signals;
use ::frontend::classic::Dialect;
use around::{Around, look_around};
use flags::{Pain, Where};
use town::Town;

/// What an experiment found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The promise held; what was seen.
    Held(String),
    /// It did not; the first piece of evidence.
    Broken(String),
    /// Nothing can be said; why.
    Unmeasured(String),
}

/// Makes the experiment. True: the promise held.
pub(crate) async fn run(pain: Pain) -> Result<bool, Stop> {
    match pain {
        Pain::Oversell(flags) => oversell::run(flags).await,
        Pain::DoubleSubmit(flags) => double_submit::run(flags).await,
        Pain::Stale(flags) => stale::run(flags).await,
    }
}

/// Makes an experiment, on the store that is meant or on one of our own with this shop, and says
/// what it found. True: the promise held.
async fn tried(
    pain: &str,
    at: &Where,
    shop: &str,
    experiment: impl AsyncFnOnce(&Around, Option<&Town>) -> Result<Finding, Stop>,
) -> Result<bool, Stop> {
    let dialect = at.dialect.map(|dialect| dialect.0);
    let mut signals = Signals::catch()?;
    if !at.url.is_empty() {
        let looking = async {
            let around = look_around(&at.url, dialect, at.product.as_slice()).await?;
            experiment(&around, None).await
        };
        let found = tokio::select! {
            found = looking => found,
            () = signals.next() => Err(Stop::Setup("interrupted".into())),
        };
        return told(pain, found);
    }
    let dialect = dialect.unwrap_or(Dialect::Stock);
    note!("{pain}: opening a store of our own, eight processes");
    let mut town = Town::start(DialectName(dialect), shop)?;
    let living = async {
        let urls = town.opened().await?;
        let around = look_around(&urls, Some(dialect), &[]).await?;
        experiment(&around, Some(&town)).await
    };
    let found = tokio::select! {
        found = living => found,
        () = signals.next() => Err(Stop::Setup("interrupted".into())),
    };
    let keep = !matches!(found, Ok(Finding::Held(_)));
    if let Some(path) = town.close(keep).await {
        note!("{pain}: what the store said is in {}", path.display());
    }
    told(pain, found)
}

/// The one line. What could not be measured goes to stderr, with exit code 2.
fn told(pain: &str, found: Result<Finding, Stop>) -> Result<bool, Stop> {
    match found {
        Ok(Finding::Held(what)) => answer!("{pain}: held: {what}"),
        Ok(Finding::Broken(what)) => {
            answer!("{pain}: NOT HELD: {what}");
            return Ok(false);
        }
        Ok(Finding::Unmeasured(why)) | Err(Stop::Setup(why)) => {
            return Err(Stop::Setup(format!("{pain}: not measured: {why}")));
        }
        Err(defect) => return Err(defect),
    }
    Ok(true)
}

/// One product of a shop file.
fn product(name: &str, quantity: u32) -> String {
    format!("[[product]]\nname = \"{name}\"\nprice = 9.99\nquantity = {quantity}\n\n")
}

/// So many of a thing, in words: `1 order`, `2 orders`.
pub(crate) fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

/// The first few of a list, in words.
pub(crate) fn few(numbers: &[u64]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = numbers.iter().take(SHOWN).map(|n| format!("#{n}")).collect();
    match numbers.len() {
        more if SHOWN < more => format!("{}, …", shown.join(", ")),
        _ => shown.join(", "),
    }
}
