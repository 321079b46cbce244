//! What a replica is at the moment: the one that decides, or one that says who does.

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
}

impl Rival {
    /// One that is no further behind than this has as good as caught up: under load somebody
    /// always is a few entries behind.
    pub(crate) const LAG_MAX: u64 = 64;

    /// True when its log is equal to the leader's.
    pub(crate) fn caught_up(&self) -> bool {
        self.lag == Some(0)
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

/// Prefers the highest id among the healthy (reachable and caught up) at the time of choosing.
pub(crate) fn choose(me: u64, rivals: &[Rival]) -> Choice {
    let higher = || rivals.iter().filter(|rival| me < rival.id);
    let best = higher()
        .filter(|rival| rival.reach == Reach::Up && rival.caught_up())
        .max_by_key(|rival| rival.id);
    let may_come = |rival: &&Rival| {
        let still =
            rival.reach != Reach::Refused && !(rival.reach == Reach::Up && rival.caught_up());
        still && best.is_none_or(|best| best.id < rival.id)
    };
    match best {
        _ if higher().any(|rival| may_come(&rival)) => Choice::Wait,
        Some(best) => Choice::HandOver(best.id),
        None => Choice::Lead,
    }
}

/// What to do when the time for choosing is over: whoever is not there by now has missed it.
pub(crate) fn choose_at_last(me: u64, rivals: &[Rival]) -> Choice {
    let there: Vec<Rival> =
        rivals.iter().filter(|r| r.reach == Reach::Up && r.caught_up()).copied().collect();
    choose(me, &there)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rival(id: u64, reach: Reach, caught_up: bool) -> Rival {
        Rival { id, reach, lag: caught_up.then_some(0) }
    }

    #[test]
    fn the_highest_healthy_one_leads_at_each_choosing() {
        use Choice::{HandOver, Lead, Wait};
        use Reach::{Refused, Unknown, Up};
        let cases = [
            // The highest one itself waits for nobody.
            (456, vec![rival(123, Up, true), rival(345, Up, true)], Lead, Lead),
            // Its betters are there and caught up.
            (123, vec![rival(345, Up, true), rival(456, Up, true)], HandOver(456), HandOver(456)),
            // The highest is dead, the next is there.
            (
                123,
                vec![rival(345, Up, true), rival(456, Refused, false)],
                HandOver(345),
                HandOver(345),
            ),
            // The highest is dead, and it is the next itself: no waiting.
            (345, vec![rival(123, Up, true), rival(456, Refused, false)], Lead, Lead),
            // The highest lags: it gets the time of choosing, and no more.
            (345, vec![rival(123, Up, true), rival(456, Up, false)], Wait, Lead),
            // The highest is silent: likewise, and then the next best one.
            (123, vec![rival(345, Up, true), rival(456, Unknown, false)], Wait, HandOver(345)),
            // Nobody else is there.
            (123, vec![rival(345, Refused, false), rival(456, Refused, false)], Lead, Lead),
            // Alone by design.
            (1, vec![], Lead, Lead),
        ];
        for (me, rivals, now, at_last) in cases {
            assert_eq!(choose(me, &rivals), now, "{me} {rivals:?}");
            assert_eq!(choose_at_last(me, &rivals), at_last, "{me} {rivals:?}");
        }
    }
}
