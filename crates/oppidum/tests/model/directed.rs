//! Schedules for mutants that random seeds rarely catch: each runs with the rule and without it.

use wire::watch::rules::{Mutant, Rules};

use crate::replica::PRODUCTS;
use crate::wires::Down;
use crate::world::{CATALOGS, Clock, FRONTENDS, Parcel, Progress, REPLICAS, Wish, World};

type Schedule = fn(&mut World);

/// The mutants that have a schedule here.
pub(crate) const SCHEDULED: [(Mutant, Schedule); 11] = [
    (Mutant::ResetKeepsFloors, a_reset_while_an_old_answer_is_in_flight),
    (Mutant::GrantWithoutQuorum, a_deposed_leader_goes_on_with_its_catalogs),
    (Mutant::CatalogIgnoresRemainder, a_deposed_leader_whose_lease_is_nearly_over),
    (Mutant::FramesUpToAccepting, a_lapsed_catalog_returns_and_beats_before_it_passes_on),
    (Mutant::GraceWithoutMargin, a_slow_clock_below_a_fast_one),
    (Mutant::GrantAfterLettingGo, a_dropped_frontend_reports_again),
    (Mutant::BreakEndsGrace, a_catalog_whose_stream_broke_answers_on),
    (Mutant::UncountedBeforeDetach, a_silent_catalog_before_its_detach),
    (Mutant::DetachAnyTerm, a_detach_two_terms_late),
    (Mutant::AcceptBeforeFirstEntry, a_new_leader_that_has_not_applied_a_detach),
    (Mutant::StreamsOutliveLeadership, a_leader_again_with_the_streams_of_its_former_term),
];

/// A warmed-up store: replica 2 leads, frontend 0 watches catalog 0, the others catalog 1, and
/// every process has a lease and product 0.
fn calm(rules: Rules) -> World {
    let mut world = World::new(1, rules);
    world.clocks.iter_mut().for_each(|clock| *clock = Clock { rate: 1_000, start: 1_000_000_000 });
    (world.delay, world.stalls) = (0, false);
    world.warm_up();
    for frontend in 0..FRONTENDS {
        world.connect(false, frontend, usize::from(frontend != 0));
    }
    world.run_for(150);
    look(&mut world);
    world
}

/// Puts product 0 into every cache.
fn look(world: &mut World) {
    (0..FRONTENDS).for_each(|frontend| world.query(frontend, 0));
    world.run_for(5);
}

fn order(world: &mut World) -> usize {
    world.ask(Wish::Order { products: [true; PRODUCTS], refused: false })
}

fn cut_off(world: &mut World, replica: usize) {
    for other in (0..REPLICAS).filter(|other| *other != replica) {
        (world.cut[replica][other], world.cut[other][replica]) = (true, true);
    }
}

/// Freezes or thaws both catalogs: frozen, they do not hear a new leader's grants.
fn hold_catalogs(world: &mut World, frozen: bool) {
    (0..CATALOGS).for_each(|catalog| world.catalogs[catalog].frozen = frozen);
}

/// Without its rule each schedule shows a value too old, and with the rule nothing wrong. [P5]
#[test]
fn every_mutant_that_random_seeds_rarely_catch_is_caught_by_its_schedule() {
    for (mutant, schedule) in SCHEDULED {
        let mut world = calm(Rules::default());
        world.trace = Some(Vec::new());
        schedule(&mut world);
        let trace = world.trace.take().unwrap_or_default().join("\n");
        assert!(world.violation.is_none(), "{mutant:?} kept: {:?}\n{trace}", world.violation);
        let mut world = calm(Rules::without(mutant));
        world.trace = Some(Vec::new());
        schedule(&mut world);
        let trace = world.trace.take().unwrap_or_default().join("\n");
        assert!(world.violation.is_some(), "{mutant:?} is not caught\n{trace}");
    }
}

/// Rule 9: a leader cut off with its catalogs still grants leases; its successor waits a grace.
fn a_deposed_leader_goes_on_with_its_catalogs(world: &mut World) {
    cut_off(world, 2);
    assert!(world.elect(0));
    order(world);
    world.run_for(1_000);
    look(world);
}

/// Rule 10: the leader's own lease is nearly over, and its catalogs take a whole lease from it.
fn a_deposed_leader_whose_lease_is_nearly_over(world: &mut World) {
    cut_off(world, 2);
    assert!(world.elect(0));
    order(world);
    world.run_for(700);
    look(world);
}

