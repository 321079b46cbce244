//! A replica's role at the moment: leader, follower, or in between; and how a fresh leader chooses.

use std::time::Duration;

use tokio::time::Instant;

/// How long a fresh leader waits for a higher replica that may still become healthy.
const TAKEOVER_WAIT_MAX: Duration = Duration::from_millis(300);

/// A replica that has not answered a fresh leader within this is not healthy, and is not waited
/// for.
const FIRST_ANSWER_MAX: Duration = Duration::from_millis(100);

/// A replica that was lost a moment ago is rarely back: it gets this long, if it answers at all.
const RETURN_WAIT_MAX: Duration = Duration::from_millis(30);

/// A replica's role, as everything around the engine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// This replica leads, has applied all entries decided before, and takes requests.
    Leading {
        /// Its term.
        term: u64,
    },
    /// This replica was elected, or is about to hand over: requests wait.
    TakingOver {
        /// Its term.
        term: u64,
    },
    /// Another replica leads.
    Following {
        /// The leader's id.
        leader: u64,
        /// Its term.
        term: u64,
    },
    /// No leader is known, or the known leader is silent.
    Leaderless {
        /// The greatest term seen.
        term: u64,
        /// This has lasted longer than any election should take.
        no_quorum: bool,
    },
}

impl Role {
    /// The term of the role.
    pub(crate) fn term(self) -> u64 {
        match self {
            Self::Leading { term }
            | Self::TakingOver { term }
            | Self::Following { term, .. }
            | Self::Leaderless { term, .. } => term,
        }
    }

    /// The replica to ask, seen from replica `me`.
    pub(crate) fn leader(self, me: u64) -> Option<u64> {
        match self {
            Self::Leading { .. } => Some(me),
            Self::Following { leader, .. } => Some(leader),
            Self::TakingOver { .. } | Self::Leaderless { .. } => None,
        }
    }
}

/// A voter as a fresh leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VoterView {
    /// Its id.
    pub(crate) id: u64,
    /// Its held stream: live, known to be refused, or neither.
    pub(crate) reach: Reach,
    /// How many entries its log is known to be behind the leader's. `None`: not known yet.
    pub(crate) lag: Option<u64>,
    /// The voter was lost a moment ago: its stream broke, or it fell silent as the leader.
    pub(crate) lost: bool,
}

impl VoterView {
    /// A replica at most this many entries behind counts as caught up: under load some replica
    /// always lags by a few entries.
    pub(crate) const LAG_MAX: u64 = 64;

    /// True when its log is equal to the leader's.
    pub(crate) fn caught_up(&self) -> bool {
        self.lag == Some(0)
    }

    /// Reachable, and with all entries decided so far.
    fn is_healthy(&self) -> bool {
        self.reach == Reach::Up && self.caught_up()
    }

    /// How long a fresh leader waits for this voter to become healthy.
    fn wait_max(&self) -> Duration {
        match (self.reach, self.lag) {
            (Reach::Refused, _) => Duration::ZERO,
            (_, None) if self.lost => Duration::ZERO,
            (_, None) => FIRST_ANSWER_MAX,
            _ if self.lost => RETURN_WAIT_MAX,
            _ => TAKEOVER_WAIT_MAX,
        }
    }
}

/// The state of a held stream to another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Not tried yet, or silent: it may be alive.
    #[default]
    Unknown,
    /// The stream is open.
    Up,
    /// A connect was refused: no process listens there.
    Refused,
}

/// What a fresh leader does before it takes its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Hand over to a healthy higher replica.
    HandOver(u64),
    /// A higher replica may still become healthy: wait.
    Wait,
    /// There is none: lead.
    Lead,
}

/// A lead that comes back within this was handed over in vain: the other replica reaches this
/// replica, and no majority.
const IN_VAIN: Duration = Duration::from_secs(3);

