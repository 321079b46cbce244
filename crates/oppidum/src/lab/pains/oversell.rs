//! Oversell: one piece and 200 buyers; the piece must be sold once.
//!
//! A store that checks the stock and decrements it in two steps sells the last piece to every buyer
//! between the steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::frontend::classic::Dialect;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use wire::exit::Stop;

use super::api::{OrderReply, OrderSide, StoreApi};
use super::experiment::{self, ExperimentResult, count, few};
use super::stock::{bring_to, filled, give_back, showing};
use super::store_under_test::StoreUnderTest;
use crate::cli::lab::Oversell;
use crate::lab::cluster::LocalCluster;
use crate::shop::product_lines;
use crate::signals::Interrupt;

/// How often the experiment begins again because the store filled the stock up meanwhile.
const ROUNDS: u32 = 3;

/// The scarce product of the local cluster's shop.
const SCARCE: &str = "bear";

/// `oppidum lab oversell`
pub(super) async fn run(flags: &Oversell, interrupt: &Interrupt) -> Result<bool, Stop> {
    let shop = product_lines(SCARCE, "9.99", 1) + &product_lines("fox", "9.99", 1_000);
    let buyers = usize::from(flags.buyers);
    experiment::run("oversell", &flags.at, shop, interrupt, async |store, cluster| {
        measure(store, cluster, buyers).await
    })
    .await
}

async fn measure(
    store: &StoreUnderTest,
    own: Option<&LocalCluster>,
    buyers: usize,
) -> Result<ExperimentResult, Stop> {
    let name = match own {
        Some(_) => SCARCE.to_owned(),
        None => store.richest().name,
    };
    let mut found = ExperimentResult::Unmeasured("it was never tried".into());
    for _ in 0..ROUNDS {
        let mut api = store.api(0)?;
        if own.is_none() {
            note!("oversell: buying {name} at {} down to one piece", api.url());
        }
        let bought = match bring_to(&mut api, store.dialect, &name, 1).await {
            Ok(bought) => bought,
            Err(why) => return Ok(ExperimentResult::Unmeasured(why)),
        };
        let rush = rush(store, &name, buyers, 1).await?;
        let filled = rush.looks_filled(store.dialect, &mut api, &name).await;
        give_back(&mut api, store.dialect, &name, bought + rush.sold()).await;
        found = rush.judge(store.dialect, filled);
        if !matches!(found, ExperimentResult::Unmeasured(_)) || filled.is_none() {
            break;
        }
    }
    Ok(found)
}

/// The result of a rush.
#[derive(Clone, Debug, Default)]
pub(crate) struct RushResult {
    pub(crate) buyers: usize,
    /// The stock before the rush.
    pub(crate) pieces: u64,
    /// The numbers of the placed orders, each of one piece.
    pub(crate) placed: Vec<u64>,
    pub(crate) refused: usize,
    /// Why the outcome of an order is unknown, for each such order.
    pub(crate) unknown: Vec<String>,
    /// The stock shown at the end; None: the store does not show it.
    pub(crate) left: Option<i64>,
    pub(crate) took: Duration,
}

/// Runs `buyers` concurrent buyers, each for one piece, on the frontends in turn.
pub(crate) async fn rush(
    store: &StoreUnderTest,
    name: &str,
    buyers: usize,
    pieces: u64,
) -> Result<RushResult, Stop> {
    let start = Arc::new(Barrier::new(buyers + 1));
    let mut crowd = JoinSet::new();
    for turn in 0..buyers {
        let mut api = store.api(turn)?;
        let name = name.to_owned();
        let start = start.clone();
        crowd.spawn(async move {
            api.open().await;
            start.wait().await;
            api.order(OrderSide::Buy, &name, 1, None).await
        });
    }
    start.wait().await;
    let began = Instant::now();
    let mut rush = RushResult { buyers, pieces, ..RushResult::default() };
    while let Some(reply) = crowd.join_next().await {
        match reply {
            Ok(OrderReply::Placed(number)) => rush.placed.push(number),
            Ok(OrderReply::Refused { .. }) => rush.refused += 1,
            Ok(OrderReply::Unknown(why)) => rush.unknown.push(why),
            Err(error) => return Err(Stop::Defect(format!("a buyer vanished: {error}"))),
        }
    }
    rush.took = began.elapsed();
    rush.placed.sort_unstable();
    let mut api = store.api(0)?;
    let expected = i64::try_from(pieces).unwrap_or(i64::MAX) - rush.sold();
    rush.left = showing(&mut api, name, expected).await;
    Ok(rush)
}

impl RushResult {
    /// The number of pieces sold.
    pub(crate) fn sold(&self) -> i64 {
        i64::try_from(self.placed.len()).unwrap_or(i64::MAX)
    }

