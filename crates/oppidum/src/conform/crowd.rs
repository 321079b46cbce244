//! Concurrent orders: no piece is sold twice, no number is given twice, no piece is lost.

use std::collections::BTreeSet;

use ::frontend::classic::Dialect;
use tokio::task::JoinSet;

use super::check_list::Check;
use super::examiner::{Examiner, HttpRequest, answered, send};
use crate::lab::pains::api::{OrderSide, order_body};
use crate::lab::pains::experiment::ExperimentResult;
use crate::lab::pains::oversell::rush;
use crate::lab::pains::stock::{bring_to, give_back};

/// The number of concurrent orders.
const ORDERS: usize = 20;

/// The number of concurrent buyers of the last pieces.
const BUYERS: usize = 40;

/// The number of pieces for these buyers.
const PIECES: u64 = 3;

/// How often the check begins again because the store filled the stock up meanwhile.
const ROUNDS: u32 = 3;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("crowd-numbers", 5, "twenty orders at once get twenty numbers without a gap"),
        Check::new("crowd-stock", 4, "after them the stock is right to the piece"),
        Check::new("no-oversell", 8, "three pieces and forty buyers at once: three are sold"),
    ]
}

pub(super) async fn examine(examiner: &mut Examiner) {
    let found = numbers(examiner).await;
    examiner.mark("crowd-numbers", found);
    let balanced = examiner.balanced().await;
    let left = examiner.stock;
    let name = examiner.name.clone();
    examiner.mark("crowd-stock", balanced.map(|()| format!("{left} of {name} are left")));
    oversell(examiner).await;
}

/// Sends concurrent orders, each of which must be placed: the stock suffices.
async fn numbers(examiner: &mut Examiner) -> Result<String, String> {
    let mut crowd = JoinSet::new();
    for place in 0..ORDERS {
        let sells = examiner.dialect == Dialect::Stock && place % 2 == 1;
        let side = if sells { OrderSide::Sell } else { OrderSide::Buy };
        let body = order_body(examiner.dialect, side, &examiner.name, 1).to_string();
        let mut client = examiner.client().map_err(|stop| stop.to_string())?;
        crowd.spawn(async move {
            let reply = send(&mut client, HttpRequest::order(&body)).await;
            (side, body, reply)
        });
    }
    let mut numbers = BTreeSet::new();
    let mut odd = None;
    while let Some(answer) = crowd.join_next().await {
        let (side, body, reply) = answer.map_err(|error| error.to_string())?;
        let reply = match reply {
            Ok(reply) => reply,
            Err(why) => {
                odd = Some(format!("POST /orders: {why}"));
                continue;
            }
        };
        match examiner.took(side, 1, &reply) {
            Some(number) if numbers.insert(number) => {}
            Some(number) => odd = Some(format!("#{number} was given out twice")),
            None => odd = Some(answered(&body, &reply)),
        }
    }
    if let Some(odd) = odd {
        return Err(odd);
    }
    let (Some(first), Some(last)) = (numbers.first().copied(), numbers.last().copied()) else {
        return Err("no order was placed".into());
    };
    examiner.last = Some(last);
    if usize::try_from(last - first).is_ok_and(|distance| distance + 1 == ORDERS) {
        Ok(format!("#{first} to #{last}"))
    } else {
        Err(format!("{ORDERS} orders have numbers from #{first} to #{last}"))
    }
}

/// Sells the last pieces of a product other than the examined one, whose stock is tracked.
async fn oversell(examiner: &mut Examiner) {
    const ID: &str = "no-oversell";
    let mut names = examiner.store.products.iter().map(|product| &product.name);
    let Some(name) = names.find(|name| **name != examiner.name).cloned() else {
        return examiner.skip(ID, "the store shows only one product: name another with --product");
    };
    let Ok(mut api) = examiner.api() else { return };
    let dialect = examiner.dialect;
    for _ in 0..ROUNDS {
        let bought = match bring_to(&mut api, dialect, &name, PIECES).await {
            Ok(bought) => bought,
            Err(why) => return examiner.mark(ID, Err(why)),
        };
        let rush = match rush(&examiner.store, &name, BUYERS, PIECES).await {
            Ok(rush) => rush,
            Err(stop) => return examiner.mark(ID, Err(stop.to_string())),
        };
        let filled = rush.looks_filled(dialect, &mut api, &name).await;
        give_back(&mut api, dialect, &name, bought + rush.sold()).await;
        match rush.judge(dialect, filled) {
            ExperimentResult::Held(seen) => return examiner.mark(ID, Ok(seen)),
            ExperimentResult::Unmeasured(_) if filled.is_some() => {}
            ExperimentResult::Broken(why) | ExperimentResult::Unmeasured(why) => {
                return examiner.mark(ID, Err(why));
            }
        }
    }
    examiner.skip(ID, "the store filled up each time");
}
