//! A group of clients that keep trading while processes are killed, frozen and restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{Connection, Store, until};
use crate::history::{History, RecordedAnswer, What};

/// The products that the clients buy and query.
pub(crate) const PRODUCTS: [&str; 2] = ["bear", "fox"];

/// A product that they leave alone, for hostile clients.
pub(crate) const HOSTILE_PRODUCT: &str = "owl";

/// The stock of each product: more than the clients buy in any test.
pub(crate) const STOCK: u64 = 1_000_000;

/// The number of frontends.
pub(crate) const FRONTENDS: usize = 3;

/// A client without an answer after this time goes to another frontend.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A shop file with these products, in a folder of its own.
pub(crate) fn shop() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.toml");
    let product = |name| format!("[[product]]\nname = \"{name}\"\nprice = 1\nquantity = {STOCK}\n");
    let all = PRODUCTS.into_iter().chain([HOSTILE_PRODUCT]).map(product);
    std::fs::write(&path, all.collect::<Vec<_>>().join("\n")).unwrap();
    let shop = path.to_str().unwrap().to_owned();
    (folder, shop)
}

/// Clients that trade until they are stopped.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    pub(crate) history: Arc<History>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Buyers place one order after the other, readers query; each at any frontend that answers.
    pub(crate) fn new(store: &Store, buyers: usize, readers: usize) -> Self {
        let ports: Vec<u16> = (0..FRONTENDS).map(|index| store.port_of(index)).collect();
        let (stop, history) = (Arc::new(AtomicBool::new(false)), Arc::new(History::default()));
        let clients = (0..buyers + readers).map(|number| {
            let (ports, stop, history) = (ports.clone(), stop.clone(), history.clone());
            thread::spawn(move || {
                let mut client = Client { number, turn: number, ports, at: None, history };
                while !stop.load(Ordering::Relaxed) {
                    if number < buyers { client.buy(&stop) } else { client.look() }
                }
            })
        });
        Self { clients: clients.collect(), stop, history }
    }

    /// Waits until this many more orders are acknowledged.
    pub(crate) fn go_on(&self, orders: usize) {
        let before = self.history.placed();
        until("orders go on", || (before + orders <= self.history.placed()).then_some(()));
    }

    pub(crate) fn end(self) -> Arc<History> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        self.history
    }
}

struct Client {
    number: usize,
    turn: usize,
    ports: Vec<u16>,
    at: Option<Connection>,
    history: Arc<History>,
}

impl Client {
    fn product(&self) -> &'static str {
        PRODUCTS[self.turn / 3 % 2]
    }

    /// Sends a request over the kept connection, or over a new one to the next frontend. None: the
    /// connection broke.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> Option<(u16, Option<u64>, serde_json::Value, bool)> {
        if self.at.is_none() || self.turn.is_multiple_of(5) {
            self.at =
                Connection::open_for(self.ports[self.turn % self.ports.len()], ANSWER_TIMEOUT).ok();
        }
        let headers: Vec<_> = key.into_iter().map(|key| ("Idempotency-Key", key)).collect();
        let reply = self.at.as_mut()?.ask(method, path, &headers, body);
        let Ok(reply) = reply else {
            self.at = None;
            return None;
        };
        let as_of = reply.header("x-as-of").and_then(|index| index.parse().ok());
        let stale = reply.header("x-consistency").is_some();
        Some((reply.status, as_of, reply.json(), stale))
    }

    /// Sends one order under one key, until it is known to be placed.
    fn buy(&mut self, stop: &AtomicBool) {
        self.turn += 1;
        let product = self.product();
        let key = format!("client-{}-{}", self.number, self.turn);
        let body = body_of(product);
        let sent_at = Instant::now();
        for tries in 0.. {
            match self.ask("POST", "/orders", Some(&key), &body) {
                Some((200, Some(index), body, _)) => {
                    let number = body["data"]["transaction_number"].as_u64().unwrap();
                    let what = What::Placed { index, number };
                    self.history.record(RecordedAnswer {
                        sent_at,
                        answered: Instant::now(),
                        product,
                        what,
                    });
                    self.history.keep(key, body_of(product), number);
                    return;
                }
                Some((503 | 504, ..)) | None => {}
                Some(other) => panic!("an order got {other:?}"),
            }
            // A client may give up an order only if no frontend can have placed it.
            assert!(tries < 2_000 || !stop.load(Ordering::Relaxed), "an order has no outcome");
            self.turn += usize::from(self.at.is_none());
            thread::yield_now();
        }
    }

    fn look(&mut self) {
        self.turn += 1;
        let product = self.product();
        let sent_at = Instant::now();
        match self.ask("GET", &format!("/products/{product}"), None, "") {
            // Answers marked as stale are outside the promise.
            Some((200, _, body, false)) => {
                let quantity = body["data"]["quantity"].as_u64().unwrap();
                let what = What::Shown { quantity };
                self.history.record(RecordedAnswer {
                    sent_at,
                    answered: Instant::now(),
                    product,
                    what,
                });
            }
            Some((200 | 503, ..)) | None => {}
            Some(other) => panic!("a query got {other:?}"),
        }
    }
}

/// An order of one piece.
fn body_of(product: &str) -> String {
    format!(r#"{{"name":"{product}","quantity":1,"type":"buy"}}"#)
}
