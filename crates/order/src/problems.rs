//! Why a replica could not do it, in the words that askers get.
//!
//! *Definite* means that nothing happened and nothing will. Whoever gets an indefinite one does not
//! know, and only the same request with the same key will tell.

use std::time::Duration;

use wire::problem::{Code, Problem};

/// When to ask again while a leader is being chosen.
const SHORTLY: Duration = Duration::from_millis(20);

fn problem(code: Code, message: impl Into<String>, definite: bool) -> Problem {
    Problem { code, message: message.into(), definite, leader: None, retry_after: None }
}

/// Another replica leads: ask that one.
pub(crate) fn not_leader(leader: u64) -> Problem {
    let message = format!("this replica does not lead, {leader} does");
    Problem { leader: Some(leader), ..problem(Code::NotLeader, message, true) }
}

/// No leader is known right now.
pub(crate) fn no_leader() -> Problem {
    let problem = problem(Code::NoLeader, "a leader is being chosen", true);
    Problem { retry_after: Some(SHORTLY), ..problem }
}

/// This replica leads, but was not sure of it at that moment: ask again, here.
pub(crate) fn unsure() -> Problem {
    let problem = problem(Code::NoLeader, "the leader is waiting for its majority", true);
    Problem { retry_after: Some(SHORTLY), ..problem }
}

/// Too few replicas are reachable; nothing was proposed.
pub(crate) fn no_quorum() -> Problem {
    problem(Code::NoQuorum, "no majority of the replicas is reachable", true)
}

/// Proposed, but nobody knows whether it will be decided.
pub(crate) fn unknown() -> Problem {
    problem(
        Code::TimedOut,
        "proposed, but not known to be decided; ask again with the same key",
        false,
    )
}

/// Proposed, and lost sight of when the leader changed.
pub(crate) fn lost() -> Problem {
    problem(Code::Lost, "the leader changed in between; ask again with the same key", false)
}

/// Read, but not everybody who answers by himself has seen what was read.
pub(crate) fn unsettled() -> Problem {
    problem(Code::TimedOut, "the answer was not settled in time; ask again", true)
}

/// The line is full.
pub(crate) fn overloaded() -> Problem {
    let problem = problem(Code::Overloaded, "too many requests are waiting", true);
    Problem { retry_after: Some(Duration::from_millis(200)), ..problem }
}

/// A majority has no room for it; nothing was proposed.
pub(crate) fn disk_full(full: &[u64]) -> Problem {
    let mut full = full.to_vec();
    full.sort_unstable();
    let ids: Vec<String> = full.iter().map(u64::to_string).collect();
    let message = match ids.as_slice() {
        [id] => format!("the disk of replica {id} is full: nothing was ordered"),
        ids => format!("the disks of replicas {} are full: nothing was ordered", ids.join(", ")),
    };
    let problem = problem(Code::DiskFull, message, true);
    Problem { retry_after: Some(Duration::from_secs(5)), ..problem }
}

/// The replica is about to stop; nothing was proposed.
pub(crate) fn stopping() -> Problem {
    let problem = problem(Code::NoLeader, "this replica is stopping", true);
    Problem { retry_after: Some(SHORTLY), ..problem }
}

/// The asker's words make no sense.
pub(crate) fn malformed(why: impl Into<String>) -> Problem {
    problem(Code::Malformed, why, true)
}

/// This replica's own disk fails it.
pub(crate) fn unreadable(error: &impl std::fmt::Display) -> Problem {
    problem(Code::Lost, format!("this replica cannot read its own history: {error}"), true)
}
