//! The failover timer: measures how long the store had no leader that decides, as one replica sees
//! it, and counts the leaders.
//!
//! A failover begins when the leader is lost: at the proof of its death, or at its last message if
//! it fell silent. It ends with the first applied entry of a later term. If the leader speaks
//! again, there was no failover. Times are counted from the start of the replica.

use std::time::Duration;

/// The leaders that a replica has seen, and the failover that is under way.
#[derive(Debug, Default)]
pub(crate) struct FailoverTimer {
    leader: Option<u64>,
    lost: Option<LostLeader>,
}

/// A leader that was lost, and has no successor yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LostLeader {
    leader: u64,
    since: Duration,
    /// The term of the last applied entry.
    term: u64,
}

impl FailoverTimer {
    /// A leader is known. True: it is another one than before.
    pub(crate) fn note_leader(&mut self, leader: u64) -> bool {
        self.leader.replace(leader) != Some(leader)
    }

    /// The leader is lost since `since`; the last applied entry is of `term`.
    pub(crate) fn note_loss(&mut self, leader: u64, since: Duration, term: u64) {
        if self.leader == Some(leader) {
            self.lost.get_or_insert(LostLeader { leader, since, term });
        }
    }

    /// The lost leader, whose successor is awaited.
    pub(crate) fn lost(&self) -> Option<u64> {
        self.lost.map(|lost| lost.leader)
    }

    /// The lost leader has spoken at `heard`.
    pub(crate) fn note_heard(&mut self, heard: Duration) {
        self.lost = self.lost.filter(|lost| heard <= lost.since);
    }

    /// The last applied entry is of `term`. Some: it ends a failover that took this long.
    pub(crate) fn note_applied(&mut self, term: u64, now: Duration) -> Option<Duration> {
        let ended = self.lost.take_if(|lost| lost.term < term)?;
        Some(now.saturating_sub(ended.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_failover_lasts_from_the_loss_to_the_first_entry_of_a_later_term() {
        let start = ms(1_000);
        let mut timer = FailoverTimer::default();
        assert!(timer.note_leader(456));
        assert!(!timer.note_leader(456));
        timer.note_loss(456, start, 3);
        timer.note_loss(456, start + ms(20), 3);
        assert_eq!(timer.note_applied(3, start + ms(30)), None, "an entry of the lost leader");
        assert!(timer.note_leader(345));
        assert_eq!(timer.note_applied(4, start + ms(40)), Some(ms(40)));
        assert_eq!(timer.note_applied(4, start + ms(50)), None, "it is counted once");
        timer.note_loss(456, start + ms(60), 4);
        assert_eq!(timer.lost(), None, "another leader was lost long ago");
    }

    #[test]
    fn a_leader_that_speaks_again_was_not_lost() {
        let start = ms(1_000);
        let mut timer = FailoverTimer::default();
        timer.note_leader(456);
        timer.note_loss(456, start, 3);
        timer.note_heard(start);
        assert_eq!(timer.lost(), Some(456), "that was its last message");
        timer.note_heard(start + ms(1));
        assert_eq!(timer.lost(), None);
        assert_eq!(timer.note_applied(4, start + ms(9)), None);
    }
}
