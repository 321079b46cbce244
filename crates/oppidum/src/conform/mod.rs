//! `oppidum conform`: scores any store that speaks the classic API, from outside.
//!
//! Each check has an id, a sentence and points. A store that does not claim a feature (keys) loses
//! nothing for it. Teachers grade with the score, so a check judges by the documented answers
//! alone, and one fault costs the points of one promise, not of every later check.

mod check_list;

mod examiner;

mod shapes;

mod clients;

mod stock;

mod numbering;

mod bad_input;

mod keys;

mod crowd;

use ::frontend::classic::Dialect;
use wire::exit::Stop;

use crate::cli::Conform;
use crate::lab::pains::api::OrderSide;
use crate::lab::pains::store_under_test::discover;
use check_list::{CheckList, Section};
use examiner::Examiner;

/// The most pieces that the checks buy.
const NEEDED: i64 = 60;

/// Examines the store and prints the sheet. True: no check failed.
pub(crate) async fn run(url: &str, flags: &Conform) -> Result<bool, Stop> {
    let dialect = flags.dialect.0;
    let mut store = discover(&[url.to_owned()], Some(dialect), &flags.product).await?;
    if let [first, ..] = flags.product.as_slice() {
        // The checks trade mostly in the first product of the list.
        store.products.sort_by_key(|product| product.name != *first);
    }
    let mut examiner = Examiner::new(store, CheckList::new(sections(dialect)));
    let name = examiner.name.clone();
    let before = examiner.stock;
    stock_up(&mut examiner).await?;
    note!("conform: trading in {name} at {url}");
    shapes::examine(&mut examiner).await;
    clients::examine(&mut examiner).await;
    stock::examine(&mut examiner).await;
    numbering::examine(&mut examiner).await;
    bad_input::examine(&mut examiner).await;
    keys::examine(&mut examiner).await;
    crowd::examine(&mut examiner).await;
    numbering::examine_all(&mut examiner).await;
    restore(&mut examiner, before).await;
    let sheet = &examiner.sheet;
    if flags.json {
        answer!("{:#}", sheet.json(url, dialect.name()));
    } else {
        answer!("{}, {} dialect\n\n{}", url, dialect.name(), sheet.table().trim_end());
    }
    Ok(sheet.score().failures == 0)
}

/// Every check of a dialect, in the order of the sheet.
fn sections(dialect: Dialect) -> Vec<Section> {
    let sections = [
        ("shapes of answers", shapes::checks(dialect)),
        ("what real clients do", clients::checks()),
        ("stock", stock::checks(dialect)),
        ("numbers", numbering::checks()),
        ("bad input", bad_input::checks(dialect)),
        ("Idempotency-Key", keys::checks()),
        ("many at once", crowd::checks()),
    ];
    sections.map(|(title, checks)| Section { title, checks }).into()
}

/// Makes sure that the stock of the product suffices; where the store buys shares, by selling some.
async fn stock_up(examiner: &mut Examiner) -> Result<(), Stop> {
    if NEEDED <= examiner.stock {
        return Ok(());
    }
    let there = examiner.stock;
    let name = examiner.name.clone();
    let needed =
        || format!("{NEEDED} pieces of a product are needed, and there are {there} of {name}");
    if examiner.dialect == Dialect::Toy {
        return Err(Stop::Setup(format!("{}: name another with --product", needed())));
    }
    let lacking = u64::try_from(NEEDED - there).unwrap_or(1);
    let sold = examiner.place(OrderSide::Sell, lacking).await;
    // The books begin here: these orders are no part of the examination.
    examiner.placed.clear();
    sold.map(drop).map_err(|why| Stop::Setup(format!("{}, and {why}", needed())))
}

/// Restores the stock, where the store buys pieces back.
async fn restore(examiner: &mut Examiner, before: i64) {
    if examiner.dialect == Dialect::Toy {
        return;
    }
    let distance = before - examiner.stock;
    let side = if 0 < distance { OrderSide::Sell } else { OrderSide::Buy };
    if let quantity @ 1..=1_000_000 = distance.unsigned_abs() {
        // Best effort: an order that fails leaves the stock as it is.
        let _ = examiner.place(side, quantity).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_unique_id() {
        for dialect in [Dialect::Stock, Dialect::Toy] {
            let checks = sections(dialect).into_iter().flat_map(|section| section.checks);
            let mut ids: Vec<String> = checks.map(|check| check.id).collect();
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count);
        }
    }
}
