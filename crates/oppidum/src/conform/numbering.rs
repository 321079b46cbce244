//! Order numbers: 0, 1, 2, … without gaps, and each order is found by its number.

use super::check_list::Check;
use super::examiner::{Examiner, HttpRequest};
use super::shapes::is_found;
use crate::lab::pains::api::{OrderSide, order_body};

/// The number of consecutive orders.
const ORDERS: u64 = 5;

/// The number of earlier order numbers that are looked up.
const SAMPLES: u64 = 12;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "dense",
            4,
            "orders placed one after the other have numbers one after the other",
        ),
        Check::new("from-zero", 3, "numbers begin at 0, and every earlier one is there"),
        Check::new("refused-no-number", 4, "a refused order takes no number"),
        Check::new("all-found", 4, "every order of this examination is found as it was placed"),
    ]
}

pub(super) async fn examine(examiner: &mut Examiner) {
    let found = dense(examiner).await;
    examiner.mark("dense", found);
    let found = from_zero(examiner).await;
    examiner.mark("from-zero", found);
    let found = refused(examiner).await;
    examiner.mark("refused-no-number", found);
}

async fn dense(examiner: &mut Examiner) -> Result<String, String> {
    let first = examiner.place(OrderSide::Buy, 1).await?;
    for next in first + 1..first + ORDERS {
        let number = examiner.place(OrderSide::Buy, 1).await?;
        if number != next {
            return Err(format!("#{number} came after #{}", next - 1));
        }
    }
    Ok(format!("#{first} to #{}", first + ORDERS - 1))
}

/// The store may have been in use before: then the earlier orders must exist.
async fn from_zero(examiner: &mut Examiner) -> Result<String, String> {
    let first = examiner.placed.first().map(|placed| placed.number);
    let first = first.ok_or("no order was placed")?;
    if first == 0 {
        return Ok("the first order was #0".into());
    }
    let step = (first / SAMPLES).max(1);
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let sampled = (0..first).step_by(step).chain([first - 1]);
    for number in sampled {
        let path = format!("/orders/{number}");
        let reply = examiner.ask(HttpRequest::get(&path)).await?;
        if reply.status != 200 {
            return Err(format!(
                "our first order was #{first}, and GET {path} was answered {}",
                reply.status
            ));
        }
    }
    Ok(format!("our first order was #{first}, and those before it are there"))
}

/// Places an order, has two orders refused, places another: its number must be the next.
async fn refused(examiner: &mut Examiner) -> Result<String, String> {
    let before = examiner.place(OrderSide::Buy, 1).await?;
    let too_much = u64::try_from(examiner.stock + 1).unwrap_or(1).min(1_000_000);
    for (name, quantity) in [(examiner.name.clone(), too_much), ("no-such-product".into(), 1)] {
        let body = order_body(examiner.dialect, OrderSide::Buy, &name, quantity).to_string();
        let reply = examiner.ask(HttpRequest::order(&body)).await?;
        if let Some(number) = examiner.number(&reply) {
            return Err(format!("{body} was not refused, but placed as #{number}"));
        }
    }
    let after = examiner.place(OrderSide::Buy, 1).await?;
    if after == before + 1 {
        Ok(format!("#{before}, two refusals, #{after}"))
    } else {
        Err(format!("#{before}, two refusals, and then #{after}"))
    }
}

/// Looks up every order that the checks placed; runs last.
pub(super) async fn examine_all(examiner: &mut Examiner) {
    let placed = examiner.placed.clone();
    let mut found = Ok(format!("{} orders", placed.len()));
    if placed.is_empty() {
        found = Err("no order was placed".into());
    }
    for order in &placed {
        if let Err(why) = is_found(examiner, order).await {
            found = Err(why);
            break;
        }
    }
    examiner.mark("all-found", found);
}
