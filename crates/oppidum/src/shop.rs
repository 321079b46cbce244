//! Shop files: which products there are when the shop opens. TOML, or JSON of the same shape.

use std::collections::BTreeSet;
use std::path::Path;

use ledger::command::{Definition, SHOP_PRODUCTS_MAX};
use ledger::terms::{Cents, Name, OrderNumber, Quantity, STOCK_MAX};
use order::Shop;
use serde::Deserialize;
use wire::exit::Stop;

const STOCK: &str = include_str!("../../../shops/stock.toml");
const TOY: &str = include_str!("../../../shops/toy.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    first_order_number: u64,
    #[serde(default)]
    product: Vec<Product>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Product {
    name: String,
    price: Price,
    quantity: u64,
    restock_to: Option<u64>,
}

/// A price as people write it: a number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Price {
    Whole(u64),
    Fraction(f64),
    Text(String),
}

/// The shop of a file, or one of the built-in ones: `stock`, `toy`. With where it came from.
pub(crate) fn load(source: &str) -> Result<(Shop, String), Stop> {
    let (text, from) = match source {
        "stock" => (STOCK.to_owned(), "the built-in stock bazaar".to_owned()),
        "toy" => (TOY.to_owned(), "the built-in toy store".to_owned()),
        path => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Stop::Setup(format!(
                    "the shop file {path} cannot be read: {error}; \
                     give a file, or one of: stock, toy"
                ))
            })?;
            (text, path.to_owned())
        }
    };
    let is_json = Path::new(source).extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let shop = parse(&text, is_json);
    shop.map(|shop| (shop, from.clone())).map_err(|why| Stop::Setup(format!("shop {from}: {why}")))
}

/// A shop from its text.
pub(crate) fn parse(text: &str, is_json: bool) -> Result<Shop, String> {
    let file: File = if is_json {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?
    };
    if file.product.is_empty() {
        return Err("it has no products: add a [[product]]".into());
    }
    if SHOP_PRODUCTS_MAX < file.product.len() {
        return Err(format!("it has more than {SHOP_PRODUCTS_MAX} products"));
    }
    let mut known = BTreeSet::new();
    let mut products = Vec::with_capacity(file.product.len());
    for product in file.product {
        let named = format!("product {:?}", product.name);
        let definition = define(product).map_err(|why| format!("{named}: {why}"))?;
        if !known.insert(definition.name.clone()) {
            return Err(format!("{named} is there twice"));
        }
        products.push(definition);
    }
    Ok(Shop { first_order_number: OrderNumber(file.first_order_number), products })
}

fn define(product: Product) -> Result<Definition, String> {
    let name = Name::new(&product.name);
    let name = name.ok_or("a name has 1 to 128 bytes and no control characters")?;
    let price = match product.price {
        Price::Whole(whole) => cents(&whole.to_string())?,
        Price::Fraction(fraction) => cents(&fraction.to_string())?,
        Price::Text(text) => cents(&text)?,
    };
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

/// `15.99`, `16.5` or `16`: exact, at most two decimals. (A fraction that was read as binary is
/// written with the shortest decimals that give it back, which are the ones in the file.)
pub(crate) fn cents(text: &str) -> Result<Cents, String> {
    let odd = || format!("a price is a number with at most two decimals, not {text:?}");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) || 2 < decimals.len() {
        return Err(odd());
    }
    let whole: u64 = whole.parse().map_err(|_| odd())?;
    let hundredths: u64 = format!("{decimals:0<2}").parse().map_err(|_| odd())?;
    let cents = whole.checked_mul(100).and_then(|cents| cents.checked_add(hundredths));
    cents.and_then(Cents::new).ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_shops_are_as_documented() {
        let (stock, _) = load("stock").unwrap();
        let names: Vec<_> = stock.products.iter().map(|product| product.name.as_str()).collect();
        assert_eq!(names.len(), 10);
        let prices = [("CrassusRealty", 3099), ("TiberAqueducts", 20099), ("GameStart", 1599)];
        for (name, cents) in prices {
            let product = stock.products.iter().find(|product| product.name.as_str() == name);
            assert_eq!(product.map(|product| product.price.get()), Some(cents), "{name}");
        }
        assert!(stock.products.iter().all(|product| product.stock == 100));
        let (toy, _) = load("toy").unwrap();
        assert!(10 <= toy.products.len());
        for name in ["whale", "tux"] {
            assert!(toy.products.iter().any(|product| product.name.as_str() == name));
        }
        assert!(toy.products.iter().all(|p| p.restock_to.map(Quantity::get) == Some(100)));
    }

    #[test]
    fn prices_are_read_exactly() {
        for (text, expected) in [("0.07", 7), ("1.1", 110), ("16", 1600), ("200.99", 20099)] {
            assert_eq!(cents(text).map(Cents::get), Ok(expected), "{text}");
        }
        for text in ["", ".5", "1.999", "-1", "1e3", "NaN", "1,50", "99999999999999999"] {
            assert!(cents(text).is_err(), "{text}");
        }
        let json = r#"{"product":[{"name":"bear","price":29.99,"quantity":1}]}"#;
        assert_eq!(parse(json, true).unwrap().products[0].price.get(), 2999);
    }

    #[test]
    fn what_is_wrong_with_a_shop_is_said() {
        let table = [
            ("", "no products"),
            ("[[product]]\nname = \"a\"\nprice = 1\nquantity = 1\ncolour = 2\n", "colour"),
            ("[[product]]\nname = \"a\"\nprice = 1.234\nquantity = 1\n", "two decimals"),
            ("[[product]]\nname = \"\"\nprice = 1\nquantity = 1\n", "name"),
            ("[[product]]\nname = \"a\"\nprice = 1\nquantity = -1\n", "quantity"),
        ];
        for (text, word) in table {
            let why = parse(text, false).unwrap_err();
            assert!(why.contains(word), "{text:?} says {why:?}");
        }
        let twice = "[[product]]\nname = \"a\"\nprice = 1\nquantity = 1\n".repeat(2);
        assert!(parse(&twice, false).unwrap_err().contains("twice"));
    }
}
