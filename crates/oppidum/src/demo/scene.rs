//! What the story and the prompt have in common: the store, the customers in it, and accidents that
//! are told with what came of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wire::exit::Stop;

use super::counter::{self, ms};
use crate::inspect::{self, IDENTICAL};
use crate::lab::elections::{Election, elections};
use crate::lab::stage::Stage;
use crate::lab::tell;
use crate::load::report::Report;
use crate::load::{self, Habits, Tally};

/// How many customers there are.
pub(super) const CUSTOMERS: u16 = 5;

/// How many pieces one buys at the most.
const PIECES: u64 = 5;

/// How long a customer rests.
const REST: Duration = Duration::from_millis(25);

/// How long a customer waits for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A store with customers in it.
pub(super) struct Scene<'a> {
    /// The store.
    pub(super) stage: &'a Stage,
    /// A frontend.
    pub(super) url: String,
    /// What the customers have done.
    pub(super) tally: Arc<Tally>,
    closing: CancellationToken,
    shopping: AbortOnDropHandle<Result<Report, Stop>>,
}

impl<'a> Scene<'a> {
    /// Lets customers in.
    pub(super) async fn open(stage: &'a Stage, seed: u64) -> Result<Self, Stop> {
        let urls = stage.urls();
        let url = urls.first().cloned().unwrap_or_default();
        let shop = load::look_around(&url).await?;
        let habits = Habits::quiet(CUSTOMERS, u64::MAX, 0.8, seed);
        let habits = Habits { pieces: PIECES, pause: REST, patience: PATIENCE, ..habits };
        let (tally, closing) = (Arc::new(Tally::default()), CancellationToken::new());
        let (own_tally, own_closing) = (tally.clone(), closing.clone());
        let shopping = tokio::spawn(async move {
            load::outing(&urls, &shop, habits, &own_closing, &own_tally).await
        });
        Ok(Self { stage, url, tally, closing, shopping: AbortOnDropHandle::new(shopping) })
    }

    /// Counts orders for so long.
    pub(super) async fn count(&self, span: Duration) {
        counter::count(&self.tally, span).await;
    }

    /// `kill -9`, and what comes of it.
    pub(super) async fn kill(&self, name: &str) -> bool {
        let pid = self.stage.pid(name);
        let (led, elected) = self.led(name);
        let struck = Instant::now();
        if !self.stage.kill(name).await {
            return false;
        }
        tell(format!("$ kill -9 {}   # {name}", pid.unwrap_or(0)));
        self.aftermath(struck, led, elected).await;
        true
    }

    /// SIGSTOP, and what comes of it.
    pub(super) async fn freeze(&self, name: &str) -> bool {
        let pid = self.stage.pid(name);
        let (led, elected) = self.led(name);
        let struck = Instant::now();
        if !self.stage.freeze(name) {
            return false;
        }
        tell(format!("$ kill -STOP {}   # {name}", pid.unwrap_or(0)));
        self.aftermath(struck, led, elected).await;
        true
    }

    /// Whether a process leads, as far as one has heard, and how often the leader has changed.
    fn led(&self, name: &str) -> (bool, usize) {
        let elections = elections(&self.stage.heard());
        let leader = elections.last().map(|election| format!("order-{}", election.leader));
        (leader.as_deref() == Some(name), elections.len())
    }

    /// Waits for a leader, if there is none now, and for the next order; says when they came.
    async fn aftermath(&self, struck: Instant, led: bool, elected: usize) {
        const WAIT: Duration = Duration::from_secs(3);
        let pause = || tokio::time::sleep(Duration::from_millis(1));
        while led && elections(&self.stage.heard()).len() <= elected && struck.elapsed() < WAIT {
            pause().await;
        }
        // Counted from here: what the former leader acknowledged may still be on its way.
        let before = self.orders();
        while self.orders() <= before && struck.elapsed() < WAIT {
            pause().await;
        }
        let next = struck.elapsed();
        for Election { at, leader } in elections(&self.stage.heard()).into_iter().skip(elected) {
            tell(format!("  {leader} leads after {}", ms(at - struck)));
        }
        match WAIT <= next {
            true => tell(format!("  no order was acknowledged for {WAIT:?}")),
            false => tell(format!("  the next order was acknowledged after {}", ms(next))),
        }
    }

    /// Starts a process again, and tells what it is sent until it has caught up.
    pub(super) async fn restart(&self, name: &str) -> Result<bool, Stop> {
        let heard = self.stage.heard().len();
        let began = Instant::now();
        if !self.stage.restart(name) {
            return Ok(false);
        }
        while self.stage.pid(name).is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tell(format!("  {name} is started again: pid {}", self.stage.pid(name).unwrap_or(0)));
        self.stage.serves(name).await?;
        let took = began.elapsed();
        for line in self.sent_to(name, heard).await {
            tell(format!("  {line}"));
        }
        tell(format!("  {name} does its whole work again after {}", ms(took)));
        Ok(true)
    }

    /// Who sends a replica that has come back what it missed. What they say of it is read a moment
    /// after they have done it.
    async fn sent_to(&self, name: &str, heard: usize) -> Vec<String> {
        let Some(id) = name.strip_prefix("order-") else { return Vec::new() };
        let (asked, to) = (Instant::now(), format!("to {id}"));
        loop {
            let heard = self.stage.heard().into_iter().skip(heard);
            let lines: Vec<String> = heard
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

    /// How many orders are acknowledged.
    pub(super) fn orders(&self) -> u64 {
        self.tally.orders.load(Ordering::Relaxed)
    }

    /// The customers close and look every order up; every replica's history is replayed. True: all
    /// is as it must be.
    pub(super) async fn close(self) -> Result<bool, Stop> {
        self.closing.cancel();
        let report = self.shopping.await;
        let report = report.map_err(|error| Stop::Defect(format!("the customers: {error}")))??;
        tell(format!(
            "  {} orders acknowledged, {} found again as they were placed, {} failed",
            counter::grouped(report.orders),
            counter::grouped(report.confirmed),
            report.failures.len()
        ));
        for failure in report.failures.iter().take(5) {
            tell(format!("  FAILED: {failure}"));
        }
        self.stage.level().await?;
        Ok(verify(&self.url).await? && report.is_clean())
    }
}

/// Reads and replays every replica's history.
pub(super) async fn verify(url: &str) -> Result<bool, Stop> {
    let verdict = inspect::judge(url).await?;
    for found in &verdict.replicas {
        let digest = found.digest.get(..16).unwrap_or(&found.digest);
        tell(format!(
            "  order {}: {} orders, as of entry {}, digest {digest}…",
            found.id,
            counter::grouped(found.orders),
            found.as_of
        ));
    }
    tell(format!("  {}", verdict.violation.as_deref().unwrap_or(IDENTICAL)));
    Ok(verdict.violation.is_none())
}
