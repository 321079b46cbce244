//! Hostile clients beside customers: each limit holds, the memory of every process stays bounded,
//! and customers at another address are served meanwhile.
//!
//! The tests check that customers are served, never how fast.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::api_keys::{bearer, issue};
use crate::harness::{Connection, Deployed, IDS, Plan, Store, connect_from, until};

/// The most memory that any process may use, in KB: in a debug build each starts with about 30 MB.
const RSS_MAX: u64 = 200_000;

/// The last byte of the customers' address.
const CUSTOMERS: u8 = 99;

/// The connection limit of one address.
const PER_ADDRESS: usize = 128;

const ORDER: &str = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;

struct Siege {
    store: Store,
    frontend: Deployed,
    /// The header with which the hostile clients authenticate, if the store is locked.
    authorization: String,
}

impl Siege {
    fn start() -> Self {
        Self::of(Plan::stock(), &[])
    }

    fn of(plan: Plan, flags: &[&str]) -> Self {
        let is_locked = plan.locked;
        let store = Store::start(plan);
        let frontend = Deployed::start(&store, flags);
        let mut siege = Self { store, frontend, authorization: String::new() };
        if is_locked {
            let key = bearer(&issue(&siege.store, "hostile", "storefront,import"));
            siege.authorization = format!("Authorization: {key}\r\n");
            until("the frontend knows the API key", || {
                let reply =
                    siege.customer().ask("GET", "/products", &[("Authorization", &key)], "");
                (reply.unwrap().status == 200).then_some(())
            });
        }
        siege
    }

    /// The beginning of a hostile client's request.
    fn head(&self, route: &str) -> String {
        format!("{route} HTTP/1.1\r\nHost: shop\r\n{}", self.authorization)
    }

    /// Opens `count` connections from one address, each of which sends these bytes and nothing
    /// more.
    fn clients(&self, host: u8, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
        let client = |_| {
            let mut stream = connect_from(host, self.frontend.port).unwrap();
            // A rejected connection may be closed already.
            let _ = stream.write_all(bytes);
            stream.set_nonblocking(true).unwrap();
            stream
        };
        (0..count).map(client).collect()
    }

    fn customer(&self) -> Connection {
        Connection::over(connect_from(CUSTOMERS, self.frontend.port).unwrap())
    }

