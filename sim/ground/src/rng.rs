//! The random numbers of a run: every choice follows from its seed.
//!
//! The simulator's own choices come from [`Rng`]. The services and their libraries also use the
//! system's random numbers (for election timeouts, keys, jitter, the order of a hash map). These
//! are replaced here: each thread that runs a seed has a stream of its own. There are two ways in:
//! the crate `getrandom`, and the function `getrandom`, which the standard library calls for its
//! hash maps.

use std::cell::Cell;

use libc::{c_uint, c_void, size_t, ssize_t};

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed, for one purpose.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mix = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(purpose.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.any() % end }
    }

    /// An index into a list of this length.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// A number in `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True with a probability of `often` percent.
    pub fn percent(&mut self, often: u64) -> bool {
        self.below(100) < often
    }

    /// A random element of a slice.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.place(of.len())]
    }
}

thread_local! {
    static SYSTEM: Cell<u64> = const { Cell::new(0x5eed) };
    /// True when this thread runs a seed.
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// From now on the system's random numbers on this thread follow from this seed.
pub fn take_over(seed: u64) {
    SYSTEM.set(Rng::new(seed, "system").any());
    TAKEN.set(true);
}

/// Writes `len` bytes of the system's random numbers.
///
/// # Safety
///
/// `dest` points to at least `len` writable bytes.
#[expect(unsafe_code, reason = "the system's functions are given a pointer")]
unsafe fn fill(dest: *mut u8, len: usize) {
    let mut luck = Rng(SYSTEM.get());
    for at in 0..len {
        let byte = luck.any().to_le_bytes()[0];
        // SAFETY: by contract.
        unsafe { dest.add(at).write(byte) };
    }
    SYSTEM.set(luck.0);
}

/// The system's random numbers, for `getrandom` in either version.
#[expect(unsafe_code, reason = "the only way to replace `getrandom`")]
#[expect(clippy::unnecessary_wraps, reason = "the signature is `getrandom`'s")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(
    dest: *mut u8,
    len: usize,
) -> Result<(), getrandom::Error> {
    // SAFETY: the caller passes `len` writable bytes.
    unsafe { fill(dest, len) };
    Ok(())
}

/// The system's random numbers, for the standard library. Threads without a seed ask the kernel.
#[expect(unsafe_code, reason = "the only way to replace the system's random numbers")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(dest: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    if !TAKEN.get() {
        // SAFETY: the caller's own call, forwarded to the kernel.
        let written = unsafe { libc::syscall(libc::SYS_getrandom, dest, len, flags) };
        return ssize_t::try_from(written).unwrap_or(-1);
    }
    // SAFETY: the caller passes `len` writable bytes.
    unsafe { fill(dest.cast(), len) };
    ssize_t::try_from(len).unwrap_or(ssize_t::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_systems_random_numbers_follow_from_the_seed() {
        let draw = |seed| {
            let drawing = move || {
                take_over(seed);
                (rand::random::<u64>(), rand::random::<u128>())
            };
            std::thread::spawn(drawing).join().unwrap()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn the_order_of_a_hash_map_follows_from_the_seed() {
        let order = |seed| {
            let listing = move || {
                take_over(seed);
                (0..100).collect::<HashSet<u8>>().into_iter().collect::<Vec<_>>()
            };
            std::thread::spawn(listing).join().unwrap()
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }

    #[test]
    fn purposes_have_streams_of_their_own() {
        assert_ne!(Rng::new(1, "net").any(), Rng::new(1, "disk").any());
        let mut luck = Rng::new(1, "net");
        assert!((0..1_000).all(|_| (3..=5).contains(&luck.between(3, 5))));
    }
}
