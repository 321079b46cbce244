//! Rates: bounds how many requests of one address, and of one principal, a frontend takes.
//!
//! Requests of an API key count for its principal, by the rate of the key; all others for their
//! address. A request that is one too many gets 429. On a connection of the client's own it gets it
//! after a pause, so that a client that does not slow down is slowed down. [`RateTable`] decides;
//! this is the shell, with the clock.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;
use wire::connections::group;

use crate::answer::{self, Answer};
use crate::authentication::Sender;
use crate::client_address::ClientAddress;
use crate::limits::{
    ADDRESSES_COUNTED_MAX, FAILED_AUTHENTICATION_PAUSE, FAILED_AUTHENTICATIONS_MAX,
    HANDSHAKE_REQUESTS, PRINCIPALS_COUNTED_MAX, RATE_EXCEEDED_PAUSE, REQUESTS_BURST_FACTOR,
};
use crate::rate::{Quota, RateTable};

/// The shortest time between two warnings about clients that exceed their rate.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// The failed authentications of an address that are answered without a pause.
const FAILED_AUTHENTICATIONS: Quota = Quota {
    count: FAILED_AUTHENTICATIONS_MAX,
    window: Duration::from_mins(1),
    burst: FAILED_AUTHENTICATIONS_MAX,
};

/// The answer waits this long before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause(pub(crate) Duration);

/// What a request counts for.
#[derive(Clone, Copy, Debug)]
enum Counted<'a> {
    Principal(&'a str),
    Address(IpAddr),
}

/// What clients have sent lately.
#[derive(Debug)]
pub(crate) struct Rates {
    start: Instant,
    /// The quota of an address for requests without an API key. `None`: any number.
    without_key: Option<Quota>,
    addresses: Mutex<RateTable<IpAddr>>,
    principals: Mutex<RateTable<String>>,
    failures: Mutex<RateTable<IpAddr>>,
    warned: Mutex<Option<Instant>>,
}

impl Rates {
    /// `per_address`: requests per second of one address without an API key; 0: any number.
    pub(crate) fn new(per_address: u32) -> Self {
        let table = |clients_max| NonZeroUsize::new(clients_max).unwrap_or(NonZeroUsize::MIN);
        let addresses = table(ADDRESSES_COUNTED_MAX);
        Self {
            start: Instant::now(),
            without_key: (0 < per_address).then(|| {
                per_second(per_address, per_address.saturating_mul(REQUESTS_BURST_FACTOR))
            }),
            addresses: Mutex::new(RateTable::new(addresses)),
            principals: Mutex::new(RateTable::new(table(PRINCIPALS_COUNTED_MAX))),
            failures: Mutex::new(RateTable::new(addresses)),
            warned: Mutex::new(None),
        }
    }

    /// Counts a request of a client; the answer if it is one too many. `sender`: `None` without an
    /// API key that is in force.
    pub(crate) fn take(
        &self,
        client: ClientAddress,
        sender: Option<&Sender>,
    ) -> Result<(), Box<Answer>> {
        let Some((counted, quota)) = self.quota(client, sender) else { return Ok(()) };
        let now = self.start.elapsed();
        let taken = match counted {
            Counted::Principal(name) => self.principals.lock().take(name, quota, now),
            Counted::Address(address) => self.addresses.lock().take(&address, quota, now),
        };
        taken.map_err(|exceeded| {
            if exceeded.lasts {
                self.warn(counted, quota);
            }
            rejected(client, counted, quota, exceeded.wait)
        })
    }

    /// Counts a TLS handshake of a client. False: it is one too many.
    pub(crate) fn take_handshake(&self, client: ClientAddress) -> bool {
        let Some((Counted::Address(address), quota)) = self.quota(client, None) else {
            return true;
        };
        let now = self.start.elapsed();
        let mut addresses = self.addresses.lock();
        let is_taken = addresses.take(&address, quota, now).is_ok();
        if is_taken {
            addresses.charge(&address, quota, HANDSHAKE_REQUESTS - 1, now);
        }
        is_taken
    }

    /// Counts further requests of a client: a batch counts its orders, and is taken whole.
    pub(crate) fn charge(&self, client: ClientAddress, sender: &Sender, requests: usize) {
        let Some((counted, quota)) = self.quota(client, Some(sender)) else { return };
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        let now = self.start.elapsed();
        match counted {
            Counted::Principal(name) => self.principals.lock().charge(name, quota, requests, now),
            Counted::Address(address) => {
                self.addresses.lock().charge(&address, quota, requests, now);
            }
        }
    }

    /// What a request counts for. `None`: it is not counted.
    fn quota<'a>(
        &self,
        client: ClientAddress,
        sender: Option<&'a Sender>,
    ) -> Option<(Counted<'a>, Quota)> {
        if let Some((principal, rate)) = sender.and_then(Sender::principal) {
            let rate = rate?;
            return Some((
                Counted::Principal(principal),
                per_second(rate.per_second(), rate.burst()),
            ));
        }
        let quota = self.without_key.filter(|_| !client.is_exempt)?;
        Some((Counted::Address(group(client.address)), quota))
    }

    /// Counts a failed authentication. Beyond [`FAILED_AUTHENTICATIONS_MAX`] a minute its answer
    /// gets a pause.
    pub(crate) fn note_failure(&self, client: ClientAddress, answer: &mut Answer) {
        if client.is_exempt {
            return;
        }
        let (address, now) = (group(client.address), self.start.elapsed());
        if self.failures.lock().take(&address, FAILED_AUTHENTICATIONS, now).is_err() {
            pause(client, answer, FAILED_AUTHENTICATION_PAUSE);
        }
    }

    /// Logs that a client keeps exceeding its quota.
    fn warn(&self, counted: Counted<'_>, quota: Quota) {
        let mut warned = self.warned.lock();
        if warned.is_some_and(|warned| warned.elapsed() < WARNING_INTERVAL) {
            return;
        }
        *warned = Some(Instant::now());
        let count = quota.count;
        match counted {
            Counted::Principal(name) => tracing::warn!(
                principal = name,
                "{name} sends more than the {count} requests per second of its API key: 429"
            ),
            Counted::Address(address) => tracing::warn!(
                %address,
                "{address} sends more than {count} requests per second without an API key: 429; a \
                 gateway is named in --gateways, another limit in --requests-per-address"
            ),
        }
    }
}

fn per_second(count: u32, burst: u32) -> Quota {
    Quota { count, window: Duration::from_secs(1), burst }
}

/// The answer to a request that is one too many.
fn rejected(
    client: ClientAddress,
    counted: Counted<'_>,
    quota: Quota,
    wait: Duration,
) -> Box<Answer> {
    let count = quota.count;
    let (whose, why) = match counted {
        Counted::Principal(name) => (
            "principal",
            format!("too many requests: the API key of {name} allows {count} per second"),
        ),
        Counted::Address(_) => (
            "address",
            format!(
                "too many requests without an API key from this address: at most {count} per second"
            ),
        ),
    };
    let mut answer = answer::error(StatusCode::TOO_MANY_REQUESTS, &why);
    answer::rate_limited(&mut answer, whose, count, wait);
    pause(client, &mut answer, RATE_EXCEEDED_PAUSE);
    answer.into()
}

/// A gateway needs its connection for other customers, too.
fn pause(client: ClientAddress, answer: &mut Answer, time: Duration) {
    if client.is_direct {
        answer.extensions_mut().insert(Pause(time));
    }
}
