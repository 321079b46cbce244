//! A hostile client with a valid API key of another principal, beside the customers for the whole
//! run.
//!
//! It floods every frontend with orders and queries, leaves answers unread, sends big batches, uses
//! the customers' idempotency keys after them and before them, looks up their orders, and goes on
//! with API keys that were revoked. It may slow the customers down. It panics, which fails the run,
//! when it is shown a customer's order, when a customer's idempotency key answers it with anything
//! but an order of its own, or when a revoked API key places an order.
//!
//! Under every second idempotency key it repeats the customer's whole order. That changes the stock
//! which the customers see, so it repeats each until it is placed, and the history checker gets
//! them all. Its other orders are of a product of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::hostile_flood::{Flooded, flood};
use crate::api_keys::bearer;
use crate::crowd::{FRONTENDS, HOSTILE_PRODUCT, PRODUCTS};
use crate::harness::{Connection, Reply, Store, run_in, until};
use crate::history::{History, RecordedAnswer, What};

/// The principal of the hostile client.
const PRINCIPAL: &str = "hostile";

/// Its rate and burst at each frontend.
const RATE: [&str; 4] = ["--rate", "200/s", "--burst", "400"];

/// The scopes of its API keys, in turn.
const SCOPES: [&str; 2] = ["storefront,import", "storefront"];

/// Each API key is replaced and revoked after this time.
const KEY_LIFE: Duration = Duration::from_secs(4);

/// The time within which every attack has taken place, also on a busy machine.
const ATTACKED_WITHIN: Duration = Duration::from_mins(2);

/// The most time without an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The orders of a batch.
const BATCH: usize = 1_000;

/// How far ahead of a customer its idempotency keys are used.
const AHEAD: u64 = 51;

/// The hostile client at work.
pub(crate) struct HostileClient {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Report>,
    stop_flood: Arc<AtomicBool>,
    flood: JoinHandle<Flooded>,
}

impl HostileClient {
    /// Starts a client with its first API key.
    pub(crate) fn start(store: &Store, history: Arc<History>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = Client {
            ports: (0..FRONTENDS).map(|index| store.port_of(index)).collect(),
            folder: store.folder().to_owned(),
            history,
            turn: 0,
            key: Arc::default(),
            issued: Instant::now(),
            has_sent_batch: false,
            replaced: None,
            revoked: Vec::new(),
            own: BTreeMap::new(),
            report: Report::default(),
        };
        until("the hostile client has an API key", || client.issue_key().then_some(()));
        let (ports, key) = (client.ports.clone(), client.key.clone());
        let stop_flood = Arc::new(AtomicBool::new(false));
        let (stopped, flood_stopped) = (stop.clone(), stop_flood.clone());
        let flood = thread::spawn(move || flood(&ports, &key, &flood_stopped));
        let thread = thread::spawn(move || client.act(&stopped));
        Self { stop, thread, stop_flood, flood }
    }

    /// False when the client has found a violation.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.thread.is_finished() && !self.flood.is_finished()
    }

    /// Stops the client when every attack has taken place, while the store serves.
    pub(crate) fn end(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.thread.join();
        self.stop_flood.store(true, Ordering::Relaxed);
        let flooded = self.flood.join().expect("the flood goes on until it is stopped");
        let mut report = report.expect("the hostile client has found a violation");
        report.answered += flooded.answered;
        report.limited += flooded.limited;
        report.numbers.extend(flooded.numbers);
        report
    }
}

/// What the hostile client did, and what it got.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The customers' orders that it repeated as its own.
    pub(crate) copies: Vec<RecordedAnswer>,
    /// The numbers of the orders of its own product.
    pub(crate) numbers: Vec<u64>,
    /// Requests answered, among them those beyond its rate.
    pub(crate) answered: usize,
    pub(crate) limited: usize,
    /// Look-ups of customers' orders answered with 404.
    pub(crate) hidden: usize,
    /// Batches that were placed, and batches that its API key did not allow.
    pub(crate) batches: [usize; 2],
    /// Orders under a revoked API key that were rejected.
    pub(crate) rejected: usize,
}

impl Report {
    fn has_every_attack(&self) -> bool {
        let counts = [self.limited, self.hidden, self.copies.len(), self.batches[0], self.rejected];
        counts.iter().all(|count| 0 < *count)
    }
}

