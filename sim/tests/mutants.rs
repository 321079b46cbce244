//! The checker is trusted because it detects each of these mutants.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tales;

use ground::disk::DiskMutants;
use sim::plan::{BrokenRules, Faults, Plan};
use sim::trace;
use sim::world::{self, Report};

/// The number of seeds that a mutant may survive.
const SEEDS: u64 = 60;

/// The first seed that detects the mutant, and the violations. Crashes are the only faults, so that
/// no other fault causes them.
fn found(broken: BrokenRules) -> (u64, Vec<String>) {
    trace::take_panics();
    for seed in 1..=SEEDS {
        let mut plan = Plan::of(seed);
        (plan.catalogs, plan.frontends) = (0, 0);
        (plan.customers, plan.replicas) = (4, 3);
        plan.faults = Faults { kills: true, power: true, purges: true, ..Faults::NONE };
        plan.broken = broken;
        let report: Report = std::thread::spawn(move || world::run(&plan, false)).join().unwrap();
        if !report.wrong.is_empty() {
            return (seed, report.wrong);
        }
    }
    panic!("{broken:?} was not detected in {SEEDS} seeds");
}

#[test]
fn a_log_that_skips_its_syncs_is_detected() {
    let lies = DiskMutants { log: true, ..DiskMutants::default() };
    found(BrokenRules { lies, ..BrokenRules::default() });
}

#[test]
fn a_history_that_skips_its_syncs_is_detected() {
    let lies = DiskMutants { file: true, ..DiskMutants::default() };
    found(BrokenRules { lies, ..BrokenRules::default() });
}

#[test]
fn a_leader_restored_without_an_election_is_detected() {
    found(BrokenRules { restore: true, ..BrokenRules::default() });
}

#[test]
fn a_log_that_trusts_unsynced_records_is_detected() {
    let lies = DiskMutants { reopening: true, ..DiskMutants::default() };
    let found = (5_000..5_000 + SEEDS).any(|seed| {
        let mut plan = tales::plan(seed, 3);
        (plan.customers, plan.broken) = (1, BrokenRules { lies, ..BrokenRules::default() });
        !tales::tell(plan, tales::left_in_the_page_cache).wrong.is_empty()
    });
    assert!(found, "not detected in {SEEDS} seeds");
}
