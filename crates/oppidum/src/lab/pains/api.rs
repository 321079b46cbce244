//! A store's public API as a careful customer uses it: one address, the classic API.
//!
//! Only the routes are taken for granted: the store may know no keys, send malformed answers, hang,
//! or break the connection. The result of an order is therefore placed, refused, or unknown.

use std::time::{Duration, Instant};

use ::frontend::classic::{Dialect, Noun};
use http::HeaderName;
use serde_json::{Value, json};
use wire::exit::Stop;

use crate::client::encode;
use crate::http::{Client, Reply};

/// How long a store may take to answer: longer than this project's store ever takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an order is repeated under its key until it is decided.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take to open ahead of a request.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before an order is repeated.
const PAUSE: Duration = Duration::from_millis(40);

/// The most characters of a foreign text that a report quotes.
const WORDS_MAX: usize = 120;

/// Buy or sell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderSide {
    Buy,
    Sell,
}

/// The result of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OrderReply {
    /// The order is placed, and has this number.
    Placed(u64),
    /// The store refuses the order.
    Refused { status: u16, message: String },
    /// The order may have been placed or not: no answer, or one that says neither.
    Unknown(String),
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownProduct {
    /// The stock; below zero only where a store oversells.
    pub(crate) quantity: i64,
    /// The `Cache-Status` of the answer, if it has one.
    pub(crate) cache: Option<String>,
    /// Whether the answer is marked as possibly stale.
    pub(crate) stale: bool,
}

/// A client of one public address.
#[derive(Debug)]
pub(crate) struct StoreApi {
    url: String,
    dialect: Dialect,
    client: Client,
    /// Whether the connection is open and has carried no request yet.
    fresh: bool,
}

impl StoreApi {
    /// For a URL such as `http://127.0.0.1:1234`.
    pub(crate) fn new(url: &str, dialect: Dialect) -> Result<Self, Stop> {
        let client = Client::with_timeout(url, ANSWER_TIMEOUT)?;
        Ok(Self { url: url.to_owned(), dialect, client, fresh: false })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Connects ahead of the request. A failure is no error: the store may accept later.
    pub(crate) async fn open(&mut self) {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.client.open()).await;
        self.fresh = matches!(opened, Ok(Ok(())));
    }

    /// Queries the stock of a product.
    pub(crate) async fn look(&mut self, name: &str) -> Result<ShownProduct, String> {
        let path = format!("{}/{}", shelf(self.dialect), encode(name));
        read_shown(&path, &self.get(&path).await?)
    }

    /// Places an order, once.
    pub(crate) async fn order(
        &mut self,
        side: OrderSide,
        name: &str,
        quantity: u64,
        key: Option<&str>,
    ) -> OrderReply {
        let body = order_body(self.dialect, side, name, quantity).to_string();
        let key = key.map(|key| (HeaderName::from_static("idempotency-key"), key.to_owned()));
        let headers: Vec<_> = key.into_iter().collect();
        // An order uses its own connection: on a kept one that the store has just closed, the
        // outcome would be unknown.
        if !std::mem::take(&mut self.fresh) {
            self.client.let_go();
        }
        match self.client.post("/orders", &headers, body).await {
            Ok(reply) => read_order_reply(&reply),
            Err(why) => OrderReply::Unknown(format!("{}: {why}", self.url)),
        }
    }

