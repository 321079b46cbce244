//! `oppidum load`: customers who query and trade, and check every order at the end.
//!
//! In the words of the stock bazaar's sessions. A request that meets a failover is sent again under
//! its key, as any careful client would, so a crash costs time and never an order.

mod customer;

mod report;

use std::time::Instant;

use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::cli::Load;
use crate::http::Client;
use crate::inspect;
use customer::{Customer, Shop};
use report::Report;

/// Lets the customers loose. True: every request was answered and every order confirmed.
pub(crate) async fn run(url: &str, flags: &Load) -> Result<bool, Stop> {
    if !(0.0..=1.0).contains(&flags.p) {
        return Err(Stop::Setup("-p is a probability: from 0 to 1".into()));
    }
    let shop = look_around(url).await?;
    let began = Instant::now();
    let mut customers = tokio::task::JoinSet::new();
    let closing = CancellationToken::new();
    tokio::spawn(close_on_signal(closing.clone()));
    for number in 0..flags.clients {
        let client = Client::new(url)?;
        let seed = flags.seed.wrapping_mul(1_000_003).wrapping_add(number.into());
        let quiet = flags.quiet;
        let (requests, p) = (flags.requests, flags.p);
        let customer = Customer::new(client, shop.clone(), seed, quiet, closing.clone());
        customers.spawn(customer.shop(requests, p));
    }
    let mut report = Report::default();
    while let Some(finished) = customers.join_next().await {
        match finished {
            Ok(own) => report.add(&own),
            Err(error) => report.failures.push(format!("a customer vanished: {error}")),
        }
    }
    report.print(began.elapsed());
    Ok(report.is_clean())
}

/// The first Ctrl-C ends the shopping: what was placed is still confirmed. The second ends it all.
async fn close_on_signal(closing: CancellationToken) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if closing.is_cancelled() {
            std::process::exit(130);
        }
        eprintln!("oppidum: no further requests; confirming what was placed (Ctrl-C again: leave)");
        closing.cancel();
    }
}

/// Which products there are, and which dialect is spoken.
async fn look_around(url: &str) -> Result<Shop, Stop> {
    let status = inspect::fetch(url).await?;
    let dialect = status.processes.iter().find_map(|process| process.dialect.clone());
    let toy = dialect.as_deref() == Some("toy");
    let no = |why: String| Stop::Setup(format!("the shop at {url} cannot be seen: {why}"));
    let reply = Client::new(url)?.get("/products?limit=1000").await.map_err(no)?;
    let listed = reply.json().map_err(no)?;
    let names = listed["data"].as_array().into_iter().flatten();
    let names: Vec<_> = names.filter_map(|p| p["name"].as_str().map(str::to_owned)).collect();
    if names.is_empty() {
        return Err(no("it has no products".into()));
    }
    Ok(Shop { toy, names: names.into() })
}
