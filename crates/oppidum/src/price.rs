//! Prices as text: parsed exactly, or refused with the reason.

use ledger::terms::{CENTS_MAX, Cents};
use rust_decimal::Decimal;

/// Parses `15.99`, `16.5`, `16` or `1.6e1` exactly; at most two decimals that are not 0.
///
/// # Errors
///
/// Why the text is no price, as a sentence for the operator.
pub(crate) fn cents(text: &str) -> Result<Cents, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(format!("a price is not negative, and {text} is"));
    }
    let price = exact(text)?.normalize();
    if 2 < price.scale() {
        return Err(too_fine(text));
    }
    let mut cents = price.checked_mul(Decimal::ONE_HUNDRED).ok_or_else(|| too_large(text))?;
    cents.rescale(0);
    let cents = u64::try_from(cents.mantissa()).map_err(|_| too_large(text))?;
    Cents::new(cents).ok_or_else(|| too_large(text))
}

/// The number of the text, without rounding.
fn exact(text: &str) -> Result<Decimal, String> {
    let odd = || format!("a price is a number like 15.99, and {text:?} is none");
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    if !is_digit(number.as_bytes().first()) || !is_digit(number.as_bytes().last()) {
        return Err(odd());
    }
    // The parser below would accept `1_000`, which is no price.
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(odd());
    }
    let price = match Decimal::from_str_exact(number) {
        Ok(price) => price.normalize(),
        Err(_) if has_many_digits(number) => return Err(too_long(number, text)),
        Err(_) => return Err(odd()),
    };
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(odd());
    }
    if price.is_zero() {
        return Ok(price);
    }
    let wrong = if exponent.starts_with('-') { too_fine } else { too_large };
    Decimal::from_scientific(&format!("{price}e{exponent}")).map_err(|_| wrong(text))
}

/// Whether the text is a number that has more digits than a decimal holds.
fn has_many_digits(number: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    number.bytes().all(is_digit) && number.matches('.').count() <= 1
}

fn too_long(number: &str, text: &str) -> String {
    let (whole, _) = number.split_once('.').unwrap_or((number, ""));
    let is_large = 12 < whole.trim_start_matches('0').len();
    if is_large { too_large(text) } else { too_fine(text) }
}

fn too_fine(text: &str) -> String {
    format!("a price has at most two decimals, and {text} has more")
}

fn too_large(text: &str) -> String {
    let whole = CENTS_MAX / 100;
    let rest = CENTS_MAX % 100;
    format!("a price is at most {whole}.{rest:02}, and {text} is more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_parsed_exactly() {
        let table = [
            ("0.07", 7),
            ("1.1", 110),
            ("16", 1_600),
            ("200.99", 20_099),
            ("015.50", 1_550),
            ("15.990", 1_599),
            ("0", 0),
            ("0e999999999", 0),
            ("1e2", 10_000),
            ("1.5E+1", 1_500),
            ("1e-2", 1),
            ("1500e-3", 150),
            ("99999999999.99", 9_999_999_999_999),
            ("100000000000", 10_000_000_000_000),
            ("1.000000000000000000000000000", 100),
        ];
        for (text, expected) in table {
            assert_eq!(cents(text).map(Cents::get), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_invalid_price_is_refused_with_the_reason() {
        let table = [
            ("", "number like"),
            (".5", "number like"),
            ("5.", "number like"),
            ("NaN", "number like"),
            ("inf", "number like"),
            ("1,50", "number like"),
            ("1_000", "number like"),
            ("1_0.0_1", "number like"),
            ("1_0e1", "number like"),
            ("1e", "number like"),
            ("1e1.5", "number like"),
            ("0x10", "number like"),
            ("\u{ff11}", "number like"),
            ("1.999", "two decimals"),
            ("19.999999999999999999", "two decimals"),
            ("0.07000000000000000000000000000000000000001", "two decimals"),
            ("0.30000000000000004", "two decimals"),
            ("1e-3", "two decimals"),
            ("1e-999999999999", "two decimals"),
            ("1e15", "at most 100000000000.00"),
            ("1e999999999999", "at most 100000000000.00"),
            ("100000000000.01", "at most 100000000000.00"),
            ("99999999999999999999999999999999999999", "at most 100000000000.00"),
            ("00000000000000000000000000000000000001.001", "two decimals"),
            ("-1", "negative"),
            ("-0.0", "negative"),
        ];
        for (text, word) in table {
            let why = cents(text).unwrap_err();
            assert!(why.contains(word), "{text:?} says {why:?}");
        }
    }
}
