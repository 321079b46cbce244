//! The judge is believed because it notices: each of these is wrong on purpose, and found out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tales;

use ground::disk::Lies;
use sim::plan::{Broken, Faults, Plan};
use sim::trace;
use sim::world::{self, Report};

/// How many seeds a mutant may survive.
const SEEDS: u64 = 60;

/// The first seed that notices, and what it says. Crashes only, so that it is these that show it.
fn found(broken: Broken) -> (u64, Vec<String>) {
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
    panic!("{broken:?} was not found out in {SEEDS} seeds");
}

#[test]
fn a_log_that_skips_its_syncs_is_found_out() {
    let lies = Lies { log: true, ..Lies::default() };
    found(Broken { lies, ..Broken::default() });
}

#[test]
fn a_history_that_skips_its_syncs_is_found_out() {
    let lies = Lies { file: true, ..Lies::default() };
    found(Broken { lies, ..Broken::default() });
}

#[test]
fn a_leader_restored_without_an_election_is_found_out() {
    found(Broken { restore: true, ..Broken::default() });
}

#[test]
fn a_log_that_counts_on_what_it_finds_is_found_out() {
    let lies = Lies { reopening: true, ..Lies::default() };
    let found = (5_000..5_000 + SEEDS).any(|seed| {
        let mut plan = tales::plan(seed, 3);
        (plan.customers, plan.broken) = (1, Broken { lies, ..Broken::default() });
        !tales::tell(plan, tales::left_in_the_page_cache).wrong.is_empty()
    });
    assert!(found, "not found out in {SEEDS} seeds");
}
