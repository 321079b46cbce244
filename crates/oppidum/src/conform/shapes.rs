//! The shapes of answers: queries, orders, look-ups, and unknown products, orders and routes.

use std::collections::BTreeMap;

use ::frontend::classic::Dialect;
use serde_json::{Value, json};

use super::check_list::Check;
use super::examiner::{Examiner, HttpRequest, Placed, answered, fields, is_json};
use crate::lab::pains::api::{OrderSide, carried, number_field, order_body, shelf, whole};

/// An order number far beyond any that an examined store has given.
const BEYOND: u64 = 1_000_000_000;

pub(super) fn checks(dialect: Dialect) -> Vec<Check> {
    let shelf = shelf(dialect);
    let field = number_field(dialect);
    let order = match dialect {
        Dialect::Stock => "number, name, type and quantity",
        Dialect::Toy => "number, name and quantity",
    };
    vec![
        Check::new(
            "query",
            4,
            &format!("GET {shelf}/NAME answers 200 with exactly name, price and quantity"),
        ),
        Check::new("query-types", 2, "price has two decimals at most, quantity is an integer"),
        Check::new("json", 1, "answers and errors are and say application/json, without a BOM"),
        Check::new("unknown-product", 3, "an unknown product is 404, with code and message"),
        Check::new("order", 4, &format!("POST /orders answers 200 with exactly {field}")),
        Check::new("lookup", 4, &format!("GET /orders/N answers 200 with exactly {order}")),
        Check::new("unknown-order", 3, "an order number never given out is 404"),
        Check::info("order-no-number", "GET /orders/abc is 404"),
        Check::info("messages", "what is missing is said in the documented words"),
        Check::info("unknown-route", "an unknown route is 404, in JSON"),
        Check::info("wrong-method", "a wrong method is 405, with Allow"),
    ]
}

pub(super) async fn examine(examiner: &mut Examiner) {
    query(examiner).await;
    missing(examiner).await;
    order_and_lookup(examiner).await;
    let found = wrong_method(examiner).await;
    examiner.mark("wrong-method", found);
}

async fn query(examiner: &mut Examiner) {
    let path = examiner.path(&examiner.name);
    let reply = examiner.ask(HttpRequest::get(&path)).await;
    let name = examiner.name.clone();
    let (shape, types) = match reply {
        Ok(reply) => {
            let sent = format!("GET {path}");
            let body = reply.json().unwrap_or_default();
            let is_shaped = reply.status == 200
                && fields(&body) == ["data"]
                && fields(&body["data"]) == ["name", "price", "quantity"];
            let seen = answered(&sent, &reply);
            let shape = if is_shaped { Ok(seen.clone()) } else { Err(seen.clone()) };
            // A missing field has cost its points already.
            let data = carried(&body);
            let good = |name: &str, is: &dyn Fn(&Value) -> bool| data.get(name).is_none_or(is);
            let is_typed = data.is_object()
                && good("name", &|value| *value == name)
                && good("price", &is_price)
                && good("quantity", &Value::is_u64);
            (shape, if is_typed { Ok(seen) } else { Err(seen) })
        }
        Err(why) => (Err(why.clone()), Err(why)),
    };
    examiner.mark("query", shape);
    examiner.mark("query-types", types);
}

/// Whether a price is a number, not a text, with at most two decimals.
fn is_price(price: &Value) -> bool {
    let Some(price) = price.as_f64().filter(|price| 0.0 <= *price) else { return false };
    let cents = price * 100.0;
    (cents - cents.round()).abs() < 1e-6
}

