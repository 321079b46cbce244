//! `oppidum load`: simulated customers that query and trade, and look every order up at the end.
//!
//! The output uses the words of the stock bazaar's sessions. A request during a failover is sent
//! again under its key, as by any careful client, so a crash costs time and never an order. The
//! lab's experiments use the same customers.

mod customer;

pub(crate) mod report;

pub(crate) mod workload;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::cli::Load;
use crate::http::Client;
use crate::inspect;
use crate::output;
use crate::signals::Interrupt;
use customer::Customer;
use report::Report;
use workload::{LoadProgress, LoadedShop, Workload};

/// Runs the customers. True: every request was answered and every order confirmed.
pub(crate) async fn run(url: &str, flags: &Load) -> Result<bool, Stop> {
    if !(0.0..=1.0).contains(&flags.p) {
        return Err(Stop::Setup("-p is a probability: from 0 to 1".into()));
    }
    let shop = fetch_shop(url).await?;
    let began = Instant::now();
    let closing = stop_trading()?;
    let workload = Workload::quiet(flags.clients, flags.requests, flags.p, flags.seed);
    let workload = Workload { quiet: flags.quiet, ..workload };
    let report =
        run_customers(&[url.to_owned()], &shop, workload, &closing, &Arc::default()).await?;
    report.print(began.elapsed());
    Ok(report.is_clean())
}

/// Runs customers on the frontends of one store, until their requests are done or `closing` is
/// cancelled, and their orders are confirmed.
pub(crate) async fn run_customers(
    urls: &[String],
    shop: &LoadedShop,
    workload: Workload,
    closing: &CancellationToken,
    tally: &Arc<LoadProgress>,
) -> Result<Report, Stop> {
    let mut customers = tokio::task::JoinSet::new();
    for number in 0..workload.clients {
        let clients = urls.iter().map(|url| Client::with_answer_timeout(url, workload.timeout));
        let clients = clients.collect::<Result<Vec<_>, Stop>>()?;
        let seed = workload.seed.wrapping_mul(1_000_003).wrapping_add(number.into());
        let customer = Customer::new(
            clients,
            usize::from(number),
            shop.clone(),
            seed,
            workload,
            closing.clone(),
            tally.clone(),
        );
        customers.spawn(customer.shop());
    }
    let mut report = Report::default();
    while let Some(finished) = customers.join_next().await {
        match finished {
            Ok(own) => report.add(&own),
            Err(error) => report.failures.push(format!("a customer vanished: {error}")),
        }
    }
    Ok(report)
}

/// The token that ends the trading, after which the placed orders are still confirmed: cancelled by
/// the first signal, or when stdout is closed. The next signal ends the process.
fn stop_trading() -> Result<CancellationToken, Stop> {
    let interrupt = Interrupt::listen_and(false, || {
        note!("oppidum: no further requests; confirming what was placed (Ctrl-C again: leave)");
    })?;
    interrupt.exit_when_hurried();
    let closing = interrupt.stop.clone();
    tokio::spawn(async move {
        output::reader_gone().cancelled().await;
        closing.cancel();
    });
    Ok(interrupt.stop)
}

/// Queries the products of a store and its dialect.
pub(crate) async fn fetch_shop(url: &str) -> Result<LoadedShop, Stop> {
    let status = inspect::public(url).await?;
    let dialect = status.processes.iter().find_map(|process| process.dialect.clone());
    let toy = dialect.as_deref() == Some("toy");
    let no = |why: String| Stop::Setup(format!("the shop at {url} cannot be seen: {why}"));
    let reply = Client::new(url)?.get("/products?limit=1000").await.map_err(no)?;
    let listed = reply.json().map_err(no)?;
    if let Some(why) = listed["error"]["message"].as_str() {
        return Err(no(why.to_owned()));
    }
    let names = listed["data"].as_array().into_iter().flatten();
    let names: Vec<_> = names.filter_map(|p| p["name"].as_str().map(str::to_owned)).collect();
    if names.is_empty() {
        return Err(no("it has no products".into()));
    }
    Ok(LoadedShop { toy, names: names.into() })
}
