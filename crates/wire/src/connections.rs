//! Admission control of connections: decides which connections a listener keeps.
//!
//! Places are a share of the process's file descriptors, so clients can never take the descriptors
//! that the process needs itself. One address holds at most `per_address` connections, and the last
//! `reserved` places are for addresses that hold none. When no place is free, the connection that
//! has been idle longest is evicted, so that unused connections do not keep new clients out.
//! [`ConnectionTable`] is the core and has no clock; [`Connections`] is the shell.
//!
//! An IPv6 client is counted by its network of 64 bits, because it chooses the other bits itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The shortest idle time at which a connection is evicted for an address that holds one already.
/// Without it, many connections of one address would evict each other before their first request.
pub const EVICTED_IDLE_MIN: Duration = Duration::from_secs(5);

/// The most evicted connections that are not closed yet. Each holds a descriptor beyond the places,
/// and the process's own share has room for them.
pub const LEAVING_MAX: usize = 8;

/// The number of connections that a listener keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The number of places.
    pub total: usize,
    /// The number of places reserved for addresses that hold none.
    pub reserved: usize,
    /// The most places of one address; 0: no limit per address.
    pub per_address: usize,
}

impl Places {
    /// `total` places, of which the last twentieth is for addresses that hold none.
    pub fn new(total: usize, per_address: usize) -> Self {
        Self { total, reserved: total / 20, per_address }
    }
}

/// The connections of a listener, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// The open connections.
    pub open: usize,
    /// The most of them.
    pub limit: usize,
    /// The connections that got no place since the start.
    pub refused: u64,
}

/// Why a connection is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Its address has reached the limit per address.
    AddressFull,
    /// No place is free, and no connection may be evicted.
    Full,
}

/// The index of a place in a [`ConnectionTable`].
pub type PlaceId = usize;

/// The decision on a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The connection gets the first place; a connection at the second place, if any, must close.
    Admitted(PlaceId, Option<PlaceId>),
    /// The connection gets no place.
    Rejected(Rejected),
}

const NONE: usize = usize::MAX;

/// An open connection.
#[derive(Clone, Copy, Debug)]
struct Slot {
    address: IpAddr,
    /// Since when the connection is idle. None: it is in use or evicted.
    idle_since: Option<Instant>,
    /// The connection is evicted and not closed yet.
    leaves: bool,
    /// Its neighbours in the list of idle connections.
    previous: usize,
    next: usize,
}

/// The core: which connections are open, and which has been idle longest.
#[derive(Debug)]
pub struct ConnectionTable {
    places: Places,
    slots: Vec<Slot>,
    vacant: Vec<PlaceId>,
    per_address: HashMap<IpAddr, usize>,
    leaving: usize,
    /// The linked list of idle connections, longest first; each operation takes constant time.
    first: usize,
    last: usize,
}

impl ConnectionTable {
    /// A table without open connections.
    pub fn new(places: Places) -> Self {
        Self {
            places,
            slots: Vec::new(),
            vacant: Vec::new(),
            per_address: HashMap::new(),
            leaving: 0,
            first: NONE,
            last: NONE,
        }
    }

    /// Decides on a new connection from `address`. `exempt`: the limit per address does not apply.
    pub fn open(&mut self, address: IpAddr, exempt: bool, now: Instant) -> Admission {
        let address = group(address);
        let held = self.per_address.get(&address).copied().unwrap_or(0);
        let Places { total, reserved, per_address } = self.places;
        if !exempt && 0 < per_address && per_address <= held {
            return Admission::Rejected(Rejected::AddressFull);
        }
        let limit = if held == 0 { total } else { total - reserved };
        let mut evicted = None;
        if limit <= self.len() - self.leaving {
            let victim = Some(self.first).filter(|first| *first != NONE);
            let victim = victim.filter(|victim| {
                let idle = self.slots[*victim].idle_since.unwrap_or(now);
                let long = EVICTED_IDLE_MIN <= now.saturating_duration_since(idle);
                (held == 0 || long) && self.leaving < LEAVING_MAX
            });
            let Some(victim) = victim else { return Admission::Rejected(Rejected::Full) };
            self.unlink(victim);
            self.slots[victim].leaves = true;
            self.leaving += 1;
            evicted = Some(victim);
        }
        *self.per_address.entry(address).or_default() += 1;
        let slot = Slot { address, idle_since: None, leaves: false, previous: NONE, next: NONE };
        let id = match self.vacant.pop() {
            Some(id) => {
                self.slots[id] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.note_idle(id, now);
        Admission::Admitted(id, evicted)
    }

    /// Notes that the connection is in use: a request has come.
    pub fn note_request(&mut self, id: PlaceId) {
        self.unlink(id);
    }

    /// Notes that the connection is idle: it waits for its next request.
    pub fn note_idle(&mut self, id: PlaceId, now: Instant) {
        self.unlink(id);
        if self.slots[id].leaves {
            return;
        }
        self.slots[id] =
            Slot { idle_since: Some(now), previous: self.last, next: NONE, ..self.slots[id] };
        match self.last {
            NONE => self.first = id,
            last => self.slots[last].next = id,
        }
        self.last = id;
    }

    /// Notes that the connection is closed, and frees its place.
    pub fn close(&mut self, id: PlaceId) {
        self.unlink(id);
        let Slot { address, leaves, .. } = self.slots[id];
        self.leaving -= usize::from(leaves);
        if let Some(held) = self.per_address.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                self.per_address.remove(&address);
            }
        }
        self.vacant.push(id);
    }