/// The replica that must not get the lead again: the last one it was handed to, if the lead came
/// back within [`IN_VAIN`].
pub(crate) fn handed_in_vain(handed: Option<(u64, Instant)>, now: Instant) -> Option<u64> {
    let (id, when) = handed?;
    (now.saturating_duration_since(when) < IN_VAIN).then_some(id)
}

/// Prefers the highest id among the healthy replicas (reachable and caught up); `waited` is the
/// time since the choice began. A replica that is unreachable by then is not considered.
pub(crate) fn choose(me: u64, views: &[VoterView], waited: Duration) -> Choice {
    let higher = || views.iter().filter(|voter| me < voter.id);
    let best = higher().filter(|voter| voter.is_healthy()).map(|voter| voter.id).max();
    let may_recover = |voter: &VoterView| {
        !voter.is_healthy() && waited < voter.wait_max() && best.is_none_or(|best| best < voter.id)
    };
    match best {
        _ if higher().any(may_recover) => Choice::Wait,
        Some(best) => Choice::HandOver(best),
        None => Choice::Lead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(id: u64, reach: Reach, lag: Option<u64>) -> VoterView {
        VoterView { id, reach, lag, lost: false }
    }

    #[test]
    fn a_lead_that_came_back_at_once_is_not_handed_to_the_same_replica_again() {
        let handed_at = Instant::now();
        let in_vain = |after| handed_in_vain(Some((456, handed_at)), handed_at + after);
        assert_eq!(in_vain(Duration::ZERO), Some(456));
        assert_eq!(in_vain(Duration::from_millis(2_999)), Some(456));
        assert_eq!(in_vain(Duration::from_secs(3)), None, "it had the lead for a while");
        assert_eq!(handed_in_vain(None, handed_at), None);
    }

    #[test]
    fn the_highest_healthy_replica_leads_after_each_election() {
        use Choice::{HandOver, Lead, Wait};
        use Reach::{Refused, Unknown, Up};
        let lost = |voter: VoterView| VoterView { lost: true, ..voter };
        let (healthy, behind) = (Some(0), Some(9));
        // The choices after 0, 40, 120 and 300 ms.
        let cases = [
            // The highest replica itself does not wait.
            (456, vec![voter(123, Up, healthy), voter(345, Up, behind)], [Lead; 4]),
            // The higher replicas are reachable and caught up.
            (123, vec![voter(345, Up, healthy), voter(456, Up, healthy)], [HandOver(456); 4]),
            // The highest is dead, the next is reachable.
            (123, vec![voter(345, Up, healthy), voter(456, Refused, None)], [HandOver(345); 4]),
            // The highest is dead, and this replica is the next: no wait.
            (345, vec![voter(123, Up, healthy), voter(456, Refused, None)], [Lead; 4]),
            // The highest lags: it gets the longest wait, and no more.
            (345, vec![voter(456, Up, behind)], [Wait, Wait, Wait, Lead]),
            // The highest is silent: it may be the frozen leader whose silence led to this
            // election.
            (
                123,
                vec![voter(345, Up, healthy), voter(456, Unknown, None)],
                [Wait, Wait, HandOver(345), HandOver(345)],
            ),
            // The highest died a moment ago and is being started again: it is not considered.
            (345, vec![lost(voter(456, Unknown, None))], [Lead; 4]),
            // It is reachable again, and has to fetch what it missed.
            (345, vec![lost(voter(456, Up, behind))], [Wait, Lead, Lead, Lead]),
            // It is back, and has caught up.
            (345, vec![lost(voter(456, Up, healthy))], [HandOver(456); 4]),
            // No other replica is reachable.
            (123, vec![voter(345, Refused, None), voter(456, Refused, None)], [Lead; 4]),
            // A store of one replica.
            (1, vec![], [Lead; 4]),
        ];
        for (me, views, expected) in cases {
            let chosen = [0, 40, 120, 300].map(|ms| choose(me, &views, Duration::from_millis(ms)));
            assert_eq!(chosen, expected, "{me} {views:?}");
        }
    }
}
