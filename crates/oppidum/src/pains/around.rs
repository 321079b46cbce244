//! Looking around in a store that one has never seen: which dialect it speaks, and what it sells.
//!
//! Ours says so at `/status` and lists its products. Others may do neither: then the products of
//! the two classic shops are tried by name, under both paths.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ::frontend::classic::Dialect;
use serde_json::Value;
use wire::exit::Stop;

use super::front::{Front, Shown, shelf};
use crate::http::Client;
use crate::shop;

/// How long a store may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most products that are looked at, one by one.
const KNOWN_MAX: usize = 50;

/// A store, seen from outside.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    /// Its public addresses.
    pub(crate) urls: Vec<String>,
    /// The dialect it speaks.
    pub(crate) dialect: Dialect,
    /// What it sells, as far as we know, with what there is of it; most first.
    pub(crate) products: Vec<(String, i64)>,
}

impl Around {
    /// One of the addresses: they are taken in turn.
    pub(crate) fn front(&self, turn: usize) -> Result<Front, Stop> {
        Front::new(&self.urls[turn % self.urls.len()], self.dialect)
    }

    /// What there is most of.
    pub(crate) fn richest(&self) -> (String, i64) {
        self.products.first().cloned().unwrap_or_default()
    }
}

/// Looks around. Whatever is given is believed, the rest is asked for.
pub(crate) async fn look_around(
    urls: &[String],
    dialect: Option<Dialect>,
    products: &[String],
) -> Result<Around, Stop> {
    let Some(url) = urls.first() else {
        return Err(Stop::Setup("no address of a store was given".into()));
    };
    let mut client = Client::patient(url, PATIENCE)?;
    let said = said_dialect(&mut client, url).await?;
    let dialect = dialect.or(said);
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
        let mut front = Front::new(url, dialect)?;
        let mut products = Vec::new();
        for name in names {
            match front.look(&name).await {
                Ok(Shown { quantity, .. }) => products.push((name, quantity)),
                Err(why) => last = why,
            }
        }
        if !products.is_empty() {
            products.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
            return Ok(Around { urls: urls.to_vec(), dialect, products });
        }
    }
    Err(Stop::Setup(format!(
        "no product was found at {url}: {last}; name one with --product, and the --dialect"
    )))
}

/// The dialect that a store says it speaks, if it says so. The error: nobody is there at all.
async fn said_dialect(client: &mut Client, url: &str) -> Result<Option<Dialect>, Stop> {
    let no = |why: String| Stop::Setup(format!("no store answers at {url}: {why}"));
    client.open().await.map_err(no)?;
    let began = Instant::now();
    let status = match client.get("/status").await {
        Ok(reply) => reply.json().unwrap_or_default(),
        Err(why) if PATIENCE <= began.elapsed() => return Err(no(why)),
        // It may break the connection where it has no such route, and be a store all the same.
        Err(_) => Value::Null,
    };
    let mut processes = status["processes"].as_array().into_iter().flatten();
    let said = processes.find_map(|process| process["dialect"].as_str());
    Ok(match said {
        Some("stock") => Some(Dialect::Stock),
        Some("toy") => Some(Dialect::Toy),
        _ => None,
    })
}

/// What a store lists; if it lists nothing, what the classic shops sell.
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
