//! Customers of the public API: they order and query through a frontend, over HTTP.
//!
//! One request at a time over a kept connection. A request without an answer, or answered with 503
//! or 504, is sent again with the same key, through another frontend.

use std::net::SocketAddr;
use std::time::Duration;

use ledger::command::Side;
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::terms::{Index, Name, OrderNumber};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use wire::simulated::TcpStream;

use crate::history::{History, ShownProduct, ShownStock, WantedOrder};
use crate::net::Net;
use crate::plan::NAMES;
use crate::trace;
use ground::rng::Rng;

/// How long one request may take: longer than a frontend retries.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(7);

/// A customer of the public API.
pub struct Shopper {
    name: String,
    frontends: Vec<SocketAddr>,
    luck: Rng,
    net: Net,
    history: History,
    connection: Option<TcpStream>,
    favourite: usize,
    wanted_orders: Vec<WantedOrder>,
    /// The percentage of orders without a key.
    keyless: u64,
}

impl std::fmt::Debug for Shopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shopper").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An answer over HTTP.
struct Reply {
    status: u16,
    as_of: Option<u64>,
    stale: bool,
    body: Value,
}

impl Shopper {
    /// A customer that knows these frontends.
    pub fn new(
        name: &str,
        frontends: Vec<SocketAddr>,
        (seed, keyless): (u64, u64),
        net: &Net,
        history: &History,
    ) -> Self {
        let mut luck = Rng::new(seed, name);
        let favourite = luck.place(frontends.len());
        Self {
            name: name.to_owned(),
            frontends,
            luck,
            net: net.clone(),
            history: history.clone(),
            connection: None,
            favourite,
            wanted_orders: Vec::new(),
            keyless,
        }
    }