    /// Customers order, query, and send batches; the health pages report no trouble.
    fn customers_are_served(&self) {
        let batch = format!(r#"{{"orders":[{ORDER}]}}"#);
        for _ in 0..5 {
            let mut customer = self.customer();
            for (method, path, body) in [
                ("POST", "/orders", ORDER),
                ("POST", "/v1/orders/batch", &batch),
                ("GET", "/stocks/GameStart", ""),
                ("GET", "/livez", ""),
                ("GET", "/readyz", ""),
                ("GET", "/status", ""),
            ] {
                let reply = customer.ask(method, path, &[], body).unwrap();
                assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
            }
        }
        let mut pids = vec![self.frontend.process.pid()];
        pids.extend(IDS.map(|id| self.store.order(id).pid()));
        for pid in pids {
            let rss = memory(pid);
            assert!(rss < RSS_MAX, "process {pid} takes {rss} KB");
        }
    }
}

/// The resident memory of a process, in KB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The bytes received so far over a nonblocking connection.
fn received(mut stream: &TcpStream) -> Option<String> {
    let mut bytes = [0; 1_024];
    match stream.read(&mut bytes) {
        Ok(count) => Some(String::from_utf8_lossy(&bytes[..count]).into_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(String::new()),
    }
}

/// Waits until all but `kept` of these connections are answered, and returns the answers.
fn await_rejections(clients: &[TcpStream], kept: usize) -> Vec<String> {
    let mut answers: Vec<Option<String>> = vec![None; clients.len()];
    until("all but the kept connections are rejected", || {
        for (answer, client) in answers.iter_mut().zip(clients) {
            *answer = answer.take().or_else(|| received(client));
        }
        (clients.len() - kept <= answers.iter().flatten().count()).then_some(())
    });
    answers.into_iter().flatten().collect()
}

#[test]
fn one_address_holds_at_most_its_limit_of_connections() {
    hold_connections(&Siege::start());
}

fn hold_connections(siege: &Siege) {
    let clients = siege.clients(2, PER_ADDRESS + 60, b"");
    let rejections = await_rejections(&clients, PER_ADDRESS);
    assert_eq!(rejections.len(), 60);
    let rejected = rejections.iter().filter(|text| text.starts_with("HTTP/1.1 503 ")).count();
    assert_eq!(rejected, 60, "{rejections:?}");
    assert!(rejections[0].contains("at most 128"), "{rejections:?}");
    siege.customers_are_served();
    drop(clients);
    until("the address has its places again", || {
        let stream = connect_from(2, siege.frontend.port).ok()?;
        let reply = Connection::over(stream).ask("GET", "/livez", &[], "").ok()?;
        (reply.status == 200).then_some(())
    });
}

#[test]
fn unfinished_request_heads_block_no_customer() {
    hold_heads(&Siege::start());
}

fn hold_heads(siege: &Siege) {
    let head = siege.head("POST /orders") + "X-Slow: ";
    let hold = |host| siege.clients(host, PER_ADDRESS, head.as_bytes());
    let clients: Vec<_> = (2..5).flat_map(hold).collect();
    siege.customers_are_served();
    drop(clients);
}

#[test]
fn unfinished_request_bodies_block_no_customer() {
    hold_bodies(&Siege::start());
}

fn hold_bodies(siege: &Siege) {
    let order = siege.head("POST /orders") + "Content-Length: 16000\r\n\r\n{";
    let orders = siege.clients(2, PER_ADDRESS, order.as_bytes());
    let batch = siege.head("POST /v1/orders/batch") + "Transfer-Encoding: chunked\r\n\r\n";
    let batch = batch.as_bytes();
    // A body counts with the bytes that have arrived, not with its declared length.
    let begun = siege.clients(6, PER_ADDRESS, &[batch, b"1\r\n{\r\n"].concat());
    // The limit of one address is 8 MB of bodies: twenty of these.
    let blanks = " ".repeat(400_000);
    let part = [batch, b"61a80\r\n", blanks.as_bytes()].concat();
    let clients: Vec<_> = (3..6).map(|host| siege.clients(host, 40, &part)).collect();
    for clients in &clients {
        let rejections = await_rejections(clients, 20);
        assert!(rejections.iter().all(|text| text.starts_with("HTTP/1.1 503 ")), "{rejections:?}");
        assert!(rejections[0].contains("bodies"), "{rejections:?}");
    }
    assert!(begun.iter().all(|client| received(client).is_none()), "none is rejected");
    siege.customers_are_served();
    drop((orders, begun));
}

#[test]
fn clients_that_never_read_their_answers_take_no_memory() {
    // The rate of one address would leave too few answers to fill a buffer.
    read_no_answers(&Siege::of(Plan::stock(), &["--requests-per-address", "0"]));
}

fn read_no_answers(siege: &Siege) {
    let pages = ["GET /stocks", "GET /status", "GET /stocks/GameStart"];
    let all = pages.map(|page| siege.head(page) + "\r\n").concat();
    let clients: Vec<_> = (2..5).flat_map(|host| siege.clients(host, 40, b"")).collect();
    let asks = all.repeat(400);
    for _ in 0..20 {
        for mut client in &clients {
            // Until neither side accepts any more bytes.
            let _ = client.write(asks.as_bytes());
        }
        siege.customers_are_served();
    }
}

#[test]
fn clients_that_change_their_address_block_no_customer() {
    change_addresses(&Siege::start());
}

fn change_addresses(siege: &Siege) {
    let order = siege.head("POST /orders") + "Content-Length: 16000\r\n\r\n{";
    let hold = |host| siege.clients(host, 5, order.as_bytes());
    let clients: Vec<_> = (100..200).flat_map(hold).collect();
    siege.customers_are_served();
    drop(clients);
}

/// The same clients with an API key of another principal before a locked store, and bodies without
/// an API key, which are not read at all. F10 and F11 with authentication on.
#[test]
fn hostile_clients_block_no_customer_of_a_locked_store() {
    let siege = Siege::of(Plan { locked: true, ..Plan::stock() }, &[]);
    hold_connections(&siege);
    hold_bodies(&siege);
    hold_heads(&siege);
    change_addresses(&siege);
    let batch = b"POST /v1/orders/batch HTTP/1.1\r\nHost: shop\r\nContent-Length: 900000\r\n\r\n{";
    let rejections = await_rejections(&siege.clients(7, PER_ADDRESS, batch), 0);
    assert!(rejections.iter().all(|text| text.starts_with("HTTP/1.1 401 ")), "{rejections:?}");
    read_no_answers(&siege);
    siege.store.verify();
}

/// Few files may be open: client connections must leave enough for the frontend's own.
#[test]
fn a_frontend_with_few_descriptors_finds_the_leader_again_while_clients_hold_its_places() {
    let mut store = Store::start(Plan::stock());
    let frontend = Deployed::start_limited(&store, 60);
    let clients: Vec<TcpStream> =
        (0..120).filter_map(|_| connect_from(2, frontend.port).ok()).collect();
    let mut customer = Connection::over(connect_from(CUSTOMERS, frontend.port).unwrap());
    for leader in [456, 345] {
        let reply = customer.ask("POST", "/orders", &[], ORDER).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        store.kill(leader);
        store.await_leader(None);
        let reply = customer.ask("POST", "/orders", &[], ORDER).unwrap();
        assert_eq!(reply.status, 200, "after {leader} died: {reply:?}");
        store.start_order(leader, &[]);
        store.await_all_ready();
    }
    drop(clients);
}
