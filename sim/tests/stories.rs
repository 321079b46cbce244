//! Tests 2, 7, 8 and 9 of the thirteen tests before a release: power cuts on any subset, purges,
//! stalls, and the partial partition in which a leader without a majority keeps the others from
//! electing another.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tales/returning.rs"]
mod returning;
mod tales;

use ground::disk::Crash;
use sim::chaos::Act;
use sim::plan::Plan;
use sim::world::World;
use tales::plan;

/// Runs a story. There must be no violation at the end.
fn story(plan: Plan, tell: impl FnOnce(&mut World) + Send + 'static) {
    let name = format!("{plan:?}");
    let report = tales::tell(plan, tell);
    assert_eq!(report.wrong, Vec::<String>::new(), "{name}");
}

/// [engine 2] Each subset of the replicas loses power, at many moments.
#[test]
fn a_power_cut_on_any_subset_at_any_moment_loses_nothing() {
    for subset in 1..8_usize {
        for moment in 0..4 {
            let seed = 1_000 + 10 * subset as u64 + moment;
            story(plan(seed, 3), move |world| {
                world.steps(seed % 23);
                let places = (0..3).filter(|place| subset & (1 << place) != 0).collect();
                world.act(Act::Crash(Crash::Power, places));
                world.steps(50 + seed % 700);
            });
        }
    }
}

/// [engine 7] A snapshot is made, the log is purged up to it, and the power goes before, while and
/// after the history is written.
#[test]
fn a_power_cut_after_a_purge_leaves_no_hole() {
    for moment in 0..16 {
        story(plan(2_000 + moment, 3), move |world| {
            world.steps(300);
            for place in 0..3 {
                world.act(Act::Purge(place, 0));
            }
            world.steps(3 * moment);
            world.act(Act::Crash(Crash::Power, vec![0, 1, 2]));
            world.steps(100);
        });
    }
}

/// [engine 7] A replica that was away returns after the others have purged their logs, and loses
/// power while it installs a snapshot.
#[test]
fn a_power_cut_while_a_snapshot_is_installed_leaves_no_hole() {
    for moment in 0..12 {
        story(plan(2_100 + moment, 3), move |world| {
            world.act(Act::Crash(Crash::Power, vec![0]));
            world.steps(1_500);
            for place in [1, 2] {
                world.act(Act::Purge(place, 0));
            }
            world.steps(300);
            world.act(Act::Start(0));
            world.steps(20 + 15 * moment);
            world.act(Act::Crash(Crash::Power, vec![0]));
            world.steps(50);
            world.act(Act::Start(0));
            world.steps(30 + 7 * moment);
            world.act(Act::Crash(Crash::Power, vec![0]));
        });
    }
}

/// [engine 8] A follower's disk stalls for 500 ms: no election, and orders go on.
#[test]
fn a_followers_disk_that_stalls_causes_no_election() {
    story(plan(3_001, 3), |world| {
        world.steps(500);
        let (leader, term) = world.leader().unwrap();
        world.act(Act::Stall((leader + 1) % 3));
        let (stalled, began) = (world.now(), world.history().answers_after(0));
        world.steps(500);
        assert!(began + 5 < world.history().answers_after(0), "orders go on meanwhile");
        world.act(Act::Resume((leader + 1) % 3));
        world.steps(1_000);
        assert_eq!(world.leader(), Some((leader, term)), "no other leader was elected");
        assert!(world.history().answers_after(stalled + 500) > 5, "the rate is back");
    });
}

/// [engine 8] The leader's disk stalls for 500 ms: at most one election, and nothing is lost.
#[test]
fn a_leaders_disk_that_stalls_causes_no_storm() {
    story(plan(3_002, 3), |world| {
        world.steps(500);
        let (leader, term) = world.leader().unwrap();
        world.act(Act::Stall(leader));
        world.steps(500);
        world.act(Act::Resume(leader));
        let resumed = world.now();
        world.steps(1_500);
        let (_, now) = world.leader().expect("one leads");
        assert!(now <= term + 2, "terms {term} to {now}: a storm of elections");
        assert!(world.history().answers_after(resumed) > 10, "the rate is back");
    });
}

