//! The queue before the log, in golden scripts.
//!
//! | command | effect |
//! |---|---|
//! | `lead`, `follow` | opens the queue to the log, or closes it |
//! | `orders N`, `bulk N`, `detach` | lone orders, a bulk of N orders, a catalog's detach |
//! | `entry` | prints the entry that closes now, or until when the queue waits |
//! | `landed N`, `answered N` | an entry of N requests has landed; N of its clients are answered |
//! | `after MS` | the clock goes on |
//! | `drain` | empties the queue |

use std::time::Duration;

use goldenscript::Command as Words;
use ledger::command::{Command, Line, Request, Side};
use ledger::terms::{Key, Name, Origin, Quantity};
use tokio::time::Instant;

use super::Failure;
use crate::batch_queue::BatchQueue;
use crate::pending::Pending;
use crate::pending::tests::many;

/// A queue, its clock, and the number of the next offer.
pub(super) struct QueueStory {
    queue: BatchQueue<u64>,
    start: Instant,
    now: Instant,
    next: u64,
}

impl QueueStory {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { queue: BatchQueue::default(), start: now, now, next: 1 }
    }

    pub(super) fn run(&mut self, words: &Words) -> Result<String, Failure> {
        let mut args = words.consume_args();
        let mut number = || -> Result<usize, Failure> {
            Ok(args.next_pos().ok_or("a number is missing")?.parse()?)
        };
        match words.name.as_str() {
            "lead" => self.queue.set_open(true),
            "follow" => self.queue.set_open(false),
            "orders" => {
                let count = number()?;
                return Ok((0..count).map(|_| self.offer(Pending::lone(&order()))).collect());
            }
            "bulk" => {
                let count = number()?;
                return Ok(self.offer(many(count, 0)));
            }
            "detach" => {
                let command = Command::Detach { incarnation: 1, term: 1 };
                let detach = Request { key: None, deadline: None, certificate: None, command };
                return Ok(self.offer(Pending::lone(&detach)));
            }
            "entry" => return Ok(self.entry()),
            "landed" => {
                let count = number()?;
                self.queue.decided(count);
                self.queue.landed(count);
            }
            "answered" => {
                let count = number()?;
                self.queue.replied(count, self.now);
            }
            "after" => self.now += Duration::from_millis(number()? as u64),
            "drain" => return Ok(format!("{} drained\n", self.queue.drain().len())),
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        Ok(String::new())
    }

    fn offer(&mut self, pending: Pending) -> String {
        let number = self.next;
        self.next += 1;
        match self.queue.offer(pending, number, self.now) {
            Ok(()) => String::new(),
            Err(number) => format!("#{number} is refused: the queue is full\n"),
        }
    }

    fn entry(&mut self) -> String {
        if let Some(entry) = self.queue.close(self.now) {
            let of = entry.companions;
            let last = of.last().filter(|_| 1 < of.len());
            let numbers = match (of.first(), last) {
                (Some(first), Some(last)) => format!("#{first} to #{last}"),
                (Some(only), None) => format!("#{only}"),
                (None, _) => "nothing".into(),
            };
            let requests = if entry.count == 1 { "request" } else { "requests" };
            return format!("an entry of {} {requests}: {numbers}\n", entry.count);
        }
        match self.queue.deadline() {
            Some(deadline) => {
                let at = (deadline - self.start).as_millis();
                format!("no entry: more requests are awaited, until {at} ms on the clock\n")
            }
            None => "no entry\n".into(),
        }
    }
}

fn order() -> Request {
    let line = Line {
        name: Name::new("bear").unwrap(),
        quantity: Quantity::new(1).unwrap(),
        side: Side::Buy,
    };
    let key = Key::new(Origin::Client, "key");
    Request { key, deadline: None, certificate: None, command: Command::Place(vec![line]) }
}
