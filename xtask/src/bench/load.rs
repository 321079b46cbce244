//! The load: clients on kept connections, each with one request under way, all on one hot product.
//!
//! Each buyer buys one and sells it again, so the stock stays where it was, give or take one per
//! client, and no order is refused. Each reader asks for the same product again and again.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What to send, and where.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: String,
    pub(crate) product: String,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Orders,
    Queries,
}

/// What came back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) orders: u64,
    pub(crate) seconds: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

const WARMING_UP: u8 = 0;
const COUNTING: u8 = 1;
const OVER: u8 = 2;

/// An answer that takes longer than this ends the run.
const PATIENCE: Duration = Duration::from_secs(10);

impl Load {
    /// Runs it once. `counting` is called when the warm-up is over.
    pub(crate) fn run(&self, counting: impl FnOnce() -> Result<()>) -> Result<Tally> {
        let phase = AtomicU8::new(WARMING_UP);
        let mut took = Vec::new();
        let mut elapsed = Duration::ZERO;
        thread::scope(|scope| -> Result<()> {
            let client = || scope.spawn(|| self.client(&phase));
            let clients: Vec<_> = (0..self.connections).map(|_| client()).collect();
            thread::sleep(self.warm_up);
            let counted = counting();
            let began = Instant::now();
            phase.store(COUNTING, Ordering::Relaxed);
            thread::sleep(self.length);
            phase.store(OVER, Ordering::Relaxed);
            elapsed = began.elapsed();
            for client in clients {
                let Ok(latencies) = client.join() else { bail!("a client panicked") };
                took.extend(latencies?);
            }
            counted
        })?;
        took.sort_unstable();
        let at = |per_cent: usize| took.get(took.len() * per_cent / 100).copied();
        let (p50, p99) = (at(50).unwrap_or_default(), at(99).unwrap_or_default());
        Ok(Tally { orders: took.len() as u64, seconds: elapsed.as_secs_f64(), p50, p99 })
    }

    /// One client: the latencies of what it counted.
    fn client(&self, phase: &AtomicU8) -> Result<Vec<Duration>> {
        let stream = TcpStream::connect(&self.address).context("connect")?;
        stream.set_nodelay(true).context("switch Nagle's algorithm off")?;
        stream.set_read_timeout(Some(PATIENCE)).context("set the patience")?;
        let mut answers = BufReader::new(stream.try_clone().context("share the connection")?);
        let mut asks = stream;
        let requests = match self.kind {
            Kind::Orders => ["buy", "sell"].map(|side| self.order(side)),
            Kind::Queries => ["", ""].map(|_| self.query()),
        };
        let mut latencies = Vec::new();
        let mut line = String::new();
        for (turn, request) in requests.iter().cycle().enumerate() {
            let now = phase.load(Ordering::Relaxed);
            // What was bought is sold again, so that the next run finds the stock as it was.
            if now == OVER && turn % 2 == 0 {
                break;
            }
            let began = Instant::now();
            asks.write_all(request.as_bytes()).context("send an order")?;
            read_answer(&mut answers, &mut line)?;
            if now == COUNTING {
                latencies.push(began.elapsed());
            }
        }
        Ok(latencies)
    }

    fn query(&self) -> String {
        format!("GET /stocks/{} HTTP/1.1\r\nHost: {}\r\n\r\n", self.product, self.address)
    }

    fn order(&self, side: &str) -> String {
        let body = format!(r#"{{"name":"{}","quantity":1,"type":"{side}"}}"#, self.product);
        let mut request = format!("POST /orders HTTP/1.1\r\nHost: {}\r\n", self.address);
        let length = body.len();
        // Writing into a string cannot fail.
        let _ =
            write!(request, "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        request + &body
    }
}

/// Reads one answer to its end. Anything but 200 ends the run.
fn read_answer(answers: &mut impl BufRead, line: &mut String) -> Result<()> {
    line.clear();
    answers.read_line(line).context("read an answer")?;
    let status = line.trim_end().to_owned();
    let mut length = 0_u64;
    loop {
        line.clear();
        if answers.read_line(line).context("read a header")? == 0 {
            bail!("the server hung up");
        }
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("read the length of an answer")?;
        }
    }
    line.clear();
    answers.take(length).read_to_string(line).context("read a body")?;
    match status.contains(" 200 ") {
        true => Ok(()),
        false => bail!("an order was not taken: {status}: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let two = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\
                   HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nno";
        let mut answers = two.as_bytes();
        let mut line = String::new();
        assert!(read_answer(&mut answers, &mut line).is_ok());
        let error = read_answer(&mut answers, &mut line).expect_err("it is a refusal");
        assert_eq!(error.to_string(), "an order was not taken: HTTP/1.1 409 Conflict: no");
        assert!(read_answer(&mut answers, &mut line).is_err());
    }
}
