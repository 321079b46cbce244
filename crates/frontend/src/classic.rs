//! The classic API's words: two dialects over the same ledger, strict in what they take.
//!
//! Everything here is a pure function from bytes to terms or from terms to bytes. Prices are
//! written from integer cents, so no binary fraction ever shows.

use std::fmt::Write as _;

use ledger::block::Order;
use ledger::change::Change;
use ledger::command::{Line, Side};
use ledger::terms::{Cents, Name, OrderNumber};

use crate::fields::{Fields, Wanted};

/// Which of the two storefronts is spoken where they differ: in the bodies about orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Shares: `transaction_number`, and a `type` that is `buy` or `sell`.
    #[default]
    Stock,
    /// Toys: `order_number`, and every order is a buy.
    Toy,
}

/// Which word a path uses for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// `/stocks/…`
    Stock,
    /// `/products/…`
    Product,
}

impl Dialect {
    /// Its name, as it is set.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Toy => "toy",
        }
    }

    /// Its word for the number of an order just placed.
    pub(crate) fn number_field(self) -> &'static str {
        match self {
            Self::Stock => "transaction_number",
            Self::Toy => "order_number",
        }
    }

    /// Its word for a product.
    pub fn noun(self) -> Noun {
        match self {
            Self::Stock => Noun::Stock,
            Self::Toy => Noun::Product,
        }
    }
}

impl Noun {
    /// What an unknown one is told.
    pub fn not_found(self) -> &'static str {
        match self {
            Self::Stock => "stock not found",
            Self::Product => "product not found",
        }
    }
}

/// Reads the body of `POST /orders`. The error is the message for the client.
pub fn parse_order(dialect: Dialect, body: &[u8]) -> Result<Line, String> {
    object(body)?;
    let fields: Fields<'_> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let Wanted { name, quantity, side } = fields.order(dialect)?;
    // It fits, for it was looked at.
    let name = Name::new(&name).ok_or("name must have 1 to 128 bytes and no control characters")?;
    Ok(Line { name, quantity, side })
}

/// A body is one JSON object: serde would take a list for one, too.
pub(crate) fn object(body: &[u8]) -> Result<(), String> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Ok(()),
        _ => Err("the body must be one JSON object".into()),
    }
}

pub(crate) fn malformed(error: &serde_json::Error) -> String {
    format!("malformed JSON: {error}")
}

/// The number of an order in a path: digits only.
pub fn parse_number(text: &str) -> Option<OrderNumber> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().map(OrderNumber)).flatten()
}

