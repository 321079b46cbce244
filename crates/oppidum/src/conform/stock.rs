//! The stock: what orders do to it, what refusals do not, and how soon it is seen.

use ::frontend::classic::Dialect;

use super::examiner::{Ask, Examiner, answered};
use super::sheet::Check;
use crate::pains::front::{Side, order_body};

/// The most pieces that one order may ask for.
const ORDER_MAX: i64 = 1_000_000;

/// How often a query follows an order at once.
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
    let found = moved(examiner, Side::Buy, 3).await;
    examiner.mark("buy-lowers", found);
    if examiner.dialect == Dialect::Stock {
        let found = moved(examiner, Side::Sell, 2).await;
        examiner.mark("sell-raises", found);
        let found = above(examiner).await;
        examiner.mark("sell-above", found);
    }
    refusals(examiner).await;
    let found = fresh(examiner).await;
    examiner.mark("fresh", found);
}

/// An order moves the stock by its quantity. How soon that is shown does not matter here.
async fn moved(examiner: &mut Examiner, side: Side, quantity: u64) -> Result<String, String> {
    let before = examiner.stock;
    examiner.place(side, quantity).await?;
    examiner.balanced().await?;
    Ok(format!("{before} before, {} after an order of {quantity}", examiner.stock))
}

/// More than we have bought so far, and back again.
async fn above(examiner: &mut Examiner) -> Result<String, String> {
    let seen = moved(examiner, Side::Sell, 120).await?;
    examiner.place(Side::Buy, 120).await?;
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
    let body = order_body(examiner.dialect, Side::Buy, &examiner.name, too_much).to_string();
    let found = match examiner.ask(Ask::order(&body)).await {
        Ok(reply) => {
            // A store that sells what it has not goes on with what it says it has.
            let _ = examiner.took(Side::Buy, too_much, &reply);
            let conflict = match reply.status {
                409 => Ok(answered(&body, &reply)),
                _ => Err(answered(&body, &reply)),
            };
            examiner.mark("out-of-stock-409", conflict);
            examiner.refused(&body, &reply, 409)
        }
        Err(why) => Err(why),
    };
    let nobody = order_body(examiner.dialect, Side::Buy, "no-such-product-here", 1).to_string();
    let _ = examiner.ask(Ask::order(&nobody)).await;
    examiner.mark("out-of-stock", found);
    let balanced = examiner.balanced().await;
    let left = examiner.stock;
    examiner.mark("refused-unchanged", balanced.map(|()| format!("{left} before and after")));
}

async fn fresh(examiner: &mut Examiner) -> Result<String, String> {
    for round in 0..ROUNDS {
        // Into the cache, if there is one.
        for _ in 0..2 {
            let mut front = examiner.front().map_err(|stop| stop.to_string())?;
            front.look(&examiner.name).await?;
        }
        let sells = examiner.dialect == Dialect::Stock && !round.is_multiple_of(2);
        let number = examiner.place(if sells { Side::Sell } else { Side::Buy }, 1).await?;
        let mut front = examiner.front().map_err(|stop| stop.to_string())?;
        let shown = front.look(&examiner.name).await?;
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
