//! Shared by stories and mutants: a store without chaos, and a story for both.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ground::disk::Crash;
use sim::chaos::Act;
use sim::plan::{Faults, Plan};
use sim::trace;
use sim::world::{Report, World};

/// A store of replicas and four customers; the story causes all faults.
pub(crate) fn plan(seed: u64, replicas: usize) -> Plan {
    let faults = Faults::NONE;
    Plan { replicas, catalogs: 0, frontends: 0, customers: 4, faults, ..Plan::of(seed) }
}

/// Runs a story on a thread of its own; then everything heals and is checked.
pub(crate) fn tell(plan: Plan, story: impl FnOnce(&mut World) + Send + 'static) -> Report {
    trace::take_panics();
    let run = std::thread::spawn(move || {
        World::simulate(&plan, |world| {
            assert!(world.until(5_000, |world| 5 < world.history().answers_after(0)), "it opens");
            story(world);
        })
    });
    run.join().unwrap()
}

/// A follower is killed with entries that it has written and not synced. Once it is back, the
/// leader counts on them. At the first answer both lose power, and only the follower comes back,
/// with a replica that never had the entries. There is one customer, so that no other write (and
/// its sync) comes in between.
pub(crate) fn left_in_the_page_cache(world: &mut World) {
    world.until(3_000, |world| world.leader().is_some());
    let (leader, _) = world.leader().unwrap();
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    let (near, far) = (others[0], others[1]);
    let lines = [(far, leader), (leader, far), (far, near), (near, far)];
    for (from, to) in lines {
        world.act(Act::Cut(world.machine(from), world.machine(to)));
    }
    world.act(Act::Stall(near));
    world.steps(40);
    world.act(Act::Crash(Crash::Kill, vec![near]));
    world.act(Act::Resume(near));
    world.act(Act::Start(near));
    let back = world.now();
    world.until(400, |world| 0 < world.history().answers_after(back));
    world.act(Act::Crash(Crash::Power, vec![near, leader]));
    // Messages kept for the replica behind the cut are lost with the machines that kept them.
    world.steps(100);
    for (from, to) in lines {
        world.act(Act::Mend(world.machine(from), world.machine(to)));
    }
    world.act(Act::Start(near));
    let again = world.now();
    world.until(5_000, |world| 0 < world.history().answers_after(again));
}
