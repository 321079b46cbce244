//! Admission control of request bodies: bounds the memory of bodies that have arrived only in part.
//!
//! A body that arrives with its head is read at once and needs no quota. For any other body, the
//! bytes received so far are reserved, in total and per address: slow senders delay only
//! themselves. The last quarter is for addresses without a reservation. [`BodyQuota`] decides;
//! [`Bodies`] is the shell.

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
    /// Reserves bytes for a body from `address`; false: no quota is left. `exempt`: the address has
    /// no limit of its own.
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
    /// The bytes that are reserved.
    pub(crate) fn reserved(&self) -> usize {
        self.quota.lock().reserved
    }

    /// Reserves quota for a body from `address`, of which `bytes` have arrived. `None`: no quota is
    /// left.
    pub(crate) fn reserve(
        &self,
        address: IpAddr,
        bytes: usize,
        exempt: bool,
    ) -> Option<Reservation<'_>> {
        let address = group(address);
        let bytes = bytes.max(BODY_RESERVED_MIN);
        let reserved = self.quota.lock().reserve(address, bytes, exempt);
        reserved.then(|| Reservation { bodies: self, address, bytes, exempt })
    }
}

impl Reservation<'_> {
    /// `bytes` have arrived by now. False: no quota is left for them.
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

/// The quota of one body; released when this is dropped.
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

    /// The number of bodies of this length that one address can reserve.
    fn fill(quota: &mut BodyQuota, address: IpAddr, bytes: usize, exempt: bool) -> usize {
        (0..100_000).take_while(|_| quota.reserve(address, bytes, exempt)).count()
    }

    #[test]
    fn slow_batches_of_one_address_leave_quota_for_other_addresses() {
        let mut quota = BodyQuota::default();
        assert_eq!(fill(&mut quota, host(1), BATCH_BYTES_MAX, false), 8);
        assert_eq!(fill(&mut quota, host(2), BATCH_BYTES_MAX, false), 8);
        assert_eq!(fill(&mut quota, host(1), BODY_BYTES_MAX, false), 0);
    }

    #[test]
    fn the_last_quarter_is_for_addresses_without_a_reservation() {
        let mut quota = BodyQuota::default();
        let gateway = fill(&mut quota, host(1), BODY_BYTES_MAX, true);
        assert_eq!(gateway * BODY_BYTES_MAX, BODIES_BYTES_MAX / 4 * 3);
        let others = (2..250).filter(|number| quota.reserve(host(*number), 1_000, false)).count();
        assert_eq!(others, 248, "each address has one reservation");
        assert!(!quota.reserve(host(2), 1_000, false), "and no second reservation");
    }

    /// Kind: a sender that declares a long body, sends one byte of it and reserves the whole
    /// length.
    #[test]
    fn a_slow_sender_reserves_only_the_bytes_received() {
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
    fn released_quota_can_be_reserved_again() {
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
