//! Admission control of connections: decides which of them a listener keeps when places run short.
//!
//! Places are a share of the process's file descriptors, so clients can never take those that the
//! process needs itself. One address holds at most `per_address` connections, and the last
//! `reserved` places are for addresses that hold none. When places run short, the connection that
//! has been idle longest is closed, so that connections that are held and not used do not keep
//! others out. [`ConnectionTable`] decides and has no clock; [`Connections`] is the shell.
//!
//! An IPv6 client is counted by its network of 64 bits, for it chooses the rest itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection that has been idle for less than this is not closed for an address that holds one
/// already: a crowd of one address would otherwise close its own connections before it uses them.
pub const EVICTED_IDLE_MIN: Duration = Duration::from_secs(5);

/// The most connections that are told to close and are still there. Each holds a descriptor beyond
/// the places; the process's own share has room for them.
pub const LEAVING_MAX: usize = 8;

/// How many connections a listener keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// All of them.
    pub total: usize,
    /// The last of them, for addresses that hold none.
    pub reserved: usize,
    /// At most this many of one address; 0: as many as there are.
    pub per_address: usize,
}

impl Places {
    /// `total` places, the last twentieth of which is for addresses that hold none.
    pub fn new(total: usize, per_address: usize) -> Self {
        Self { total, reserved: total / 20, per_address }
    }
}

/// Why a connection is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Its address holds as many as one may.
    AddressFull,
    /// All places are taken, by connections that are in use.
    Full,
}

/// A place in a [`ConnectionTable`].
pub type PlaceId = usize;

/// What a new connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A place; the connection at the other one, if there is one, must close for it.
    Admitted(PlaceId, Option<PlaceId>),
    /// No place.
    Rejected(Rejected),
}

const NONE: usize = usize::MAX;

/// An open connection.
#[derive(Clone, Copy, Debug)]
struct Slot {
    address: IpAddr,
    /// Since when it is idle. None: it is in use, or it leaves.
    idle_since: Option<Instant>,
    leaves: bool,
    /// Its neighbours in the list of idle connections.
    previous: usize,
    next: usize,
}

/// The pure core: which connections are open, and which of them is idle longest.
#[derive(Debug)]
pub struct ConnectionTable {
    places: Places,
    slots: Vec<Slot>,
    vacant: Vec<PlaceId>,
    per_address: HashMap<IpAddr, usize>,
    leaving: usize,
    /// The list of idle connections, longest first: every operation on it takes constant time.
    first: usize,
    last: usize,
}

impl ConnectionTable {
    /// No connection is open.
    pub fn new(places: Places) -> Self {
        let (slots, vacant, per_address) = (Vec::new(), Vec::new(), HashMap::new());
        Self { places, slots, vacant, per_address, leaving: 0, first: NONE, last: NONE }
    }

    /// A connection from `address` has come. `exempt`: its address is not bounded.
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

    /// A request has come over this connection.
    pub fn note_request(&mut self, id: PlaceId) {
        self.unlink(id);
    }

    /// The connection waits for its next request.
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

    /// The connection is closed.
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

    /// True when the connection was told to close, to make room.
    pub fn leaves(&self, id: PlaceId) -> bool {
        self.slots[id].leaves
    }

    /// How many connections are open, those that leave among them.
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

/// What one client is counted by.
pub fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The shell: hands out places, and tells connections to close. Clones share everything.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    table: ConnectionTable,
    /// By place: what tells the connection there to close.
    closing: Vec<CancellationToken>,
}

impl Connections {
    /// No connection is open.
    pub fn new(places: Places) -> Self {
        let (table, closing) = (ConnectionTable::new(places), Vec::new());
        Self { shared: Arc::new(Mutex::new(Shared { table, closing })) }
    }

