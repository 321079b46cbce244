//! The measured shops, and their shop files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The product that the orders want.
pub(crate) const HOT: &str = "GameStart";

/// The product that is sold out.
pub(crate) const GONE: &str = "SoldOut";

/// The initial stock: far more than any run can buy, far below the stock's limit of 2^53.
const PLENTY: u64 = 1_000_000_000_000;

/// A shop's products, the first of which is [`HOT`]; its file has [`GONE`] as well.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) products: Vec<String>,
}

impl Shop {
    pub(crate) fn of(count: usize) -> Self {
        let rest = (1..count).map(|place| format!("Product{place:05}"));
        Self { products: std::iter::once(HOT.to_owned()).chain(rest).collect() }
    }

    /// Writes the shop file, and returns its path.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("shop.toml");
        fs::write(&path, self.text()).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let stocked = self.products.iter().map(|name| (name.as_str(), PLENTY));
        for (name, quantity) in stocked.chain([(GONE, 0)]) {
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "[[product]]\nname = \"{name}\"\nprice = 15.99\nquantity = {quantity}\n"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shop_has_the_hot_and_the_sold_out_product() {
        let shop = Shop::of(10);
        let text: toml::Value = toml::from_str(&shop.text()).expect("the file is TOML");
        let products = text["product"].as_array().expect("a list of products");
        assert_eq!((shop.products.len(), products.len()), (10, 11));
        assert_eq!(products[0]["name"].as_str(), Some(HOT));
        assert_eq!(products[10]["quantity"].as_integer(), Some(0));
    }
}
