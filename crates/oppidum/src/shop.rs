//! Shop files: the products of a new shop, as TOML or as JSON of the same shape.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use ledger::command::{Definition, SHOP_PRODUCTS_MAX};
use ledger::terms::{Cents, FIRST_ORDER_NUMBER_MAX, Name, OrderNumber, Quantity, STOCK_MAX};
use order::Shop;
use serde::Deserialize;
use serde_json::value::RawValue;
use toml::Spanned;
use wire::exit::Stop;
use wire::names::new_name;

use crate::price::cents;

const STOCK: &str = include_str!("../../../shops/stock.toml");
const TOY: &str = include_str!("../../../shops/toy.toml");

/// A shop file, with prices in the form of its format.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShopFile<P> {
    #[serde(default)]
    first_order_number: u64,
    #[serde(default = "Vec::new")]
    product: Vec<ShopProduct<P>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShopProduct<P> {
    name: String,
    /// The price as written, a number or a text, before any rounding to a binary fraction.
    price: P,
    quantity: u64,
    restock_to: Option<u64>,
}

/// Whether a shop file opens a new shop, or may have opened this one before: rules that became
/// stricter since must not keep an old store from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    New,
    MayBeOpen,
}

impl Age {
    /// The shop of a replica is new while the replica has no folder.
    pub(crate) fn of(folder: &Path) -> Self {
        if folder.exists() { Self::MayBeOpen } else { Self::New }
    }

    /// The shop of a store is new while its folder contains no replica's folder.
    pub(crate) fn of_store(data: &Path) -> Self {
        let entries = std::fs::read_dir(data).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        let is_old = names.any(|name| name.to_string_lossy().starts_with("order-"));
        if is_old { Self::MayBeOpen } else { Self::New }
    }
}

/// Loads a shop from a file, or a built-in one: `stock`, `toy`. Returns its source, too.
pub(crate) fn load(source: &str, age: Age) -> Result<(Shop, String), Stop> {
    let (text, from) = match source {
        "stock" => (STOCK.to_owned(), "the built-in stock bazaar".to_owned()),
        "toy" => (TOY.to_owned(), "the built-in toy store".to_owned()),
        path => {
            let bytes = std::fs::read(path).map_err(|error| {
                Stop::Setup(format!(
                    "the shop file {path} cannot be read: {error}; \
                     give a file, or one of: stock, toy"
                ))
            })?;
            let text = String::from_utf8(bytes).map_err(|_| {
                Stop::Setup(format!("the shop file {path} is not UTF-8: save it as UTF-8"))
            })?;
            (text, path.to_owned())
        }
    };
    let is_json = Path::new(source).extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let shop = parse(&text, is_json, age);
    shop.map(|shop| (shop, from.clone())).map_err(|why| Stop::Setup(format!("shop {from}: {why}")))
}

/// Writes the lines of one product in a shop file. The name must need no escapes.
pub(crate) fn product_lines(name: &str, price: impl Display, quantity: u64) -> String {
    format!("[[product]]\nname = \"{name}\"\nprice = {price}\nquantity = {quantity}\n\n")
}

/// Parses a shop.
pub(crate) fn parse(text: &str, is_json: bool, age: Age) -> Result<Shop, String> {
    // Some editors put a byte order mark before the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if is_json {
        let file: ShopFile<Box<RawValue>> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        shop(file, age, |price| json_price(price.get()))
    } else {
        let file: ShopFile<Spanned<toml::Value>> =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        shop(file, age, |price| match price.get_ref() {
            toml::Value::String(price) => cents(price),
            toml::Value::Integer(_) | toml::Value::Float(_) => {
                // The price as written; TOML allows underscores between digits.
                let raw = text.get(price.span()).unwrap_or_default().replace('_', "");
                cents(raw.strip_prefix('+').unwrap_or(&raw))
            }
            other => Err(no_price(other.type_str())),
        })
    }
}

/// Parses the price of a JSON file.
fn json_price(raw: &str) -> Result<Cents, String> {
    match raw.bytes().next() {
        Some(b'"') => cents(&serde_json::from_str::<String>(raw).map_err(|e| e.to_string())?),
        Some(b'-' | b'0'..=b'9') => cents(raw),
        Some(b'{') => Err(no_price("an object")),
        Some(b'[') => Err(no_price("an array")),
        _ => Err(no_price(raw)),
    }
}

fn no_price(what: &str) -> String {
    format!("a price is a number or a text, and {what} is neither")
}

