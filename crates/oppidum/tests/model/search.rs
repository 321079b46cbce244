//! Searches seeds one after the other, and shows that the checks catch every mutant.
//!
//! * `OPPIDUM_MODEL_SEEDS`: the number of seeds; `OPPIDUM_MODEL_FIRST`: the first seed.
//! * `OPPIDUM_MODEL_TRACE=1`: prints every step.
//! * `OPPIDUM_MODEL_MUTANT=NAME`: breaks this rule.

use wire::watch::rules::{Mutant, Rules};

use crate::steps::Mood;
use crate::world::World;

/// The number of steps in a run before it heals.
const STEPS: usize = 1_500;

/// The number of seeds in a test run: they take some seconds.
const SEEDS: u64 = 2_000;

/// Seeds that ever failed, with the fault; tried first. None so far.
const FAILED: [u64; 0] = [];

/// The first seed that catches each mutant; the other mutants need a schedule.
const CAUGHT_BY: [(Mutant, u64); 27] = [
    (Mutant::UncommittedFrames, 2),
    (Mutant::AcceptedEarly, 3),
    (Mutant::RefusedEarly, 3),
    (Mutant::RepeatedEarly, 3),
    (Mutant::LookupEarly, 3),
    (Mutant::OldEntryKept, 69),
    (Mutant::SeenAlone, 5),
    (Mutant::FrontendUnsettled, 5),
    (Mutant::CatalogUnsettled, 12),
    (Mutant::NewestOnSettled, 250),
    (Mutant::CatalogLandsLapsed, 1),
    (Mutant::FrontendHitsLapsed, 6),
    (Mutant::RefusesLapsed, 2),
    (Mutant::RefusesUnsettled, 5),
    (Mutant::FloorIgnored, 98),
    (Mutant::StoredAsOfSending, 220),
    (Mutant::JoinFloorIgnored, 98),
    (Mutant::JoinLapsed, 369),
    (Mutant::CountFromReceipt, 145),
    (Mutant::FrontendIgnoresRemainder, 1578),
    (Mutant::GrantBeyondOwn, 14),
    (Mutant::GrantBeforeFrames, 21),
    (Mutant::BreakEndsWaiting, 2),
    (Mutant::GrantBeforeAttach, 3),
    (Mutant::RestartReplaces, 3),
    (Mutant::GrantWhileDetaching, 175),
    (Mutant::DetachMissingAtOnce, 12),
];

/// The result of one seed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) violation: Option<String>,
    pub(crate) stuck: Option<String>,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) trace: Vec<String>,
}

/// Runs one seed.
pub(crate) fn run(seed: u64, rules: Rules, traced: bool) -> Ended {
    let mut world = World::new(seed, rules);
    world.trace = traced.then(Vec::new);
    let mood = Mood::new(&mut world);
    world.warm_up();
    for _ in 0..STEPS {
        world.step(&mood);
        if world.violation.is_some() {
            break;
        }
    }
    let stuck = if world.violation.is_none() { world.heal() } else { None };
    let World { violation, answered, refused, trace, .. } = world;
    Ended { violation, stuck, answered, refused, trace: trace.unwrap_or_default() }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// No seed shows an answer older than one given before its request, and every request is answered.
/// [P5]
#[test]
fn no_seed_shows_an_answer_too_old_and_every_request_is_answered() {
    let first = number("OPPIDUM_MODEL_FIRST", 1);
    let seeds = number("OPPIDUM_MODEL_SEEDS", SEEDS);
    let traced = std::env::var_os("OPPIDUM_MODEL_TRACE").is_some();
    let mutant: Option<Mutant> =
        std::env::var("OPPIDUM_MODEL_MUTANT").ok().map(|name| name.parse().expect("a rule"));
    let rules = mutant.map_or_else(Rules::default, Rules::without);
    let (mut answered, mut refused, mut caught) = (0, 0, 0);
    for seed in FAILED.into_iter().chain(first..first + seeds) {
        let ended = run(seed, rules, traced);
        answered += ended.answered;
        refused += ended.refused;
        if traced {
            println!("{}", ended.trace.join("\n"));
        }
        if let (Some(mutant), Some(why)) = (mutant, &ended.violation) {
            caught += 1;
            println!("{mutant:?} is caught by seed {seed}: {why}");
            if number("OPPIDUM_MODEL_ALL", 0) == 0 {
                return;
            }
        }
        let wrong = ended.violation.or(ended.stuck).filter(|_| mutant.is_none());
        assert!(
            wrong.is_none(),
            "seed {seed}: {wrong:?}\nsee it: cargo xtask model --seeds 1 --first {seed} --trace"
        );
        if seed % 100_000 == 0 {
            println!("{seed} seeds, {answered} answers, nothing wrong");
        }
    }
    println!("{seeds} seeds, {answered} answers, {refused} refusals, {caught} caught");
    assert!(seeds < 100 || seeds < answered, "too few requests were answered");
    assert!(seeds < 100 || seeds < refused, "too few orders were refused");
}

/// Every mutant is caught by its seed, except those that random seeds rarely catch: they have
/// schedules in `directed`. [P5]
#[test]
fn every_other_mutant_is_caught_by_its_seed() {
    for mutant in Mutant::ALL {
        if crate::directed::SCHEDULED.iter().any(|(scheduled, _)| *scheduled == mutant) {
            continue;
        }
        let seed = CAUGHT_BY.iter().find(|(caught, _)| *caught == mutant).map(|(_, seed)| *seed);
        let seed = seed.unwrap_or_else(|| panic!("{mutant:?} has neither a seed nor a schedule"));
        assert!(
            run(seed, Rules::without(mutant), false).violation.is_some(),
            "{mutant:?} is not caught by seed {seed} any more: the model has changed; find another \
             with `cargo xtask model --seeds 100000 --break-rule {mutant:?}`"
        );
    }
}