/// [engine 9] Five voters. The leader reaches one other, the bridge; the bridge and two more reach
/// each other; the fifth is alone. The three are a majority, and a leader without a majority must
/// not keep them from electing another (openraft issue 2080).
#[test]
fn a_leader_without_a_majority_does_not_keep_a_majority_from_electing() {
    for seed in 4_000..4_004 {
        story(plan(seed, 5), |world| {
            let chosen = world.until(3_000, |world| world.leader().is_some());
            assert!(chosen, "one leads");
            let (leader, _) = world.leader().unwrap();
            let others: Vec<usize> = (0..5).filter(|place| *place != leader).collect();
            let (bridge, a, b) = (others[0], others[1], others[2]);
            let lines = [(leader, bridge), (bridge, a), (bridge, b), (a, b)];
            for from in 0..5_usize {
                for to in 0..5_usize {
                    let whole = lines.contains(&(from, to)) || lines.contains(&(to, from));
                    if from != to && !whole {
                        world.act(Act::Cut(world.machine(from), world.machine(to)));
                    }
                }
            }
            let cut = world.now();
            let answered =
                world.until(6_000, |world| world.history().answers_after(cut + 1_000) > 3);
            assert!(answered, "a connected majority accepted no order in 6 s");
        });
    }
}

/// [P6] The leader and the other replicas cannot reach each other, while catalogs and frontends
/// reach all of them. A deposed leader that still grants leases to catalogs would delay its
/// successor, which waits for their grace. In simulated time, so the host's speed does not matter.
#[test]
fn a_leader_that_only_the_other_replicas_cannot_reach_is_replaced_within_600_ms() {
    for seed in 7_000..7_004 {
        let deployed = Plan { catalogs: 1, frontends: 2, customers: 0, ..plan(seed, 3) };
        story(deployed, move |world| {
            assert!(world.until(3_000, |world| world.leader().is_some()), "one leads");
            world.steps(500);
            let (leader, _) = world.leader().expect("the leader still leads");
            for other in (0..3).filter(|place| *place != leader) {
                let (leader, other) = (world.machine(leader), world.machine(other));
                world.act(Act::Cut(leader, other));
                world.act(Act::Cut(other, leader));
            }
            let (cut, mut last, mut longest) = (world.now(), world.now(), 0);
            while world.now() < cut + 3_000 {
                world.step();
                longest = longest.max(world.now() - last);
                if 0 < world.history().answers_after(last) {
                    last = world.now();
                }
            }
            assert!(longest < 600, "seed {seed}: no order was answered for {longest} ms");
        });
    }
}

/// Records that a killed replica has written and not synced are synced before any replica counts on
/// them.
#[test]
fn a_power_cut_soon_after_a_kill_loses_nothing() {
    for seed in 5_000..5_012 {
        story(Plan { customers: 1, ..plan(seed, 3) }, tales::left_in_the_page_cache);
    }
}

/// [P5] A frontend sleeps past its grace, and orders go on without it. When it wakes up, it answers
/// no query from memory, and refuses no order from memory.
#[test]
fn a_frontend_that_slept_past_its_grace_answers_nothing_from_memory() {
    for seed in 6_000..6_004 {
        let keyless = Plan { catalogs: 1, frontends: 1, keyless: 30, ..plan(seed, 3) };
        story(keyless, |world| {
            world.steps(1_500);
            world.act(Act::Freeze(1));
            world.steps(1_500);
            let answered = world.history().answers_after(world.now() - 500);
            assert!(0 < answered, "orders go on without it");
            world.visit(0);
            world.steps(20);
            world.act(Act::Thaw(1));
            world.steps(500);
        });
    }
}