    /// Places an order under a key, and repeats it under that key until it is decided.
    pub(crate) async fn insist(
        &mut self,
        side: OrderSide,
        name: &str,
        quantity: u64,
        key: &str,
    ) -> OrderReply {
        let began = Instant::now();
        loop {
            let answer = self.order(side, name, quantity, Some(key)).await;
            if !matches!(answer, OrderReply::Unknown(_)) || RETRY_TIMEOUT < began.elapsed() {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends a query, and repeats it once if a kept connection broke: a query changes nothing.
    async fn get(&mut self, path: &str) -> Result<Reply, String> {
        self.fresh = false;
        let kept = self.client.is_kept();
        let first = self.client.get(path).await;
        match first {
            Err(_) if kept => self.client.get(path).await,
            first => first,
        }
    }
}

/// The path of the product list, without a slash at its end.
pub(crate) fn shelf(dialect: Dialect) -> &'static str {
    match dialect.noun() {
        Noun::Stock => "/stocks",
        Noun::Product => "/products",
    }
}

/// The field that carries the number of a new order.
pub(crate) fn number_field(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Stock => "transaction_number",
        Dialect::Toy => "order_number",
    }
}

/// The body of an order.
pub(crate) fn order_body(dialect: Dialect, side: OrderSide, name: &str, quantity: u64) -> Value {
    let side = match side {
        OrderSide::Buy => "buy",
        OrderSide::Sell => "sell",
    };
    match dialect {
        Dialect::Stock => json!({ "name": name, "quantity": quantity, "type": side }),
        Dialect::Toy => json!({ "name": name, "quantity": quantity }),
    }
}

/// Reads the product in the answer to a query.
fn read_shown(path: &str, reply: &Reply) -> Result<ShownProduct, String> {
    let body = reply.json().unwrap_or_default();
    let quantity = whole_under(carried(&body), &["quantity"]).filter(|_| reply.status == 200);
    let Some(quantity) = quantity else {
        return Err(format!("GET {path} was answered {}", in_short(reply)));
    };
    let stale = reply.header("x-consistency") == Some("stale");
    Ok(ShownProduct { quantity, cache: reply.header("cache-status").map(str::to_owned), stale })
}

/// The payload of an answer: `data`, or its only object under another name, or the whole body.
/// Another check covers the name, so a wrong name must not hide the payload.
pub(crate) fn carried(body: &Value) -> &Value {
    if body["data"].is_object() {
        return &body["data"];
    }
    let named = body.as_object().into_iter().flatten();
    let mut objects = named.filter(|(name, value)| *name != "error" && value.is_object());
    match (objects.next(), objects.next()) {
        (Some((_, one)), None) => one,
        _ => body,
    }
}

/// A whole number, also if it is written as a text, or as `100.0`.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    let text = || value.as_str()?.trim().parse().ok();
    value.as_i64().or_else(text).or_else(|| whole_of(value.as_f64()?))
}

fn whole_of(number: f64) -> Option<i64> {
    /// 2^53: up to here every whole number has its own `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_whole = number.abs() <= EXACT && number.fract() == 0.0;
    is_whole.then(|| format!("{number:.0}").parse().ok()).flatten()
}

/// The whole number under one of these names, or the only whole number under a name without another
/// known meaning.
pub(crate) fn whole_under(carried: &Value, names: &[&str]) -> Option<i64> {
    const OTHERS: [&str; 5] = ["name", "price", "code", "status", "type"];
    let named = names.iter().find_map(|name| whole(carried.get(*name)?));
    named.or_else(|| {
        let fields = carried.as_object()?.iter();
        let unknown = fields.filter(|(name, _)| !OTHERS.contains(&name.as_str()));
        let mut found = unknown.filter_map(|(_, value)| whole(value));
        found.next().filter(|_| found.next().is_none())
    })
}

/// The number in an answer that places an order.
pub(crate) fn order_number(body: &Value) -> Option<u64> {
    let names = [number_field(Dialect::Stock), number_field(Dialect::Toy), "number"];
    whole_under(carried(body), &names).and_then(|number| u64::try_from(number).ok())
}

/// Interprets the answer to an order, in either dialect.
fn read_order_reply(reply: &Reply) -> OrderReply {
    let body = reply.json().unwrap_or_default();
    let number = order_number(&body);
    let message = body["error"]["message"].as_str().map(str::to_owned);
    match (reply.status, number, message) {
        (429, ..) => OrderReply::Unknown(format!("an order was answered {}", in_short(reply))),
        (200..300, Some(number), _) => OrderReply::Placed(number),
        // Some stores refuse with a status of 200.
        (status @ (200..300 | 400..500), None, Some(message)) => {
            OrderReply::Refused { status, message }
        }
        (status @ 400..500, ..) => OrderReply::Refused { status, message: in_short(reply) },
        _ => OrderReply::Unknown(format!("an order was answered {}", in_short(reply))),
    }
}