/// Checks the answers for products, orders and routes that do not exist.
async fn missing(examiner: &mut Examiner) {
    let product = examiner.path("no-such-product-here");
    let order = format!("/orders/{BEYOND}");
    let paths = [
        ("unknown-product", product.clone()),
        ("unknown-order", order.clone()),
        ("order-no-number", "/orders/abc".to_owned()),
        ("unknown-route", "/no/such/route".to_owned()),
    ];
    let mut replies = BTreeMap::new();
    for (id, path) in paths {
        let reply = examiner.ask(HttpRequest::get(&path)).await;
        let found = match &reply {
            Ok(reply) => examiner.missing(&format!("GET {path}"), reply, 404),
            Err(why) => Err(why.clone()),
        };
        examiner.mark(id, found);
        replies.extend(reply.ok().map(|reply| (path, reply)));
    }
    let wanted = match examiner.dialect {
        Dialect::Stock => "stock not found",
        Dialect::Toy => "product not found",
    };
    let mut documented = Err("nothing that is missing is said to be so".to_owned());
    for (path, words) in [(&product, wanted), (&order, "order not found")] {
        let body = replies.get(path).and_then(|reply| reply.json().ok()).unwrap_or_default();
        // Another check covers whether there is an error at all.
        match body["error"]["message"].as_str() {
            None => {}
            Some(message) if message == words => documented = Ok("as documented".to_owned()),
            Some(message) => {
                documented = Err(format!("GET {path} says {message:?}, expected {words:?}"));
                break;
            }
        }
    }
    examiner.mark("messages", documented);
    let kinds = match (&examiner.marked, replies.get(&product)) {
        (Some(why), _) => Err(why.clone()),
        (None, Some(reply)) if !is_json(reply) => {
            let kind = reply.header("content-type").unwrap_or("nothing");
            Err(format!("GET {product} says {kind}"))
        }
        (None, Some(_)) => Ok("application/json".to_owned()),
        (None, None) => Err(format!("GET {product} was not answered")),
    };
    examiner.mark("json", kinds);
}

async fn order_and_lookup(examiner: &mut Examiner) {
    let body = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, 2).to_string();
    let field = number_field(examiner.dialect);
    let found = match examiner.ask(HttpRequest::order(&body)).await {
        Err(why) => Err(why),
        Ok(reply) => {
            let placed = examiner.took(OrderSide::Buy, 2, &reply);
            let json = reply.json().unwrap_or_default();
            let is_shaped = reply.status == 200
                && fields(&json) == ["data"]
                && fields(&json["data"]) == [field]
                && json["data"][field].is_u64();
            match placed {
                Some(_) if is_shaped => Ok(answered(&body, &reply)),
                _ => Err(format!("{}, expected 200 and {field}", answered(&body, &reply))),
            }
        }
    };
    let looked_up = match examiner.placed.last().cloned() {
        Some(placed) => look_up(examiner, &placed).await,
        None => Err("there was no order to look up".into()),
    };
    examiner.mark("order", found);
    examiner.mark("lookup", looked_up);
}

/// Looks an order up: its number, name and quantity must be present, under any field names.
pub(super) async fn is_found(examiner: &mut Examiner, placed: &Placed) -> Result<String, String> {
    let path = format!("/orders/{}", placed.number);
    let reply = examiner.ask(HttpRequest::get(&path)).await?;
    let seen = answered(&format!("GET {path}"), &reply);
    let body = reply.json().unwrap_or_default();
    let values: Vec<&Value> =
        carried(&body).as_object().into_iter().flat_map(|o| o.values()).collect();
    let has = |number: u64| values.iter().any(|v| whole(v) == i64::try_from(number).ok());
    let named = values.iter().any(|value| **value == *placed.name);
    if reply.status == 200 && named && has(placed.number) && has(placed.quantity) {
        Ok(seen)
    } else {
        Err(format!("{seen}, expected {} of {}", placed.quantity, placed.name))
    }
}

/// Looks an order up and compares every field.
async fn look_up(examiner: &mut Examiner, placed: &Placed) -> Result<String, String> {
    let Placed { number, side, name, quantity } = placed;
    let mut expected = json!({ "number": number, "name": name, "quantity": quantity });
    if examiner.dialect == Dialect::Stock {
        expected["type"] = Value::from(if *side == OrderSide::Buy { "buy" } else { "sell" });
    }
    let path = format!("/orders/{number}");
    let reply = examiner.ask(HttpRequest::get(&path)).await?;
    let seen = answered(&format!("GET {path}"), &reply);
    let body = reply.json().unwrap_or_default();
    if reply.status == 200 && body == json!({ "data": expected }) {
        Ok(seen)
    } else {
        Err(format!("{seen}, expected {expected} as data"))
    }
}

async fn wrong_method(examiner: &mut Examiner) -> Result<String, String> {
    let path = examiner.path(&examiner.name);
    let ask = HttpRequest { method: "DELETE", ..HttpRequest::get(&path) };
    let reply = examiner.ask(ask).await?;
    let seen = examiner.missing(&format!("DELETE {path}"), &reply, 405)?;
    match reply.header("allow") {
        Some(_) => Ok(seen),
        None => Err(format!("{seen}: there is no Allow")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_a_number_with_two_decimals_at_most() {
        for price in [json!(15.99), json!(16), json!(0.07), json!(200.5)] {
            assert!(is_price(&price), "{price}");
        }
        for price in [json!("15.99"), json!(1.999), json!(-1), json!(null)] {
            assert!(!is_price(&price), "{price}");
        }
    }
}
