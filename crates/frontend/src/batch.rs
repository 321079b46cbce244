//! The words of `POST /v1/orders/batch`: many orders in one body, an outcome for each in another.
//!
//! Pure functions, as in `classic`. What is wrong with one order is told in its place; what is
//! wrong with the body as a whole is told once, and nothing of it is done.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;
use ledger::codec::bulk::{Bulk, Draft};
use ledger::outcome::{Accepted, Outcome};
use ledger::terms::{Key, Origin, Timestamp};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use wire::limits::BULK_ORDERS_MAX;
use wire::problem::Problem;

use crate::classic::{self, Dialect};
use crate::fields::{Fields, Value, Wanted};
use crate::{keys, refusals};

/// One order of a batch, under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) wanted: Wanted<'a>,
    pub(crate) origin: Origin,
    /// It [`Key::fits`].
    pub(crate) key: Cow<'a, str>,
    /// The client sent none: it is told this one.
    drawn: bool,
}

/// A batch as it was read: each order, or why it is none.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) items: Vec<Result<Item<'a>, String>>,
}

/// What became of the orders that make sense.
#[derive(Debug)]
pub(crate) enum Came<'a> {
    /// An outcome for each of them; true: an earlier try of this very request may have been first.
    Decided(&'a [Outcome], bool),
    /// Nobody knows.
    Unknown(&'a Problem),
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    orders: Option<Orders<'a>>,
}

/// At most [`BULK_ORDERS_MAX`] orders, and how many there were.
struct Orders<'a> {
    first: Vec<Fields<'a>>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Orders<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Each)
    }
}

struct Each;

impl<'de> Visitor<'de> for Each {
    type Value = Orders<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of orders")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Orders<'de>, A::Error> {
        let mut first = Vec::new();
        while first.len() < BULK_ORDERS_MAX {
            match list.next_element()? {
                Some(fields) => first.push(fields),
                None => return Ok(Orders { count: first.len(), first }),
            }
        }
        let mut count = first.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Orders { first, count })
    }
}

impl<'a> Batch<'a> {
    /// Reads a body. `luck` makes the keys of orders that have none. The error is for the client:
    /// nothing of the batch is done.
    pub(crate) fn parse(
        dialect: Dialect,
        body: &'a [u8],
        luck: u128,
    ) -> Result<Self, (StatusCode, String)> {
        let bad = |why: String| (StatusCode::BAD_REQUEST, why);
        classic::object(body).map_err(bad)?;
        let body: Body<'a> =
            serde_json::from_slice(body).map_err(|error| bad(classic::malformed(&error)))?;
        let Some(orders) = body.orders else {
            return Err(bad("the field orders is missing".into()));
        };
        if orders.count == 0 {
            return Err(bad("a batch has at least one order".into()));
        }
        if BULK_ORDERS_MAX < orders.count {
            let why = format!("a batch has at most {BULK_ORDERS_MAX} orders");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        let items = (0_u128..).zip(orders.first);
        let items = items.map(|(place, fields)| item(dialect, fields, luck.wrapping_add(place)));
        Ok(Self { items: items.collect() })
    }

    /// The orders that make sense.
    pub(crate) fn good(&self) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter().flatten()
    }

    /// As a leader takes them.
    pub(crate) fn bulk(&self, deadline: Option<Timestamp>) -> Bulk {
        let mut bulk = Bulk::with_room(self.items.len());
        for Item { wanted, origin, key, .. } in self.good() {
            let (name, quantity, side) = (wanted.name.as_ref(), wanted.quantity, wanted.side);
            bulk.push(&Draft { origin: *origin, key, deadline, name, quantity, side });
        }
        bulk
    }

    /// `{"results":[{"status":200,"data":{"transaction_number":7}},…]}`, in the order of asking.
    pub(crate) fn render(&self, dialect: Dialect, came: &Came<'_>) -> String {
        let mut out = String::with_capacity(16 + 64 * self.items.len());
        out.push_str("{\"results\":[");
        let mut outcomes = match came {
            Came::Decided(outcomes, _) => outcomes.iter(),
            Came::Unknown(_) => [].iter(),
        };
        for (place, item) in self.items.iter().enumerate() {
            out.push_str(if place == 0 { "{\"status\":" } else { ",{\"status\":" });
            match (item, came) {
                (Err(why), _) => write_no(&mut out, StatusCode::BAD_REQUEST, why),
                (Ok(_), Came::Decided(_, retried)) => match outcomes.next() {
                    Some(outcome) => write_outcome(&mut out, dialect, outcome, *retried),
                    None => write_no(&mut out, StatusCode::INTERNAL_SERVER_ERROR, "no outcome"),
                },
                (Ok(_), Came::Unknown(problem)) => {
                    let status = StatusCode::from_u16(problem.http_status());
                    write_no(&mut out, status.unwrap_or_default(), &problem.message);
                }
            }
            if let Ok(Item { drawn: true, key, .. }) = item {
                // It is of our own making: there is nothing in it to escape.
                out.push_str(",\"key\":\"");
                out.push_str(key);
                out.push('"');
            }
            out.push('}');
        }
        out.push_str("]}");
        out
    }
}

