//! Start history: distinguishes a replica's own data folder from an older copy of it.
//!
//! At each start a replica draws a random number, appends it to those in its data folder, and shows
//! them all to each peer. A peer remembers on disk the last start that it has met. A folder that
//! does not remember this start is an older copy: it was made before, and has forgotten what the
//! replica has promised since. A count would not do: a copy that is started often enough reaches
//! any count.
//!
//! # Not here
//!
//! A copy that is restored before any peer has met a later start counts as the folder itself.

use serde::{Deserialize, Serialize};
use wire::proto;

/// How many starts a folder remembers: more than a replica usually makes while another is away. A
/// peer that has met none of them cannot compare, and accepts the folder.
pub(crate) const STARTS_MAX: usize = 64;

/// A reported start count that is further ahead of the last one is not believed: it would shut out
/// the replica for ever.
pub(crate) const STARTS_AHEAD_MAX: u64 = 1_000_000;

/// The starts of one data folder, as it remembers them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartHistory {
    /// The number of starts.
    count: u64,
    /// The numbers that the last of them drew, in hexadecimal digits, oldest first.
    last: Vec<String>,
}

/// The last start of a peer that was met here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetStart {
    /// Which of its folder's starts that was, from 1.
    count: u64,
    /// The number that it drew, in hexadecimal digits.
    start: String,
}

/// What the start history of a peer says about its data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// The start is the one that was met last.
    Met,
    /// The folder has been started again since, as this.
    StartedAgain(MetStart),
    /// The folder does not remember the start that was met last.
    OlderCopy,
}

fn digits(start: u64) -> String {
    format!("{start:016x}")
}

impl StartHistory {
    /// Adds a start.
    pub(crate) fn begin(&mut self, start: u64) {
        self.count = self.count.saturating_add(1);
        self.last.push(digits(start));
        let forgotten = self.last.len().saturating_sub(STARTS_MAX);
        self.last.drain(..forgotten);
    }

    /// Compares what a folder remembers with the start that was `met` last.
    pub(crate) fn compare(&self, met: Option<&MetStart>) -> Folder {
        let Some(own) = self.last.last() else { return Folder::Met };
        let now = MetStart { count: self.count, start: own.clone() };
        let Some(met) = met else { return Folder::StartedAgain(now) };
        if *met == now {
            return Folder::Met;
        }
        let Some(since) = self.count.checked_sub(met.count) else { return Folder::OlderCopy };
        let since = usize::try_from(since).unwrap_or(usize::MAX);
        match self.last.iter().rev().nth(since) {
            Some(start) if *start != met.start => Folder::OlderCopy,
            Some(_) | None => Folder::StartedAgain(now),
        }
    }
}

impl MetStart {
    /// True when the folder was started again after this start, as `later`.
    pub(crate) fn is_before(&self, later: &Self) -> bool {
        self.count < later.count
    }

    /// Whether this is the start that drew `start`.
    pub(crate) fn is(&self, start: u64) -> bool {
        self.start == digits(start)
    }

    /// A later start than `known`, and not absurdly later: believed when another peer reports it.
    pub(crate) fn is_after(&self, known: Option<&Self>) -> bool {
        let known = known.map_or(0, |known| known.count);
        known < self.count && self.count - known <= STARTS_AHEAD_MAX
    }

    /// As sent on the wire.
    pub(crate) fn out(&self) -> Option<proto::MetStart> {
        let start = u64::from_str_radix(&self.start, 16).ok()?;
        Some(proto::MetStart { count: self.count, start })
    }
}

impl From<proto::MetStart> for MetStart {
    fn from(met: proto::MetStart) -> Self {
        Self { count: met.count, start: digits(met.start) }
    }
}

impl From<&StartHistory> for proto::StartHistory {
    fn from(history: &StartHistory) -> Self {
        let starts = history.last.iter().filter_map(|start| u64::from_str_radix(start, 16).ok());
        Self { count: history.count, starts: starts.collect(), ..Self::default() }
    }
}

impl From<&proto::StartHistory> for StartHistory {
    fn from(message: &proto::StartHistory) -> Self {
        let newest = message.starts.len().saturating_sub(STARTS_MAX);
        let last = message.starts.iter().skip(newest).copied().map(digits);
        Self { count: message.count, last: last.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(starts: &[u64]) -> StartHistory {
        let mut history = StartHistory::default();
        for start in starts {
            history.begin(*start);
        }
        history
    }

    fn met(count: u64, start: u64) -> MetStart {
        MetStart { count, start: digits(start) }
    }

    #[test]
    fn a_folder_that_remembers_the_start_that_was_met_is_the_replicas_own() {
        let history = started(&[11, 12, 13]);
        assert_eq!(history.compare(None), Folder::StartedAgain(met(3, 13)));
        assert_eq!(history.compare(Some(&met(3, 13))), Folder::Met);
        for (count, start) in [(1, 11), (2, 12)] {
            let found = history.compare(Some(&met(count, start)));
            assert_eq!(found, Folder::StartedAgain(met(3, 13)), "{count}");
        }
    }

    #[test]
    fn an_older_copy_is_recognised_after_any_number_of_starts() {
        // Copied after its first start; the folder itself was started twice more.
        let copies = [&[11, 21][..], &[11, 21, 22], &[11, 21, 22, 23], &[11]];
        for copy in copies {
            assert_eq!(started(copy).compare(Some(&met(3, 13))), Folder::OlderCopy, "{copy:?}");
        }
    }

    #[test]
    fn a_peer_that_met_no_start_that_is_remembered_cannot_compare() {
        let starts: Vec<u64> = (1..=200).collect();
        let history = started(&starts);
        assert_eq!(history.last.len(), STARTS_MAX);
        let oldest = 200 - STARTS_MAX as u64 + 1;
        assert_eq!(history.compare(Some(&met(oldest, 7))), Folder::OlderCopy);
        let forgotten = history.compare(Some(&met(oldest - 1, 7)));
        assert_eq!(forgotten, Folder::StartedAgain(met(200, 200)));
    }

    #[test]
    fn a_program_without_a_start_history_is_not_compared() {
        assert_eq!(StartHistory::default().compare(Some(&met(3, 13))), Folder::Met);
    }

    #[test]
    fn a_start_that_another_peer_reports_is_believed_when_it_is_later_and_not_absurd() {
        assert!(met(3, 13).is_after(None));
        assert!(met(3, 13).is_after(Some(&met(2, 12))));
        assert!(!met(3, 13).is_after(Some(&met(3, 14))));
        assert!(!met(u64::MAX, 13).is_after(Some(&met(2, 12))));
    }

    #[test]
    fn a_start_history_survives_the_wire() {
        let history = started(&[11, u64::MAX]);
        assert_eq!(StartHistory::from(&proto::StartHistory::from(&history)), history);
        let start = met(2, u64::MAX);
        assert_eq!(MetStart::from(start.out().unwrap()), start);
    }
}
