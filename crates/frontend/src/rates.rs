//! Rates: bounds how many requests of one address, and of one principal, a frontend takes.
//!
//! Requests of an API key count for its principal, by the rate of the key; all others for their
//! address. A request that is one too many gets 429. A client with a connection of its own waits
//! for that answer, so that a client that does not slow down is slowed down. [`RateTable`] decides;
//! this is the shell, with the clock.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use ledger::api_key::{Principal, RequestRate};
use parking_lot::Mutex;
use tokio::time::Instant;
use wire::connections::group;

use crate::answer::{self, Answer};
use crate::authentication::Sender;
use crate::client_address::ClientAddress;
use crate::http::handler::Pause;
use crate::limits::{
    ADDRESSES_COUNTED_MAX, FAILED_AUTHENTICATION_PAUSE, FAILED_AUTHENTICATIONS_MAX,
    HANDSHAKE_REQUESTS, PRINCIPALS_COUNTED_MAX, RATE_EXCEEDED_PAUSE, REQUESTS_BURST_FACTOR,
};
use crate::rate::{Exceeded, Quota, RateTable};

/// The shortest time between two warnings about clients that exceed their rate: each client gets
/// one a minute at most.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// The failed authentications of an address that are answered without a pause.
const FAILED_AUTHENTICATIONS: Quota = Quota {
    count: FAILED_AUTHENTICATIONS_MAX,
    window: Duration::from_mins(1),
    burst: FAILED_AUTHENTICATIONS_MAX,
};

/// The keys of a principal that allow the same rate: they share one count.
type PrincipalRate = (Principal, RequestRate);

/// What a request counts for.
#[derive(Clone, Debug)]
enum Counted {
    Principal(PrincipalRate),
    Address(IpAddr),
    /// TLS handshakes of an address.
    Handshakes(IpAddr),
}

/// What clients have sent lately.
#[derive(Debug)]
pub(crate) struct Rates {
    start: Instant,
    /// The quota of an address for requests without an API key. `None`: any number.
    without_key: Option<Quota>,
    addresses: Mutex<RateTable<IpAddr>>,
    handshakes: Mutex<RateTable<IpAddr>>,
    failures: Mutex<RateTable<IpAddr>>,
    principals: Mutex<RateTable<PrincipalRate>>,
    warned: Mutex<Option<Instant>>,
}

impl Rates {
    /// `per_address`: requests per second of one address without an API key; 0: any number.
    pub(crate) fn new(per_address: u32) -> Self {
        let table = || Mutex::new(RateTable::new(ADDRESSES_COUNTED_MAX));
        Self {
            start: Instant::now(),
            without_key: (0 < per_address).then(|| per_second(per_address)),
            addresses: table(),
            handshakes: table(),
            failures: table(),
            principals: Mutex::new(RateTable::new(PRINCIPALS_COUNTED_MAX)),
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
        self.note_exceeded(client, &counted, quota, self.count(&counted, quota, None))
    }

    /// The number of addresses, and of principals, whose requests are counted.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        (self.addresses.lock().len(), self.principals.lock().len())
    }

    /// Counts further requests of a client; the answer if it has sent too many already. A batch
    /// counts its orders, and is taken whole.
    pub(crate) fn charge(
        &self,
        client: ClientAddress,
        sender: &Sender,
        requests: usize,
    ) -> Result<(), Box<Answer>> {
        let Some((counted, quota)) = self.quota(client, Some(sender)) else { return Ok(()) };
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        self.note_exceeded(client, &counted, quota, self.count(&counted, quota, Some(requests)))
    }

    /// Counts a TLS handshake of a client. False: it is one too many.
    pub(crate) fn take_handshake(&self, client: ClientAddress) -> bool {
        let Some(requests) = self.without_key.filter(|_| !client.is_exempt) else { return true };
        let quota = per_second((requests.count / HANDSHAKE_REQUESTS).max(1));
        let counted = Counted::Handshakes(group(client.address));
        let taken = self.count(&counted, quota, None);
        self.note_exceeded(client, &counted, quota, taken).is_ok()
    }

