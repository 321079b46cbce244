//! Scripts: the requests that clients send, and the answers that they expect.
//!
//! A buyer buys one piece and sells it again, so that the stock stays about the same and no order
//! is refused, however long the run.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use super::answer::Answer;
use super::luck;

/// The number of orders in a batch: the most that a batch may have.
pub(crate) const BATCH: usize = 1_000;

/// The requests of a run.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Every client sends these in turn.
    Turns(Vec<Vec<u8>>),
    /// Every client buys one piece of a random product, and sells it again.
    Spread(Vec<[Vec<u8>; 2]>),
    /// Every client looks up random orders among the first `orders`.
    LookUps { host: String, orders: u64 },
    /// Every client sends batches; each order has a key of its own, of which `run` is a part.
    Batches { host: String, product: String, size: usize, run: u64 },
}

/// Which answers are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// 200.
    Done,
    /// 409.
    Refused,
    /// 200; or 503 with `Retry-After`; or 504.
    DoneOrNot,
}

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The hoped-for answer.
    Good,
    /// A definite no: there was no capacity, or no leader.
    Shed,
    /// An unknown outcome; without a key the client cannot ask again.
    Unknown,
}

impl Expect {
    /// Judges an answer with this body. An unexpected answer is an error.
    pub(crate) fn judge(self, answer: &Answer, body: &[u8]) -> Result<Heard> {
        match (self, answer.status) {
            (Self::Done | Self::DoneOrNot, 200) | (Self::Refused, 409) => Ok(Heard::Good),
            (Self::DoneOrNot, 503) if answer.retry_after => Ok(Heard::Shed),
            (Self::DoneOrNot, 504) => Ok(Heard::Unknown),
            (_, status) => {
                let body = String::from_utf8_lossy(&body[..body.len().min(500)]);
                bail!("an answer of an unexpected kind: {status}: {body}")
            }
        }
    }
}

impl Script {
    /// Every client buys one piece of `product` and sells it again.
    pub(crate) fn hot(host: &str, product: &str) -> Self {
        Self::Turns(["buy", "sell"].map(|side| order(host, product, side)).into())
    }

    /// Every client buys one piece of `product`.
    pub(crate) fn buy(host: &str, product: &str) -> Self {
        Self::Turns(vec![order(host, product, "buy")])
    }

    /// Every client queries `product`.
    pub(crate) fn query(host: &str, product: &str) -> Self {
        Self::Turns(vec![get(host, &format!("/stocks/{product}"))])
    }

    /// Every client buys and sells, each time another one of `products`.
    pub(crate) fn spread(host: &str, products: &[String]) -> Self {
        let both = |product: &String| ["buy", "sell"].map(|side| order(host, product, side));
        Self::Spread(products.iter().map(both).collect())
    }

    /// The same requests with an API key, of scripts whose requests are ready.
    pub(crate) fn with_key(self, key: &str) -> Self {
        let Self::Turns(requests) = self else { return self };
        let with_key = |request: Vec<u8>| {
            let line = request.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let (first, rest) = request.split_at(line);
            [first, format!("Authorization: Bearer {key}\r\n").as_bytes(), rest].concat()
        };
        Self::Turns(requests.into_iter().map(with_key).collect())
    }

    /// The same script for another run: batches get new keys.
    pub(crate) fn again(&self) -> Self {
        let mut script = self.clone();
        if let Self::Batches { run, .. } = &mut script {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            *run = u64::try_from(since_epoch.as_nanos()).unwrap_or_default();
        }
        script
    }

    /// Every client sends batches of `size` orders of `product`.
    pub(crate) fn batches(host: &str, product: &str, size: usize) -> Self {
        Self::Batches { host: host.into(), product: product.into(), size, run: 0 }.again()
    }

    /// The number of orders in one request.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Batches { size, .. } => *size as u64,
            Self::Turns(_) | Self::Spread(_) | Self::LookUps { .. } => 1,
        }
    }

    /// Appends the request that client `client` sends at its turn `turn`.
    pub(crate) fn write(&self, client: usize, turn: u64, out: &mut Vec<u8>) {
        let count = |list: usize| list.max(1) as u64;
        let place = |index: u64| usize::try_from(index).unwrap_or_default();
        // Far apart for each client, so that no two clients draw for the same place.
        let lot = |turn: u64| ((client as u64) << 40) + turn;
        match self {
            Self::Turns(requests) => {
                out.extend_from_slice(&requests[place(turn % count(requests.len()))]);
            }
            Self::Spread(products) => {
                let drawn = luck::below(count(products.len()), lot(turn / 2));
                out.extend_from_slice(&products[place(drawn)][place(turn % 2)]);
            }
            Self::LookUps { host, orders } => {
                let number = luck::below(*orders, lot(turn));
                out.extend_from_slice(&get(host, &format!("/orders/{number}")));
            }
            Self::Batches { host, product, size, run } => {
                let body = batch(product, *size, &format!("bench-{run}-{client}-{turn}"));
                post(host, "/v1/orders/batch", &body, out);
            }
        }
    }
}