fn item(dialect: Dialect, mut fields: Fields<'_>, luck: u128) -> Result<Item<'_>, String> {
    let (key, drawn) = match fields.key.take() {
        None => (Cow::Owned(keys::own_text(luck)), true),
        Some(Value::Text(key)) if Key::fits(key.as_bytes()) => (key, false),
        Some(_) => return Err("key must be 1 to 255 visible ASCII characters".into()),
    };
    let origin = keys::origin(&key);
    Ok(Item { wanted: fields.order(dialect)?, origin, key, drawn })
}

fn write_outcome(out: &mut String, dialect: Dialect, outcome: &Outcome, retried: bool) {
    let (repeated, outcome) = match outcome {
        Outcome::Repeated { first, .. } => (true, first.as_ref()),
        first => (false, first),
    };
    match outcome {
        Outcome::Accepted(Accepted::Placed(number)) => {
            out.push_str("200,\"data\":{\"");
            out.push_str(dialect.number_field());
            out.push_str("\":");
            write_number(out, number.0);
            out.push('}');
        }
        Outcome::Refused(refusal) => {
            let (status, message) = refusals::told(dialect, refusal);
            write_no(out, status, &message);
        }
        Outcome::Accepted(_) | Outcome::Repeated { .. } => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            write_no(out, status, refusals::OF_ANOTHER_REQUEST);
        }
    }
    if repeated && !retried {
        out.push_str(",\"replayed\":true");
    }
}

fn write_no(out: &mut String, status: StatusCode, message: &str) {
    write_number(out, status.as_u16().into());
    out.push(',');
    classic::write_error(out, status.as_u16(), message);
}

/// Digits, without the machinery of formatting: there are two numbers in each result.
fn write_number(out: &mut String, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[first..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use ledger::outcome::Refusal;
    use ledger::terms::{Index, Name, OrderNumber};
    use wire::problem::Code;

    use super::*;

    const BODY: &[u8] = br#"{"note":{"orders":[1]},"orders":[
        {"name":"b\u0065ar","quantity":"2","type":"buy","key":"a","note":[{}]},
        {"name":"bear","quantity":2.0,"type":"buy","key":"b"},
        {"name":"fox","quantity":1,"type":"sell"}]}"#;

    #[test]
    fn a_batch_is_read_order_by_order() {
        let batch = Batch::parse(Dialect::Stock, BODY, 7).unwrap();
        let [first, second, third] = batch.items.as_slice() else { panic!("{batch:?}") };
        let (first, third) = (first.as_ref().unwrap(), third.as_ref().unwrap());
        assert_eq!((first.wanted.name.as_ref(), first.key.as_ref()), ("bear", "a"));
        assert_eq!((first.wanted.quantity.get(), first.origin), (2, Origin::Client));
        assert_eq!(second, &Err("quantity must be an integer".to_owned()));
        assert_eq!(third.key, "frontend-00000000000000000000000000000009");
        assert_eq!(third.origin, Origin::Frontend);
        let bytes = batch.bulk(None).into_bytes();
        assert_eq!(ledger::codec::bulk::check(&bytes, 2), Ok(()));
    }

    fn status(body: &str) -> Result<Batch<'_>, StatusCode> {
        Batch::parse(Dialect::Stock, body.as_bytes(), 0).map_err(|(status, _)| status)
    }

    #[test]
    fn what_is_wrong_with_the_whole_is_told_once() {
        let many = |count: usize| {
            let orders = vec![r#"{"name":"bear","quantity":1,"type":"buy"}"#; count];
            format!("{{\"orders\":[{}]}}", orders.join(","))
        };
        assert_eq!(status(&many(1_000)).unwrap().items.len(), 1_000);
        assert_eq!(status(&many(1_001)).unwrap_err(), StatusCode::PAYLOAD_TOO_LARGE);
        for body in ["", "[]", "{}", "{\"orders\":{}}", "{\"orders\":[7]}", &many(0)] {
            assert_eq!(status(body).unwrap_err(), StatusCode::BAD_REQUEST, "{body}");
        }
        for key in ["\"\"", "\"a b\"", "7", "[]"] {
            let body = format!(r#"{{"orders":[{{"name":"a","quantity":1,"key":{key}}}]}}"#);
            let batch = Batch::parse(Dialect::Toy, body.as_bytes(), 0).unwrap();
            assert!(batch.items[0].as_ref().is_err_and(|why| why.contains("key")), "{key}");
        }
    }

    #[test]
    fn each_order_is_told_its_own_outcome() {
        let batch = Batch::parse(Dialect::Stock, BODY, 7).unwrap();
        let first = Box::new(Outcome::Accepted(Accepted::Placed(OrderNumber(1_207))));
        let outcomes = [
            Outcome::Repeated { index: Index(3), first },
            Outcome::Refused(Refusal::StockLimit(Name::new("fox").unwrap())),
        ];
        let second =
            r#"{"status":400,"error":{"code":400,"message":"quantity must be an integer"}}"#;
        let key = r#""key":"frontend-00000000000000000000000000000009""#;
        let no = r#""error":{"code":409,"message":"stock of fox would exceed its limit"}"#;
        let third = format!("{{\"status\":409,{no},{key}}}");
        let text = batch.render(Dialect::Stock, &Came::Decided(&outcomes, false));
        let expected = format!(
            "{{\"results\":[{},{second},{}]}}",
            r#"{"status":200,"data":{"transaction_number":1207},"replayed":true}"#, third,
        );
        assert_eq!(text, expected);
        let retried = batch.render(Dialect::Stock, &Came::Decided(&outcomes, true));
        assert!(!retried.contains("replayed"), "its own earlier try may have been the first");
        let lost = Problem::indefinite(Code::Lost, "nobody knows");
        let text = batch.render(Dialect::Stock, &Came::Unknown(&lost));
        let unknown = r#""status":504,"error":{"code":504,"message":"nobody knows"}"#;
        assert_eq!(text, format!("{{\"results\":[{{{unknown}}},{second},{{{unknown},{key}}}]}}"));
    }
}
