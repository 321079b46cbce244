//! Problems: why a replica could not answer, in the words that clients get.
//!
//! *Definite*: the request has not taken effect and never will. *Indefinite*: the outcome is
//! unknown, and only the same request with the same key settles it.

use std::time::Duration;

use wire::problem::{Code, Problem};

/// When to ask again while a leader is being chosen.
const RETRY_AFTER: Duration = Duration::from_millis(20);

fn problem(code: Code, message: impl Into<String>, definite: bool) -> Problem {
    Problem { code, message: message.into(), definite, leader: None, retry_after: None }
}

/// Another replica leads: ask that replica.
pub(crate) fn not_leader(leader: u64) -> Problem {
    let message = format!("this replica does not lead, {leader} does");
    Problem { leader: Some(leader), ..problem(Code::NotLeader, message, true) }
}

/// No leader is known now.
pub(crate) fn no_leader() -> Problem {
    let problem = problem(Code::NoLeader, "a leader is being chosen", true);
    Problem { retry_after: Some(RETRY_AFTER), ..problem }
}

/// This replica leads, but could not confirm it at that moment: ask here again.
pub(crate) fn unsure() -> Problem {
    let problem = problem(Code::NoLeader, "the leader is waiting for its majority", true);
    Problem { retry_after: Some(RETRY_AFTER), ..problem }
}

/// Too few replicas are reachable; nothing was proposed.
pub(crate) fn no_quorum() -> Problem {
    problem(Code::NoQuorum, "no majority of the replicas is reachable", true)
}

/// Proposed, and not known to be decided.
pub(crate) fn unknown() -> Problem {
    problem(
        Code::TimedOut,
        "proposed, but not known to be decided; ask again with the same key",
        false,
    )
}

/// Proposed, and its outcome lost when the leader changed.
pub(crate) fn lost() -> Problem {
    problem(Code::Lost, "the leader changed in between; ask again with the same key", false)
}

/// Read, but not seen in time by every attached catalog.
pub(crate) fn unsettled() -> Problem {
    problem(Code::TimedOut, "the answer was not settled in time; ask again", true)
}

/// The queue is full.
pub(crate) fn overloaded() -> Problem {
    let problem = problem(Code::Overloaded, "too many requests are waiting", true);
    Problem { retry_after: Some(Duration::from_millis(200)), ..problem }
}

/// A majority has no disk space for the order; nothing was proposed.
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
    Problem { retry_after: Some(RETRY_AFTER), ..problem }
}

/// The request is malformed.
pub(crate) fn malformed(why: impl Into<String>) -> Problem {
    problem(Code::Malformed, why, true)
}

/// This replica's own disk cannot be read.
pub(crate) fn unreadable(error: &impl std::fmt::Display) -> Problem {
    problem(Code::Lost, format!("this replica cannot read its own history: {error}"), true)
}
