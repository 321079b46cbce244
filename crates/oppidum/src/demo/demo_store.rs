//! The store of the demo and the prompt: its customers, and injected faults with their effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wire::exit::Stop;

use super::counter;
use crate::inspect::{self, IDENTICAL};
use crate::lab::cluster::LocalCluster;
use crate::lab::elections::{Election, elections};
use crate::load;
use crate::load::report::Report;
use crate::load::workload::{LoadProgress, Workload};
use crate::output::ms;

/// The number of customers.
pub(super) const CUSTOMERS: u16 = 5;

/// The most pieces of one order.
const PIECES: u64 = 5;

/// How long a customer pauses after a request.
const REST: Duration = Duration::from_millis(25);

/// How long a customer waits for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A store with customers in it.
pub(super) struct DemoStore<'a> {
    /// The store.
    pub(super) cluster: &'a LocalCluster,
    /// A frontend.
    pub(super) url: String,
    /// The counters of the customers.
    pub(super) tally: Arc<LoadProgress>,
    closing: CancellationToken,
    shopping: AbortOnDropHandle<Result<Report, Stop>>,
}

impl<'a> DemoStore<'a> {
    /// Starts the customers.
    pub(super) async fn open(cluster: &'a LocalCluster, seed: u64) -> Result<Self, Stop> {
        let urls = cluster.urls();
        let url = cluster.url();
        let shop = load::fetch_shop(&url).await?;
        let workload = Workload::quiet(CUSTOMERS, u64::MAX, 0.8, seed);
        let workload =
            Workload { pieces: PIECES, pause: REST, timeout: ANSWER_TIMEOUT, ..workload };
        let tally = Arc::new(LoadProgress::default());
        let closing = CancellationToken::new();
        let own_tally = tally.clone();
        let own_closing = closing.clone();
        let shopping = tokio::spawn(async move {
            load::run_customers(&urls, &shop, workload, &own_closing, &own_tally).await
        });
        Ok(Self { cluster, url, tally, closing, shopping: AbortOnDropHandle::new(shopping) })
    }

    /// Shows the order count for the duration `span`.
    pub(super) async fn count(&self, span: Duration) {
        counter::count(&self.tally, span).await;
    }

    /// Kills (`kill -9`) or freezes (SIGSTOP) a process; reports the effect. False: it was not
    /// running.
    pub(super) async fn inject_fault(&self, name: &str, freeze: bool) -> bool {
        let pid = self.cluster.pid(name);
        let (led, elected) = self.led(name);
        let injected = Instant::now();
        let hit = self.cluster.inject_fault(name, freeze).await;
        if hit {
            let signal = if freeze { "-STOP" } else { "-9" };
            answer!("$ kill {signal} {}   # {name}", pid.unwrap_or(0));
            self.aftermath(injected, led, elected).await;
        }
        hit
    }

    /// Whether the process is the leader by the log lines so far, and the number of elections.
    fn led(&self, name: &str) -> (bool, usize) {
        let elections = elections(&self.cluster.matched());
        let leader = elections.last().map(|election| format!("order-{}", election.leader));
        (leader.as_deref() == Some(name), elections.len())
    }

    /// Waits for a new leader, if the leader was hit, and for the next order; reports both times.
    async fn aftermath(&self, injected: Instant, led: bool, elected: usize) {
        const WAIT: Duration = Duration::from_secs(3);
        let pause = || tokio::time::sleep(Duration::from_millis(1));
        while led
            && elections(&self.cluster.matched()).len() <= elected
            && injected.elapsed() < WAIT
        {
            pause().await;
        }
        // Counted from here: answers of the former leader may still be in flight.
        let before = self.orders();
        while self.orders() <= before && injected.elapsed() < WAIT {
            pause().await;
        }
        let next = injected.elapsed();
        for Election { at, leader } in elections(&self.cluster.matched()).into_iter().skip(elected)
        {
            answer!("  {leader} leads after {}", ms(at - injected));
        }
        if WAIT <= next {
            answer!("  no order was acknowledged for {WAIT:?}");
        } else {
            answer!("  the next order was acknowledged after {}", ms(next));
        }
    }

    /// Restarts a process, and reports which replicas send it entries until it has caught up.
    pub(super) async fn restart(&self, name: &str) -> Result<bool, Stop> {
        let matched = self.cluster.matched().len();
        let began = Instant::now();
        if !self.cluster.restart(name) {
            return Ok(false);
        }
        while self.cluster.pid(name).is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answer!("  {name} is started again: pid {}", self.cluster.pid(name).unwrap_or(0));
        self.cluster.serves(name).await?;
        let took = began.elapsed();
        for line in self.sent_to(name, matched).await {
            answer!("  {line}");
        }
        answer!("  {name} does its whole work again after {}", ms(took));
        Ok(true)
    }

    /// The log lines of replicas that sent this one its missing entries. A line arrives a moment
    /// after the entries, so this waits for it up to a second.
    async fn sent_to(&self, name: &str, matched: usize) -> Vec<String> {
        let Some(id) = name.strip_prefix("order-") else { return Vec::new() };
        let asked = Instant::now();
        let to = format!("to {id}");
        loop {
            let matched = self.cluster.matched().into_iter().skip(matched);
            let lines: Vec<String> = matched
                .filter(|said| said.line.ends_with(&to))
                .filter_map(|said| {
                    let line = said.line.get(said.line.find("sending missing logs")?..)?;
                    Some(format!("{}: {line}", said.name))
                })
                .collect();
            if !lines.is_empty() || Duration::from_secs(1) < asked.elapsed() {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The number of acknowledged orders.
    pub(super) fn orders(&self) -> u64 {
        self.tally.orders.load(Ordering::Relaxed)
    }

    /// The customers stop and look every order up; every replica's history is replayed. True: all
    /// checks held.
    pub(super) async fn close(self) -> Result<bool, Stop> {
        self.closing.cancel();
        let report = self.shopping.await;
        let report = report.map_err(|error| Stop::Defect(format!("the customers: {error}")))??;
        answer!(
            "  {} orders acknowledged, {} found again as they were placed, {} failed",
            counter::grouped(report.orders),
            counter::grouped(report.confirmed),
            report.failures.len()
        );
        for failure in report.failures.iter().take(5) {
            answer!("  FAILED: {failure}");
        }
        self.cluster.level().await?;
        Ok(verify(&self.url).await? && report.is_clean())
    }
}

/// Reads and replays every replica's history.
pub(super) async fn verify(url: &str) -> Result<bool, Stop> {
    let verdict = inspect::judge(url).await?;
    for found in &verdict.replicas {
        let digest = found.digest.get(..16).unwrap_or(&found.digest);
        answer!(
            "  order {}: {} orders, as of entry {}, digest {digest}…",
            found.id,
            counter::grouped(found.orders),
            found.as_of
        );
    }
    answer!("  {}", verdict.violation.as_deref().unwrap_or(IDENTICAL));
    Ok(verdict.violation.is_none())
}