    /// Orders until stopped; every order that was sent is repeated until it is answered.
    pub async fn shop(mut self, stop: CancellationToken) -> Self {
        while !stop.is_cancelled() {
            match self.luck.below(10) {
                0 if !self.wanted_orders.is_empty() => {
                    let again =
                        self.wanted_orders[self.luck.place(self.wanted_orders.len())].clone();
                    self.settle(&again).await;
                }
                1..=6 => self.look().await,
                _ if 0 < self.keyless && self.luck.percent(self.keyless) => {
                    let (name, quantity) = (self.luck.one(&NAMES), self.luck.between(1, 3));
                    self.order_without_key(name, quantity).await;
                }
                _ => {
                    let wanted = WantedOrder {
                        key: format!("{}-{}", self.name, self.wanted_orders.len()),
                        name: self.luck.one(&NAMES).to_owned(),
                        quantity: self.luck.between(1, 3),
                        side: if self.luck.percent(20) { Side::Sell } else { Side::Buy },
                    };
                    self.wanted_orders.push(wanted.clone());
                    self.settle(&wanted).await;
                }
            }
            let pause = self.luck.below(40);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self
    }

    /// Repeats all orders of the run: each must have the same answer as before.
    pub async fn ask_again(mut self) {
        for wanted in std::mem::take(&mut self.wanted_orders) {
            self.settle(&wanted).await;
        }
    }

    async fn settle(&mut self, wanted: &WantedOrder) {
        self.history.note_sent(wanted, self.net.now());
        let side = if wanted.side == Side::Buy { "buy" } else { "sell" };
        let body = json!({ "name": wanted.name, "quantity": wanted.quantity, "type": side });
        let body = body.to_string();
        let (length, key) = (body.len(), &wanted.key);
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: shop\r\nidempotency-key: {key}\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        loop {
            let reply = self.ask(&request).await;
            match reply.as_ref().and_then(|reply| outcome(reply, wanted)) {
                Some((index, outcome)) => {
                    return self.history.note_answer(&wanted.key, self.net.now(), index, outcome);
                }
                None => self.elsewhere(reply.map(|reply| (reply.status, reply.body))).await,
            }
        }
    }

    /// Queries every product once, and orders it without a key.
    pub async fn visit(mut self) {
        for name in NAMES {
            self.look_at(name).await;
            self.order_without_key(name, 3).await;
        }
    }

    async fn look(&mut self) {
        let name = self.luck.one(&NAMES);
        self.look_at(name).await;
    }

    async fn look_at(&mut self, name: &str) {
        let began = self.net.now();
        let request = format!("GET /stocks/{name} HTTP/1.1\r\nhost: shop\r\n\r\n");
        let Some(reply) = self.ask(&request).await else { return self.elsewhere(None).await };
        let Reply { status, as_of, stale, body } = reply;
        let stock = match status {
            200 => ShownStock::Exactly(body["data"]["quantity"].as_u64().unwrap_or(u64::MAX)),
            404 => ShownStock::NoProduct,
            _ => return self.elsewhere(Some((status, body))).await,
        };
        if let Some(as_of) = as_of.filter(|_| !stale) {
            let name = name.to_owned();
            self.history.shows(ShownProduct { began, name, as_of: Index(as_of), stock });
        }
    }

    /// Buys without a key, once: an unknown outcome is not repeated. A refusal reveals the stock
    /// and is checked like a query; an accepted order is in the history like any other.
    async fn order_without_key(&mut self, name: &str, quantity: u64) {
        let began = self.net.now();
        let body = json!({ "name": name, "quantity": quantity, "type": "buy" }).to_string();
        let length = body.len();
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let Some(reply) = self.ask(&request).await else { return self.elsewhere(None).await };
        let stock = match reply.status {
            200 => return,
            404 => ShownStock::NoProduct,
            409 => ShownStock::FewerThan(quantity),
            status => return self.elsewhere(Some((status, reply.body))).await,
        };
        if let Some(as_of) = reply.as_of {
            let name = name.to_owned();
            self.history.shows(ShownProduct { began, name, as_of: Index(as_of), stock });
        }
    }

    /// After a problem: tries another frontend, a little later.
    async fn elsewhere(&mut self, problem: Option<(u16, Value)>) {
        let received = match &problem {
            Some((status, body)) => format!("{status} {}", body["error"]["message"]),
            None => "nothing".into(),
        };
        trace::say(&format!("{} is told by {}: {received}", self.name, self.favourite));
        if let Some((status, body)) = problem.filter(|(status, _)| ![503, 504].contains(status)) {
            self.history.is_wrong(format!("{} was told {status}: {body}", self.name));
        }
        self.connection = None;
        self.favourite = self.luck.place(self.frontends.len());
        let pause = self.luck.between(2, 30);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn ask(&mut self, request: &str) -> Option<Reply> {
        let asking = async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => {
                    let frontend = self.frontends[self.favourite % self.frontends.len()];
                    TcpStream::connect(&frontend.to_string()).await.ok()?
                }
            };
            connection.write_all(request.as_bytes()).await.ok()?;
            let reply = read(&mut connection).await?;
            Some((connection, reply))
        };
        let (connection, reply) = tokio::time::timeout(ANSWER_TIMEOUT, asking).await.ok()??;
        self.connection = Some(connection);
        Some(reply)
    }
}

/// Reads one answer.
async fn read(connection: &mut TcpStream) -> Option<Reply> {
    let mut text = Vec::new();
    let head = loop {
        if let Some(at) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if connection.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    };
    let lines = String::from_utf8_lossy(&text[..head]).to_lowercase();
    let status = lines.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let line = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map(str::to_owned)
    };
    let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while text.len() < head + length {
        if connection.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
    Some(Reply {
        status,
        as_of: header("x-as-of").and_then(|text| text.parse().ok()),
        stale: header("x-consistency").is_some_and(|text| text == "stale"),
        body: serde_json::from_slice(&text[head..head + length]).unwrap_or(Value::Null),
    })
}

/// The outcome in the answer to an order. None: the answer has none.
fn outcome(reply: &Reply, wanted: &WantedOrder) -> Option<(Index, Outcome)> {
    let index = Index(reply.as_of?);
    let name = Name::new(&wanted.name)?;
    let outcome = match reply.status {
        200 => {
            let number = reply.body["data"]["transaction_number"].as_u64()?;
            Outcome::Accepted(Accepted::Placed(OrderNumber(number)))
        }
        404 => Outcome::Refused(Refusal::NoSuchProduct(name)),
        409 => Outcome::Refused(Refusal::OutOfStock(name)),
        _ => return None,
    };
    Some((index, outcome))
}
