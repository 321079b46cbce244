//! Double-submit: the same request sent three times must be placed once.
//!
//! Customers press the button again, networks deliver twice, clients without an answer retry. Each
//! request goes to two frontends at once, and a third time later, all under one `Idempotency-Key`;
//! in a local cluster the leader is killed in between. A store without support for keys places each
//! request three times, and the experiment reports that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use wire::exit::Stop;

use super::api::{OrderReply, OrderSide};
use super::experiment::{self, ExperimentResult, count, few};
use super::stock::{give_back, showing};
use super::store_under_test::{ProductStock, StoreUnderTest};
use crate::cli::lab::DoubleSubmit;
use crate::lab::cluster::LocalCluster;
use crate::shop::product_lines;
use crate::signals::Interrupt;

/// The number of concurrent lanes; each has one request in flight.
const LANES: usize = 4;

/// How often each request is sent.
const COPIES: usize = 3;

/// `oppidum lab double-submit`
pub(super) async fn run(flags: &DoubleSubmit, interrupt: &Interrupt) -> Result<bool, Stop> {
    let shop = product_lines("fox", "9.99", 100_000);
    let requests = usize::from(flags.requests);
    experiment::run("double-submit", &flags.at, shop, interrupt, async |store, cluster| {
        measure(store, cluster, requests).await
    })
    .await
}

async fn measure(
    store: &StoreUnderTest,
    own: Option<&LocalCluster>,
    wanted: usize,
) -> Result<ExperimentResult, Stop> {
    let ProductStock { name, quantity: there } = store.richest();
    // Sized for a store that places each request three times: if it sold out, it would fill up.
    let enough = usize::try_from(there.max(1) - 1).unwrap_or(usize::MAX) / COPIES;
    let requests = wanted.min(enough);
    if requests < 2 {
        let why = format!("7 pieces of a product are needed, and there are {there} of {name}");
        return Ok(ExperimentResult::Unmeasured(why));
    }
    let shared = Arc::new(SharedRequest {
        store: store.clone(),
        name: name.clone(),
        run: format!("twice-{:016x}", rand::random::<u64>()),
        requests,
        next: AtomicUsize::new(0),
        half: Notify::new(),
    });
    let killed = match own {
        Some(cluster) => Some(cluster.leader().await?),
        None => None,
    };
    let mut sent = first_copies(&shared, own.zip(killed)).await?;
    sent.extend(last_copies(&shared).await?);
    let mut copies: BTreeMap<usize, Vec<SentCopy>> = BTreeMap::new();
    for copy in sent {
        copies.entry(copy.request).or_default().push(copy);
    }
    let copies = copies.into_values().collect();
    let answers = AnswerCounts { requests, urls: store.urls.len(), killed, copies };
    let mut api = store.api(0)?;
    let expected = there - i64::try_from(answers.placed().len()).unwrap_or(i64::MAX);
    let left = showing(&mut api, &name, expected).await;
    if own.is_none() {
        let sold = there - left.unwrap_or(there);
        give_back(&mut api, store.dialect, &name, sold).await;
    }
    Ok(answers.judge(there, left))
}

/// The state shared by the lanes.
struct SharedRequest {
    store: StoreUnderTest,
    name: String,
    run: String,
    requests: usize,
    next: AtomicUsize,
    half: Notify,
}

impl SharedRequest {
    async fn send(&self, request: usize, turn: usize) -> Result<SentCopy, Stop> {
        let mut api = self.store.api(turn)?;
        let key = format!("{}-{request}", self.run);
        let began = Instant::now();
        let reply = api.insist(OrderSide::Buy, &self.name, 1, &key).await;
        Ok(SentCopy { request, reply, took: began.elapsed() })
    }
}

/// The result of one copy of a request.
#[derive(Clone, Debug)]
struct SentCopy {
    request: usize,
    reply: OrderReply,
    took: Duration,
}

/// Tasks that each send copies of requests, one after the other.
type Lanes = JoinSet<Result<Vec<SentCopy>, Stop>>;

