//! The same request three times: it must be placed once.
//!
//! Customers press the button again, networks deliver twice, clients that were not answered try
//! once more. Here each request is sent to two frontends at once, and a third time later on, all
//! under one `Idempotency-Key`; in a store of our own the leader is killed in between. A store that
//! knows no keys places each request three times, and that is what is then said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use wire::exit::Stop;

use super::around::Around;
use super::flags::DoubleSubmit;
use super::front::{Side, Told};
use super::oversell::{give_back, showing};
use super::town::{Leader, Town};
use super::{Finding, count, few, product, tried};

/// How many requests are under way at a time.
const LANES: usize = 4;

/// How often each request is sent.
const COPIES: usize = 3;

/// `oppidum lab double-submit`
pub(super) async fn run(flags: DoubleSubmit) -> Result<bool, Stop> {
    let shop = product("fox", 100_000);
    let requests = usize::from(flags.requests);
    tried("double-submit", &flags.at, &shop, async |around, town| {
        measure(around, town, requests).await
    })
    .await
}

async fn measure(around: &Around, own: Option<&Town>, wanted: usize) -> Result<Finding, Stop> {
    let (name, there) = around.richest();
    // Even a store that places each of them three times must not run out: it would fill up.
    let enough = usize::try_from(there.max(1) - 1).unwrap_or(usize::MAX) / COPIES;
    let requests = wanted.min(enough);
    if requests < 2 {
        let why = format!("7 pieces of a product are needed, and there are {there} of {name}");
        return Ok(Finding::Unmeasured(why));
    }
    let errand = Arc::new(Errand {
        around: around.clone(),
        name: name.clone(),
        run: format!("twice-{:016x}", rand::random::<u64>()),
        requests,
        next: AtomicUsize::new(0),
        half: Notify::new(),
    });
    let (mut copies, killed) = first_copies(&errand, own).await?;
    for (request, copy) in last_copies(&errand).await? {
        copies.entry(request).or_default().push(copy);
    }
    let copies: Vec<Vec<Copy>> = copies.into_values().collect();
    let told = Tally { requests, urls: around.urls.len(), killed, copies };
    let mut front = around.front(0)?;
    let expected = there - i64::try_from(told.placed().len()).unwrap_or(i64::MAX);
    let left = showing(&mut front, &name, expected).await;
    if own.is_none() {
        let gone = there - left.unwrap_or(there);
        give_back(&mut front, around.dialect, &name, gone).await;
    }
    Ok(told.judge(there, left))
}

/// What the lanes share.
struct Errand {
    around: Around,
    name: String,
    run: String,
    requests: usize,
    next: AtomicUsize,
    half: Notify,
}

impl Errand {
    async fn send(&self, request: usize, turn: usize) -> Result<Copy, Stop> {
        let mut front = self.around.front(turn)?;
        let key = format!("{}-{request}", self.run);
        let began = Instant::now();
        let told = front.insist(Side::Buy, &self.name, 1, &key).await;
        Ok(Copy { told, took: began.elapsed() })
    }
}

/// What came of one sending of a request.
#[derive(Clone, Debug)]
struct Copy {
    told: Told,
    took: Duration,
}

/// By the request, what its copies were told.
type Copies = BTreeMap<usize, Vec<Copy>>;

/// Each request to two frontends at once; half-way, the leader of our own store is killed.
async fn first_copies(
    errand: &Arc<Errand>,
    own: Option<&Town>,
) -> Result<(Copies, Option<Leader>), Stop> {
    let leader = match own {
        Some(town) => Some(town.leader().await?),
        None => None,
    };
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let errand = errand.clone();
        lanes.spawn(async move {
            let mut copies = Vec::new();
            loop {
                let request = errand.next.fetch_add(1, Ordering::Relaxed);
                if request == errand.requests / 2 {
                    errand.half.notify_one();
                }
                if errand.requests <= request {
                    return Ok::<_, Stop>(copies);
                }
                let (one, two) =
                    tokio::join!(errand.send(request, request), errand.send(request, request + 1));
                copies.push((request, vec![one?, two?]));
            }
        });
    }
    let killing = async {
        let (Some(town), Some(leader)) = (own, leader) else { return Ok(()) };
        errand.half.notified().await;
        leader.kill()?;
        note!("double-submit: killed the leader, {}", leader.id);
        town.successor(leader).await
    };
    let collecting = async {
        let mut copies = Copies::new();
        while let Some(lane) = lanes.join_next().await {
            let lane =
                lane.map_err(|error| Stop::Defect(format!("a lane vanished: {error}")))??;
            copies.extend(lane);
        }
        Ok::<_, Stop>(copies)
    };
    let (copies, killed) = tokio::join!(collecting, killing);
    killed?;
    Ok((copies?, leader))
}

