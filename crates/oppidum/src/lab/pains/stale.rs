//! Stale: one buyer and many readers; a query after an acknowledged order must not show the stock
//! before that order.
//!
//! Before each query a reader notes the number of acknowledged orders. Only one customer buys, one
//! piece at a time, so that number gives the largest stock that is still true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use wire::exit::Stop;

use super::api::{OrderReply, OrderSide, StoreApi};
use super::experiment::{self, ExperimentResult, count};
use super::stock::give_back;
use super::store_under_test::{ProductStock, StoreUnderTest};
use crate::cli::lab::Stale;
use crate::shop::product_lines;
use crate::signals::Interrupt;

/// How long frontends may take to agree before the first order.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// The least number of orders for a measurement.
const ORDERS_MIN: usize = 3;

/// `oppidum lab stale`
pub(super) async fn run(flags: &Stale, interrupt: &Interrupt) -> Result<bool, Stop> {
    let shop = product_lines("owl", "9.99", 1_000_000) + &product_lines("fox", "9.99", 1_000);
    experiment::run("stale", &flags.at, shop, interrupt, async |store, _| {
        measure(store, flags).await
    })
    .await
}

async fn measure(store: &StoreUnderTest, flags: &Stale) -> Result<ExperimentResult, Stop> {
    let ProductStock { name, quantity: there } = store.richest();
    // The last piece stays: a store that sold out might fill up now.
    let enough = usize::try_from(there.max(1) - 1).unwrap_or(usize::MAX);
    let orders = usize::from(flags.orders).min(enough);
    if orders < ORDERS_MIN.min(flags.orders.into()) {
        let why = format!("a few pieces of a product are needed, and there are {there} of {name}");
        return Ok(ExperimentResult::Unmeasured(why));
    }
    let first = match agreed(store, &name).await? {
        Ok(quantity) => quantity,
        Err(finding) => return Ok(finding),
    };
    let readings = Arc::new(SharedReadings { name: name.clone(), first, ..Default::default() });
    let mut readers = JoinSet::new();
    for reader in 0..usize::from(flags.readers) {
        let apis = store.urls.iter().map(|url| StoreApi::new(url, store.dialect));
        let apis = apis.collect::<Result<Vec<_>, _>>()?;
        let readings = readings.clone();
        readers.spawn(async move { readings.read(apis, reader).await });
    }
    let bought = readings.buy(store, orders).await;
    readings.done.store(true, Ordering::SeqCst);
    while readers.join_next().await.is_some() {}
    let placed = readings.acknowledged.lock().len();
    let mut api = store.api(0)?;
    give_back(&mut api, store.dialect, &name, i64::try_from(placed).unwrap_or(0)).await;
    let head = format!(
        "{} through {}, {} meanwhile",
        count(placed, "order"),
        count(store.urls.len(), "frontend"),
        count(flags.readers.into(), "reader")
    );
    Ok(readings.judge(&head, bought?))
}

