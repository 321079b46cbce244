//! Discovery of an unknown store: its dialect and its products.
//!
//! This project's store reports its dialect at `/status` and lists its products. Another store may
//! do neither: then discovery tries the products of the two classic shops, under both paths.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ::frontend::classic::Dialect;
use serde_json::Value;
use wire::exit::Stop;

use super::api::{ShownProduct, StoreApi, shelf};
use crate::http::Client;
use crate::shop;

/// How long a store may take to report its dialect.
const DIALECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most products that are queried.
const KNOWN_MAX: usize = 50;

/// The store under test, as seen from outside.
#[derive(Clone, Debug)]
pub(crate) struct StoreUnderTest {
    /// The public addresses.
    pub(crate) urls: Vec<String>,
    /// The dialect.
    pub(crate) dialect: Dialect,
    /// The known products with their stock, highest stock first.
    pub(crate) products: Vec<ProductStock>,
}

/// A product with its stock.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProductStock {
    pub(crate) name: String,
    pub(crate) quantity: i64,
}

impl StoreUnderTest {
    /// A client of one of the addresses, which are taken in turn.
    pub(crate) fn api(&self, turn: usize) -> Result<StoreApi, Stop> {
        StoreApi::new(&self.urls[turn % self.urls.len()], self.dialect)
    }

    /// The product with the highest stock.
    pub(crate) fn richest(&self) -> ProductStock {
        self.products.first().cloned().unwrap_or_default()
    }
}

/// Discovers the store. The given dialect and products are taken as they are.
pub(crate) async fn discover(
    urls: &[String],
    dialect: Option<Dialect>,
    products: &[String],
) -> Result<StoreUnderTest, Stop> {
    let Some(url) = urls.first() else {
        return Err(Stop::Setup("no address of a store was given".into()));
    };
    let mut client = Client::with_timeout(url, DIALECT_TIMEOUT)?;
    let reported = reported_dialect(&mut client, url).await?;
    let dialect = dialect.or(reported);
    let dialects = match dialect {
        Some(dialect) => vec![dialect],
        None => vec![Dialect::Stock, Dialect::Toy],
    };
    let mut last = String::new();
    for dialect in dialects {
        let names = match products {
            [] => names(&mut client, dialect).await,
            named => named.to_vec(),
        };
        let mut api = StoreApi::new(url, dialect)?;
        let mut products = Vec::new();
        for name in names {
            match api.look(&name).await {
                Ok(ShownProduct { quantity, .. }) => products.push(ProductStock { name, quantity }),
                Err(why) => last = why,
            }
        }
        if !products.is_empty() {
            products.sort_by(|a, b| (b.quantity, &a.name).cmp(&(a.quantity, &b.name)));
            return Ok(StoreUnderTest { urls: urls.to_vec(), dialect, products });
        }
    }
    Err(Stop::Setup(format!(
        "no product was found at {url}: {last}; name one with --product, and the --dialect"
    )))
}

/// The dialect that a store reports, if it does. The error: no store answers at this address.
async fn reported_dialect(client: &mut Client, url: &str) -> Result<Option<Dialect>, Stop> {
    let no = |why: String| Stop::Setup(format!("no store answers at {url}: {why}"));
    client.open().await.map_err(no)?;
    let began = Instant::now();
    let status = match client.get("/status").await {
        Ok(reply) => reply.json().unwrap_or_default(),
        Err(why) if DIALECT_TIMEOUT <= began.elapsed() => return Err(no(why)),
        // A store without this route may break the connection.
        Err(_) => Value::Null,
    };
    let mut processes = status["processes"].as_array().into_iter().flatten();
    let reported = processes.find_map(|process| process["dialect"].as_str());
    Ok(match reported {
        Some("stock") => Some(Dialect::Stock),
        Some("toy") => Some(Dialect::Toy),
        _ => None,
    })
}

/// The products that a store lists; if it lists none, those of the classic shop.
async fn names(client: &mut Client, dialect: Dialect) -> Vec<String> {
    let listed = match client.get(shelf(dialect)).await {
        Ok(reply) => reply.json().unwrap_or_default(),
        Err(_) => Value::Null,
    };
    let named = listed["data"].as_array().into_iter().flatten();
    let named = named.filter_map(|product| product["name"].as_str());
    let mut names: BTreeSet<String> = named.take(KNOWN_MAX).map(str::to_owned).collect();
    if names.is_empty() {
        let built_in = shop::load(dialect.name(), shop::Age::New);
        let products = built_in.into_iter().flat_map(|(shop, _)| shop.products);
        names = products.map(|product| product.name.as_str().to_owned()).collect();
    }
    names.into_iter().collect()
}