/// Status and first words of an answer, for a report.
pub(crate) fn in_short(reply: &Reply) -> String {
    let body = String::from_utf8_lossy(&reply.body);
    let words = body.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        format!("{} without a body", reply.status)
    } else {
        format!("{} {}", reply.status, clipped(&words))
    }
}

/// A text cut to the length that fits into a report.
pub(crate) fn clipped(text: &str) -> String {
    match text.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        Reply { status, headers: http::HeaderMap::new(), body }
    }

    #[test]
    fn an_order_is_placed_refused_or_unknown() {
        let refused =
            |status, message: &str| OrderReply::Refused { status, message: message.into() };
        let table = [
            (200, r#"{"data":{"transaction_number":7}}"#, OrderReply::Placed(7)),
            (201, r#"{"data":{"order_number":"8"}}"#, OrderReply::Placed(8)),
            (
                409,
                r#"{"error":{"code":409,"message":"out of stock"}}"#,
                refused(409, "out of stock"),
            ),
            (200, r#"{"error":{"code":404,"message":"gone"}}"#, refused(200, "gone")),
            (404, "<html>", refused(404, "404 <html>")),
        ];
        for (status, body, expected) in table {
            assert_eq!(read_order_reply(&reply(status, body)), expected, "{body}");
        }
        for (status, body) in [(200, "{}"), (200, "ok"), (302, ""), (500, "oops"), (503, "{}")] {
            let answer = read_order_reply(&reply(status, body));
            assert!(matches!(answer, OrderReply::Unknown(_)), "{status} {body} is {answer:?}");
        }
    }

    /// Kind: a wrong name or type of one field that hides every other field.
    #[test]
    fn a_payload_under_a_renamed_key_is_read() {
        let body = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for text in [
            r#"{"data":{"transaction_number":7}}"#,
            r#"{"data":{"order_id":"7"}}"#,
            r#"{"data":{"order_number":7.0}}"#,
            r#"{"data":{"number":7e0}}"#,
            r#"{"result":{"order_number":7,"quantity":2}}"#,
            r#"{"number":7}"#,
        ] {
            assert_eq!(order_number(&body(text)), Some(7), "{text}");
        }
        for text in [r#"{"error":{"code":404}}"#, r#"{"code":404}"#, r#"{"data":{"a":1,"b":2}}"#] {
            assert_eq!(order_number(&body(text)), None, "{text}");
        }
        let stock = r#"{"item":{"name":"a","price":"9.5","in_stock":"100"}}"#;
        let shown = read_shown("/stocks/a", &reply(200, stock)).unwrap();
        assert_eq!(shown.quantity, 100);
        for (text, expected) in [
            ("100.0", Some(100)),
            ("-0.0", Some(0)),
            ("9007199254740992.0", Some(1 << 53)),
            ("100.5", None),
            ("1e300", None),
            ("true", None),
        ] {
            assert_eq!(whole(&body(text)), expected, "{text}");
        }
        let marked = reply(200, "\u{feff}{\"data\":{\"quantity\":100.0}}");
        assert_eq!(read_shown("/stocks/a", &marked).unwrap().quantity, 100);
    }

    #[test]
    fn a_stock_is_read_or_the_answer_is_quoted_in_short() {
        let shown = read_shown("/stocks/a", &reply(200, r#"{"data":{"quantity":-3}}"#)).unwrap();
        assert_eq!((shown.quantity, shown.cache, shown.stale), (-3, None, false));
        let long = "x ".repeat(500);
        let why = read_shown("/stocks/a", &reply(200, &long)).unwrap_err();
        assert!(why.starts_with("GET /stocks/a was answered 200 x x") && why.len() < 200, "{why}");
        assert!(read_shown("/stocks/a", &reply(500, "")).unwrap_err().contains("without a body"));
    }
}
