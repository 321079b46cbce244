//! `Idempotency-Key`: one key, one answer. A store that does not support keys loses nothing here;
//! `oppidum lab double-submit` shows what the lack of keys costs.

use ::frontend::classic::Dialect;
use tokio::task::JoinSet;

use super::check_list::Check;
use super::examiner::{Examiner, HttpRequest, answered, is_error, send};
use crate::http::Reply;
use crate::lab::pains::api::{OrderSide, order_body};

/// The number of concurrent copies of one request.
const COPIES: usize = 10;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("key-repeat", 4, "a repeated key gets the same status and body, and one order"),
        Check::new("key-replayed", 1, "only the repeat says Idempotent-Replayed: true"),
        Check::new("key-other", 2, "the same key with another request is 422"),
        Check::new("key-refusal", 3, "a refusal is repeated, too"),
        Check::new("key-at-once", 4, "ten copies at once place one order"),
        Check::new("key-bad", 1, "a key that is empty or has 256 characters is 400"),
    ]
}

pub(super) async fn examine(examiner: &mut Examiner) {
    let run = format!("conform-{:016x}", rand::random::<u64>());
    let key = format!("{run}-a");
    let order = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, 1).to_string();
    let first = keyed(examiner, &order, &key).await;
    let second = keyed(examiner, &order, &key).await;
    let (first, second) = match (first, second) {
        (Ok(first), Ok(second)) if examiner.number(&first).is_some() => (first, second),
        (Ok(first), Ok(_)) => return skip_all(examiner, &answered(&order, &first)),
        (Err(why), _) | (_, Err(why)) => return skip_all(examiner, &why),
    };
    let one = examiner.took(OrderSide::Buy, 1, &first);
    if let (Some(one), Some(two)) = (one, examiner.number(&second))
        && one != two
    {
        examiner.took(OrderSide::Buy, 1, &second);
        let why = format!("one key was given #{one} and #{two}: the store knows no keys");
        return skip_all(examiner, &why);
    }
    let balanced = examiner.balanced().await;
    let found = if first.status == second.status && first.body == second.body {
        balanced.map(|()| answered("the repeat", &second))
    } else {
        Err(format!("{}; {}", answered(&order, &first), answered("the repeat", &second)))
    };
    examiner.mark("key-repeat", found);
    let replayed = |reply: &Reply| reply.header("idempotent-replayed") == Some("true");
    let mut second = second;
    if !replayed(&second) {
        // A store that retried internally cannot tell whether this was the repeat: send one more.
        second = keyed(examiner, &order, &key).await.unwrap_or(second);
    }
    examiner.mark(
        "key-replayed",
        match (replayed(&first), replayed(&second)) {
            (false, true) => Ok("on the repeat alone".into()),
            (true, _) => Err("the first answer says so already".into()),
            (false, false) => Err("the repeat does not say so".into()),
        },
    );
    let found = other_request(examiner, &key).await;
    examiner.mark("key-other", found);
    refusal(examiner, &format!("{run}-b")).await;
    let found = at_once(examiner, &format!("{run}-c")).await;
    examiner.mark("key-at-once", found);
    let found = bad_keys(examiner).await;
    examiner.mark("key-bad", found);
}

fn skip_all(examiner: &mut Examiner, why: &str) {
    for check in checks() {
        examiner.skip(&check.id, why);
    }
}

async fn keyed(examiner: &mut Examiner, body: &str, key: &str) -> Result<Reply, String> {
    let headers = &[("content-type", "application/json"), ("idempotency-key", key)];
    examiner.ask(HttpRequest { headers, ..HttpRequest::order(body) }).await
}

async fn other_request(examiner: &mut Examiner, key: &str) -> Result<String, String> {
    let other = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, 2).to_string();
    let reply = keyed(examiner, &other, key).await?;
    // A store that compares the key alone answers with the first order: it took nothing.
    if examiner.number(&reply).is_some_and(|number| Some(number) != examiner.last) {
        examiner.took(OrderSide::Buy, 2, &reply);
    }
    is_error(&other, &reply, 422)
}

