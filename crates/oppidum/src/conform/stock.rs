//! The stock: orders change it, refusals do not, and the next query shows the change.

use ::frontend::classic::Dialect;

use super::check_list::Check;
use super::examiner::{Examiner, HttpRequest, answered};
use crate::lab::pains::api::{OrderSide, order_body};

/// The most pieces of one order.
const ORDER_MAX: i64 = 1_000_000;

/// The number of orders that are each followed by a query at once.
const ROUNDS: u64 = 10;

pub(super) fn checks(dialect: Dialect) -> Vec<Check> {
    let mut checks = vec![
        Check::new("buy-lowers", 4, "a buy lowers the stock by exactly its quantity"),
        Check::new("sell-raises", 4, "a sell raises the stock by exactly its quantity"),
        Check::new("sell-above", 2, "a sell may lift the stock above where it was"),
        Check::new("out-of-stock", 4, "a buy of more than there is gets an error"),
        Check::info("out-of-stock-409", "with status 409"),
        Check::new("refused-unchanged", 4, "what was refused has changed no stock"),
        Check::new("fresh", 6, "a query right after an order shows the stock after it"),
    ];
    if dialect == Dialect::Toy {
        checks.retain(|check| !check.id.starts_with("sell-"));
    }
    checks
}

pub(super) async fn examine(examiner: &mut Examiner) {
    let found = moved(examiner, OrderSide::Buy, 3).await;
    examiner.mark("buy-lowers", found);
    if examiner.dialect == Dialect::Stock {
        let found = moved(examiner, OrderSide::Sell, 2).await;
        examiner.mark("sell-raises", found);
        let found = above(examiner).await;
        examiner.mark("sell-above", found);
    }
    refusals(examiner).await;
    let found = fresh(examiner).await;
    examiner.mark("fresh", found);
}

/// An order changes the stock by its quantity; how soon the store shows it does not matter here.
async fn moved(examiner: &mut Examiner, side: OrderSide, quantity: u64) -> Result<String, String> {
    let before = examiner.stock;
    examiner.place(side, quantity).await?;
    examiner.balanced().await?;
    Ok(format!("{before} before, {} after an order of {quantity}", examiner.stock))
}

/// Sells more than was bought so far, and buys it back.
async fn above(examiner: &mut Examiner) -> Result<String, String> {
    let seen = moved(examiner, OrderSide::Sell, 120).await?;
    examiner.place(OrderSide::Buy, 120).await?;
    Ok(seen)
}

async fn refusals(examiner: &mut Examiner) {
    let too_much = u64::try_from(examiner.stock + 1).unwrap_or(1);
    if ORDER_MAX <= examiner.stock {
        let why = format!("there are {} of {}, more than one order may ask for", examiner.stock, {
            &examiner.name
        });
        examiner.skip("out-of-stock", &why);
        examiner.skip("out-of-stock-409", &why);
        examiner.skip("refused-unchanged", &why);
        return;
    }
    let body = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, too_much).to_string();
    let found = match examiner.ask(HttpRequest::order(&body)).await {
        Ok(reply) => {
            // If the store sells more than it has, the books follow its answer.
            let _ = examiner.took(OrderSide::Buy, too_much, &reply);
            let conflict = match reply.status {
                409 => Ok(answered(&body, &reply)),
                _ => Err(answered(&body, &reply)),
            };
            examiner.mark("out-of-stock-409", conflict);
            examiner.refused(&body, &reply, 409)
        }
        Err(why) => Err(why),
    };
    let unwanted =
        order_body(examiner.dialect, OrderSide::Buy, "no-such-product-here", 1).to_string();
    let _ = examiner.ask(HttpRequest::order(&unwanted)).await;
    examiner.mark("out-of-stock", found);
    let balanced = examiner.balanced().await;
    let left = examiner.stock;
    examiner.mark("refused-unchanged", balanced.map(|()| format!("{left} before and after")));
}

async fn fresh(examiner: &mut Examiner) -> Result<String, String> {
    for round in 0..ROUNDS {
        // Two queries bring the product into the cache, if there is one.
        for _ in 0..2 {
            let mut api = examiner.api().map_err(|stop| stop.to_string())?;
            api.look(&examiner.name).await?;
        }
        let sells = examiner.dialect == Dialect::Stock && !round.is_multiple_of(2);
        let number =
            examiner.place(if sells { OrderSide::Sell } else { OrderSide::Buy }, 1).await?;
        let mut api = examiner.api().map_err(|stop| stop.to_string())?;
        let shown = api.look(&examiner.name).await?;
        if shown.quantity != examiner.stock {
            let from =
                shown.cache.map_or(String::new(), |cache| format!(" (Cache-Status: {cache})"));
            return Err(format!(
                "order #{number} left {} of {}, and the next query showed {}{from}",
                examiner.stock, examiner.name, shown.quantity
            ));
        }
    }
    Ok(format!("{ROUNDS} orders, each seen by the next query"))
}
