//! A replica whose log went back: an older copy of its data folder, or a log that has lost its end.
//! It must stop, name the command to type, and until then acknowledge nothing and give no vote.

use ground::disk::Crash;
use sim::chaos::Act;
use sim::world::World;

use crate::tales::{self, plan};

/// The fate of the others between the copy and the return.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// The leader leads on.
    Nothing,
    /// The leader dies, and returns only after the replica that went back.
    LeaderDies,
    /// All lose power.
    AllLosePower,
}

/// A follower's folder is copied, the follower runs on, and restarts from the copy. `whole`: with
/// the identity as well.
fn a_follower_goes_back(seed: u64, meanwhile: Meanwhile, whole: bool) {
    let report = tales::tell(plan(seed, 3), move |world: &mut World| {
        world.steps(200 + seed % 37);
        assert!(world.until(3_000, |world| world.leader().is_some()), "a replica leads");
        let (leader, _) = world.leader().unwrap();
        let place = (leader + 1 + usize::try_from(seed % 2).unwrap()) % 3;
        world.act(Act::Crash(Crash::Power, vec![place]));
        let copy = world.replicas()[place].copy();
        world.steps(30);
        world.act(Act::Start(place));
        let back = world.now();
        assert!(
            world.until(5_000, |world| 20 < world.history().answers_after(back + 300)),
            "orders"
        );
        world.act(Act::Crash(Crash::Kill, vec![place]));
        // The others learn how far it had acknowledged.
        world.steps(250);
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::LeaderDies => world.act(Act::Crash(Crash::Kill, vec![leader])),
            Meanwhile::AllLosePower => world.act(Act::Crash(Crash::Power, vec![0, 1, 2])),
        }
        world.go_back(place, &copy, whole);
        world.act(Act::Start(place));
        if matches!(meanwhile, Meanwhile::AllLosePower) {
            (0..3).for_each(|other| world.act(Act::Start(other)));
        }
        let refused = world.until(3_000, |world| !world.refused().is_empty());
        assert!(refused, "{seed} {meanwhile:?} {whole}: the replica was accepted");
        // Restarted, the replica is refused again.
        world.act(Act::Start(place));
        assert!(world.until(3_000, |world| 1 < world.refused().len()), "refused once only");
        world.own_folder(place);
        world.act(Act::Start(place));
        world.act(Act::Start(leader));
        world.steps(100);
    });
    assert_eq!(report.wrong, Vec::<String>::new(), "{seed} {meanwhile:?} {whole}");
}

#[test]
fn an_older_copy_of_a_folder_is_refused_while_the_leader_leads_on() {
    (6_000..6_006).for_each(|seed| a_follower_goes_back(seed, Meanwhile::Nothing, true));
}

#[test]
fn an_older_copy_of_a_folder_is_refused_by_another_leader() {
    (6_100..6_106).for_each(|seed| a_follower_goes_back(seed, Meanwhile::LeaderDies, true));
}

#[test]
fn an_older_copy_of_a_folder_is_refused_after_all_have_lost_power() {
    (6_200..6_206).for_each(|seed| a_follower_goes_back(seed, Meanwhile::AllLosePower, true));
}

#[test]
fn a_log_that_lost_its_end_is_refused_while_the_leader_leads_on() {
    (6_300..6_306).for_each(|seed| a_follower_goes_back(seed, Meanwhile::Nothing, false));
}

#[test]
fn a_log_that_lost_its_end_is_refused_by_another_leader() {
    (6_400..6_406).for_each(|seed| a_follower_goes_back(seed, Meanwhile::LeaderDies, false));
}
