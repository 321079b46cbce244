//! A simulated customer: queries random products, sometimes trades, and looks every order up at the
//! end.
//!
//! The seed decides a request before the store is queried, so that the same seed makes the same
//! sequence of requests, independent of the answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::HeaderName;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::report::{Kind, Report, RequestResult, Sample};
use super::workload::{LoadProgress, LoadedShop, Workload};
use crate::client::encode;
use crate::http::{Client, Reply};

/// How long a request is retried before it counts as failed.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// A simulated customer.
#[derive(Debug)]
pub(super) struct Customer {
    /// A client for each frontend; `at` is the index of the one in use.
    clients: Vec<Client>,
    at: usize,
    shop: LoadedShop,
    rng: StdRng,
    workload: Workload,
    /// Cancelled: the customer sends no further trades, and confirms the orders that it placed.
    closing: CancellationToken,
    tally: Arc<LoadProgress>,
    report: Report,
    placed: Vec<PlacedOrder>,
}

/// An order that the store acknowledged.
#[derive(Debug)]
struct PlacedOrder {
    number: u64,
    name: String,
    quantity: u64,
    side: &'static str,
}

/// The random choices for one request.
#[derive(Debug)]
struct RandomRequest {
    name: String,
    /// Whether it buys, and the quantity as a fraction of the possible one, in units of 2^-64.
    trade: Option<(bool, u64)>,
}

/// A request through all its attempts.
#[derive(Debug)]
struct RequestAttempts {
    began: Instant,
    moved: u32,
    put_off: u32,
}

impl Customer {
    pub(super) fn new(
        clients: Vec<Client>,
        first: usize,
        shop: LoadedShop,
        seed: u64,
        workload: Workload,
        closing: CancellationToken,
        tally: Arc<LoadProgress>,
    ) -> Self {
        Self {
            at: first % clients.len().max(1),
            clients,
            shop,
            rng: StdRng::seed_from_u64(seed),
            workload,
            closing,
            tally,
            report: Report::default(),
            placed: Vec::new(),
        }
    }

    /// Sends queries, each followed by a trade with some probability; then looks every order up.
    pub(super) async fn shop(mut self) -> Report {
        // Opens the connection before the measurement.
        let _ = self.clients[self.at].get("/livez").await;
        for number in 0..self.workload.requests {
            if self.closing.is_cancelled() {
                break;
            }
            self.say(|| format!("-- REQUEST #{number} --"));
            let choice = self.choose();
            if let Some(quantity) = self.query(&choice.name).await
                && let Some((buys, part)) = choice.trade
            {
                self.trade(&choice.name, quantity, buys, part).await;
            }
            self.tally.requests.fetch_add(1, Ordering::Relaxed);
            if !self.workload.pause.is_zero() {
                tokio::time::sleep(self.workload.pause).await;
            }
        }
        self.confirm().await;
        self.report
    }

    fn choose(&mut self) -> RandomRequest {
        let place = self.rng.random_range(0..self.shop.names.len());
        let name = self.shop.names[place].clone();
        let trades = self.rng.random_bool(self.workload.p);
        let trade = trades.then(|| {
            let buys = self.shop.toy || self.rng.random_bool(0.5);
            (buys, self.rng.random())
        });
        RandomRequest { name, trade }
    }

    /// Queries a product; returns its stock.
    async fn query(&mut self, name: &str) -> Option<u64> {
        let noun = if self.shop.toy { "products" } else { "stocks" };
        let path = format!("/{noun}/{}", encode(name));
        let (reply, attempts) = self.get(&path, Kind::Query).await?;
        let kind = match reply.header("cache-status") {
            Some(status) if status.contains("hit") => Kind::QueryHit,
            Some(_) => Kind::QueryMiss,
            None => Kind::Query,
        };
        let data = self.data(&path, &reply);
        let data = data.and_then(|data| {
            Some((data["price"].as_f64()?, data["quantity"].as_u64()?)).or_else(|| {
                self.fail(format!("{path} answered without price or quantity"));
                None
            })
        });
        self.done(
            kind,
            &attempts,
            if data.is_some() { RequestResult::Done } else { RequestResult::Failed },
        );
        let (price, quantity) = data?;
        self.say(|| format!("Stock Name: {name}\nPrice: {price:.2}\nQuantity: {quantity}"));
        Some(quantity)
    }

    /// Buys at most the stock just shown, or sells.
    async fn trade(&mut self, name: &str, seen: u64, buys: bool, part: u64) {
        if buys && seen == 0 {
            return;
        }
        let pieces = self.workload.pieces;
        let most = if buys { seen.min(pieces) } else { pieces };
        let quantity = 1 + share(part, most);
        let side = if buys { "buy" } else { "sell" };
        self.say(|| format!("Attempting to {side} {quantity} share(s) of {name}..."));
        let body = json!({ "name": name, "quantity": quantity, "type": side }).to_string();
        let key = format!("load-{:032x}", rand::random::<u128>());
        let Some((reply, attempts)) = self.post("/orders", &key, &body).await else { return };
        let result = match reply.status {
            200 => match self.data("/orders", &reply).map(|data| self.number(&data)) {
                Some(Some(number)) => {
                    self.say(|| format!("Transaction Success! Transaction #: {number}"));
                    let name = name.to_owned();
                    self.placed.push(PlacedOrder { number, name, quantity, side });
                    self.report.orders += 1;
                    self.tally.orders.fetch_add(1, Ordering::Relaxed);
                    RequestResult::Done
                }
                _ => RequestResult::Failed,
            },
            409 => {
                self.say(|| "Transaction Refused: not enough in stock".to_owned());
                self.report.refused += 1;
                RequestResult::Refused
            }
            status => {
                let why = String::from_utf8_lossy(&reply.body).into_owned();
                self.fail(format!("an order was answered {status}: {why}"));
                RequestResult::Failed
            }
        };
        self.done(Kind::Order, &attempts, result);
    }