    /// True when the connection is evicted.
    pub fn leaves(&self, id: PlaceId) -> bool {
        self.slots[id].leaves
    }

    /// The number of open connections, including evicted ones that are not closed yet.
    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// True when no connection is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn unlink(&mut self, id: PlaceId) {
        if self.slots[id].idle_since.take().is_none() {
            return;
        }
        let Slot { previous, next, .. } = self.slots[id];
        match previous {
            NONE => self.first = next,
            previous => self.slots[previous].next = next,
        }
        match next {
            NONE => self.last = previous,
            next => self.slots[next].previous = previous,
        }
    }
}

/// The address under which a client is counted: of IPv6 the network of 64 bits.
pub fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The shell: hands out places and asks evicted connections to close. Clones share one table.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    table: ConnectionTable,
    /// By place: the token that asks its connection to close.
    closing: Vec<CancellationToken>,
    /// The connections that got no place.
    refused: u64,
}

impl Connections {
    /// A listener without open connections.
    pub fn new(places: Places) -> Self {
        let shared =
            Shared { table: ConnectionTable::new(places), closing: Vec::new(), refused: 0 };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Gets a place for a connection from `address`, which `stop` asks to close. `exempt`: the
    /// limit per address does not apply.
    pub fn open(
        &self,
        address: IpAddr,
        exempt: bool,
        stop: &CancellationToken,
    ) -> Result<OpenConnection, Rejected> {
        let mut shared = self.shared.lock();
        let (place, evicted) = match shared.table.open(address, exempt, Instant::now()) {
            Admission::Admitted(place, evicted) => (place, evicted),
            Admission::Rejected(why) => {
                shared.refused += 1;
                return Err(why);
            }
        };
        let evicted = evicted.map(|place| shared.closing[place].clone());
        let closing = stop.child_token();
        match shared.closing.get_mut(place) {
            Some(there) => *there = closing.clone(),
            None => shared.closing.push(closing.clone()),
        }
        drop(shared);
        // A task that the token wakes may take this lock, so it is released first.
        if let Some(evicted) = evicted {
            evicted.cancel();
        }
        Ok(OpenConnection { shared: self.shared.clone(), place, closing })
    }

    /// Notes that a connection with a place was closed before it was served.
    pub fn note_refused(&self) {
        self.shared.lock().refused += 1;
    }

    /// The places of the listener.
    pub fn places(&self) -> Places {
        self.shared.lock().table.places
    }

    /// How many connections there are and may be.
    pub fn counts(&self) -> ConnectionCounts {
        let shared = self.shared.lock();
        let (open, limit) = (shared.table.len(), shared.table.places.total);
        ConnectionCounts { open, limit, refused: shared.refused }
    }
}

/// The place of an open connection; freed on drop.
#[derive(Debug)]
pub struct OpenConnection {
    shared: Arc<Mutex<Shared>>,
    place: PlaceId,
    closing: CancellationToken,
}

impl OpenConnection {
    /// Cancelled when the connection must close, after the answer to its current request.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// True when the connection is evicted: unlike at a stop, it waits for no further request.
    pub fn is_evicted(&self) -> bool {
        self.shared.lock().table.leaves(self.place)
    }

    /// Notes that the connection is in use: a request has come.
    pub fn note_request(&self) {
        self.shared.lock().table.note_request(self.place);
    }