/// Each request once more, through yet another frontend.
async fn last_copies(errand: &Arc<Errand>) -> Result<Vec<(usize, Copy)>, Stop> {
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let errand = errand.clone();
        lanes.spawn(async move {
            let mut copies = Vec::new();
            for request in (lane..errand.requests).step_by(LANES) {
                copies.push((request, errand.send(request, request + 2).await?));
            }
            Ok::<_, Stop>(copies)
        });
    }
    let mut copies = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        let lane = lane.map_err(|error| Stop::Defect(format!("a lane vanished: {error}")))??;
        copies.extend(lane);
    }
    Ok(copies)
}

/// Everything that was told.
struct Tally {
    requests: usize,
    urls: usize,
    killed: Option<Leader>,
    copies: Vec<Vec<Copy>>,
}

impl Tally {
    /// The number of every order, with the request it was given to.
    fn numbers(&self) -> impl Iterator<Item = (usize, u64)> {
        self.copies.iter().enumerate().flat_map(|(request, copies)| {
            let placed = copies.iter().filter_map(|copy| match copy.told {
                Told::Placed(number) => Some(number),
                _ => None,
            });
            placed.map(move |number| (request, number))
        })
    }

    /// Every order there is.
    fn placed(&self) -> BTreeSet<u64> {
        self.numbers().map(|(_, number)| number).collect()
    }

    fn judge(&self, there: i64, left: Option<i64>) -> Finding {
        let frontends = count(self.urls, "frontend");
        let head = format!(
            "{}, each sent {COPIES} times under one key through {frontends}{}",
            count(self.requests, "request"),
            self.killed.map_or(String::new(), |leader| format!(
                ", the leader ({}) killed half-way",
                leader.id
            ))
        );
        if let Some(why) = self.doubled() {
            return Finding::Broken(format!("{head}: {why}"));
        }
        let told = || self.copies.iter().flatten().map(|copy| &copy.told);
        let lost = told().filter_map(|told| match told {
            Told::Unknown(why) => Some(why),
            _ => None,
        });
        let lost: Vec<_> = lost.collect();
        if let Some(why) = lost.first() {
            let why = format!("{head}: {} were never answered: {why}", lost.len());
            return Finding::Unmeasured(why);
        }
        let refused = told().filter_map(|told| match told {
            Told::Refused { status, message } => Some(format!("{status} {message}")),
            _ => None,
        });
        let refused: Vec<_> = refused.collect();
        let placed = self.placed().len();
        if placed < self.requests {
            let why = refused.first().cloned().unwrap_or_default();
            return Finding::Unmeasured(format!("{head}: only {placed} were placed: {why}"));
        }
        let gone = left.map(|left| there - left);
        if gone != i64::try_from(placed).ok() {
            let gone = gone.map_or("nobody knows how many".into(), |gone| gone.to_string());
            return Finding::Broken(format!(
                "{head}: each has one order, but {gone} pieces are gone and not {placed} (if \
                 nobody else is trading)"
            ));
        }
        let longest = self.copies.iter().flatten().map(|copy| copy.took).max().unwrap_or_default();
        let refused = match refused.as_slice() {
            [] => String::new(),
            [first, ..] => format!(" ({} copies were refused: {first})", refused.len()),
        };
        Finding::Held(format!(
            "{head}: each was placed once{refused}, {placed} pieces are gone; the longest answer \
             took {} ms",
            longest.as_millis()
        ))
    }

    /// A request with two orders, or an order of two requests.
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

    fn judge(copies: &[&[Told]], there: i64, left: i64) -> Finding {
        let copy = |told: &Told| Copy { told: told.clone(), took: Duration::from_millis(3) };
        let copies = copies.iter().map(|told| told.iter().map(copy).collect()).collect::<Vec<_>>();
        let tally = Tally { requests: copies.len(), urls: 3, killed: None, copies };
        tally.judge(there, Some(left))
    }

    #[test]
    fn requests_that_are_placed_twice_are_found() {
        let (one, two) = (Told::Placed(7), Told::Placed(8));
        let once = [one.clone(), one.clone(), one.clone()];
        let again = [two.clone(), two.clone(), two.clone()];
        assert!(matches!(judge(&[&once, &again], 10, 8), Finding::Held(_)));
        let broken = [
            judge(&[&once, &[two.clone(), two.clone(), Told::Placed(9)]], 10, 7),
            judge(&[&once, &once], 10, 9),
            judge(&[&once, &again], 10, 7),
            judge(&[&once, &again], 10, 9),
        ];
        for found in broken {
            assert!(matches!(found, Finding::Broken(_)), "{found:?}");
        }
    }

    #[test]
    fn requests_that_nobody_answered_are_not_measured() {
        let (one, lost) = (Told::Placed(7), Told::Unknown("silence".into()));
        let no = Told::Refused { status: 400, message: "no".into() };
        let found = judge(&[&[one.clone(), one.clone(), lost]], 10, 9);
        assert!(matches!(found, Finding::Unmeasured(_)), "{found:?}");
        let found = judge(&[&[no.clone(), no.clone(), no.clone()]], 10, 10);
        assert!(matches!(found, Finding::Unmeasured(_)), "{found:?}");
        let found = judge(&[&[one.clone(), no, one]], 10, 9);
        assert!(matches!(found, Finding::Held(_)), "{found:?}: placed once, all the same");
    }
}