/// An order is refused for want of stock; with enough stock the same key is still refused.
async fn refusal(examiner: &mut Examiner, key: &str) {
    let too_much = u64::try_from(examiner.stock + 1).unwrap_or(1);
    if 1_000_000 < too_much {
        return examiner.skip("key-refusal", "there is more than one order may ask for");
    }
    let found = refused_again(examiner, key, too_much).await;
    examiner.mark("key-refusal", found);
}

async fn refused_again(
    examiner: &mut Examiner,
    key: &str,
    too_much: u64,
) -> Result<String, String> {
    let body = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, too_much).to_string();
    let first = keyed(examiner, &body, key).await?;
    if examiner.took(OrderSide::Buy, too_much, &first).is_some() {
        return Err(answered(&body, &first));
    }
    if examiner.dialect == Dialect::Stock {
        examiner.place(OrderSide::Sell, 1).await?;
    }
    let again = keyed(examiner, &body, key).await?;
    if examiner.took(OrderSide::Buy, too_much, &again).is_some() {
        let was = first.status;
        // Sell the pieces back, or the other checks would miss them.
        if examiner.dialect == Dialect::Stock {
            examiner.place(OrderSide::Sell, too_much).await?;
        }
        return Err(format!("it was refused with {was} first, and placed when it was repeated"));
    }
    if first.status == again.status && first.body == again.body {
        Ok(answered("the repeat", &again))
    } else {
        Err(format!("{}; {}", answered(&body, &first), answered("the repeat", &again)))
    }
}

async fn at_once(examiner: &mut Examiner, key: &str) -> Result<String, String> {
    let body = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, 1).to_string();
    let mut copies = JoinSet::new();
    for _ in 0..COPIES {
        let mut client = examiner.client().map_err(|stop| stop.to_string())?;
        let body = body.clone();
        let key = key.to_owned();
        copies.spawn(async move {
            let headers = &[("content-type", "application/json"), ("idempotency-key", &*key)];
            send(&mut client, HttpRequest { headers, ..HttpRequest::order(&body) }).await
        });
    }
    let mut numbers = Vec::new();
    let mut first = None;
    let mut odd = None;
    while let Some(copy) = copies.join_next().await {
        let reply = copy.map_err(|error| error.to_string())?;
        match &reply {
            Ok(reply) if examiner.number(reply).is_some() => {
                numbers.extend(examiner.number(reply));
                first.get_or_insert_with(|| reply.clone());
            }
            // A copy that is refused because another copy is in flight.
            Ok(reply) if matches!(reply.status, 409 | 425 | 429 | 503 | 504) => {}
            Ok(reply) => odd = Some(answered("a copy", reply)),
            Err(why) => odd = Some(why.clone()),
        }
    }
    let Some(first) = first else { return Err(odd.unwrap_or("none was placed".into())) };
    numbers.sort_unstable();
    numbers.dedup();
    for _ in &numbers {
        examiner.took(OrderSide::Buy, 1, &first);
    }
    examiner.last = numbers.last().copied();
    if let [_, _, ..] = numbers.as_slice() {
        return Err(format!("{COPIES} copies placed orders {numbers:?}"));
    }
    examiner.balanced().await?;
    odd.map_or_else(|| Ok(format!("{COPIES} copies placed order {numbers:?}")), Err)
}

async fn bad_keys(examiner: &mut Examiner) -> Result<String, String> {
    let order = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, 1).to_string();
    for key in [String::new(), "k".repeat(256)] {
        let reply = keyed(examiner, &order, &key).await?;
        let _ = examiner.took(OrderSide::Buy, 1, &reply);
        let what = format!("a key of {} characters", key.len());
        is_error(&what, &reply, 400)?;
    }
    Ok("both are refused".into())
}