struct Client {
    ports: Vec<u16>,
    folder: PathBuf,
    history: Arc<History>,
    turn: usize,
    /// Its `Authorization`, which its flood uses, too.
    key: Arc<Mutex<String>>,
    issued: Instant,
    /// The API key has been used for a batch.
    has_sent_batch: bool,
    /// The last API key, which is to be revoked.
    replaced: Option<String>,
    revoked: Vec<String>,
    /// The orders under idempotency keys of customers: their numbers.
    own: BTreeMap<String, u64>,
    report: Report,
}

impl Client {
    fn act(mut self, stop: &AtomicBool) -> Report {
        let began = Instant::now();
        while !stop.load(Ordering::Relaxed) || !self.report.has_every_attack() {
            assert!(
                self.report.has_every_attack() || began.elapsed() < ATTACKED_WITHIN,
                "an attack does not take place: {:?}",
                self.report
            );
            self.copy_order();
            self.order_ahead();
            self.look_up();
            self.use_revoked_key();
            self.send_batch();
            if KEY_LIFE < self.issued.elapsed() {
                self.replace_key();
            }
        }
        self.report
    }

    /// A frontend, another one each time.
    fn port(&mut self) -> u16 {
        self.turn += 1;
        self.ports[self.turn % self.ports.len()]
    }

    fn authorization(&self) -> String {
        self.key.lock().unwrap().clone()
    }

