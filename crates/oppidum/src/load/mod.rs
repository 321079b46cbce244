//! `oppidum load`: customers who query and trade, and check every order at the end.
//!
//! In the words of the stock bazaar's sessions. A request that meets a failover is sent again under
//! its key, as any careful client would, so a crash costs time and never an order. The lab's
//! experiments let the same customers loose.

mod customer;

pub(crate) mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::cli::Load;
use crate::http::{self, Client};
use crate::inspect;
use crate::output;
use crate::signals::Signals;
use customer::Customer;
use report::Report;

/// The most pieces of one trade, usually.
const PIECES: u64 = 100;

/// What there is to buy, and in which words.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    /// The toy dialect, or the stock bazaar's.
    pub(crate) toy: bool,
    /// The products.
    pub(crate) names: Arc<[String]>,
}

/// How many customers, and what they do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// How many customers there are at once.
    pub(crate) clients: u16,
    /// How many queries each makes.
    pub(crate) requests: u64,
    /// The probability that a query is followed by a trade.
    pub(crate) p: f64,
    /// What the choices follow from.
    pub(crate) seed: u64,
    /// The most pieces of one trade.
    pub(crate) pieces: u64,
    /// How long each rests after a request.
    pub(crate) pause: Duration,
    /// How long one try may take.
    pub(crate) patience: Duration,
    /// Nothing is printed for each request.
    pub(crate) quiet: bool,
    /// Every request is remembered by itself.
    pub(crate) samples: bool,
}

impl Habits {
    /// Customers without a pause and with the usual patience, of whom nothing is printed.
    pub(crate) fn quiet(clients: u16, requests: u64, p: f64, seed: u64) -> Self {
        let (pause, patience) = (Duration::ZERO, http::PATIENCE);
        let (quiet, samples) = (true, false);
        Self { clients, requests, p, seed, pieces: PIECES, pause, patience, quiet, samples }
    }
}

/// What the customers have done so far, for those who look on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Queries, with the trades that followed.
    pub(crate) requests: AtomicU64,
    /// Orders acknowledged.
    pub(crate) orders: AtomicU64,
    /// Requests that failed.
    pub(crate) failed: AtomicU64,
    /// The longest wait since somebody last asked, in microseconds.
    longest: AtomicU64,
}

impl Tally {
    fn waited(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    /// The longest wait since this was last asked.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed))
    }
}

/// Lets the customers loose. True: every request was answered and every order confirmed.
pub(crate) async fn run(url: &str, flags: &Load) -> Result<bool, Stop> {
    if !(0.0..=1.0).contains(&flags.p) {
        return Err(Stop::Setup("-p is a probability: from 0 to 1".into()));
    }
    let shop = look_around(url).await?;
    let began = Instant::now();
    let closing = CancellationToken::new();
    tokio::spawn(close_on_signal(Signals::catch()?, closing.clone()));
    let habits = Habits::quiet(flags.clients, flags.requests, flags.p, flags.seed);
    let habits = Habits { quiet: flags.quiet, ..habits };
    let report = outing(&[url.to_owned()], &shop, habits, &closing, &Arc::default()).await?;
    report.print(began.elapsed());
    Ok(report.is_clean())
}

/// Lets customers loose on frontends of one store, until they have done what they came for, or are
/// told to close, and have confirmed what they placed.
pub(crate) async fn outing(
    urls: &[String],
    shop: &Shop,
    habits: Habits,
    closing: &CancellationToken,
    tally: &Arc<Tally>,
) -> Result<Report, Stop> {
    let mut customers = tokio::task::JoinSet::new();
    for number in 0..habits.clients {
        let clients = urls.iter().map(|url| Client::patient_for(url, habits.patience));
        let clients = clients.collect::<Result<Vec<_>, Stop>>()?;
        let seed = habits.seed.wrapping_mul(1_000_003).wrapping_add(number.into());
        let (shop, closing, tally) = (shop.clone(), closing.clone(), tally.clone());
        let first = usize::from(number);
        let customer = Customer::new(clients, first, shop, seed, habits, closing, tally);
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

/// The first Ctrl-C ends the shopping: what was placed is still confirmed. The second ends it all.
/// Without a reader there is no more shopping, either.
async fn close_on_signal(mut signals: Signals, closing: CancellationToken) {
    loop {
        tokio::select! {
            () = signals.next() => {}
            () = output::reader_gone().cancelled(), if !closing.is_cancelled() => {
                closing.cancel();
                continue;
            }
        }
        if closing.is_cancelled() {
            std::process::exit(130);
        }
        note!("oppidum: no further requests; confirming what was placed (Ctrl-C again: leave)");
        closing.cancel();
    }
}

/// Which products there are, and which dialect is spoken.
pub(crate) async fn look_around(url: &str) -> Result<Shop, Stop> {
    let status = inspect::public(url).await?;
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