/// A segment of a path with its percent signs undone; None: they make no sense.
pub fn percent_decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(16 * high + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// `{"data":{"name":"GameStart","price":15.99,"quantity":100}}`
pub fn render_product(product: &Change) -> String {
    let mut out = String::with_capacity(96);
    out.push_str("{\"data\":");
    write_product(&mut out, product);
    out.push('}');
    out
}

/// `{"data":[…]}`, in the order given.
pub fn render_products(products: &[Change]) -> String {
    let mut out = String::with_capacity(16 + 64 * products.len());
    out.push_str("{\"data\":[");
    for (place, product) in products.iter().enumerate() {
        if 0 < place {
            out.push(',');
        }
        write_product(&mut out, product);
    }
    out.push_str("]}");
    out
}

/// `{"data":{"transaction_number":7}}`, or `order_number`.
pub fn render_placed(dialect: Dialect, number: OrderNumber) -> String {
    let field = dialect.number_field();
    format!("{{\"data\":{{\"{field}\":{number}}}}}")
}

/// `{"data":{"number":7,"name":"GameStart","type":"buy","quantity":2}}`; without `type` for toys.
/// An order of several lines, which this API cannot place, shows its first.
pub fn render_order(dialect: Dialect, order: &Order) -> Option<String> {
    let Line { name, quantity, side } = order.lines.first()?;
    let mut out = String::with_capacity(96);
    let _ = write!(out, "{{\"data\":{{\"number\":{},\"name\":", order.number);
    write_text(&mut out, name.as_str());
    if dialect == Dialect::Stock {
        let side = match side {
            Side::Buy => "buy",
            Side::Sell => "sell",
        };
        let _ = write!(out, ",\"type\":\"{side}\"");
    }
    let _ = write!(out, ",\"quantity\":{}}}}}", quantity.get());
    Some(out)
}

/// `{"error":{"code":404,"message":"stock not found"}}`
pub fn render_error(status: u16, message: &str) -> String {
    let mut out = String::with_capacity(64 + message.len());
    out.push('{');
    write_error(&mut out, status, message);
    out.push('}');
    out
}

/// `"error":{"code":404,"message":"stock not found"}`
pub(crate) fn write_error(out: &mut String, status: u16, message: &str) {
    let _ = write!(out, "\"error\":{{\"code\":{status},\"message\":");
    write_text(out, message);
    out.push('}');
}

fn write_product(out: &mut String, product: &Change) {
    out.push_str("{\"name\":");
    write_text(out, product.name.as_str());
    out.push_str(",\"price\":");
    write_price(out, product.price);
    let _ = write!(out, ",\"quantity\":{}}}", product.stock);
}

/// At least one decimal, so that readers with types read a fraction; at most two.
fn write_price(out: &mut String, price: Cents) {
    let (whole, cents) = (price.get() / 100, price.get() % 100);
    let _ = match cents % 10 {
        0 => write!(out, "{whole}.{}", cents / 10),
        _ => write!(out, "{whole}.{cents:02}"),
    };
}

/// A JSON string.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_real_clients_send_them() {
        let good = [
            r#"{"name":"bear","quantity":2,"type":"buy"}"#,
            r#"{"name":"bear","quantity":"2","type":"buy"}"#,
            " \n{\"type\":\"buy\",\"quantity\":2,\"name\":\"bear\",\"note\":[1]}\n",
        ];
        for body in good {
            let line = parse_order(Dialect::Stock, body.as_bytes());
            let line = line.unwrap_or_else(|why| panic!("{body}: {why}"));
            assert_eq!((line.name.as_str(), line.quantity.get()), ("bear", 2), "{body}");
        }
        let line = parse_order(Dialect::Toy, br#"{"name":"bear","quantity":1,"type":"sell"}"#);
        assert_eq!(line.map(|line| line.side), Ok(Side::Buy), "toys are bought, whatever it says");
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        let bad = [
            "2.0",
            "2.5",
            "1e0",
            "true",
            "null",
            "NaN",
            "[2]",
            "{}",
            "\"two\"",
            "\"-2\"",
            "\"2.0\"",
            "\"\"",
            "\" 2\"",
            "0",
            "-1",
            "\"0\"",
            "1000001",
            "\"1000001\"",
            "18446744073709551616",
            "\"99999999999999999999999\"",
        ];
        for quantity in bad {
            let body = format!(r#"{{"name":"bear","quantity":{quantity},"type":"buy"}}"#);
            let line = parse_order(Dialect::Stock, body.as_bytes());
            assert!(line.is_err(), "{quantity} was taken: {line:?}");
        }
    }

    /// Kind: an integer that is out of range and called no integer.
    #[test]
    fn an_integer_out_of_range_is_told_the_range() {
        for quantity in [
            "-1",
            "\"-1\"",
            "0",
            "\"-0\"",
            "\"-99999999999999999999\"",
            "1000001",
            "99999999999999999999",
            "18446744073709551616",
            "-99999999999999999999",
        ] {
            let body = format!(r#"{{"name":"bear","quantity":{quantity},"type":"buy"}}"#);
            let why = parse_order(Dialect::Stock, body.as_bytes()).unwrap_err();
            assert_eq!(why, "quantity must be from 1 to 1000000", "{quantity}");
        }
        for quantity in ["\"-\"", "\"--1\"", "\"+1\"", "\"-1.0\"", "-1.5", "2.0", "9e15"] {
            let body = format!(r#"{{"name":"bear","quantity":{quantity},"type":"buy"}}"#);
            let why = parse_order(Dialect::Stock, body.as_bytes()).unwrap_err();
            assert_eq!(why, "quantity must be an integer", "{quantity}");
        }
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let bad: [&[u8]; 14] = [
            b"",
            b"[]",
            b"{",
            b"\"{}\"",
            b"{} {}",
            b"\xff\xfe{}",
            br#"{"quantity":1,"type":"buy"}"#,
            br#"{"name":"bear","type":"buy"}"#,
            br#"{"name":"bear","quantity":1}"#,
            br#"{"name":"bear","quantity":1,"type":"rent"}"#,
            br#"{"name":"bear","quantity":1,"type":1}"#,
            br#"{"name":7,"quantity":1,"type":"buy"}"#,
            br#"{"name":"","quantity":1,"type":"buy"}"#,
            br#"{"name":"bear","name":"fox","quantity":1,"type":"buy"}"#,
        ];
        for body in bad {
            let line = parse_order(Dialect::Stock, body);
            assert!(line.is_err(), "{} was taken", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn prices_are_exact() {
        for (cents, text) in
            [(1599, "15.99"), (1600, "16.0"), (1610, "16.1"), (5, "0.05"), (0, "0.0")]
        {
            let mut out = String::new();
            write_price(&mut out, Cents::new(cents).unwrap());
            assert_eq!(out, text);
        }
    }

    #[test]
    fn paths_are_undone() {
        let table = [("bear", Some("bear")), ("a%20b", Some("a b")), ("%C3%A9", Some("é"))];
        for (segment, text) in table {
            assert_eq!(percent_decode(segment).as_deref(), text);
        }
        for odd in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(percent_decode(odd), None, "{odd}");
        }
        assert_eq!(parse_number("007"), Some(OrderNumber(7)));
        for odd in ["", "abc", "-1", "+1", "1.0", "99999999999999999999"] {
            assert_eq!(parse_number(odd), None, "{odd}");
        }
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            render_error(400, "a \"b\" \\ \u{1}"),
            r#"{"error":{"code":400,"message":"a \"b\" \\ \u0001"}}"#
        );
    }
}
