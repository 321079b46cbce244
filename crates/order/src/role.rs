//! What a replica is at the moment: the one that decides, or one that says who does.

use std::time::Duration;

use tokio::time::Instant;

/// How long a fresh leader waits for a higher replica that may still turn out to be as good.
const CHOOSING: Duration = Duration::from_millis(300);

/// One that has not answered a fresh leader within this is not healthy, and is not waited for.
const ANSWERING: Duration = Duration::from_millis(100);

/// One that was lost a moment ago is hardly back: it gets this, if it answers at all.
const RETURNING: Duration = Duration::from_millis(30);

/// A replica's part, as everything around the engine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It leads, has applied all that was decided before it, and takes requests.
    Leading {
        /// Its term.
        term: u64,
    },
    /// It was elected, or is about to hand over: requests wait.
    Choosing {
        /// Its term.
        term: u64,
    },
    /// Another replica leads.
    Following {
        /// Which.
        leader: u64,
        /// Its term.
        term: u64,
    },
    /// No leader is known, or the one that is known is silent.
    Alone {
        /// The greatest term seen.
        term: u64,
        /// It has been so for longer than any choosing should take.
        forsaken: bool,
    },
}

impl Role {
    /// The term it is about.
    pub(crate) fn term(self) -> u64 {
        match self {
            Self::Leading { term }
            | Self::Choosing { term }
            | Self::Following { term, .. }
            | Self::Alone { term, .. } => term,
        }
    }

    /// Whom to ask, seen from replica `me`.
    pub(crate) fn leader(self, me: u64) -> Option<u64> {
        match self {
            Self::Leading { .. } => Some(me),
            Self::Following { leader, .. } => Some(leader),
            Self::Choosing { .. } | Self::Alone { .. } => None,
        }
    }
}

/// A voter as a fresh leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rival {
    /// Its id.
    pub(crate) id: u64,
    /// Its held stream: live, known to be refused, or neither.
    pub(crate) reach: Reach,
    /// How many entries its log is known to be behind the leader's. None: nothing is known yet.
    pub(crate) lag: Option<u64>,
    /// It was there, and was lost a moment ago: its stream broke, or it led and fell silent.
    pub(crate) lost: bool,
}

impl Rival {
    /// One that is no further behind than this has as good as caught up: under load somebody
    /// always is a few entries behind.
    pub(crate) const LAG_MAX: u64 = 64;

    /// True when its log is equal to the leader's.
    pub(crate) fn caught_up(&self) -> bool {
        self.lag == Some(0)
    }

    /// Healthy, for a choosing: there, and with all that was decided.
    fn is_healthy(&self) -> bool {
        self.reach == Reach::Up && self.caught_up()
    }

    /// How long a fresh leader waits for it to become healthy.
    fn patience(&self) -> Duration {
        match (self.reach, self.lag) {
            (Reach::Refused, _) => Duration::ZERO,
            (_, None) if self.lost => Duration::ZERO,
            (_, None) => ANSWERING,
            _ if self.lost => RETURNING,
            _ => CHOOSING,
        }
    }
}

/// What a held stream says about the process at its other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Not tried yet, or silent: it may be alive.
    #[default]
    Unknown,
    /// The stream is open.
    Up,
    /// A connect was refused: nobody listens there.
    Refused,
}

/// What a fresh leader does before it takes its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Hand over to a higher one that is as good.
    HandOver(u64),
    /// A higher one may still turn out to be as good: wait until the choosing is over.
    Wait,
    /// There is none: lead.
    Lead,
}

/// A lead that comes back within this was handed over in vain: the other replica reaches this one,
/// and no majority.
const IN_VAIN: Duration = Duration::from_secs(3);

/// The replica that the lead is not handed to again: the one it was last handed to, `handed` when,
/// if the lead came back at once.
pub(crate) fn handed_in_vain(handed: Option<(u64, Instant)>, now: Instant) -> Option<u64> {
    let (id, when) = handed?;
    (now.saturating_duration_since(when) < IN_VAIN).then_some(id)
}

/// Prefers the highest id among the healthy (reachable and caught up) at the time of choosing,
/// which began so long ago. Whoever is not there in time has missed it.
pub(crate) fn choose(me: u64, rivals: &[Rival], waited: Duration) -> Choice {
    let higher = || rivals.iter().filter(|rival| me < rival.id);
    let best = higher().filter(|rival| rival.is_healthy()).map(|rival| rival.id).max();
    let may_come = |rival: &Rival| {
        !rival.is_healthy() && waited < rival.patience() && best.is_none_or(|best| best < rival.id)
    };
    match best {
        _ if higher().any(may_come) => Choice::Wait,
        Some(best) => Choice::HandOver(best),
        None => Choice::Lead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rival(id: u64, reach: Reach, lag: Option<u64>) -> Rival {
        Rival { id, reach, lag, lost: false }
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
    fn the_highest_healthy_one_leads_at_each_choosing() {
        use Choice::{HandOver, Lead, Wait};
        use Reach::{Refused, Unknown, Up};
        let lost = |rival: Rival| Rival { lost: true, ..rival };
        let (healthy, behind) = (Some(0), Some(9));
        // What is chosen at once, after 40, after 120 and after 300 ms.
        let cases = [
            // The highest one itself waits for nobody.
            (456, vec![rival(123, Up, healthy), rival(345, Up, behind)], [Lead; 4]),
            // Its betters are there and caught up.
            (123, vec![rival(345, Up, healthy), rival(456, Up, healthy)], [HandOver(456); 4]),
            // The highest is dead, the next is there.
            (123, vec![rival(345, Up, healthy), rival(456, Refused, None)], [HandOver(345); 4]),
            // The highest is dead, and it is the next itself: no waiting.
            (345, vec![rival(123, Up, healthy), rival(456, Refused, None)], [Lead; 4]),
            // The highest lags: it gets the time of choosing, and no more.
            (345, vec![rival(456, Up, behind)], [Wait, Wait, Wait, Lead]),
            // The highest is silent: it may be the frozen one that all this is about.
            (
                123,
                vec![rival(345, Up, healthy), rival(456, Unknown, None)],
                [Wait, Wait, HandOver(345), HandOver(345)],
            ),
            // The highest died a moment ago and is being started again: it has missed this one.
            (345, vec![lost(rival(456, Unknown, None))], [Lead; 4]),
            // It is there already, and has to fetch what it missed.
            (345, vec![lost(rival(456, Up, behind))], [Wait, Lead, Lead, Lead]),
            // It is back, whole.
            (345, vec![lost(rival(456, Up, healthy))], [HandOver(456); 4]),
            // Nobody else is there.
            (123, vec![rival(345, Refused, None), rival(456, Refused, None)], [Lead; 4]),
            // Alone by design.
            (1, vec![], [Lead; 4]),
        ];
        for (me, rivals, expected) in cases {
            let chosen = [0, 40, 120, 300].map(|ms| choose(me, &rivals, Duration::from_millis(ms)));
            assert_eq!(chosen, expected, "{me} {rivals:?}");
        }
    }
}
