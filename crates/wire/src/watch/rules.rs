//! The rules that can be switched off, one at a time, to prove that the checkers would notice.
//!
//! A checker is believed only after it has caught a bug put there on purpose. Each [`Mutant`] is a
//! one-line wrong rule inside a real core; the model and the black-box test switch one on and must
//! find a violation. In service all rules hold: [`Rules::default`] has no mutant, and nothing but a
//! hidden test-only switch makes another.

use std::str::FromStr;

/// Which rules a core keeps. By default: all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules(Option<Mutant>);

/// One wrong rule. The number in front is the rule of `docs/watch.md` that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// 1: frames of entries that are not committed travel.
    UncommittedFrames,
    /// 2: accepted orders are answered when committed.
    AcceptedEarly,
    /// 2: refusals are answered when committed.
    RefusedEarly,
    /// 2: repeated keys are answered at once.
    RepeatedEarly,
    /// 2: look-ups are answered before they are settled.
    LookupEarly,
    /// 4: a frontend keeps the old entry when its product changes.
    OldEntryKept,
    /// 5: a catalog reports seen without asking its frontends.
    SeenAlone,
    /// 6: a reset does not raise the floors of open fills.
    ResetKeepsFloors,
    /// 7: a frontend answers an unsettled version.
    FrontendUnsettled,
    /// 7: a catalog answers an unsettled version.
    CatalogUnsettled,
    /// 7: once settled, the newest version is given instead of the one landed on.
    NewestOnSettled,
    /// 7: a catalog lands queries without a live lease.
    CatalogLandsLapsed,
    /// 7: a frontend answers hits without a live lease.
    FrontendHitsLapsed,
    /// 7: a frontend refuses an order by itself without a live lease.
    RefusesLapsed,
    /// 7: a frontend refuses an order by an unsettled version.
    RefusesUnsettled,
    /// 8: an answer is stored without looking at the floor.
    FloorIgnored,
    /// 8: an answer that waited is stored as of its sending, not its landing.
    StoredAsOfSending,
    /// 8: a joined query is answered without looking at its own floor.
    JoinFloorIgnored,
    /// 8: a query joins a fill without a live lease.
    JoinLapsed,
    /// 9: the leader grants without a quorum round.
    GrantWithoutQuorum,
    /// 10: a lease is counted from the receipt of the beat.
    CountFromReceipt,
    /// 10: a frontend takes the whole lease, whatever its catalog granted.
    FrontendIgnoresRemainder,
    /// 10: a catalog takes the whole lease, whatever the leader granted.
    CatalogIgnoresRemainder,
    /// 10: a catalog grants the whole lease, whatever it has left itself.
    GrantBeyondOwn,
    /// 11: grants go out before the frames.
    GrantBeforeFrames,
    /// 11: frames must have gone out only up to the cursor at the time of accepting the stream.
    FramesUpToAccepting,
    /// 12: the grace is as short as the lease, with no margin for drift.
    GraceWithoutMargin,
    /// 12: a broken stream ends the waiting.
    BreakEndsWaiting,
    /// 12: a watcher whose stream broke is let go at once, and a catalog detached, before its grace
    /// has passed.
    BreakEndsGrace,
    /// 12: a watcher that was let go still gets grants on its stream.
    GrantAfterLettingGo,
    /// 13: grants before the attach entry is applied.
    GrantBeforeAttach,
    /// 13: a restarted catalog takes its former self's place.
    RestartReplaces,
    /// 14: a lapsed catalog no longer counts before its detach is applied.
    UncountedBeforeDetach,
    /// 14: a detach is valid in any term.
    DetachAnyTerm,
    /// 14: a catalog being detached still gets grants.
    GrantWhileDetaching,
    /// 15: a new leader detaches at once whoever is not there yet.
    DetachMissingAtOnce,
    /// 15: a new leader accepts watchers before its own first entry is applied.
    AcceptBeforeFirstEntry,
    /// 16: watchers' streams outlive leadership.
    StreamsOutliveLeadership,
}

impl Mutant {
    /// All of them, in the order of the rules they break.
    pub const ALL: [Self; 38] = [
        Self::UncommittedFrames,
        Self::AcceptedEarly,
        Self::RefusedEarly,
        Self::RepeatedEarly,
        Self::LookupEarly,
        Self::OldEntryKept,
        Self::SeenAlone,
        Self::ResetKeepsFloors,
        Self::FrontendUnsettled,
        Self::CatalogUnsettled,
        Self::NewestOnSettled,
        Self::CatalogLandsLapsed,
        Self::FrontendHitsLapsed,
        Self::RefusesLapsed,
        Self::RefusesUnsettled,
        Self::FloorIgnored,
        Self::StoredAsOfSending,
        Self::JoinFloorIgnored,
        Self::JoinLapsed,
        Self::GrantWithoutQuorum,
        Self::CountFromReceipt,
        Self::FrontendIgnoresRemainder,
        Self::CatalogIgnoresRemainder,
        Self::GrantBeyondOwn,
        Self::GrantBeforeFrames,
        Self::FramesUpToAccepting,
        Self::GraceWithoutMargin,
        Self::BreakEndsWaiting,
        Self::BreakEndsGrace,
        Self::GrantAfterLettingGo,
        Self::GrantBeforeAttach,
        Self::RestartReplaces,
        Self::UncountedBeforeDetach,
        Self::DetachAnyTerm,
        Self::GrantWhileDetaching,
        Self::DetachMissingAtOnce,
        Self::AcceptBeforeFirstEntry,
        Self::StreamsOutliveLeadership,
    ];
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = |mutant: &Self| format!("{mutant:?}") == name;
        Self::ALL.into_iter().find(known).ok_or_else(|| format!("there is no rule {name}"))
    }
}

impl Rules {
    /// All rules but this one.
    pub const fn without(mutant: Mutant) -> Self {
        Self(Some(mutant))
    }

    /// True when this wrong rule is in force.
    pub fn broken(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }
}