    fn number(&mut self, data: &Value) -> Option<u64> {
        let field = if self.shop.toy { "order_number" } else { "transaction_number" };
        let number = data[field].as_u64();
        if number.is_none() {
            self.fail(format!("an order came back without {field}"));
        }
        number
    }

    /// Looks up every order of this customer and compares it.
    async fn confirm(&mut self) {
        for PlacedOrder { number, name, quantity, side } in std::mem::take(&mut self.placed) {
            let path = format!("/orders/{number}");
            let Some((reply, attempts)) = self.get(&path, Kind::Lookup).await else { continue };
            let mut expected = json!({ "number": number, "name": name, "quantity": quantity });
            if !self.shop.toy {
                expected["type"] = Value::from(side);
            }
            let result = match self.data(&path, &reply) {
                Some(found) if found == expected => {
                    self.report.confirmed += 1;
                    self.say(|| format!("Transaction #{number} confirmed."));
                    RequestResult::Done
                }
                Some(found) => {
                    let why = format!("Transaction #{number} differs: {found}, not {expected}");
                    self.fail(why);
                    RequestResult::Failed
                }
                None => RequestResult::Failed,
            };
            self.done(Kind::Lookup, &attempts, result);
        }
    }

    /// Sends a query until it is answered. None: given up.
    async fn get(&mut self, path: &str, kind: Kind) -> Option<(Reply, RequestAttempts)> {
        let mut attempts = RequestAttempts { began: Instant::now(), moved: 0, put_off: 0 };
        loop {
            let reply = self.clients[self.at].get(path).await;
            if let Some(reply) = self.settle(path, kind, &mut attempts, reply).await {
                return reply.map(|reply| (reply, attempts));
            }
        }
    }

    async fn post(
        &mut self,
        path: &str,
        key: &str,
        body: &str,
    ) -> Option<(Reply, RequestAttempts)> {
        let mut attempts = RequestAttempts { began: Instant::now(), moved: 0, put_off: 0 };
        let headers = [(HeaderName::from_static("idempotency-key"), key.to_owned())];
        loop {
            let reply = self.clients[self.at].post(path, &headers, body.to_owned()).await;
            if let Some(reply) = self.settle(path, Kind::Order, &mut attempts, reply).await {
                return reply.map(|reply| (reply, attempts));
            }
        }
    }

    /// Judges an attempt. None: try again; after a broken connection with the next frontend,
    /// without a pause while there is an untried one.
    async fn settle(
        &mut self,
        path: &str,
        kind: Kind,
        attempts: &mut RequestAttempts,
        reply: Result<Reply, String>,
    ) -> Option<Option<Reply>> {
        let why = match reply {
            Ok(reply) if !matches!(reply.status, 429 | 503 | 504) => return Some(Some(reply)),
            Ok(reply) => {
                attempts.put_off += 1;
                format!("{path} was answered {}", reply.status)
            }
            Err(why) => {
                attempts.moved += 1;
                self.at = (self.at + 1) % self.clients.len();
                why
            }
        };
        if RETRY_TIMEOUT < attempts.began.elapsed() {
            self.fail(format!("given up after {RETRY_TIMEOUT:?}: {why}"));
            self.done(kind, attempts, RequestResult::Failed);
            return Some(None);
        }
        self.report.retries += 1;
        let others = usize::try_from(attempts.moved).unwrap_or(usize::MAX) < self.clients.len();
        if attempts.put_off != 0 || !others {
            let pause = rand::rng().random_range(10..60);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        None
    }

    fn done(&mut self, kind: Kind, attempts: &RequestAttempts, result: RequestResult) {
        let took = attempts.began.elapsed();
        let RequestAttempts { began, moved, put_off } = *attempts;
        // A failed request has no latency; it is listed among the failures.
        if result != RequestResult::Failed {
            self.report.took(kind, took);
        }
        self.tally.waited(took);
        if self.workload.samples {
            self.report.remember(Sample { began, took, kind, result, moved, put_off });
        }
    }

    fn fail(&mut self, why: String) {
        self.tally.failed.fetch_add(1, Ordering::Relaxed);
        self.report.failures.push(why);
    }

    fn data(&mut self, path: &str, reply: &Reply) -> Option<Value> {
        let found = reply.json().ok().filter(|_| reply.status == 200);
        let data = found.and_then(|mut body| body.get_mut("data").map(Value::take));
        if data.is_none() {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            self.fail(format!("{path} was answered {}: {body}", reply.status));
        }
        data
    }

    fn say(&self, line: impl FnOnce() -> String) {
        if !self.workload.quiet {
            answer!("{}", line());
        }
    }
}

/// The fraction `part` / 2^64 of `most`: from 0 to `most` - 1.
fn share(part: u64, most: u64) -> u64 {
    u64::try_from((u128::from(part) * u128::from(most)) >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_covers_every_quantity() {
        assert_eq!(share(0, 100), 0);
        assert_eq!(share(u64::MAX, 100), 99);
        assert_eq!(share(u64::MAX / 2 + 1, 100), 50);
        assert_eq!(share(u64::MAX, 1), 0);
    }
}
