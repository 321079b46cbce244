//! Mutants: wrong versions of single rules, which prove that the checkers detect a violation.
//!
//! A checker is trusted only after it has caught a deliberate bug. Each [`Mutant`] is one wrong
//! line inside a real core, in its `predicates.rs`; the model and the black-box test switch one
//! mutant on and must find a violation. In service every rule holds: [`Rules::default`] has no
//! mutant, and only a hidden setting for tests switches one on.

use std::str::FromStr;

/// The rules that a core keeps; by default all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules(Option<Mutant>);

/// One wrong rule. The number in front names the rule of `docs/watch.md` that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// 1: frames of uncommitted entries are sent.
    UncommittedFrames,
    /// 2: accepted orders are answered when committed, before they are settled.
    AcceptedEarly,
    /// 2: refusals are answered when committed, before they are settled.
    RefusedEarly,
    /// 2: repeated keys are answered at once.
    RepeatedEarly,
    /// 2: look-ups are answered before they are settled.
    LookupEarly,
    /// 4: a frontend keeps the old entry when its product changes.
    OldEntryKept,
    /// 5: a catalog reports its own cursor as seen, ignoring its frontends.
    SeenAlone,
    /// 6: a reset does not raise the floors of open fills.
    ResetKeepsFloors,
    /// 7: a frontend answers an unsettled version.
    FrontendUnsettled,
    /// 7: a catalog answers an unsettled version.
    CatalogUnsettled,
    /// 7: a query is answered with the newest settled version instead of the version it landed on.
    NewestOnSettled,
    /// 7: a catalog lands queries without a live lease.
    CatalogLandsLapsed,
    /// 7: a frontend answers hits without a live lease.
    FrontendHitsLapsed,
    /// 7: a frontend refuses an order by itself without a live lease.
    RefusesLapsed,
    /// 7: a frontend refuses an order because of an unsettled version.
    RefusesUnsettled,
    /// 8: an answer is stored without a check of the floor.
    FloorIgnored,
    /// 8: an answer that waited is stored as of its sending, not its landing.
    StoredAsOfSending,
    /// 8: a joined query is answered without a check of its own floor.
    JoinFloorIgnored,
    /// 8: a query joins a fill without a live lease.
    JoinLapsed,
    /// 9: the leader grants without a quorum round.
    GrantWithoutQuorum,
    /// 10: a lease is counted from the receipt of the beat.
    CountFromReceipt,
    /// 10: a frontend takes a whole lease although its catalog granted less.
    FrontendIgnoresRemainder,
    /// 10: a catalog takes a whole lease although the leader granted less.
    CatalogIgnoresRemainder,
    /// 10: a catalog grants a whole lease although less is left of its own.
    GrantBeyondOwn,
    /// 11: grants are sent before the frames.
    GrantBeforeFrames,
    /// 11: a grant waits only for the frames up to the cursor at which the stream was accepted.
    FramesUpToAccepting,
    /// 12: the grace is as short as the lease, with no margin for drift.
    GraceWithoutMargin,
    /// 12: a source stops waiting for a watcher whose stream breaks.
    BreakEndsWaiting,
    /// 12: a watcher whose stream broke is fenced before its grace has passed, and a catalog is
    /// detached.
    BreakEndsGrace,
    /// 12: a watcher that was fenced still gets grants on its stream.
    GrantAfterLettingGo,
    /// 13: a catalog gets grants before its attach entry is applied.
    GrantBeforeAttach,
    /// 13: a restarted catalog replaces its earlier incarnation.
    RestartReplaces,
    /// 14: a lapsed catalog no longer counts before its detach is applied.
    UncountedBeforeDetach,
    /// 14: a detach is valid in any term.
    DetachAnyTerm,
    /// 14: a catalog being detached still gets grants.
    GrantWhileDetaching,
    /// 15: a new leader detaches at once every catalog that has not come back yet.
    DetachMissingAtOnce,
    /// 15: a new leader accepts watchers before its own first entry is applied.
    AcceptBeforeFirstEntry,
    /// 16: watchers' streams outlive leadership.
    StreamsOutliveLeadership,
}

impl Mutant {
    /// All mutants, in the order of the rules that they break.
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
        Self::ALL.into_iter().find(known).ok_or_else(|| format!("unknown mutant {name}"))
    }
}

impl Rules {
    /// All rules except the one that `mutant` breaks.
    pub const fn without(mutant: Mutant) -> Self {
        Self(Some(mutant))
    }

    /// True when `mutant` is switched on.
    pub fn broken(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }
}