/// Waits until all lanes have ended; returns their copies.
async fn collect(mut lanes: Lanes) -> Result<Vec<SentCopy>, Stop> {
    let mut copies = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        let lane = lane.map_err(|error| Stop::Defect(format!("a lane vanished: {error}")))?;
        copies.extend(lane?);
    }
    Ok(copies)
}

/// Sends each request to two frontends at once; half-way, kills the leader of a local cluster.
async fn first_copies(
    shared: &Arc<SharedRequest>,
    own: Option<(&LocalCluster, u64)>,
) -> Result<Vec<SentCopy>, Stop> {
    let mut lanes = Lanes::new();
    for _ in 0..LANES {
        let shared = shared.clone();
        lanes.spawn(async move {
            let mut copies = Vec::new();
            loop {
                let request = shared.next.fetch_add(1, Ordering::Relaxed);
                if request == shared.requests / 2 {
                    shared.half.notify_one();
                }
                if shared.requests <= request {
                    return Ok(copies);
                }
                let (one, two) =
                    tokio::join!(shared.send(request, request), shared.send(request, request + 1));
                copies.extend([one?, two?]);
            }
        });
    }
    let killing = async {
        let Some((cluster, leader)) = own else { return Ok(()) };
        shared.half.notified().await;
        let name = format!("order-{leader}");
        if !cluster.kill(&name).await {
            return Err(Stop::Setup("the leader cannot be killed: it does not run".into()));
        }
        note!("double-submit: killed the leader, {leader}");
        cluster.successor(leader).await?;
        cluster.restart(&name);
        Ok(())
    };
    let (copies, killed) = tokio::join!(collect(lanes), killing);
    killed?;
    copies
}

/// Sends each request once more, through another frontend.
async fn last_copies(shared: &Arc<SharedRequest>) -> Result<Vec<SentCopy>, Stop> {
    let mut lanes = Lanes::new();
    for lane in 0..LANES {
        let shared = shared.clone();
        lanes.spawn(async move {
            let mut copies = Vec::new();
            for request in (lane..shared.requests).step_by(LANES) {
                copies.push(shared.send(request, request + 2).await?);
            }
            Ok(copies)
        });
    }
    collect(lanes).await
}

/// The answers to all copies.
struct AnswerCounts {
    requests: usize,
    urls: usize,
    killed: Option<u64>,
    copies: Vec<Vec<SentCopy>>,
}

impl AnswerCounts {
    /// The number of every placed order, with its request.
    fn numbers(&self) -> impl Iterator<Item = (usize, u64)> {
        self.copies.iter().enumerate().flat_map(|(request, copies)| {
            let placed = copies.iter().filter_map(|copy| match copy.reply {
                OrderReply::Placed(number) => Some(number),
                _ => None,
            });
            placed.map(move |number| (request, number))
        })
    }

    /// The numbers of all placed orders.
    fn placed(&self) -> BTreeSet<u64> {
        self.numbers().map(|(_, number)| number).collect()
    }

    fn judge(&self, there: i64, left: Option<i64>) -> ExperimentResult {
        let frontends = count(self.urls, "frontend");
        let head = format!(
            "{}, each sent {COPIES} times under one key through {frontends}{}",
            count(self.requests, "request"),
            self.killed
                .map_or(String::new(), |leader| format!(", the leader ({leader}) killed half-way"))
        );
        if let Some(why) = self.doubled() {
            return ExperimentResult::Broken(format!("{head}: {why}"));
        }
        let reply = || self.copies.iter().flatten().map(|copy| &copy.reply);
        let lost = reply().filter_map(|reply| match reply {
            OrderReply::Unknown(why) => Some(why),
            _ => None,
        });
        let lost: Vec<_> = lost.collect();
        if let Some(why) = lost.first() {
            let why = format!("{head}: {} were never answered: {why}", lost.len());
            return ExperimentResult::Unmeasured(why);
        }
        let refused = reply().filter_map(|reply| match reply {
            OrderReply::Refused { status, message } => Some(format!("{status} {message}")),
            _ => None,
        });
        let refused: Vec<_> = refused.collect();
        let placed = self.placed().len();
        if placed < self.requests {
            let why = refused.first().cloned().unwrap_or_default();
            return ExperimentResult::Unmeasured(format!(
                "{head}: only {placed} were placed: {why}"
            ));
        }
        let sold = left.map(|left| there - left);
        if sold != i64::try_from(placed).ok() {
            let sold = sold.map_or("an unknown number of".into(), |sold| sold.to_string());
            return ExperimentResult::Broken(format!(
                "{head}: each has one order, but {sold} pieces are gone and not {placed} (if \
                 no other client trades)"
            ));
        }
        let longest = self.copies.iter().flatten().map(|copy| copy.took).max().unwrap_or_default();
        let refused = match refused.as_slice() {
            [] => String::new(),
            [first, ..] => format!(" ({} copies were refused: {first})", refused.len()),
        };
        ExperimentResult::Held(format!(
            "{head}: each was placed once{refused}, {placed} pieces are gone; the longest answer \
             took {} ms",
            longest.as_millis()
        ))
    }