    /// A place for a connection from `address`; `stop` ends all of them. `exempt`: its address is
    /// not bounded.
    pub fn open(
        &self,
        address: IpAddr,
        exempt: bool,
        stop: &CancellationToken,
    ) -> Result<OpenConnection, Rejected> {
        let mut shared = self.shared.lock();
        let (place, evicted) = match shared.table.open(address, exempt, Instant::now()) {
            Admission::Admitted(place, evicted) => (place, evicted),
            Admission::Rejected(why) => return Err(why),
        };
        let evicted = evicted.map(|place| shared.closing[place].clone());
        let closing = stop.child_token();
        match shared.closing.get_mut(place) {
            Some(there) => *there = closing.clone(),
            None => shared.closing.push(closing.clone()),
        }
        drop(shared);
        // What a token wakes may ask for this lock.
        if let Some(evicted) = evicted {
            evicted.cancel();
        }
        Ok(OpenConnection { shared: self.shared.clone(), place, closing })
    }
}

/// An open connection's place; given back when this is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    shared: Arc<Mutex<Shared>>,
    place: PlaceId,
    closing: CancellationToken,
}

impl OpenConnection {
    /// Cancelled when the connection is to close, after the request that is being answered.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// True when it is to make room: unlike at a stop, nothing more is waited for.
    pub fn is_evicted(&self) -> bool {
        self.shared.lock().table.leaves(self.place)
    }

    /// A request has come over it.
    pub fn note_request(&self) {
        self.shared.lock().table.note_request(self.place);
    }

    /// It waits for its next request.
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

    /// A table, the time, and what came of each attempt.
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
    fn one_address_holds_no_more_than_its_bound() {
        let mut story = Story::new(10, 0, 2);
        assert_eq!((story.open(1, 0), story.open(1, 0)), (at(0), at(1)));
        assert_eq!(story.open(1, 100), ADDRESS_FULL, "however long the others are idle");
        assert_eq!(story.open(2, 0), at(2));
        let now = story.start;
        let exempt = story.table.open(IpAddr::from([10, 0, 0, 1]), true, now);
        assert_eq!(exempt, at(3), "a gateway brings the customers of many addresses");
        story.table.close(0);
        story.table.close(3);
        assert_eq!(story.open(1, 0), at(3));
        assert_eq!(story.open(1, 0), ADDRESS_FULL);
    }

    #[test]
    fn the_last_places_are_for_addresses_that_hold_none() {
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
        assert_eq!(story.open(4, 0), FULL, "all are in use");
    }

    #[test]
    fn the_longest_idle_connection_makes_room() {
        let mut story = Story::new(3, 0, 0);
        for id in 0..3 {
            assert_eq!(story.open(1, 0), at(id));
        }
        story.table.note_request(0);
        story.idle(0, 1);
        assert_eq!(story.open(2, 1), Admission::Admitted(3, Some(1)), "it came first and is idle");
        story.table.note_request(2);
        assert_eq!(story.open(3, 1), Admission::Admitted(4, Some(0)));
        assert_eq!(story.table.len(), 5);
        story.table.close(1);
        story.table.close(0);
        assert_eq!(story.table.len(), 3);
        assert_eq!(story.open(2, 2), FULL, "it holds one, and the others are idle for a second");
        assert_eq!(story.open(2, 7), Admission::Admitted(0, Some(3)));
    }

    /// Customers who have come first are not pushed out by those who come a moment later.
    #[test]
    fn a_crowd_of_one_address_does_not_close_its_own_connections() {
        let mut story = Story::new(20, 0, 0);
        let admitted = (0..120).filter(|_| story.open(1, 0) != FULL).count();
        assert_eq!(admitted, 20);
    }

    #[test]
    fn few_connections_are_told_to_close_at_a_time() {
        let mut story = Story::new(20, 0, 0);
        for id in 0..20 {
            assert_eq!(story.open(1, 0), at(id));
        }
        let admitted = (2..200).filter(|host| story.open(*host, 9) != FULL).count();
        assert_eq!(admitted, LEAVING_MAX, "until those that were told to have closed");
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
    fn a_client_of_ipv6_is_counted_by_its_network() {
        let network = |text: &str| group(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), IpAddr::from([10, 0, 0, 1]));
    }

    #[tokio::test]
    async fn a_connection_that_makes_room_is_told_to_close() {
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
