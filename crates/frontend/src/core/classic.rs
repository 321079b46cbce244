//! The classic API's bodies and paths: two dialects over the same ledger, strict about input.
//!
//! Everything here is a pure function from bytes to terms or from terms to bytes. Prices are
//! written from integer cents, so no binary fraction ever shows.

use std::borrow::Cow;
use std::fmt::Write as _;

use ledger::block::Order;
use ledger::change::Change;
use ledger::command::{Line, Side};
use ledger::terms::{Cents, Name, OrderNumber};
use percent_encoding::percent_decode_str;

pub use crate::core::dialect::{Dialect, Noun};
use crate::order_json::{OrderFields, OrderRequest};

/// Parses the body of `POST /orders`. The error is the message for the client.
pub fn parse_order(dialect: Dialect, body: &[u8]) -> Result<Line, String> {
    object(body)?;
    let fields: OrderFields<'_> =
        serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let OrderRequest { name, quantity, side } = fields.order(dialect)?;
    // The name fits: it has been checked.
    let name = Name::new(&name).ok_or("name must have 1 to 128 bytes and no control characters")?;
    Ok(Line { name, quantity, side })
}

/// The body must be one JSON object: serde would accept a list as well.
pub(crate) fn object(body: &[u8]) -> Result<(), String> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Ok(()),
        _ => Err("the body must be one JSON object".into()),
    }
}

pub(crate) fn malformed(error: &serde_json::Error) -> String {
    format!("malformed JSON: {error}")
}

/// Parses the number of an order in a path: digits only.
pub fn parse_number(text: &str) -> Option<OrderNumber> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().map(OrderNumber)).flatten()
}

/// Decodes the percent-escapes of a path segment. `None`: one lacks its two digits, or the text is
/// not UTF-8.
pub fn percent_decode(segment: &str) -> Option<Cow<'_, str>> {
    // The crate keeps a `%` without digits as it is.
    let has_digits = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let is_sound = segment.split('%').skip(1).all(has_digits);
    is_sound.then(|| percent_decode_str(segment).decode_utf8().ok()).flatten()
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

/// `{"data":{"number":7,"name":"GameStart","type":"buy","quantity":2}}`; toys have no `type`. An
/// order of several lines, which this API cannot place, shows its first line.
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

/// At least one decimal, so that typed parsers read a fraction; at most two.
fn write_price(out: &mut String, price: Cents) {
    let whole = price.get() / 100;
    let cents = price.get() % 100;
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
    fn orders_are_parsed_as_real_clients_send_them() {
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
        assert_eq!(line.map(|line| line.side), Ok(Side::Buy), "every toy order is a buy");
    }

    #[test]
    fn an_invalid_quantity_is_rejected() {
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
            assert!(line.is_err(), "{quantity} was accepted: {line:?}");
        }
    }

    /// Kind: an integer that is out of range and reported as no integer.
    #[test]
    fn the_error_for_an_integer_out_of_range_names_the_range() {
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
    fn an_invalid_order_is_rejected() {
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
            assert!(line.is_err(), "{} was accepted", String::from_utf8_lossy(body));
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
    fn percent_escapes_in_paths_are_decoded() {
        let table = [("bear", "bear"), ("a%20b", "a b"), ("%C3%a9", "é"), ("%2520", "%20")];
        for (segment, text) in table {
            assert_eq!(percent_decode(segment).as_deref(), Some(text));
        }
        for odd in ["%", "%2", "%zz", "%+1", "%2é", "%%20", "%ff"] {
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