    /// A request with two orders, or an order of two requests, as a sentence.
    fn doubled(&self) -> Option<String> {
        let mut by_request: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        let mut by_number: BTreeMap<u64, usize> = BTreeMap::new();
        for (request, number) in self.numbers() {
            by_request.entry(request).or_default().insert(number);
            let other = *by_number.entry(number).or_insert(request);
            if other != request {
                return Some(format!("requests {other} and {request} were both given #{number}"));
            }
        }
        let mut twice = by_request.iter().filter(|(_, numbers)| 1 < numbers.len());
        let (request, numbers) = twice.next()?;
        let orders: Vec<u64> = numbers.iter().copied().collect();
        let others = match twice.count() {
            0 => String::new(),
            more => format!(", and so were {more} others"),
        };
        Some(format!(
            "request {request} was placed {} times, as orders {}{others}",
            orders.len(),
            few(&orders)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(copies: &[&[OrderReply]], there: i64, left: i64) -> ExperimentResult {
        let took = Duration::from_millis(3);
        let copies = copies.iter().enumerate().map(|(request, replies)| {
            let copy = |reply: &OrderReply| SentCopy { request, reply: reply.clone(), took };
            replies.iter().map(copy).collect()
        });
        let copies: Vec<_> = copies.collect();
        let answers = AnswerCounts { requests: copies.len(), urls: 3, killed: None, copies };
        answers.judge(there, Some(left))
    }

    #[test]
    fn requests_that_are_placed_twice_are_found() {
        let one = OrderReply::Placed(7);
        let two = OrderReply::Placed(8);
        let once = [one.clone(), one.clone(), one.clone()];
        let again = [two.clone(), two.clone(), two.clone()];
        assert!(matches!(judge(&[&once, &again], 10, 8), ExperimentResult::Held(_)));
        let broken = [
            judge(&[&once, &[two.clone(), two.clone(), OrderReply::Placed(9)]], 10, 7),
            judge(&[&once, &once], 10, 9),
            judge(&[&once, &again], 10, 7),
            judge(&[&once, &again], 10, 9),
        ];
        for found in broken {
            assert!(matches!(found, ExperimentResult::Broken(_)), "{found:?}");
        }
    }

    #[test]
    fn unanswered_or_refused_requests_are_not_measured() {
        let one = OrderReply::Placed(7);
        let lost = OrderReply::Unknown("silence".into());
        let no = OrderReply::Refused { status: 400, message: "no".into() };
        let found = judge(&[&[one.clone(), one.clone(), lost]], 10, 9);
        assert!(matches!(found, ExperimentResult::Unmeasured(_)), "{found:?}");
        let found = judge(&[&[no.clone(), no.clone(), no.clone()]], 10, 10);
        assert!(matches!(found, ExperimentResult::Unmeasured(_)), "{found:?}");
        let found = judge(&[&[one.clone(), no, one]], 10, 9);
        assert!(matches!(found, ExperimentResult::Held(_)), "{found:?}: placed once, all the same");
    }
}
