//! File descriptors: the limit of this process, and the share of it that clients may take.
//!
//! A listener that gives every descriptor to clients leaves none for the process itself, which
//! needs connections to replicas and the log's next file. So a share is set aside first.

#[cfg(not(feature = "simulated"))]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for standard streams, the runtime, listeners and evicted connections.
const OWN: usize = 24;

/// Descriptors for each process that this one calls: a stream, its successor while that is dialed,
/// and the connection that reads its status.
const PER_PEER: usize = 3;

/// The limit of a simulated process.
#[cfg(feature = "simulated")]
const SIMULATED: usize = 20_000;

/// Raises the soft limit to the hard limit, as Go's runtime does: the usual soft limit of 1,024 is
/// for programs that use `select`.
#[cfg(not(feature = "simulated"))]
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If the limit cannot be raised, places are counted by the lower limit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The number of descriptors that this process may have.
#[cfg(not(feature = "simulated"))]
pub fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// The number of descriptors that this process may have.
#[cfg(feature = "simulated")]
pub fn limit() -> usize {
    SIMULATED
}

/// The places of the two listeners of one process, at least one for each listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The number of connections to the internal listener.
    pub internal: usize,
    /// The number of connections to the public listener.
    pub public: usize,
}

/// Divides `limit` descriptors. The process keeps what it needs to call `peers` processes and for
/// its `files`. The internal listener gets an eighth of the rest, or all without a public listener.
pub fn share(limit: usize, peers: usize, files: usize, public: bool) -> Share {
    let own = OWN.saturating_add(files).saturating_add(PER_PEER.saturating_mul(peers));
    let places = limit.saturating_sub(own).max(2);
    if !public {
        return Share { internal: places, public: 0 };
    }
    // Also a frontend with few descriptors needs places for reads of its status.
    let internal = (places / 8).max(4).min(places / 2);
    Share { internal, public: places - internal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_descriptors_that_the_process_does_not_need() {
        assert_eq!(share(1_024, 4, 0, true), Share { internal: 123, public: 865 });
        assert_eq!(share(60, 4, 0, true), Share { internal: 4, public: 20 });
        assert_eq!(share(1_024, 3, 128, false), Share { internal: 863, public: 0 });
        assert_eq!(share(10, 4, 0, true), Share { internal: 1, public: 1 }, "at least one");
        assert_eq!(share(usize::MAX, 4, 0, false).internal, usize::MAX - 36);
    }

    #[cfg(not(feature = "simulated"))]
    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
