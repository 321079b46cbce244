//! Checks of habits of real clients of the classic API: they keep a connection, leave the
//! Content-Type out, send digits as a text, add a slash to the path, and stall in a request.

use std::time::Duration;

use ::frontend::classic::Dialect;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::check_list::Check;
use super::examiner::{Examiner, HttpRequest, answered, send};
use crate::lab::pains::api::{OrderSide, order_body};

/// How long a stalled client may delay another one.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("keep-alive", 3, "one connection carries a query, an order and a look-up"),
        Check::new("concurrent", 3, "a client that sends half a request delays no other client"),
        Check::info("no-content-type", "an order without a Content-Type is understood"),
        Check::info("content-type-charset", "so is application/json; charset=utf-8"),
        Check::info("quantity-digits", "so is a quantity of \"1\""),
        Check::info("extra-fields", "unknown fields are ignored"),
        Check::info("slash", "a slash after the path changes nothing"),
    ]
}

pub(super) async fn examine(examiner: &mut Examiner) {
    let found = keep_alive(examiner).await;
    examiner.mark("keep-alive", found);
    let found = concurrent(examiner).await;
    examiner.mark("concurrent", found);
    let plain = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, 1);
    let mut digits = plain.clone();
    let mut extra = plain.clone();
    digits["quantity"] = json!("1");
    extra["colour"] = json!({ "red": [1, 2] });
    if examiner.dialect == Dialect::Toy {
        // The toy dialect has only purchases: it must ignore this field.
        extra["type"] = json!("sell");
    }
    let plain = plain.to_string();
    let digits = digits.to_string();
    let extra = extra.to_string();
    let charset = &[("content-type", "application/json; charset=utf-8")];
    let cases = [
        ("no-content-type", HttpRequest { headers: &[], ..HttpRequest::order(&plain) }),
        ("content-type-charset", HttpRequest { headers: charset, ..HttpRequest::order(&plain) }),
        ("quantity-digits", HttpRequest::order(&digits)),
        ("extra-fields", HttpRequest::order(&extra)),
    ];
    for (id, ask) in cases {
        let found = bought(examiner, ask).await;
        examiner.mark(id, found);
    }
    let found = slash(examiner, &plain).await;
    examiner.mark("slash", found);
}

/// Sends an order of one piece, which must be placed in each of these forms.
async fn bought(examiner: &mut Examiner, ask: HttpRequest<'_>) -> Result<String, String> {
    let reply = examiner.ask(ask).await?;
    let seen = answered(ask.body, &reply);
    match examiner.took(OrderSide::Buy, 1, &reply) {
        Some(_) => Ok(seen),
        None => Err(seen),
    }
}

async fn slash(examiner: &mut Examiner, order: &str) -> Result<String, String> {
    bought(examiner, HttpRequest { path: "/orders/", ..HttpRequest::order(order) }).await?;
    let number = examiner.last.unwrap_or_default();
    for path in [format!("{}/", examiner.path(&examiner.name)), format!("/orders/{number}/")] {
        let reply = examiner.ask(HttpRequest::get(&path)).await?;
        if reply.status != 200 {
            return Err(answered(&format!("GET {path}"), &reply));
        }
    }
    Ok("queries, orders and look-ups".into())
}

async fn keep_alive(examiner: &mut Examiner) -> Result<String, String> {
    let mut client = examiner.client().map_err(|stop| stop.to_string())?;
    let path = examiner.path(&examiner.name);
    let order = order_body(examiner.dialect, OrderSide::Buy, &examiner.name, 1).to_string();
    send(&mut client, HttpRequest::get(&path)).await?;
    if !client.is_kept() {
        return Err(format!("the connection was closed after GET {path}"));
    }
    let reply = send(&mut client, HttpRequest::order(&order)).await?;
    let number =
        examiner.took(OrderSide::Buy, 1, &reply).ok_or_else(|| answered(&order, &reply))?;
    if !client.is_kept() {
        return Err("the connection was closed after POST /orders".into());
    }
    let path = format!("/orders/{number}");
    let reply = send(&mut client, HttpRequest::get(&path)).await?;
    match reply.status {
        200 => Ok("three requests over one connection".into()),
        _ => Err(answered(&format!("GET {path}"), &reply)),
    }
}

async fn concurrent(examiner: &mut Examiner) -> Result<String, String> {
    let path = examiner.path(&examiner.name);
    let client = examiner.client().map_err(|stop| stop.to_string())?;
    let connecting = TcpStream::connect(client.authority());
    let dawdler = tokio::time::timeout(BLOCKED_AFTER, connecting).await;
    let dawdler = dawdler.map_err(|_| "no connection came about".to_owned())?;
    let mut dawdler = dawdler.map_err(|error| error.to_string())?;
    let half = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", client.authority());
    dawdler.write_all(half.as_bytes()).await.map_err(|error| error.to_string())?;
    let reply = tokio::time::timeout(BLOCKED_AFTER, examiner.ask(HttpRequest::get(&path))).await;
    let found = match reply {
        Ok(Ok(reply)) if reply.status == 200 => Ok("a query was answered meanwhile".to_owned()),
        Ok(Ok(reply)) => Err(answered(&format!("GET {path}"), &reply)),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("a query was not answered within {BLOCKED_AFTER:?} meanwhile")),
    };
    drop(dawdler);
    found
}