    fn url(&mut self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Sends one request to any frontend. `None`: the connection broke.
    fn ask(&mut self, route: (&str, &str), headers: &[(&str, &str)], body: &str) -> Option<Reply> {
        let mut connection = Connection::open_for(self.port(), ANSWER_TIMEOUT).ok()?;
        let reply = connection.ask(route.0, route.1, headers, body).ok()?;
        self.report.answered += 1;
        self.report.limited += usize::from(reply.status == 429);
        Some(reply)
    }

    /// Places an order under an idempotency key of a customer; its index and number.
    fn place(&mut self, idempotency_key: &str, body: &str) -> (u64, u64) {
        let placed = until("the hostile client's order is placed", || {
            let key = self.authorization();
            let headers = [("Authorization", key.as_str()), ("Idempotency-Key", idempotency_key)];
            let reply = self.ask(("POST", "/orders"), &headers, body)?;
            match reply.status {
                200 => Some((reply.header("x-as-of")?.parse().unwrap(), reply.number())),
                // A frontend may not know a new API key yet.
                401 | 429 | 503 | 504 => None,
                _ => panic!("{idempotency_key} of a customer got {reply:?}"),
            }
        });
        if let Some(first) = self.own.insert(idempotency_key.to_owned(), placed.1) {
            assert_eq!(first, placed.1, "{idempotency_key} has two numbers");
        }
        placed
    }

    /// Orders under the idempotency key of an order that a customer has placed.
    fn copy_order(&mut self) {
        let Some((key, body, number)) = self.history.key(self.turn.wrapping_mul(7_919)) else {
            return;
        };
        let is_first = !self.own.contains_key(&key);
        let is_whole = order_of(&key).1.is_multiple_of(2);
        let body = if is_whole { body } else { own_order() };
        let sent_at = Instant::now();
        let (index, own) = self.place(&key, &body);
        assert_ne!(own, number, "{key} gave the hostile client a customer's order");
        match PRODUCTS.into_iter().find(|product| body.contains(product)) {
            _ if !is_first => {}
            None => self.report.numbers.push(own),
            Some(product) => {
                let (answered, what) = (Instant::now(), What::Placed { index, number: own });
                self.report.copies.push(RecordedAnswer { sent_at, answered, product, what });
            }
        }
    }

    /// Orders under an idempotency key that a customer is going to use.
    fn order_ahead(&mut self) {
        let Some((key, ..)) = self.history.newest_key() else { return };
        let (client, turn) = order_of(&key);
        let key = format!("{client}-{}", (turn + AHEAD) | 1);
        if !self.own.contains_key(&key) {
            let (_, number) = self.place(&key, &own_order());
            self.report.numbers.push(number);
        }
    }

    /// Looks up an order of a customer, in vain.
    fn look_up(&mut self) {
        let Some((_, _, number)) = self.history.key(self.turn.wrapping_mul(6_101)) else { return };
        let key = self.authorization();
        let path = format!("/orders/{number}");
        let reply = self.ask(("GET", &path), &[("Authorization", &key)], "");
        let Some(reply) = reply else { return };
        let is_shown =
            reply.body.contains("data") || PRODUCTS.iter().any(|it| reply.body.contains(it));
        let is_hidden = matches!(reply.status, 401 | 404 | 429 | 503);
        assert!(is_hidden && !is_shown, "order {number} of a customer is shown: {reply:?}");
        self.report.hidden += usize::from(reply.status == 404);
    }

    /// Orders with a revoked API key, the last or an older one, under a new idempotency key or one
    /// that has an order.
    fn use_revoked_key(&mut self) {
        let Some(last) = self.revoked.last() else { return };
        let older = &self.revoked[self.turn % self.revoked.len()];
        let key = bearer(if self.turn % 4 < 2 { last } else { older });
        let used = self.own.keys().nth(self.turn % 64).cloned();
        let used = used.filter(|_| self.turn.is_multiple_of(2));
        let idempotency_key = used.unwrap_or_else(|| format!("revoked-{}", self.turn));
        let headers = [("Authorization", key.as_str()), ("Idempotency-Key", &idempotency_key)];
        let reply = self.ask(("POST", "/orders"), &headers, &own_order());
        let Some(reply) = reply else { return };
        assert_ne!(reply.status, 200, "a revoked API key placed an order: {reply:?}");
        self.report.rejected += usize::from(reply.status == 401);
    }

    /// Sends one batch under each API key; some of its orders have idempotency keys of customers.
    fn send_batch(&mut self) {
        if self.has_sent_batch {
            return;
        }
        let of_customer = |number: usize| {
            let (key, ..) = self.history.key(number).filter(|_| number.is_multiple_of(2))?;
            (!order_of(&key).1.is_multiple_of(2)).then_some(key)
        };
        let keys: Vec<Option<String>> = (0..BATCH).map(of_customer).collect();
        let order = |key: &Option<String>| {
            let mut order: serde_json::Value = serde_json::from_str(&own_order()).unwrap();
            if let Some(key) = key {
                order["key"] = key.as_str().into();
            }
            order
        };
        let orders: Vec<_> = keys.iter().map(order).collect();
        let body = serde_json::json!({ "orders": orders }).to_string();
        let key = self.authorization();
        let headers = [("Authorization", key.as_str())];
        let Some(reply) = self.ask(("POST", "/v1/orders/batch"), &headers, &body) else { return };
        let placed = match reply.status {
            200 => 0,
            403 => 1,
            _ => return,
        };
        self.has_sent_batch = true;
        self.report.batches[placed] += 1;
        let answer = reply.json();
        for (key, result) in keys.iter().zip(answer["results"].as_array().into_iter().flatten()) {
            let Some(number) = result["data"]["transaction_number"].as_u64() else {
                assert_ne!(result["status"], 422, "{key:?} of a customer got {result}");
                continue;
            };
            let first = key.as_ref().map(|key| self.own.insert(key.clone(), number));
            match first {
                Some(Some(first)) => assert_eq!(first, number, "{key:?} has two numbers"),
                _ => self.report.numbers.push(number),
            }
        }
    }

    /// Issues the next API key. False: it was not issued, or its answer was lost.
    fn issue_key(&mut self) -> bool {
        let scopes = SCOPES[self.revoked.len() % SCOPES.len()];
        let url = self.url();
        let issue = ["ctl", "key", "issue", PRINCIPAL, "--as", scopes, "--url", &url];
        let issued = run_in(&self.folder, &[], &[&issue[..], &RATE].concat());
        if issued.code == Some(0) {
            let old =
                std::mem::replace(&mut *self.key.lock().unwrap(), bearer(issued.stdout.trim()));
            self.replaced = old.strip_prefix("Bearer ").map(str::to_owned);
            (self.issued, self.has_sent_batch) = (Instant::now(), false);
        }
        issued.code == Some(0)
    }

    /// Replaces the API key and revokes the old one, as far as the store lets it at this moment.
    fn replace_key(&mut self) {
        if self.replaced.is_none() && !self.issue_key() {
            return;
        }
        let Some(old) = self.replaced.clone() else { return };
        let url = self.url();
        let revoked =
            run_in(&self.folder, &[], &["ctl", "key", "revoke", &old[4..12], "--url", &url]);
        if revoked.code == Some(0) {
            self.revoked.push(old);
            self.replaced = None;
            // A frontend may not know the revocation yet.
            for _ in 0..2 * FRONTENDS {
                self.use_revoked_key();
            }
        }
    }
}

/// An order of the hostile client's own product.
pub(super) fn own_order() -> String {
    format!(r#"{{"name":"{HOSTILE_PRODUCT}","quantity":1,"type":"sell"}}"#)
}

/// The client of an idempotency key, and the number of its order.
fn order_of(key: &str) -> (&str, u64) {
    let (client, turn) = key.rsplit_once('-').unwrap();
    (client, turn.parse().unwrap())
}