/// Rule 12: the frontend's lease by its slow clock outlasts the catalog's by its fast clock.
fn a_slow_clock_below_a_fast_one(world: &mut World) {
    let (catalog, frontend) = (REPLICAS, REPLICAS + CATALOGS);
    for (process, rate) in [(catalog, 1_050), (frontend, 950)] {
        // The clock keeps its reading, and runs on at another rate.
        let shown = world.clocks[process].start + world.now;
        world.clocks[process] = Clock { rate, start: shown - world.now * rate / 1_000 };
    }
    // One round, one heartbeat and one beat on each stream, all at one moment.
    for at in 0..REPLICAS - 1 {
        world.begin_round(2);
        world.reply_round(2, at);
    }
    let up = world.catalogs[0].stream.unwrap();
    let down = world.frontends[0].stream.unwrap();
    for (to_leader, stream) in [(true, up), (false, down)] {
        world.report(to_leader, 0, false);
        (0..3).for_each(|_| world.hear(stream));
        world.feed(stream);
        world.beat(stream);
        (0..8).for_each(|_| world.receive(stream));
    }
    world.streams.get_mut(&down).unwrap().cut();
    order(world);
    world.run_for(490);
    world.query(0, 0);
    world.run_for(5);
}

/// Rule 12: a catalog has dropped a frontend, whose stream still gets grants.
fn a_dropped_frontend_reports_again(world: &mut World) {
    world.frontends[0].frozen = true;
    world.run_for(700);
    world.frontends[0].frozen = false;
    let Some(stream) = world.frontends[0].stream else { return };
    (0..40).for_each(|_| world.receive(stream));
    world.report(false, 0, false);
    (0..40).for_each(|_| world.hear(stream));
    world.feed(stream);
    world.beat(stream);
    (0..40).for_each(|_| world.receive(stream));
    world.query(0, 0);
    world.frontends[0].frozen = true;
    order(world);
    world.run_for(40);
    world.frontends[0].frozen = false;
    world.query(0, 0);
}

/// Rule 12: a catalog without its stream still has a lease, and its frontend answers by it. The
/// leader detaches the catalog no sooner than after its grace: until then no order is acknowledged.
fn a_catalog_whose_stream_broke_answers_on(world: &mut World) {
    world.stays_away = Some(0);
    world.disconnect(true, 0);
    order(world);
    world.run_for(100);
    world.query(0, 0);
    world.run_for(5);
}

/// Rule 14: a catalog that has been silent for a grace counts until its detach is applied.
fn a_silent_catalog_before_its_detach(world: &mut World) {
    world.stall_detaches = true;
    world.catalogs[0].frozen = true;
    order(world);
    world.run_for(700);
}

/// Rule 14: a detach decided two terms ago reaches the log now.
fn a_detach_two_terms_late(world: &mut World) {
    world.stall_detaches = true;
    world.catalogs[0].frozen = true;
    world.run_for(700);
    assert!(!world.replicas[2].detaches.is_empty());
    assert!(world.elect(0));
    world.catalogs[0].frozen = false;
    world.run_for(400);
    assert!(world.elect(2));
    world.run_for(700);
    if world.frontends[0].stream.is_none_or(|id| world.streams[&id].source.at != 0) {
        world.connect(false, 0, 0);
    }
    // Long enough that no source waits for the frontend any more.
    world.run_for(700);
    look(world);
    world.propose_detach(2);
    world.catalogs[0].frozen = true;
    order(world);
    world.run_for(60);
    world.query(0, 0);
}

/// In another term both catalogs are detached, and an order is acknowledged; replica 2 has those
/// entries in its log, and has not applied them.
fn detached_meanwhile(world: &mut World) {
    world.lags = Some(2);
    hold_catalogs(world, true);
    assert!(world.elect(0));
    let op = order(world);
    world.run_for(1_200);
    assert_eq!(world.ops[op].progress, Progress::Done);
    assert_eq!(world.replicas[2].log.len(), world.replicas[0].log.len());
    hold_catalogs(world, false);
}

