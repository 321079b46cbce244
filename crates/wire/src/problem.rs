//! Problems: every error that a process may answer, and whether the request may have taken effect.
//!
//! A problem is not a refusal: the ledger has decided nothing. After a *definite* problem nothing
//! happened and nothing will. After an *indefinite* problem only a retry with the same key finds
//! the outcome. Only this file maps problems to HTTP statuses.

use std::fmt;
use std::time::Duration;

use crate::proto;

/// Why a process could not answer a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The kind of problem.
    pub code: Code,
    /// A message for people: lower case, no full stop.
    pub message: String,
    /// True: nothing happened and nothing will.
    pub definite: bool,
    /// The replica to call instead.
    pub leader: Option<u64>,
    /// How long the caller should wait before it retries.
    pub retry_after: Option<Duration>,
}

/// The kind of a problem. The numbers are on the wire and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Code {
    /// A code of a newer version.
    Unknown = 0,
    /// Another replica leads.
    NotLeader = 1,
    /// No leader is known at present; an election is under way.
    NoLeader = 2,
    /// Too few replicas are reachable to elect a leader.
    NoQuorum = 3,
    /// The limit of requests in flight is reached.
    Overloaded = 4,
    /// The disk is full: nothing can be written.
    DiskFull = 5,
    /// No answer came in time.
    TimedOut = 6,
    /// The connection broke, or the leader changed, before the answer came.
    Lost = 7,
    /// The process has only just started and holds nothing yet.
    Starting = 8,
    /// The request is malformed.
    Malformed = 9,
    /// The request is for another ledger.
    WrongLedger = 10,
    /// No process listens at the address.
    Refused = 11,
    /// The certificate of the caller does not allow this call.
    NotPermitted = 12,
}

/// Every code, for tables and tests.
pub const CODES: [Code; 13] = [
    Code::Unknown,
    Code::NotLeader,
    Code::NoLeader,
    Code::NoQuorum,
    Code::Overloaded,
    Code::DiskFull,
    Code::TimedOut,
    Code::Lost,
    Code::Starting,
    Code::Malformed,
    Code::WrongLedger,
    Code::Refused,
    Code::NotPermitted,
];

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The code of a number on the wire.
    pub fn from_number(number: u32) -> Self {
        CODES.into_iter().find(|code| code.number() == number).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Problem {
    /// A part of a message is missing or out of range.
    pub(crate) fn malformed(what: &str) -> Self {
        Self::definite(Code::Malformed, format!("{what} is missing or out of range"))
    }

    /// A problem after which nothing has happened.
    pub fn definite(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), definite: true, leader: None, retry_after: None }
    }

    /// A problem after which the outcome is unknown.
    pub fn indefinite(code: Code, message: impl Into<String>) -> Self {
        Self { definite: false, ..Self::definite(code, message) }
    }

    /// The HTTP status that a client gets: 400 for a malformed request, 503 when nothing happened,
    /// 504 when the outcome is unknown.
    pub fn http_status(&self) -> u16 {
        match self.code {
            Code::Malformed => 400,
            _ if self.definite => 503,
            _ => 504,
        }
    }
}

impl From<&Problem> for proto::Problem {
    fn from(problem: &Problem) -> Self {
        let millis = problem.retry_after.map_or(0, |after| after.as_millis());
        Self {
            code: problem.code.number(),
            message: problem.message.clone(),
            definite: problem.definite,
            leader: problem.leader.unwrap_or(0),
            retry_after_ms: u32::try_from(millis).unwrap_or(u32::MAX),
        }
    }
}

impl From<proto::Problem> for Problem {
    fn from(problem: proto::Problem) -> Self {
        let after = Duration::from_millis(problem.retry_after_ms.into());
        Self {
            code: Code::from_number(problem.code),
            message: problem.message,
            definite: problem.definite,
            leader: Some(problem.leader).filter(|leader| *leader != 0),
            retry_after: Some(after).filter(|after| !after.is_zero()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_survives_the_wire() {
        for code in CODES {
            let problem = Problem {
                leader: Some(456),
                retry_after: Some(Duration::from_millis(20)),
                ..Problem::indefinite(code, "why")
            };
            assert_eq!(Problem::from(proto::Problem::from(&problem)), problem);
        }
        assert_eq!(Code::from_number(4_000), Code::Unknown);
    }

    #[test]
    fn the_http_status_says_whether_the_outcome_is_known() {
        assert_eq!(Problem::definite(Code::NoQuorum, "").http_status(), 503);
        assert_eq!(Problem::indefinite(Code::Lost, "").http_status(), 504);
        assert_eq!(Problem::definite(Code::Malformed, "").http_status(), 400);
    }
}
