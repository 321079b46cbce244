//! One customer: looks at a random product, sometimes trades, and checks every order at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::report::{Kind, Report};
use crate::client::encode;
use crate::http::{Client, Reply};

/// How long a request is tried before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most pieces of one trade.
const PIECES_MAX: u64 = 100;

/// What there is to buy, and in which words.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    pub(super) toy: bool,
    pub(super) names: Arc<[String]>,
}

/// One customer.
#[derive(Debug)]
pub(super) struct Customer {
    client: Client,
    shop: Shop,
    luck: StdRng,
    quiet: bool,
    /// No further requests: what was placed is confirmed, and that is that.
    closing: CancellationToken,
    report: Report,
    /// What was placed: number, name, quantity, side.
    placed: Vec<(u64, String, u64, &'static str)>,
}

impl Customer {
    pub(super) fn new(
        client: Client,
        shop: Shop,
        seed: u64,
        quiet: bool,
        closing: CancellationToken,
    ) -> Self {
        let (luck, report, placed) = (StdRng::seed_from_u64(seed), Report::default(), Vec::new());
        Self { client, shop, luck, quiet, closing, report, placed }
    }

    /// So many queries, each followed by a trade with probability `p`; then the check.
    pub(super) async fn shop(mut self, requests: u64, p: f64) -> Report {
        for number in 0..requests {
            if self.closing.is_cancelled() {
                break;
            }
            self.say(|| format!("-- REQUEST #{number} --"));
            let name = {
                let place = self.luck.random_range(0..self.shop.names.len());
                self.shop.names[place].clone()
            };
            let Some(quantity) = self.query(&name).await else { continue };
            if self.luck.random_bool(p) {
                self.trade(&name, quantity).await;
            }
        }
        self.confirm().await;
        self.report
    }

    /// Looks at a product; its stock.
    async fn query(&mut self, name: &str) -> Option<u64> {
        let noun = if self.shop.toy { "products" } else { "stocks" };
        let path = format!("/{noun}/{}", encode(name));
        let began = Instant::now();
        let reply = self.get(&path).await?;
        let hit = reply.header("cache-status").is_some_and(|status| status.contains("hit"));
        self.report.took(if hit { Kind::QueryHit } else { Kind::QueryMiss }, began.elapsed());
        let data = self.data(&path, &reply)?;
        let (price, quantity) = (data["price"].as_f64(), data["quantity"].as_u64());
        let (Some(price), Some(quantity)) = (price, quantity) else {
            self.report.failures.push(format!("{path} answered without price or quantity"));
            return None;
        };
        self.say(|| format!("Stock Name: {name}\nPrice: {price:.2}\nQuantity: {quantity}"));
        Some(quantity)
    }

    /// Buys no more than has just been seen, or sells.
    async fn trade(&mut self, name: &str, seen: u64) {
        let buys = self.shop.toy || self.luck.random_bool(0.5);
        if buys && seen == 0 {
            return;
        }
        let most = if buys { seen.min(PIECES_MAX) } else { PIECES_MAX };
        let quantity = self.luck.random_range(1..=most);
        let side = if buys { "buy" } else { "sell" };
        self.say(|| format!("Attempting to {side} {quantity} share(s) of {name}..."));
        let body = json!({ "name": name, "quantity": quantity, "type": side }).to_string();
        let key = format!("load-{:032x}", rand::random::<u128>());
        let began = Instant::now();
        let Some(reply) = self.post("/orders", &key, &body).await else { return };
        self.report.took(Kind::Order, began.elapsed());
        match reply.status {
            200 => {
                let Some(data) = self.data("/orders", &reply) else { return };
                let field = if self.shop.toy { "order_number" } else { "transaction_number" };
                let Some(number) = data[field].as_u64() else {
                    self.report.failures.push(format!("an order came back without {field}"));
                    return;
                };
                self.say(|| format!("Transaction Success! Transaction #: {number}"));
                self.placed.push((number, name.to_owned(), quantity, side));
                self.report.orders += 1;
            }
            409 => {
                self.say(|| "Transaction Refused: not enough in stock".to_owned());
                self.report.refused += 1;
            }
            status => {
                let why = String::from_utf8_lossy(&reply.body).into_owned();
                self.report.failures.push(format!("an order was answered {status}: {why}"));
            }
        }
    }

    /// Looks every own order up and compares.
    async fn confirm(&mut self) {
        for (number, name, quantity, side) in std::mem::take(&mut self.placed) {
            let path = format!("/orders/{number}");
            let began = Instant::now();
            let Some(reply) = self.get(&path).await else { continue };
            self.report.took(Kind::Lookup, began.elapsed());
            let mut expected = json!({ "number": number, "name": name, "quantity": quantity });
            if !self.shop.toy {
                expected["type"] = Value::from(side);
            }
            match self.data(&path, &reply) {
                Some(found) if found == expected => {
                    self.report.confirmed += 1;
                    self.say(|| format!("Transaction #{number} confirmed."));
                }
                Some(found) => {
                    let why = format!("Transaction #{number} differs: {found}, not {expected}");
                    self.report.failures.push(why);
                }
                None => {}
            }
        }
    }

    async fn get(&mut self, path: &str) -> Option<Reply> {
        let began = Instant::now();
        loop {
            let reply = self.client.get(path).await;
            if let Some(reply) = self.settle(path, began, reply).await {
                return reply;
            }
        }
    }

    async fn post(&mut self, path: &str, key: &str, body: &str) -> Option<Reply> {
        let began = Instant::now();
        let headers = [(HeaderName::from_static("idempotency-key"), key.to_owned())];
        loop {
            let reply = self.client.post(path, &headers, body.to_owned()).await;
            if let Some(reply) = self.settle(path, began, reply).await {
                return reply;
            }
        }
    }

    /// None: try again.
    async fn settle(
        &mut self,
        path: &str,
        began: Instant,
        reply: Result<Reply, String>,
    ) -> Option<Option<Reply>> {
        let why = match reply {
            Ok(reply) if !matches!(reply.status, 503 | 504) => return Some(Some(reply)),
            Ok(reply) => format!("{path} was answered {}", reply.status),
            Err(why) => why,
        };
        if PATIENCE < began.elapsed() {
            self.report.failures.push(format!("given up after {PATIENCE:?}: {why}"));
            return Some(None);
        }
        self.report.retries += 1;
        let pause = self.luck.random_range(10..60);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        None
    }

    fn data(&mut self, path: &str, reply: &Reply) -> Option<Value> {
        let found = reply.json().ok().filter(|_| reply.status == 200);
        let data = found.and_then(|mut body| body.get_mut("data").map(Value::take));
        if data.is_none() {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            self.report.failures.push(format!("{path} was answered {}: {body}", reply.status));
        }
        data
    }

    #[expect(clippy::print_stdout, reason = "this is the program's answer")]
    fn say(&self, line: impl FnOnce() -> String) {
        if !self.quiet {
            println!("{}", line());
        }
    }
}