/// Only two streams carry messages: replica 2 to catalog 0, and catalog 0 to frontend 0.
fn talk(world: &mut World) {
    for _ in 0..3 {
        world.now += 1_000;
        world.begin_round(2);
        (0..REPLICAS).for_each(|voter| world.reply_round(2, voter));
        let streams = [(true, world.catalogs[0].stream), (false, world.frontends[0].stream)];
        for (to_leader, stream) in streams {
            let Some(stream) = stream else { continue };
            (0..40).for_each(|_| world.receive(stream));
            world.report(to_leader, 0, false);
            (0..40).for_each(|_| world.hear(stream));
            world.feed(stream);
            world.beat(stream);
            (0..40).for_each(|_| world.receive(stream));
        }
    }
}

/// Rule 15: a new leader serves a catalog whose detach is in its log, not yet applied.
fn a_new_leader_that_has_not_applied_a_detach(world: &mut World) {
    detached_meanwhile(world);
    assert!(world.elect(2));
    world.connect(true, 0, 2);
    talk(world);
    world.connect(false, 0, 0);
    talk(world);
    world.query(0, 0);
}

/// Rule 16: leader again, with the streams from its leadership two terms ago.
fn a_leader_again_with_the_streams_of_its_former_term(world: &mut World) {
    detached_meanwhile(world);
    assert!(world.elect(2));
    talk(world);
    world.connect(false, 0, 0);
    talk(world);
    world.query(0, 0);
}

/// Rule 11: a catalog lapses and is detached, an order is acknowledged, and the catalog returns: it
/// must send the changes it missed before it grants a lease again.
fn a_lapsed_catalog_returns_and_beats_before_it_passes_on(world: &mut World) {
    // The frontend's stream stays; only the catalog is cut off from the leader.
    world.disconnect(true, 0);
    (world.catalogs[0].frozen, world.frontends[0].frozen) = (true, true);
    order(world);
    world.run_for(700);
    (world.catalogs[0].frozen, world.frontends[0].frozen) = (false, false);
    // The catalog is attached again, hears the leader, and has a lease; the frontend's frames wait.
    world.connect(true, 0, 2);
    for _ in 0..30 {
        world.now += 1_000;
        (0..2).for_each(|to| world.replicate(2, to));
        (0..4).for_each(|_| world.apply(2));
        world.begin_round(2);
        (0..REPLICAS).for_each(|voter| world.reply_round(2, voter));
        let Some(stream) = world.catalogs[0].stream else { break };
        world.report(true, 0, false);
        (0..40).for_each(|_| world.hear(stream));
        world.feed(stream);
        world.beat(stream);
        (0..40).for_each(|_| world.receive(stream));
    }
    let Some(stream) = world.frontends[0].stream else { return };
    world.report(false, 0, false);
    (0..40).for_each(|_| world.hear(stream));
    world.beat(stream);
    // No frame has been sent: only the beat is in flight.
    let framed = |down: &(u64, Down)| matches!(down.1, Down::Change(..) | Down::Reset(_));
    assert!(!world.streams[&stream].down.iter().any(framed));
    (0..40).for_each(|_| world.receive(stream));
    world.query(0, 0);
}

/// Rule 6: an answer from before the reset arrives after it.
fn a_reset_while_an_old_answer_is_in_flight(world: &mut World) {
    world.crash_frontend(0);
    world.frontends[0].up = true;
    world.connect(false, 0, 0);
    world.run_for(150);
    world.query(0, 0);
    let ask = |parcel: &Parcel| matches!(parcel, Parcel::Ask { .. });
    let place = world.parcels.iter().position(ask).expect("a fill is in flight");
    world.arrive(place);
    let far = u64::MAX / 4;
    for parcel in &mut world.parcels {
        let (Parcel::Ask { at, .. } | Parcel::Answer { at, .. }) = parcel;
        *at = far;
    }
    world.frontends[0].fills.values_mut().for_each(|(_, _, sent)| *sent = far);
    // The frontend is away while the product changes.
    world.disconnect(false, 0);
    world.frontends[0].frozen = true;
    let op = order(world);
    world.run_for(700);
    assert_eq!(world.ops[op].progress, Progress::Done);
    // The other catalog restarts: its window begins after the change.
    let window = &mut world.replicas[2].window;
    *window = wire::watch::window::Window::at(window.end());
    world.crash_catalog(1);
    world.catalogs[1].up = true;
    world.run_for(700);
    world.frontends[0].frozen = false;
    world.connect(false, 0, 1);
    world.run_for(250);
    let place = world.parcels.iter().position(|parcel| matches!(parcel, Parcel::Answer { .. }));
    world.arrive(place.expect("the old answer"));
    world.query(0, 0);
}
