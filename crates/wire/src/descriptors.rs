//! File descriptors: how many this process may have, and how many of them clients may take.
//!
//! A listener that gives every descriptor to clients leaves none for what the process needs itself:
//! connections to replicas, the log's next file. So a share is set aside first.

#[cfg(not(feature = "simulated"))]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Standard streams, the runtime's own, listeners, and connections that are told to close.
const OWN: usize = 24;

/// For each process that this one talks to: a stream, its successor while it is dialled, and the
/// connection of a look.
const PER_PEER: usize = 3;

/// What the simulator's processes have.
#[cfg(feature = "simulated")]
const SIMULATED: usize = 20_000;

/// Raises the soft limit to the hard one, as Go's runtime does: the usual soft limit of 1,024 is
/// for programs that use `select`.
#[cfg(not(feature = "simulated"))]
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, it stays, and places are counted by it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// How many descriptors this process may have.
#[cfg(not(feature = "simulated"))]
pub fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// How many descriptors this process may have.
#[cfg(feature = "simulated")]
pub fn limit() -> usize {
    SIMULATED
}

/// How many places two listeners of one process have. Each has at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Connections to the internal listener.
    pub internal: usize,
    /// Connections to the public listener.
    pub public: usize,
}

/// Divides `limit` descriptors: first what the process needs itself, to talk to `peers` processes
/// and for its `files`; then an eighth for the internal listener, or all if nothing is public.
pub fn share(limit: usize, peers: usize, files: usize, public: bool) -> Share {
    let own = OWN.saturating_add(files).saturating_add(PER_PEER.saturating_mul(peers));
    let places = limit.saturating_sub(own).max(2);
    if !public {
        return Share { internal: places, public: 0 };
    }
    // A look at a frontend with few descriptors needs a place, too.
    let internal = (places / 8).max(4).min(places / 2);
    Share { internal, public: places - internal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_process_does_not_need_itself() {
        assert_eq!(share(1_024, 4, 0, true), Share { internal: 123, public: 865 });
        assert_eq!(share(60, 4, 0, true), Share { internal: 4, public: 20 });
        assert_eq!(share(1_024, 3, 128, false), Share { internal: 863, public: 0 });
        assert_eq!(share(10, 4, 0, true), Share { internal: 1, public: 1 }, "never none");
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