    /// Notes that the connection is idle: it waits for its next request.
    pub fn note_idle(&self) {
        let now = Instant::now();
        self.shared.lock().table.note_idle(self.place, now);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.shared.lock().table.close(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table, and the time at which the test starts.
    struct Story {
        table: ConnectionTable,
        start: Instant,
    }

    impl Story {
        fn new(total: usize, reserved: usize, per_address: usize) -> Self {
            let places = Places { total, reserved, per_address };
            Self { table: ConnectionTable::new(places), start: Instant::now() }
        }

        fn open(&mut self, host: u8, seconds: u64) -> Admission {
            let now = self.start + Duration::from_secs(seconds);
            self.table.open(IpAddr::from([10, 0, 0, host]), false, now)
        }

        fn idle(&mut self, id: PlaceId, seconds: u64) {
            self.table.note_idle(id, self.start + Duration::from_secs(seconds));
        }
    }

    const FULL: Admission = Admission::Rejected(Rejected::Full);
    const ADDRESS_FULL: Admission = Admission::Rejected(Rejected::AddressFull);

    fn at(id: PlaceId) -> Admission {
        Admission::Admitted(id, None)
    }

    #[test]
    fn one_address_holds_at_most_its_limit() {
        let mut story = Story::new(10, 0, 2);
        assert_eq!((story.open(1, 0), story.open(1, 0)), (at(0), at(1)));
        assert_eq!(story.open(1, 100), ADDRESS_FULL, "even if the others are idle");
        assert_eq!(story.open(2, 0), at(2));
        let now = story.start;
        let exempt = story.table.open(IpAddr::from([10, 0, 0, 1]), true, now);
        assert_eq!(exempt, at(3), "a gateway has customers of many addresses");
        story.table.close(0);
        story.table.close(3);
        assert_eq!(story.open(1, 0), at(3));
        assert_eq!(story.open(1, 0), ADDRESS_FULL);
    }

    #[test]
    fn the_last_places_are_reserved_for_addresses_that_hold_none() {
        let mut story = Story::new(5, 2, 0);
        for id in 0..3 {
            assert_eq!(story.open(1, 0), at(id));
            story.table.note_request(id);
        }
        assert_eq!(story.open(1, 100), FULL);
        assert_eq!((story.open(2, 0), story.open(3, 0)), (at(3), at(4)));
        for id in 3..5 {
            story.table.note_request(id);
        }
        assert_eq!(story.open(4, 0), FULL, "no place is idle");
    }

    #[test]
    fn the_connection_that_is_idle_longest_is_evicted() {
        let mut story = Story::new(3, 0, 0);
        for id in 0..3 {
            assert_eq!(story.open(1, 0), at(id));
        }
        story.table.note_request(0);
        story.idle(0, 1);
        assert_eq!(story.open(2, 1), Admission::Admitted(3, Some(1)), "it is idle longest");
        story.table.note_request(2);
        assert_eq!(story.open(3, 1), Admission::Admitted(4, Some(0)));
        assert_eq!(story.table.len(), 5);
        story.table.close(1);
        story.table.close(0);
        assert_eq!(story.table.len(), 3);
        assert_eq!(story.open(2, 2), FULL, "it holds one, and no other is idle for 5 s");
        assert_eq!(story.open(2, 7), Admission::Admitted(0, Some(3)));
    }

    /// A newer connection of an address does not evict an older one that has just connected.
    #[test]
    fn many_connections_of_one_address_do_not_evict_each_other() {
        let mut story = Story::new(20, 0, 0);
        let admitted = (0..120).filter(|_| story.open(1, 0) != FULL).count();
        assert_eq!(admitted, 20);
    }

    #[test]
    fn the_number_of_evicted_connections_that_are_still_open_is_bounded() {
        let mut story = Story::new(20, 0, 0);
        for id in 0..20 {
            assert_eq!(story.open(1, 0), at(id));
        }
        let admitted = (2..200).filter(|host| story.open(*host, 9) != FULL).count();
        assert_eq!(admitted, LEAVING_MAX, "until evicted ones have closed");
        assert_eq!(story.table.len(), 20 + LEAVING_MAX);
        for id in 0..LEAVING_MAX {
            story.table.note_request(id);
            story.idle(id, 9);
            story.table.close(id);
        }
        assert_eq!(story.table.len(), 20);
        assert_ne!(story.open(200, 9), FULL);
    }

    #[test]
    fn an_ipv6_client_is_counted_by_its_network() {
        let network = |text: &str| group(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), IpAddr::from([10, 0, 0, 1]));
    }

    #[tokio::test]
    async fn an_evicted_connection_is_asked_to_close() {
        let connections = Connections::new(Places { total: 1, reserved: 0, per_address: 0 });
        let stop = CancellationToken::new();
        let open = |host| connections.open(IpAddr::from([10, 0, 0, host]), false, &stop);
        let first = open(1).unwrap();
        let second = open(2).unwrap();
        assert!(first.closing().is_cancelled() && first.is_evicted());
        assert!(!second.closing().is_cancelled() && !second.is_evicted());
        second.note_request();
        assert_eq!(open(3).unwrap_err(), Rejected::Full);
        drop(first);
        assert_eq!(open(3).unwrap_err(), Rejected::Full);
        second.note_idle();
        assert!(open(3).is_ok());
        stop.cancel();
        assert!(second.closing().is_cancelled());
    }
}
