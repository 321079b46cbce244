//! The JSON fields of one order, parsed once and borrowed from the body, before validation.
//!
//! A field may hold any value. Only the values that an order can use are kept; every other one is
//! remembered as "something else", so that the error names the field and nothing is allocated.

use std::borrow::Cow;
use std::fmt;

use ledger::command::Side;
use ledger::terms::{Name, QUANTITY_MAX, Quantity};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::core::dialect::Dialect;

/// The fields of an order. Other fields are ignored; a field that appears twice is an error.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct OrderFields<'a> {
    #[serde(borrow)]
    name: Option<FieldValue<'a>>,
    #[serde(borrow)]
    quantity: Option<FieldValue<'a>>,
    #[serde(rename = "type", borrow)]
    side: Option<FieldValue<'a>>,
    /// Only in a batch; elsewhere the key is a header.
    #[serde(borrow)]
    pub(crate) key: Option<FieldValue<'a>>,
}

/// The value of a field.
#[derive(Debug)]
pub(crate) enum FieldValue<'a> {
    Text(Cow<'a, str>),
    Whole(u64),
    /// An integer below zero.
    Below,
    Other,
}

/// A valid order; its name is borrowed if JSON has it unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderRequest<'a> {
    /// The name satisfies [`Name::fits`].
    pub(crate) name: Cow<'a, str>,
    pub(crate) quantity: Quantity,
    pub(crate) side: Side,
}

impl<'a> OrderFields<'a> {
    /// The order, or the error for the client.
    pub(crate) fn order(self, dialect: Dialect) -> Result<OrderRequest<'a>, String> {
        let name = match self.name {
            None => return Err("the field name is missing".into()),
            Some(FieldValue::Text(name)) if Name::fits(&name) => name,
            Some(FieldValue::Text(_)) => {
                return Err("name must have 1 to 128 bytes and no control characters".into());
            }
            Some(_) => return Err("name must be a string".into()),
        };
        let quantity = quantity(self.quantity.as_ref())?;
        let side = match (dialect, self.side) {
            (Dialect::Toy, _) => Side::Buy,
            (Dialect::Stock, None) => return Err("the field type is missing".into()),
            (Dialect::Stock, Some(FieldValue::Text(side))) if side == "buy" => Side::Buy,
            (Dialect::Stock, Some(FieldValue::Text(side))) if side == "sell" => Side::Sell,
            (Dialect::Stock, Some(_)) => return Err("type must be \"buy\" or \"sell\"".into()),
        };
        Ok(OrderRequest { name, quantity, side })
    }
}

fn quantity(quantity: Option<&FieldValue<'_>>) -> Result<Quantity, String> {
    let not_an_integer = || "quantity must be an integer".to_owned();
    let pieces = match quantity {
        None => return Err("the field quantity is missing".into()),
        Some(FieldValue::Whole(pieces)) => *pieces,
        Some(FieldValue::Below) => 0,
        Some(FieldValue::Text(text)) => {
            let (below, digits) = match text.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, &**text),
            };
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(not_an_integer());
            }
            // Only digits, but no `u64`: the number is too large, not malformed.
            if below { 0 } else { digits.parse().unwrap_or(u64::MAX) }
        }
        Some(FieldValue::Other) => return Err(not_an_integer()),
    };
    Quantity::new(pieces).ok_or_else(|| format!("quantity must be from 1 to {QUANTITY_MAX}"))
}

impl<'de: 'a, 'a> Deserialize<'de> for FieldValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = FieldValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<FieldValue<'de>, E> {
        Ok(FieldValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<FieldValue<'de>, E> {
        Ok(FieldValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<FieldValue<'de>, E> {
        Ok(FieldValue::Whole(whole))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<FieldValue<'de>, E> {
        Ok(u64::try_from(whole).map_or(FieldValue::Below, FieldValue::Whole))
    }

    /// JSON numbers that are neither `u64` nor `i64` arrive here. Beyond both, they are whole and
    /// too large.
    fn visit_f64<E>(self, number: f64) -> Result<FieldValue<'de>, E> {
        /// 2^64.
        const BEYOND: f64 = 18_446_744_073_709_551_616.0;
        Ok(match number {
            number if BEYOND <= number => FieldValue::Whole(u64::MAX),
            number if number <= -BEYOND / 2.0 => FieldValue::Below,
            _ => FieldValue::Other,
        })
    }

    fn visit_bool<E>(self, _: bool) -> Result<FieldValue<'de>, E> {
        Ok(FieldValue::Other)
    }

    fn visit_unit<E>(self) -> Result<FieldValue<'de>, E> {
        Ok(FieldValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FieldValue<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldValue<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other)
    }
}
