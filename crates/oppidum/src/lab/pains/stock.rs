//! The stock of one product in a store under test: brought to a level, waited for, given back.

use std::time::{Duration, Instant};

use ::frontend::classic::Dialect;

use super::api::{OrderReply, OrderSide, StoreApi};

/// The most pieces of one order.
const ORDER_MAX: u64 = 1_000_000;

/// The most orders to bring a product's stock down.
const ORDERS_MAX: u32 = 20;

/// How long a store may take to show a purchase: freshness is not tested here.
const SHOW_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a store may take to fill a sold-out product up.
const RESTOCK_TIMEOUT: Duration = Duration::from_secs(12);

/// Buys or sells until `pieces` are left; returns how many were bought in total. The error says
/// what the experiment needs.
pub(crate) async fn bring_to(
    api: &mut StoreApi,
    dialect: Dialect,
    name: &str,
    pieces: u64,
) -> Result<i64, String> {
    let target = i64::try_from(pieces).unwrap_or(i64::MAX);
    let mut bought = 0;
    for _ in 0..ORDERS_MAX {
        let there = api.look(name).await?.quantity;
        let (side, distance) = match (there < target, dialect) {
            (false, _) => (OrderSide::Buy, there.abs_diff(target)),
            (true, Dialect::Stock) => (OrderSide::Sell, there.abs_diff(target)),
            // Toys cannot be sold back; their stock grows only when the store fills up.
            (true, Dialect::Toy) if filled(api, name, target).await.is_some() => continue,
            (true, Dialect::Toy) => break,
        };
        if distance == 0 {
            return Ok(bought);
        }
        let quantity = distance.min(ORDER_MAX);
        match api.order(side, name, quantity, None).await {
            OrderReply::Placed(_) => {}
            OrderReply::Refused { message, .. } => return Err(refused(name, &message)),
            OrderReply::Unknown(why) => return Err(why),
        }
        let quantity = i64::try_from(quantity).unwrap_or(i64::MAX);
        let taken = if side == OrderSide::Buy { quantity } else { -quantity };
        let expected = there - taken;
        bought += taken;
        let shown = showing(api, name, expected).await;
        if shown != Some(expected) {
            return Err(format!(
                "{} shows {} of {name} where {expected} must be left: see `oppidum lab stale`",
                api.url(),
                shown.map_or("no stock".into(), |shown| shown.to_string())
            ));
        }
    }
    Err(format!("{name} cannot be brought down to {pieces}: give another --product"))
}

fn refused(name: &str, message: &str) -> String {
    format!("{name} cannot be bought down, the store says {message:?}: give another --product")
}

/// Waits until the store shows the expected stock, at most [`SHOW_TIMEOUT`]; returns the stock
/// shown.
pub(crate) async fn showing(api: &mut StoreApi, name: &str, expected: i64) -> Option<i64> {
    last_shown(api, name, SHOW_TIMEOUT, |shown| shown == expected).await
}

/// Waits until a store that fills up has at least `target` pieces, at most [`RESTOCK_TIMEOUT`];
/// returns their number then.
pub(super) async fn filled(api: &mut StoreApi, name: &str, target: i64) -> Option<i64> {
    let shown = last_shown(api, name, RESTOCK_TIMEOUT, |shown| target <= shown).await;
    shown.filter(|shown| target <= *shown)
}

/// Queries the stock until it is as wanted, or the timeout ends; returns the last answer.
async fn last_shown(
    api: &mut StoreApi,
    name: &str,
    timeout: Duration,
    is_wanted: impl Fn(i64) -> bool,
) -> Option<i64> {
    let began = Instant::now();
    loop {
        let shown = api.look(name).await.ok().map(|shown| shown.quantity);
        if shown.is_some_and(&is_wanted) || timeout < began.elapsed() {
            return shown;
        }
        tokio::time::sleep(timeout / 100).await;
    }
}

/// Sells the bought pieces back, where that is possible, to restore the store's stock.
pub(crate) async fn give_back(api: &mut StoreApi, dialect: Dialect, name: &str, pieces: i64) {
    let mut rest = u64::try_from(pieces).unwrap_or(0);
    while dialect == Dialect::Stock && 0 < rest {
        let quantity = rest.min(ORDER_MAX);
        // Best effort: pieces that cannot be sold back stay bought.
        if !matches!(api.order(OrderSide::Sell, name, quantity, None).await, OrderReply::Placed(_))
        {
            return;
        }
        rest -= quantity;
    }
}
