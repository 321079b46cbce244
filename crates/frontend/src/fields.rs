//! The fields of one order in JSON, read once and borrowed from the body: what is there, before it
//! is judged.
//!
//! A field may hold anything. Only what an order can use is kept; everything else is remembered as
//! "something else", so that the client is told which field it is about and nothing is allocated
//! for it.

use std::borrow::Cow;
use std::fmt;

use ledger::command::Side;
use ledger::terms::{Name, QUANTITY_MAX, Quantity};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::classic::Dialect;

/// The fields of an order that matter. Others are ignored; one of these twice is refused.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Fields<'a> {
    #[serde(borrow)]
    name: Option<Value<'a>>,
    #[serde(borrow)]
    quantity: Option<Value<'a>>,
    #[serde(rename = "type", borrow)]
    side: Option<Value<'a>>,
    /// In a batch alone; elsewhere the key is a header.
    #[serde(borrow)]
    pub(crate) key: Option<Value<'a>>,
}

/// What a field holds.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Whole(u64),
    /// An integer below zero.
    Below,
    Other,
}

/// An order that makes sense; its name is borrowed where JSON has it as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    /// It [`Name::fits`].
    pub(crate) name: Cow<'a, str>,
    pub(crate) quantity: Quantity,
    pub(crate) side: Side,
}

impl<'a> Fields<'a> {
    /// The order, or what is wrong with it, for the client.
    pub(crate) fn order(self, dialect: Dialect) -> Result<Wanted<'a>, String> {
        let name = match self.name {
            None => return Err("the field name is missing".into()),
            Some(Value::Text(name)) if Name::fits(&name) => name,
            Some(Value::Text(_)) => {
                return Err("name must have 1 to 128 bytes and no control characters".into());
            }
            Some(_) => return Err("name must be a string".into()),
        };
        let quantity = quantity(self.quantity.as_ref())?;
        let side = match (dialect, self.side) {
            (Dialect::Toy, _) => Side::Buy,
            (Dialect::Stock, None) => return Err("the field type is missing".into()),
            (Dialect::Stock, Some(Value::Text(side))) if side == "buy" => Side::Buy,
            (Dialect::Stock, Some(Value::Text(side))) if side == "sell" => Side::Sell,
            (Dialect::Stock, Some(_)) => return Err("type must be \"buy\" or \"sell\"".into()),
        };
        Ok(Wanted { name, quantity, side })
    }
}

fn quantity(quantity: Option<&Value<'_>>) -> Result<Quantity, String> {
    let not_an_integer = || "quantity must be an integer".to_owned();
    let pieces = match quantity {
        None => return Err("the field quantity is missing".into()),
        Some(Value::Whole(pieces)) => *pieces,
        Some(Value::Below) => 0,
        Some(Value::Text(text)) => {
            let (below, digits) = match text.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, &**text),
            };
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(not_an_integer());
            }
            // Only digits, and yet no u64: it is too large, not odd.
            if below { 0 } else { digits.parse().unwrap_or(u64::MAX) }
        }
        Some(Value::Other) => return Err(not_an_integer()),
    };
    Quantity::new(pieces).ok_or_else(|| format!("quantity must be from 1 to {QUANTITY_MAX}"))
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Value<'de>, E> {
        Ok(Value::Whole(whole))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Value<'de>, E> {
        Ok(u64::try_from(whole).map_or(Value::Below, Value::Whole))
    }

    /// A number that is no `u64` and no `i64` comes here. Beyond both it is whole, and too large.
    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        /// 2^64.
        const BEYOND: f64 = 18_446_744_073_709_551_616.0;
        Ok(match number {
            number if BEYOND <= number => Value::Whole(u64::MAX),
            number if number <= -BEYOND / 2.0 => Value::Below,
            _ => Value::Other,
        })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}