/// The stock that all frontends show before the first order. They must agree: no order is in
/// flight.
async fn agreed(store: &StoreUnderTest, name: &str) -> Result<Result<i64, ExperimentResult>, Stop> {
    let began = Instant::now();
    loop {
        let mut shown = Vec::new();
        for turn in 0..store.urls.len() {
            let mut api = store.api(turn)?;
            let quantity = match api.look(name).await {
                Ok(shown) => shown.quantity,
                Err(why) => return Ok(Err(ExperimentResult::Unmeasured(why))),
            };
            shown.push((quantity, api.url().to_owned()));
        }
        let (first, here) = &shown[0];
        let Some((other, there)) = shown.iter().find(|(other, _)| other != first) else {
            return Ok(Ok(*first));
        };
        if AGREEMENT_TIMEOUT < began.elapsed() {
            return Ok(Err(ExperimentResult::Broken(format!(
                "before anything was bought, {here} shows {first} of {name} and {there} {other}"
            ))));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The state shared by the buyer and the readers.
#[derive(Default)]
struct SharedReadings {
    name: String,
    /// The stock before the first order.
    first: i64,
    /// The number and the time of each acknowledged order.
    acknowledged: Mutex<Vec<(u64, Instant)>>,
    done: AtomicBool,
    /// The number of queries that began after an acknowledged order.
    after: AtomicU64,
    from_cache: AtomicU64,
    /// The number of answers that were marked as possibly stale.
    marked: AtomicU64,
    lies: AtomicU64,
    evidence: Mutex<Option<String>>,
    failures: Mutex<(u64, String)>,
}

impl SharedReadings {
    /// Buys piece by piece, each through the next frontend, and queries at once through the
    /// frontend after it. Returns why it ended early, if it did.
    async fn buy(&self, store: &StoreUnderTest, orders: usize) -> Result<Option<String>, Stop> {
        let run = format!("stale-{:016x}", rand::random::<u64>());
        for order in 0..orders {
            let mut api = store.api(order)?;
            match api.insist(OrderSide::Buy, &self.name, 1, &format!("{run}-{order}")).await {
                OrderReply::Placed(number) => {
                    self.acknowledged.lock().push((number, Instant::now()));
                }
                OrderReply::Refused { message, .. } => return Ok(Some(message)),
                OrderReply::Unknown(why) => return Ok(Some(why)),
            }
            self.look(&mut store.api(order + 1)?).await;
        }
        Ok(None)
    }

    /// Queries one frontend after the other until the buyer is done.
    async fn read(&self, mut apis: Vec<StoreApi>, first: usize) {
        let mut turn = first;
        while !self.done.load(Ordering::SeqCst) {
            let place = turn % apis.len();
            self.look(&mut apis[place]).await;
            turn += 1;
        }
    }

    /// Sends a query, and checks whether its answer can have been true when it was sent.
    async fn look(&self, api: &mut StoreApi) {
        let before = self.acknowledged.lock().len();
        let sent_at = Instant::now();
        let shown = match api.look(&self.name).await {
            Ok(shown) => shown,
            Err(why) => {
                self.fail(why);
                // A pause, so that a store that rejects every query is not overloaded.
                return tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if shown.stale {
            self.marked.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let hit = shown.cache.as_ref().is_some_and(|cache| cache.contains("hit"));
        self.from_cache.fetch_add(u64::from(hit && 0 < before), Ordering::Relaxed);
        self.after.fetch_add(u64::from(0 < before), Ordering::Relaxed);
        let most = self.first - i64::try_from(before).unwrap_or(i64::MAX);
        if shown.quantity <= most {
            return;
        }
        self.lies.fetch_add(1, Ordering::Relaxed);
        let mut evidence = self.evidence.lock();
        if evidence.is_none() {
            *evidence = Some(self.describe(shown.quantity, sent_at, api.url(), hit));
        }
    }

    fn fail(&self, why: String) {
        let mut failures = self.failures.lock();
        *failures = (failures.0 + 1, why);
    }

    /// The order that the reader should have seen and did not, as a sentence.
    fn describe(&self, shown: i64, sent_at: Instant, url: &str, hit: bool) -> String {
        let acknowledged = self.acknowledged.lock();
        let missed = usize::try_from(self.first - shown).ok();
        let Some((number, when)) = missed.and_then(|missed| acknowledged.get(missed)) else {
            let first = self.first;
            return format!("{url} showed {shown}, and there were {first} when nothing was bought");
        };
        let how = if hit { ", from its cache" } else { "" };
        format!(
            "order #{number} left {} of {}; a query that began {} ms after it was acknowledged \
             still showed {shown} at {url}{how}",
            shown - 1,
            self.name,
            sent_at.saturating_duration_since(*when).as_millis()
        )
    }

    fn judge(&self, head: &str, ended: Option<String>) -> ExperimentResult {
        let count = |number: &AtomicU64| number.load(Ordering::SeqCst);
        let after = count(&self.after);
        let lies = count(&self.lies);
        if let Some(evidence) = &*self.evidence.lock() {
            let wrong = format!("{lies} of {after} queries showed what was no longer true");
            return ExperimentResult::Broken(format!("{head}: {evidence}; {wrong}"));
        }
        let (failed, last) = self.failures.lock().clone();
        let ended = match ended {
            None => String::new(),
            Some(why) if self.acknowledged.lock().len() < ORDERS_MIN => {
                return ExperimentResult::Unmeasured(format!(
                    "{head}: then no order was placed: {why}"
                ));
            }
            Some(why) => format!("; then no more orders were placed: {why}"),
        };
        if after == 0 {
            return ExperimentResult::Unmeasured(format!(
                "{head}: no query was answered in between: {last}"
            ));
        }
        let failed = match failed {
            0 => String::new(),
            failed => format!("; {failed} got no answer ({last})"),
        };
        let marked = match count(&self.marked) {
            0 => String::new(),
            marked => format!("; {marked} were marked as possibly stale and are not counted"),
        };
        ExperimentResult::Held(format!(
            "{head}: {after} queries, {} of them answered from a cache, and none showed a stock \
             from before an acknowledged order{marked}{failed}{ended}",
            count(&self.from_cache)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_evidence_names_the_missed_order() {
        let readings = SharedReadings { name: "owl".into(), first: 100, ..Default::default() };
        let now = Instant::now();
        *readings.acknowledged.lock() = vec![(7, now), (9, now), (12, now)];
        let later = now + Duration::from_millis(4);
        let evidence = readings.describe(99, later, "http://here", true);
        let expected = "order #9 left 98 of owl; a query that began 4 ms after it was acknowledged \
                        still showed 99 at http://here, from its cache";
        assert_eq!(evidence, expected);
        assert!(readings.describe(101, later, "http://here", false).contains("and there were 100"));
        let found = readings.judge("here", None);
        assert!(matches!(found, ExperimentResult::Unmeasured(_)), "no query: {found:?}");
        readings.after.store(3, Ordering::SeqCst);
        assert!(matches!(readings.judge("here", None), ExperimentResult::Held(_)));
    }
}
