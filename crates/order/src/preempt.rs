//! Preemption: whether a leader hands over unasked to a higher replica that is healthy again.

use std::time::Duration;

use tokio::time::Instant;

use crate::role::{Reach, VoterView};

/// A higher replica must have been healthy for this long before a leader hands over to it unasked.
const HEALTHY_FOR: Duration = Duration::from_secs(2);

/// Whether a leader hands over unasked: the pure core of `--preempt`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Preempt {
    /// The highest healthy replica above this one, and since when it is healthy without a break.
    candidate: Option<(u64, Instant)>,
}

impl Preempt {
    /// Looks at the other voters. `Some(id)`: the higher replica `id` has been healthy for
    /// [`HEALTHY_FOR`]; hand over to it.
    pub(crate) fn look(&mut self, me: u64, views: &[VoterView], now: Instant) -> Option<u64> {
        let healthy = views.iter().filter(|voter| me < voter.id && is_healthy(voter));
        let Some(best) = healthy.map(|voter| voter.id).max() else {
            self.candidate = None;
            return None;
        };
        match self.candidate {
            Some((id, since)) if id == best => (HEALTHY_FOR <= now - since).then_some(best),
            _ => {
                self.candidate = Some((best, now));
                None
            }
        }
    }
}

/// Reachable, and at most [`VoterView::LAG_MAX`] entries behind: under load some replica always
/// lags by an entry.
fn is_healthy(voter: &VoterView) -> bool {
    voter.reach == Reach::Up && voter.lag.is_some_and(|lag| lag <= VoterView::LAG_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(id: u64, reach: Reach, lag: u64) -> VoterView {
        VoterView { id, reach, lag: Some(lag), lost: false }
    }

    #[test]
    fn a_leader_hands_over_unasked_only_to_a_higher_replica_that_has_been_healthy_for_long() {
        let (start, mut preempt) = (Instant::now(), Preempt::default());
        let at = |millis| start + Duration::from_millis(millis);
        let (up, refused) = (Reach::Up, Reach::Refused);
        assert_eq!(preempt.look(345, &[voter(123, up, 0), voter(456, up, 0)], at(0)), None);
        assert_eq!(preempt.look(345, &[voter(456, up, 3)], at(1_999)), None);
        assert_eq!(preempt.look(345, &[voter(456, up, 0)], at(2_000)), Some(456));
        // A replica that flaps, or falls behind, begins anew.
        assert_eq!(preempt.look(345, &[voter(456, refused, 0)], at(2_100)), None);
        assert_eq!(preempt.look(345, &[voter(456, up, 0)], at(2_200)), None);
        assert_eq!(preempt.look(345, &[voter(456, up, 0)], at(4_100)), None);
        assert_eq!(preempt.look(345, &[voter(456, up, VoterView::LAG_MAX + 1)], at(4_150)), None);
        assert_eq!(preempt.look(345, &[voter(456, up, 0)], at(4_300)), None);
        assert_eq!(preempt.look(345, &[voter(456, up, 0)], at(6_300)), Some(456));
        // The highest of several, and never a lower replica.
        assert_eq!(preempt.look(500, &[voter(456, up, 0)], at(9_000)), None);
    }

    #[test]
    fn a_higher_replica_that_has_just_come_must_be_healthy_for_long_itself() {
        let (start, mut preempt) = (Instant::now(), Preempt::default());
        let (lower, higher) = (voter(456, Reach::Up, 0), voter(567, Reach::Up, 0));
        assert_eq!(preempt.look(345, &[lower], start), None);
        let soon = start + HEALTHY_FOR / 2;
        assert_eq!(preempt.look(345, &[lower, higher], soon), None);
        assert_eq!(preempt.look(345, &[lower, higher], start + HEALTHY_FOR), None);
        assert_eq!(preempt.look(345, &[lower, higher], soon + HEALTHY_FOR), Some(567));
    }
}
