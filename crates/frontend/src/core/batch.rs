//! The JSON of `POST /v1/orders/batch`: many orders in one body, their outcomes in another.
//!
//! Pure functions, as in `classic`. An error in one order appears in its place of the answer; an
//! error in the body as a whole is the only answer, and no order is placed.

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
use crate::order_json::{FieldValue, OrderFields, OrderRequest};
use crate::{keys, refusals};

/// One order of a batch, under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) wanted: OrderRequest<'a>,
    pub(crate) origin: Origin,
    /// The key satisfies [`Key::fits`].
    pub(crate) key: Cow<'a, str>,
    /// The client sent no key: the result shows this one.
    drawn: bool,
}

/// A parsed batch: for each item an order, or the error in it.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) items: Vec<Result<Item<'a>, String>>,
}

/// The outcome of a batch's valid orders.
#[derive(Debug)]
pub(crate) enum BatchOutcome<'a> {
    /// One outcome per order; true: an earlier try of this same request may have been decided
    /// first.
    Decided(&'a [Outcome], bool),
    /// The outcome is unknown.
    Unknown(&'a Problem),
}

#[derive(Deserialize)]
struct BatchBody<'a> {
    #[serde(borrow)]
    orders: Option<Items<'a>>,
}

/// At most [`BULK_ORDERS_MAX`] orders, and the number of items in the body.
struct Items<'a> {
    first: Vec<OrderFields<'a>>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of orders")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<'de>, A::Error> {
        let mut first = Vec::new();
        while first.len() < BULK_ORDERS_MAX {
            match list.next_element()? {
                Some(fields) => first.push(fields),
                None => return Ok(Items { count: first.len(), first }),
            }
        }
        let mut count = first.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Items { first, count })
    }
}

impl<'a> Batch<'a> {
    /// Parses a body. `random` seeds the keys of orders without one. The error is for the client:
    /// no order of the batch is placed.
    pub(crate) fn parse(
        dialect: Dialect,
        body: &'a [u8],
        random: u128,
    ) -> Result<Self, (StatusCode, String)> {
        let bad = |why: String| (StatusCode::BAD_REQUEST, why);
        classic::object(body).map_err(bad)?;
        let body: BatchBody<'a> =
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
        let items = items.map(|(place, fields)| item(dialect, fields, random.wrapping_add(place)));
        Ok(Self { items: items.collect() })
    }