/// The body of a batch; each order has the key `KEY-PLACE`.
fn batch(product: &str, size: usize, key: &str) -> Vec<u8> {
    let mut body = b"{\"orders\":[".to_vec();
    for place in 0..size {
        let comma = if place == 0 { "" } else { "," };
        let side = if place % 2 == 0 { "buy" } else { "sell" };
        // Writing into a vector cannot fail.
        let _ = write!(
            body,
            r#"{comma}{{"name":"{product}","quantity":1,"type":"{side}","key":"{key}-{place}"}}"#
        );
    }
    body.extend_from_slice(b"]}");
    body
}

fn order(host: &str, product: &str, side: &str) -> Vec<u8> {
    let body = format!(r#"{{"name":"{product}","quantity":1,"type":"{side}"}}"#);
    let mut request = Vec::new();
    post(host, "/orders", body.as_bytes(), &mut request);
    request
}

fn post(host: &str, path: &str, body: &[u8], out: &mut Vec<u8>) {
    let length = body.len();
    // Writing into a vector cannot fail.
    let _ = write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    out.extend_from_slice(body);
}

fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(script: &Script, client: usize, turn: u64) -> String {
        let mut out = Vec::new();
        script.write(client, turn, &mut out);
        String::from_utf8(out).expect("the request is text")
    }

    #[test]
    fn a_key_is_sent_with_every_request() {
        let script = Script::hot("a:1", "thing").with_key("opk_7");
        for turn in 0..2 {
            let request = said(&script, 3, turn);
            let (line, rest) = request.split_once("\r\n").expect("a line ends");
            assert_eq!(line, "POST /orders HTTP/1.1");
            assert!(rest.starts_with("Authorization: Bearer opk_7\r\nHost: a:1\r\n"), "{rest}");
        }
    }

    #[test]
    fn every_purchase_is_sold_again() {
        let names: Vec<String> = (0..100).map(|place| format!("thing-{place}")).collect();
        let script = Script::spread("a:1", &names);
        for turn in (0..50).step_by(2) {
            let (buys, sells) = (said(&script, 3, turn), said(&script, 3, turn + 1));
            assert!(buys.contains("buy") && sells.contains("sell"));
            let product = |text: &str| text.split("thing-").nth(1).map(|rest| rest[..3].to_owned());
            assert_eq!(product(&buys), product(&sells));
        }
    }

    #[test]
    fn every_order_of_a_batch_has_a_key_of_its_own() {
        let body = batch("GameStart", 3, "bench-7-0-1");
        let parsed: serde_json::Value = serde_json::from_slice(&body).expect("the body is JSON");
        let orders = parsed["orders"].as_array().expect("a list of orders");
        let keys: Vec<_> = orders.iter().filter_map(|order| order["key"].as_str()).collect();
        assert_eq!(keys, ["bench-7-0-1-0", "bench-7-0-1-1", "bench-7-0-1-2"]);
        assert_eq!(orders[1]["type"], "sell");
    }

    #[test]
    fn an_unexpected_answer_is_an_error() {
        let answer = |status, retry_after| Answer { status, retry_after, body: 0, end: 0 };
        let judge =
            |expect: Expect, status, retry| expect.judge(&answer(status, retry), b"no").ok();
        assert_eq!(judge(Expect::Done, 200, false), Some(Heard::Good));
        assert_eq!(judge(Expect::Done, 409, false), None);
        assert_eq!(judge(Expect::Refused, 409, false), Some(Heard::Good));
        assert_eq!(judge(Expect::DoneOrNot, 503, true), Some(Heard::Shed));
        assert_eq!(judge(Expect::DoneOrNot, 503, false), None);
        assert_eq!(judge(Expect::DoneOrNot, 504, false), Some(Heard::Unknown));
        assert_eq!(judge(Expect::Done, 504, false), None);
    }
}
