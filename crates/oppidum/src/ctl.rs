//! The shop owner's commands: define, price and restock products while the store is open.
//!
//! These commands go to the leader's internal listener, because the public one has no owner. With
//! mutual TLS they need an operator's certificate; without, every process that can reach the
//! replicas is trusted with the shop.

use std::time::{Duration, Instant};

use ledger::command::{Command, Definition, Request};
use ledger::outcome::{Accepted, Outcome};
use ledger::terms::{Cents, Index, Key, Name, Origin, Quantity};
use serde_json::Value;
use wire::convert;
use wire::dial::Route;
use wire::exit::Stop;
use wire::names::new_name;
use wire::problem::{Code, Problem};
use wire::proto::{answer, ask};
use wire::stream::Caller;

use crate::cli::Product;
use crate::cli::values::Url;
use crate::client::encode;
use crate::http::Client;
use crate::inspect;
use crate::internal_plane;
use crate::price::cents;
use crate::settings::Settings;

/// How long a command waits for a leader.
const DECISION_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the command. False: the ledger refused it.
pub(crate) async fn product(product: Product) -> Result<bool, Stop> {
    let mut settings = Settings::load()?;
    let mut at = |flag: Url| flag.resolve(&mut settings);
    match product {
        Product::List(url) => {
            list(&at(url)?).await?;
            Ok(true)
        }
        Product::Define { name, price, quantity, restock_to, url } => {
            let name = new_name(&name).map_err(Stop::Setup)?;
            let price = priced(&price)?;
            let restock_to = restock_to.map(counted).transpose()?;
            let done = format!("{name} is for sale at {price}, {quantity} in stock");
            let definition = Definition { name, price, stock: quantity, restock_to };
            report(decide(&at(url)?, Command::Define(definition)).await?, &done)
        }
        Product::Price { name, price, url } => {
            let name = named(&name)?;
            let price = priced(&price)?;
            let done = format!("{name} costs {price}");
            report(decide(&at(url)?, Command::SetPrice { name, price }).await?, &done)
        }
        Product::Restock { name, quantity, url } => {
            let name = named(&name)?;
            let quantity = counted(quantity)?;
            let done = format!("{} more of {name}", quantity.get());
            report(decide(&at(url)?, Command::RestockBy { name, quantity }).await?, &done)
        }
    }
}

pub(crate) fn report(outcome: Outcome, done: &str) -> Result<bool, Stop> {
    match outcome {
        Outcome::Accepted(Accepted::Unchanged) => answer!("nothing to do"),
        Outcome::Accepted(_) => answer!("done: {done}"),
        Outcome::Refused(refusal) => {
            answer!("refused: {refusal}");
            return Ok(false);
        }
        Outcome::Repeated { first, .. } => return report(*first, done),
    }
    Ok(true)
}

async fn list(url: &str) -> Result<(), Stop> {
    let mut client = Client::new(url)?;
    let mut after = String::new();
    answer!("{:<32} {:>14} {:>12}", "product", "price", "in stock");
    loop {
        let path = format!("/products?limit=1000&after={}", encode(&after));
        let reply = client.get(&path).await;
        let reply =
            reply.map_err(|why| Stop::Setup(format!("no store answers at {url}: {why}")))?;
        let listed = reply.json().map_err(Stop::Setup)?;
        let Some(products) = listed["data"].as_array() else {
            let why = listed["error"]["message"].as_str().unwrap_or("it lists nothing");
            return Err(Stop::Setup(format!("the store at {url} says: {why}")));
        };
        let Some(last) = products.last() else { return Ok(()) };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        after = text(&last["name"]);
        for product in products {
            let price = product["price"].as_f64().unwrap_or_default();
            answer!(
                "{:<32} {price:>14.2} {:>12}",
                text(&product["name"]),
                product["quantity"].to_string()
            );
        }
    }
}

/// Proposes the command to the leader under one key, until it is decided.
pub(crate) async fn decide(url: &str, command: Command) -> Result<Outcome, Stop> {
    let text = format!("owner-{:032x}", rand::random::<u128>());
    let key = Key::new(Origin::Client, &text);
    let request = Request { key, deadline: None, certificate: None, command };
    let what = ask::What::Request(convert::request_to(&request));
    let began = Instant::now();
    let mut last = "no leader".to_owned();
    let mut is_new = true;
    while began.elapsed() < DECISION_TIMEOUT {
        let store = inspect::fetch(url).await?;
        if let Some(leader) = store.leading() {
            let route = internal_plane::to_replica(leader.id)?;
            match ask_once(&route, &leader.address, what.clone()).await {
                Ok(outcome) => return Ok(outcome),
                // The leader does not take this command, and no earlier try can have been decided.
                Err(problem)
                    if matches!(problem.code, Code::Malformed | Code::NotPermitted) && is_new =>
                {
                    return Err(Stop::Setup(problem.message));
                }
                Err(problem) => {
                    is_new &= problem.definite;
                    last = problem.message;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Stop::Setup(format!("it could not be decided: {last}; ask `oppidum status`")))
}

async fn ask_once(route: &Route, address: &str, what: ask::What) -> Result<Outcome, Problem> {
    let caller = Caller::connect(route, address).await;
    let caller = caller.map_err(|error| Problem::definite(Code::Refused, error.to_string()))?;
    let answer = caller.ask(what, Duration::from_secs(3)).await?;
    let Some(answer::What::Outcome(outcome)) = answer.what else {
        let why = "the leader sent an answer of another kind";
        return Err(Problem::indefinite(Code::Unknown, why));
    };
    convert::outcome_from(outcome, Index(answer.as_of))
}

fn named(name: &str) -> Result<Name, Stop> {
    let odd = || Stop::Setup("a name has 1 to 128 bytes and no control characters".into());
    Name::new(name).ok_or_else(odd)
}

fn priced(price: &str) -> Result<Cents, Stop> {
    cents(price).map_err(Stop::Setup)
}

fn counted(pieces: u64) -> Result<Quantity, Stop> {
    Quantity::new(pieces).ok_or_else(|| Stop::Setup("a quantity is from 1 to 1000000".into()))
}