    /// The valid orders.
    pub(crate) fn good(&self) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter().flatten()
    }

    /// The valid orders, encoded for the leader.
    pub(crate) fn bulk(&self, actor: &str, deadline: Option<Timestamp>) -> Bulk {
        let mut bulk = Bulk::with_room(self.items.len());
        for Item { wanted, origin, key, .. } in self.good() {
            bulk.push(&Draft {
                origin: *origin,
                actor,
                key,
                deadline,
                name: wanted.name.as_ref(),
                quantity: wanted.quantity,
                side: wanted.side,
            });
        }
        bulk
    }

    /// `{"results":[{"status":200,"data":{"transaction_number":7}},…]}`, in the order of the
    /// request.
    pub(crate) fn render(&self, dialect: Dialect, outcome: &BatchOutcome<'_>) -> String {
        let mut out = String::with_capacity(16 + 64 * self.items.len());
        out.push_str("{\"results\":[");
        let mut outcomes = match outcome {
            BatchOutcome::Decided(outcomes, _) => outcomes.iter(),
            BatchOutcome::Unknown(_) => [].iter(),
        };
        for (place, item) in self.items.iter().enumerate() {
            out.push_str(if place == 0 { "{\"status\":" } else { ",{\"status\":" });
            match (item, outcome) {
                (Err(why), _) => write_error(&mut out, StatusCode::BAD_REQUEST, why),
                (Ok(_), BatchOutcome::Decided(_, retried)) => match outcomes.next() {
                    Some(outcome) => write_outcome(&mut out, dialect, outcome, *retried),
                    None => write_error(&mut out, StatusCode::INTERNAL_SERVER_ERROR, "no outcome"),
                },
                (Ok(_), BatchOutcome::Unknown(problem)) => {
                    let status = StatusCode::from_u16(problem.http_status());
                    write_error(&mut out, status.unwrap_or_default(), &problem.message);
                }
            }
            if let Ok(Item { drawn: true, key, .. }) = item {
                // The frontend made this key: it needs no escaping.
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

fn item(dialect: Dialect, mut fields: OrderFields<'_>, random: u128) -> Result<Item<'_>, String> {
    let (key, drawn) = match fields.key.take() {
        None => (Cow::Owned(keys::own_text(random)), true),
        Some(FieldValue::Text(key)) if Key::fits(key.as_bytes()) => (key, false),
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
        Outcome::Refused(refusal)
            if let Some(unknown) = refusals::unknown_before(refusal, retried) =>
        {
            let status = StatusCode::from_u16(unknown.http_status());
            write_error(out, status.unwrap_or_default(), &unknown.message);
        }
        Outcome::Refused(refusal) => {
            let (status, message) = refusals::status_and_message(dialect, refusal);
            write_error(out, status, &message);
        }
        Outcome::Accepted(_) | Outcome::Repeated { .. } => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            write_error(out, status, refusals::OF_ANOTHER_REQUEST);
        }
    }
    if repeated && !retried {
        out.push_str(",\"replayed\":true");
    }
}

fn write_error(out: &mut String, status: StatusCode, message: &str) {
    write_number(out, status.as_u16().into());
    out.push(',');
    classic::write_error(out, status.as_u16(), message);
}

/// Writes digits without the formatting machinery: each result has two numbers.
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
    fn a_batch_is_parsed_order_by_order() {
        let batch = Batch::parse(Dialect::Stock, BODY, 7).unwrap();
        let [first, second, third] = batch.items.as_slice() else { panic!("{batch:?}") };
        let (first, third) = (first.as_ref().unwrap(), third.as_ref().unwrap());
        assert_eq!((first.wanted.name.as_ref(), first.key.as_ref()), ("bear", "a"));
        assert_eq!((first.wanted.quantity.get(), first.origin), (2, Origin::Client));
        assert_eq!(second, &Err("quantity must be an integer".to_owned()));
        assert_eq!(third.key, "frontend-00000000000000000000000000000009");
        assert_eq!(third.origin, Origin::Frontend);
        let bytes = batch.bulk("", None).into_bytes();
        assert!(ledger::codec::bulk::Encoded::open(&bytes, 2).is_ok());
    }

    fn status(body: &str) -> Result<Batch<'_>, StatusCode> {
        Batch::parse(Dialect::Stock, body.as_bytes(), 0).map_err(|(status, _)| status)
    }

    #[test]
    fn an_error_in_the_whole_batch_is_its_only_answer() {
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
    fn each_order_of_a_batch_gets_its_own_outcome() {
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
        let text = batch.render(Dialect::Stock, &BatchOutcome::Decided(&outcomes, false));
        let expected = format!(
            "{{\"results\":[{},{second},{}]}}",
            r#"{"status":200,"data":{"transaction_number":1207},"replayed":true}"#, third,
        );
        assert_eq!(text, expected);
        let retried = batch.render(Dialect::Stock, &BatchOutcome::Decided(&outcomes, true));
        assert!(!retried.contains("replayed"), "its earlier try may have won");
        let lost = Problem::indefinite(Code::Lost, "the outcome is unknown");
        let text = batch.render(Dialect::Stock, &BatchOutcome::Unknown(&lost));
        let unknown = r#""status":504,"error":{"code":504,"message":"the outcome is unknown"}"#;
        assert_eq!(text, format!("{{\"results\":[{{{unknown}}},{second},{{{unknown},{key}}}]}}"));
    }
}
