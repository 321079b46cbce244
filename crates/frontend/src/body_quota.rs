//! Admission control of request bodies: bounds the bytes of bodies that are being waited for.
//!
//! A body that has come with its head is read at once and needs nothing from here. Of one that is
//! still to come, what has come so far is reserved, in total and per address: slow senders delay
//! themselves and no other client. The last quarter is for addresses that have nothing reserved.
//! [`BodyQuota`] decides; [`Bodies`] is the shell.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use wire::connections::group;

use crate::limits::{BODIES_BYTES_MAX, BODIES_PER_ADDRESS_BYTES_MAX, BODY_RESERVED_MIN};

/// The pure core.
#[derive(Debug, Default)]
struct BodyQuota {
    reserved: usize,
    per_address: HashMap<IpAddr, usize>,
}

impl BodyQuota {
    /// Reserves bytes for a body from `address`, or not. `exempt`: its address is not bounded.
    fn reserve(&mut self, address: IpAddr, bytes: usize, exempt: bool) -> bool {
        let held = self.per_address.get(&address).copied().unwrap_or(0);
        let total = match held {
            0 => BODIES_BYTES_MAX,
            _ => BODIES_BYTES_MAX / 4 * 3,
        };
        let fits = self.reserved + bytes <= total
            && (exempt || held + bytes <= BODIES_PER_ADDRESS_BYTES_MAX);
        if fits {
            self.reserved += bytes;
            *self.per_address.entry(address).or_default() += bytes;
        }
        fits
    }

    fn release(&mut self, address: IpAddr, bytes: usize) {
        self.reserved -= bytes;
        if let Some(held) = self.per_address.get_mut(&address) {
            *held -= bytes;
            if *held == 0 {
                self.per_address.remove(&address);
            }
        }
    }
}

/// The shell: hands out reservations.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    quota: Mutex<BodyQuota>,
}

impl Bodies {
    /// Reserves room for a body from `address`, of which `bytes` have come. None: there is none.
    pub(crate) fn reserve(
        &self,
        address: IpAddr,
        bytes: usize,
        exempt: bool,
    ) -> Option<Reservation<'_>> {
        let (address, bytes) = (group(address), bytes.max(BODY_RESERVED_MIN));
        let reserved = self.quota.lock().reserve(address, bytes, exempt);
        reserved.then(|| Reservation { bodies: self, address, bytes, exempt })
    }
}

impl Reservation<'_> {
    /// `bytes` have come by now. False: there is no room for them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let more = more.next_multiple_of(BODY_RESERVED_MIN);
        let fits = self.bodies.quota.lock().reserve(self.address, more, self.exempt);
        self.bytes += if fits { more } else { 0 };
        fits
    }
}

/// Room for a body; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    bodies: &'a Bodies,
    address: IpAddr,
    bytes: usize,
    exempt: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.bodies.quota.lock().release(self.address, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BATCH_BYTES_MAX, BODY_BYTES_MAX};

    fn host(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// How many bodies of this length one address gets room for.
    fn fill(quota: &mut BodyQuota, address: IpAddr, bytes: usize, exempt: bool) -> usize {
        (0..100_000).take_while(|_| quota.reserve(address, bytes, exempt)).count()
    }

    #[test]
    fn slow_batches_of_one_address_leave_room_for_those_of_others() {
        let mut quota = BodyQuota::default();
        assert_eq!(fill(&mut quota, host(1), BATCH_BYTES_MAX, false), 8);
        assert_eq!(fill(&mut quota, host(2), BATCH_BYTES_MAX, false), 8);
        assert_eq!(fill(&mut quota, host(1), BODY_BYTES_MAX, false), 0);
    }

    #[test]
    fn the_last_quarter_is_for_addresses_that_have_nothing_reserved() {
        let mut quota = BodyQuota::default();
        let gateway = fill(&mut quota, host(1), BODY_BYTES_MAX, true);
        assert_eq!(gateway * BODY_BYTES_MAX, BODIES_BYTES_MAX / 4 * 3);
        let others = (2..250).filter(|number| quota.reserve(host(*number), 1_000, false)).count();
        assert_eq!(others, 248, "each of them has one");
        assert!(!quota.reserve(host(2), 1_000, false), "and no second one");
    }

    /// Kind: a sender that takes what it says will come, and sends one byte of it.
    #[test]
    fn a_slow_sender_takes_what_has_come() {
        let bodies = Bodies::default();
        let mut slow: Vec<_> = (0..128).filter_map(|_| bodies.reserve(host(1), 1, true)).collect();
        assert_eq!(slow.len(), 128);
        assert_eq!(bodies.quota.lock().reserved, 128 * BODY_RESERVED_MIN);
        let mut batch = bodies.reserve(host(1), 8 * 1024, true).unwrap();
        assert!((8 * 1024..=BATCH_BYTES_MAX).step_by(1_000).all(|bytes| batch.grow(bytes)));
        drop(batch);
        let grown = slow.iter_mut().filter_map(|body| body.grow(BATCH_BYTES_MAX).then_some(()));
        assert_eq!(grown.count(), 47, "no more than three quarters of all");
        drop(slow);
        assert_eq!(bodies.quota.lock().reserved, 0);
    }

    #[test]
    fn what_is_given_back_can_be_reserved_again() {
        let bodies = Bodies::default();
        for _ in 0..3 {
            let all: Vec<_> =
                std::iter::from_fn(|| bodies.reserve(host(1), BATCH_BYTES_MAX, false)).collect();
            assert_eq!(all.len(), 8);
        }
        let quota = bodies.quota.lock();
        assert!(quota.reserved == 0 && quota.per_address.is_empty());
    }
}
