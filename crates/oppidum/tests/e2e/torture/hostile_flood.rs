//! The flood of the hostile client: orders and queries over many connections at once, more than its
//! rate allows, and requests whose answers are never read.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::hostile_client::{ANSWER_TIMEOUT, own_order};
use crate::crowd::HOSTILE_PRODUCT;
use crate::harness::{Connection, connect_from};

/// The connections to each frontend, and the pairs of requests on each.
const WIDTH: (usize, usize) = (8, 4);

/// The most connections whose answers stay unread.
const UNREAD_MAX: usize = 40;

/// What the flood got.
#[derive(Debug, Default)]
pub(super) struct Flooded {
    pub(super) answered: usize,
    pub(super) limited: usize,
    /// The numbers of its orders.
    pub(super) numbers: Vec<u64>,
}

/// Floods these frontends with the API key of the moment, until it is stopped.
pub(super) fn flood(ports: &[u16], key: &Mutex<String>, stop: &AtomicBool) -> Flooded {
    let (mut flooded, mut unread) = (Flooded::default(), VecDeque::new());
    for port in ports.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = key.lock().unwrap().clone();
        flooded.wave(*port, &key);
        unread.extend(leave_answers_unread(*port, &key));
        if UNREAD_MAX < unread.len() {
            unread.pop_front();
        }
    }
    flooded
}

/// Asks for many lists, and reads none of them.
fn leave_answers_unread(port: u16, key: &str) -> Option<TcpStream> {
    let mut stream = connect_from(2, port).ok()?;
    stream.set_nonblocking(true).ok()?;
    let request = format!("GET /products HTTP/1.1\r\nHost: shop\r\nAuthorization: {key}\r\n\r\n");
    // The frontend may be full, or gone already.
    let _ = stream.write(request.repeat(100).as_bytes());
    Some(stream)
}

impl Flooded {
    /// Sends all requests of a wave, and then reads the answers.
    fn wave(&mut self, port: u16, key: &str) {
        let order = own_order();
        let length = order.len();
        let (connections, pairs) = WIDTH;
        let head = format!("HTTP/1.1\r\nHost: shop\r\nAuthorization: {key}\r\n");
        let pair = format!(
            "POST /orders {head}Content-Length: {length}\r\n\r\n{order}\
             GET /products/{HOSTILE_PRODUCT} {head}\r\n"
        );
        let bytes = pair.repeat(pairs);
        let open = (0..connections).map_while(|_| {
            let mut connection = Connection::open_for(port, ANSWER_TIMEOUT).ok()?;
            connection.send(bytes.as_bytes()).ok()?;
            Some(connection)
        });
        for mut connection in open.collect::<Vec<_>>() {
            for _ in 0..2 * pairs {
                // A frozen frontend, or one that was killed: the wave is over.
                let Ok(reply) = connection.receive() else { return };
                self.answered += 1;
                self.limited += usize::from(reply.status == 429);
                if reply.status == 200 && reply.body.contains("transaction_number") {
                    self.numbers.push(reply.number());
                }
            }
        }
    }
}