fn shop<P>(
    file: ShopFile<P>,
    age: Age,
    price: impl Fn(P) -> Result<Cents, String>,
) -> Result<Shop, String> {
    if file.product.is_empty() {
        return Err("it has no products: add a [[product]]".into());
    }
    if SHOP_PRODUCTS_MAX < file.product.len() {
        return Err(format!("it has more than {SHOP_PRODUCTS_MAX} products"));
    }
    if FIRST_ORDER_NUMBER_MAX < file.first_order_number && age == Age::New {
        return Err(format!("first_order_number is at most {FIRST_ORDER_NUMBER_MAX}"));
    }
    let mut known = BTreeSet::new();
    let mut products = Vec::with_capacity(file.product.len());
    for product in file.product {
        let named = format!("product {:?}", product.name);
        let definition = define(product, age, &price).map_err(|why| format!("{named}: {why}"))?;
        if !known.insert(definition.name.clone()) {
            return Err(format!("{named} is there twice"));
        }
        products.push(definition);
    }
    Ok(Shop { first_order_number: OrderNumber(file.first_order_number), products })
}

fn define<P>(
    product: ShopProduct<P>,
    age: Age,
    price: impl Fn(P) -> Result<Cents, String>,
) -> Result<Definition, String> {
    let name = match (new_name(&product.name), age) {
        (Ok(name), _) => name,
        (Err(why), Age::New) => return Err(why),
        (Err(why), Age::MayBeOpen) => Name::new(&product.name).ok_or(why)?,
    };
    let price = price(product.price)?;
    if STOCK_MAX < product.quantity {
        return Err(format!("quantity is at most {STOCK_MAX}"));
    }
    let restock_to = match product.restock_to {
        None | Some(0) => None,
        Some(pieces) => {
            Some(Quantity::new(pieces).ok_or("restock_to is at most 1000000".to_owned())?)
        }
    };
    Ok(Definition { name, price, stock: product.quantity, restock_to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_shops_are_as_documented() {
        let (stock, _) = load("stock", Age::New).unwrap();
        let names: Vec<_> = stock.products.iter().map(|product| product.name.as_str()).collect();
        assert_eq!(names.len(), 10);
        let prices = [("CrassusRealty", 3099), ("TiberAqueducts", 20099), ("GameStart", 1599)];
        for (name, cents) in prices {
            let product = stock.products.iter().find(|product| product.name.as_str() == name);
            assert_eq!(product.map(|product| product.price.get()), Some(cents), "{name}");
        }
        assert!(stock.products.iter().all(|product| product.stock == 100));
        let (toy, _) = load("toy", Age::New).unwrap();
        assert!(10 <= toy.products.len());
        for name in ["whale", "tux"] {
            assert!(toy.products.iter().any(|product| product.name.as_str() == name));
        }
        assert!(toy.products.iter().all(|p| p.restock_to.map(Quantity::get) == Some(100)));
    }

    /// Parses a shop with one product of this price.
    fn priced(price: &str, is_json: bool) -> Result<u64, String> {
        let text = if is_json {
            format!(r#"{{"product":[{{"name":"bear","price":{price},"quantity":1}}]}}"#)
        } else {
            format!("[[product]]\nname = \"bear\"\nprice = {price}\nquantity = 1\n")
        };
        parse(&text, is_json, Age::New).map(|shop| shop.products[0].price.get())
    }

    /// The price is the decimal number of the file, not the nearest binary fraction.
    #[test]
    fn a_price_is_the_exact_number_in_the_file() {
        let table = [("29.99", 2_999), ("\"15.99\"", 1_599), ("1e2", 10_000), ("64.10", 6_410)];
        for (price, expected) in table {
            for is_json in [true, false] {
                assert_eq!(priced(price, is_json), Ok(expected), "{price}");
            }
        }
        assert_eq!(priced("1_000.5", false), Ok(100_050));
        assert_eq!(priced("+1.5", false), Ok(150));
        for price in ["19.999999999999999999", "0.07000000000000000001", "1.0000000000000001"] {
            for is_json in [true, false] {
                let why = priced(price, is_json).unwrap_err();
                assert!(why.contains("two decimals"), "{price} says {why}");
            }
        }
    }

    #[test]
    fn an_invalid_price_is_named() {
        for (price, word) in [
            ("null", "null is neither"),
            ("true", "true is neither"),
            ("[1]", "an array is neither"),
            ("{}", "an object is neither"),
            ("1e15", "at most 100000000000.00"),
            ("-1", "negative"),
        ] {
            let why = priced(price, true).unwrap_err();
            assert!(why.contains(word), "{price} says {why}");
        }
        for (price, word) in [("true", "neither"), ("nan", "number like"), ("-1", "negative")] {
            let why = priced(price, false).unwrap_err();
            assert!(why.contains(word), "{price} says {why}");
        }
    }

    /// Some editors and spreadsheets put a byte order mark before the text.
    #[test]
    fn a_shop_with_a_byte_order_mark_is_read() {
        let json = "\u{feff}{\"product\":[{\"name\":\"a\",\"price\":1,\"quantity\":1}]}";
        let toml = "\u{feff}[[product]]\r\nname = \"a\"\r\nprice = 1.5\r\nquantity = 1\r\n";
        assert_eq!(parse(json, true, Age::New).unwrap().products[0].price.get(), 100);
        assert_eq!(parse(toml, false, Age::New).unwrap().products[0].price.get(), 150);
    }

    /// A file in UTF-16 gets an error that names UTF-8, not one about damage.
    #[test]
    fn a_shop_in_another_encoding_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.json");
        std::fs::write(&path, b"\xff\xfe{\0}\0").unwrap();
        let stop = load(path.to_str().unwrap(), Age::New).unwrap_err().to_string();
        assert!(stop.contains("UTF-8"), "{stop}");
    }

    /// Above the largest number that JSON readers keep exact, a look-up would find another order;
    /// and a store needs a range of numbers for its orders.
    #[test]
    fn a_shop_does_not_open_where_order_numbers_run_out() {
        let shop = |first: u64, age| {
            let product = "[[product]]\nname = \"a\"\nprice = 1\nquantity = 1\n";
            parse(&format!("first_order_number = {first}\n{product}"), false, age)
        };
        assert!(shop(FIRST_ORDER_NUMBER_MAX, Age::New).is_ok());
        for first in [FIRST_ORDER_NUMBER_MAX + 1, (1 << 53) - 1, 1 << 53, i64::MAX.unsigned_abs()] {
            let why = shop(first, Age::New).unwrap_err();
            assert!(why.contains("at most 8000000000000000"), "{why}");
            assert!(shop(first, Age::MayBeOpen).is_ok(), "an old store starts");
        }
        let product = r#"[{"name":"a","price":1,"quantity":1}]"#;
        let json = format!(r#"{{"first_order_number":{},"product":{product}}}"#, u64::MAX);
        assert!(parse(&json, true, Age::New).is_err());
    }

    /// A name that predates the rules for new names must not keep its store from starting.
    #[test]
    fn a_new_shop_has_no_names_that_look_the_same_and_an_old_one_starts() {
        let text = "[[product]]\nname = \"a\u{200b}\"\nprice = 1\nquantity = 1\n";
        assert!(parse(text, false, Age::New).unwrap_err().contains("U+200B"));
        assert_eq!(parse(text, false, Age::MayBeOpen).unwrap().products.len(), 1);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Age::of_store(folder.path()), Age::New);
        assert_eq!(Age::of(&folder.path().join("order-7")), Age::New);
        std::fs::create_dir(folder.path().join("order-7")).unwrap();
        assert_eq!(Age::of_store(folder.path()), Age::MayBeOpen);
        assert_eq!(Age::of(&folder.path().join("order-7")), Age::MayBeOpen);
    }

    #[test]
    fn an_invalid_shop_is_refused_with_the_reason() {
        let table = [
            ("", "no products"),
            ("[[product]]\nname = \"a\"\nprice = 1\nquantity = 1\ncolour = 2\n", "colour"),
            ("[[product]]\nname = \"a\"\nprice = 1.234\nquantity = 1\n", "two decimals"),
            ("[[product]]\nname = \"\"\nprice = 1\nquantity = 1\n", "name"),
            ("[[product]]\nname = \"a\"\nprice = 1\nquantity = -1\n", "quantity"),
        ];
        for (text, word) in table {
            let why = parse(text, false, Age::New).unwrap_err();
            assert!(why.contains(word), "{text:?} says {why:?}");
        }
        let twice = "[[product]]\nname = \"a\"\nprice = 1\nquantity = 1\n".repeat(2);
        assert!(parse(&twice, false, Age::New).unwrap_err().contains("twice"));
    }
}