    /// Counts one request, or `more` requests, for what they count.
    fn count(&self, counted: &Counted, quota: Quota, more: Option<u32>) -> Result<(), Exceeded> {
        let now = self.start.elapsed();
        let of_address = |table: &Mutex<RateTable<IpAddr>>, address: &IpAddr| match more {
            None => table.lock().take(address, quota, now),
            Some(requests) => table.lock().charge(address, quota, requests, now),
        };
        match counted {
            Counted::Address(address) => of_address(&self.addresses, address),
            Counted::Handshakes(address) => of_address(&self.handshakes, address),
            Counted::Principal(key) => match more {
                None => self.principals.lock().take(key, quota, now),
                Some(requests) => self.principals.lock().charge(key, quota, requests, now),
            },
        }
    }

    /// What a request counts for. `None`: it is not counted.
    fn quota(&self, client: ClientAddress, sender: Option<&Sender>) -> Option<(Counted, Quota)> {
        if let Some((principal, rate)) = sender.and_then(Sender::principal) {
            let rate = rate?;
            let (count, burst) = (rate.per_second(), rate.burst());
            let quota = Quota { burst, ..per_second(count) };
            return Some((Counted::Principal((Principal::new(principal)?, rate)), quota));
        }
        let quota = self.without_key.filter(|_| !client.is_exempt)?;
        Some((Counted::Address(group(client.address)), quota))
    }

    /// The answer to a request that is one too many; the first of them for some time are logged.
    fn note_exceeded(
        &self,
        client: ClientAddress,
        counted: &Counted,
        quota: Quota,
        taken: Result<(), Exceeded>,
    ) -> Result<(), Box<Answer>> {
        let Err(Exceeded { wait, is_reported }) = taken else { return Ok(()) };
        if is_reported && !self.warn(counted, quota) {
            match counted {
                Counted::Principal(key) => self.principals.lock().forget_report(key),
                Counted::Address(address) => self.addresses.lock().forget_report(address),
                Counted::Handshakes(address) => self.handshakes.lock().forget_report(address),
            }
        }
        Err(rejected(client, counted, quota, wait))
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

    /// Logs that a client keeps exceeding its quota. False: another client was named just before.
    fn warn(&self, counted: &Counted, quota: Quota) -> bool {
        let mut warned = self.warned.lock();
        if warned.is_some_and(|warned| warned.elapsed() < WARNING_INTERVAL) {
            return false;
        }
        *warned = Some(Instant::now());
        let count = quota.count;
        match counted {
            Counted::Principal((principal, _)) => tracing::warn!(
                %principal,
                "{principal} sends more than the {count} requests per second of its API key, and \
                 gets 429: `oppidum ctl key issue --rate` allows more"
            ),
            Counted::Address(address) => tracing::warn!(
                %address,
                "{address} sends more than {count} requests per second without an API key, and \
                 gets 429: name it in --gateways if it is a gateway, or raise \
                 --requests-per-address"
            ),
            Counted::Handshakes(address) => tracing::warn!(
                %address,
                "{address} begins more than {count} TLS handshakes per second, and some are \
                 closed: name it in --gateways if it is a gateway, or raise --requests-per-address"
            ),
        }
        true
    }
}

/// A quota with the burst of an address.
fn per_second(count: u32) -> Quota {
    let burst = count.saturating_mul(REQUESTS_BURST_FACTOR);
    Quota { count, window: Duration::from_secs(1), burst }
}

/// The answer to a request that is one too many.
fn rejected(client: ClientAddress, counted: &Counted, quota: Quota, wait: Duration) -> Box<Answer> {
    let count = quota.count;
    let (whose, why) = match counted {
        Counted::Principal((principal, _)) => (
            "principal",
            format!("too many requests: the API key of {principal} allows {count} per second"),
        ),
        Counted::Address(_) | Counted::Handshakes(_) => (
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