    /// Some stores fill up a sold-out product, also during a rush: then they rightly sell more
    /// pieces than there were. Returns the number of pieces filled up, if that explains the result.
    pub(crate) async fn looks_filled(
        &self,
        dialect: Dialect,
        api: &mut StoreApi,
        name: &str,
    ) -> Option<i64> {
        let pieces = i64::try_from(self.pieces).ok()?;
        let left = self.left?;
        // After a filling the stock left exceeds the first stock, unless it is sold out as well.
        if dialect == Dialect::Stock || self.sold() <= pieces || (0 < left && left <= pieces) {
            return None;
        }
        let gained = self.sold() - pieces + left;
        // Sold out and filled up once more: this shows the level of a filling.
        let level = filled(api, name, 1).await?;
        (level == gained || level == left).then_some(gained)
    }

    /// Judges the result.
    pub(crate) fn judge(&self, dialect: Dialect, filled: Option<i64>) -> ExperimentResult {
        let there = match self.pieces {
            1 => "1 piece".to_owned(),
            pieces => format!("{pieces} pieces"),
        };
        let head = format!("{there}, {}", count(self.buyers, "buyer"));
        if let Some(twice) = twice(&self.placed) {
            return ExperimentResult::Broken(format!(
                "{head}: two of them were given order #{twice}"
            ));
        }
        if let Some(filled) = filled {
            let why = format!("{head}: the store filled up to {filled} in the middle of it");
            return ExperimentResult::Unmeasured(why);
        }
        let sold = self.placed.len();
        let orders = match sold {
            1 => format!("order {}", few(&self.placed)),
            _ => format!("orders {}", few(&self.placed)),
        };
        if self.pieces < sold as u64 {
            let left = self.left.map_or("nothing".into(), |left| left.to_string());
            return ExperimentResult::Broken(format!(
                "{head}: {sold} of them got it ({orders}), and {left} is shown as left"
            ));
        }
        if sold == 0 || sold + self.refused < 2 {
            let why = self.unknown.first().map_or("all were refused", String::as_str);
            return ExperimentResult::Unmeasured(format!("{head}: {sold} got it, {why}"));
        }
        let Some(left) = self.left else {
            return ExperimentResult::Unmeasured(format!(
                "{head}: the store does not show what is left"
            ));
        };
        let expected = i64::try_from(self.pieces).unwrap_or(i64::MAX) - self.sold();
        let lost = i64::try_from(self.unknown.len()).unwrap_or(i64::MAX);
        let filled = dialect == Dialect::Toy && expected == 0 && 0 < left;
        if !filled && (left < 0 || left < expected - lost || expected < left) {
            return ExperimentResult::Broken(format!(
                "{head}: {sold} got it ({orders}), {left} is shown as left and not \
                 {expected}"
            ));
        }
        let lost = match self.unknown.as_slice() {
            [] => "none without an answer".to_owned(),
            [first, ..] => format!("{} without an answer ({first})", self.unknown.len()),
        };
        let left =
            if filled { format!("filled up to {left} since") } else { format!("{left} left") };
        let took = self.took.as_millis();
        ExperimentResult::Held(format!(
            "{head}: {sold} got it ({orders}), {} were refused, {lost}; {left}; {took} ms",
            self.refused
        ))
    }
}

/// The first repeated number in a sorted list.
fn twice(numbers: &[u64]) -> Option<u64> {
    numbers.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rush(placed: &[u64], refused: usize, unknown: usize, left: i64) -> RushResult {
        RushResult {
            buyers: 200,
            pieces: 1,
            placed: placed.to_vec(),
            refused,
            unknown: vec!["no answer".to_owned(); unknown],
            left: Some(left),
            took: Duration::from_millis(9),
        }
    }

    #[test]
    fn a_piece_sold_once_holds_and_a_piece_sold_twice_is_broken() {
        let held = |rush: &RushResult, dialect| {
            matches!(rush.judge(dialect, None), ExperimentResult::Held(_))
        };
        assert!(held(&rush(&[7], 199, 0, 0), Dialect::Stock));
        assert!(held(&rush(&[7], 190, 9, 0), Dialect::Stock));
        assert!(held(&rush(&[7], 199, 0, 100), Dialect::Toy), "filled up since");
        let broken = [
            (rush(&[7, 8], 198, 0, 0), Dialect::Stock),
            (rush(&[7, 8], 198, 0, -1), Dialect::Toy),
            (rush(&[7, 7], 198, 0, 0), Dialect::Stock),
            (rush(&[7], 199, 0, -1), Dialect::Stock),
            (rush(&[7], 199, 0, 1), Dialect::Stock),
        ];
        for (rush, dialect) in broken {
            let found = rush.judge(dialect, None);
            assert!(matches!(found, ExperimentResult::Broken(_)), "{found:?}");
        }
    }

    #[test]
    fn a_rush_without_evidence_is_not_measured() {
        let unanswered = rush(&[], 200, 0, 1).judge(Dialect::Stock, None);
        assert!(matches!(unanswered, ExperimentResult::Unmeasured(_)), "{unanswered:?}");
        let silence = rush(&[], 0, 200, 1).judge(Dialect::Stock, None);
        assert!(matches!(silence, ExperimentResult::Unmeasured(_)), "{silence:?}");
        let filled = rush(&[7, 8, 9], 197, 0, 98).judge(Dialect::Toy, Some(100));
        assert!(matches!(filled, ExperimentResult::Unmeasured(_)), "{filled:?}");
    }
}
