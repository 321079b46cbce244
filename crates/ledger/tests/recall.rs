//! Keys that are remembered again: out of few blocks with the help of rolls, or block by block on
//! the way to a state. Either way the ledger is the one that never forgot them. [P4]

#![expect(clippy::unwrap_used, reason = "a test that panics has found something")]

mod kit;

use kit::{Step, WINDOWS, apply, keyed, opening, plain, run, sealed, steps, upgraded_steps};
use ledger::block::Block;
use ledger::ledger::{Ledger, RestoreError};
use ledger::rolls::Rolls;
use ledger::sealed::Sealed;
use ledger::state::{KeysNeeded, State};
use ledger::terms::Index;
use ledger::windows::WindowId;
use proptest::prelude::*;

/// What a replica reads at a start: the blocks with keys that these rolls reach.
fn called(rolls: &Rolls, blocks: &[Block]) -> Vec<Block> {
    let wanted = |block: &&Block| {
        let (index, keyed) = (block.header.index, seal(block).keyed());
        WindowId::ALL.into_iter().any(|id| *keyed.get(id) && rolls.after(id) < index)
    };
    blocks.iter().filter(wanted).cloned().collect()
}

fn seal(block: &Block) -> Sealed {
    Sealed::open(block.encode()).unwrap()
}

/// Both go on alike, whatever comes.
fn go_on_alike(mut one: Ledger, mut two: Ledger, after: &[Step]) -> Result<(), TestCaseError> {
    prop_assert_eq!((one.state(), one.rolls()), (two.state(), two.rolls()));
    for step in after {
        prop_assert_eq!(apply(&mut one, step), apply(&mut two, step), "P4");
        prop_assert_eq!((one.state(), one.rolls()), (two.state(), two.rolls()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_recalled_ledger_goes_on_as_if_nothing_had_been(
        before in upgraded_steps(), after in steps()) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &before);
        let rolls = Rolls::decode(&ledger.rolls().encode()).unwrap();
        let few = sealed(&called(&rolls, &blocks));
        let recalled = Ledger::recall(WINDOWS, ledger.state(), &rolls, few).unwrap();
        let all = Ledger::recall(WINDOWS, ledger.state(), &rolls, sealed(&blocks)).unwrap();
        go_on_alike(ledger.clone(), recalled, &after)?;
        go_on_alike(ledger, all, &after)?;
    }

    #[test]
    fn a_block_that_is_missing_is_missed_when_it_held_a_key(
        steps in upgraded_steps(), which in any::<prop::sample::Index>()
    ) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &steps);
        let rolls = ledger.rolls();
        let mut few = called(&rolls, &blocks);
        prop_assume!(!few.is_empty());
        few.remove(which.index(few.len()));
        match Ledger::recall(WINDOWS, ledger.state(), &rolls, sealed(&few)) {
            // It held no more than a key that came again or was refused: nothing is lost.
            Ok(recalled) => go_on_alike(ledger, recalled, &[])?,
            Err(error) => prop_assert_eq!(error, RestoreError::Keys(ledger.applied())),
        }
    }

    #[test]
    fn a_ledger_that_catches_up_goes_on_as_if_it_had_never_been_away(
        steps in upgraded_steps(), at in any::<prop::sample::Index>(), after in steps()
    ) {
        let mut away = Ledger::new(WINDOWS);
        let (before, missed) = steps.split_at(at.index(steps.len()));
        run(&mut away, before);
        let mut ledger = away.clone();
        let (_, blocks) = run(&mut ledger, missed);
        let state = ledger.state();
        for block in sealed(&blocks) {
            away.catch_up(&block, state.keys_needed());
            // One that comes again changes nothing.
            away.catch_up(&block, state.keys_needed());
        }
        prop_assert_eq!(away.near(&state).unwrap(), ledger.rolls());
        let last = blocks.last().map(|block| block.header.index);
        prop_assert_eq!(away.is_ahead(), Some(state.keys_after) < last);
        away.arrive(Ledger::forgetful(state));
        prop_assert!(!away.is_ahead());
        go_on_alike(ledger, away, &after)?;
    }
}

/// A ledger that remembers the keys of ann, bob and cid, and its blocks.
fn three_keys() -> (Ledger, Vec<Block>) {
    let step = |requests| Step::new(3, requests);
    let orders = ["ann", "bob", "cid"].map(|who| step(vec![keyed(who, kit::bears(1))]));
    let mut ledger = Ledger::new(WINDOWS);
    run(&mut ledger, &[step(vec![plain(opening())])]);
    let (_, blocks) = run(&mut ledger, &orders);
    (ledger, blocks)
}

/// Rolls speak of what is remembered: of other keys, another answer or another place, they say so.
#[test]
fn rolls_tell_whether_it_is_the_same_that_is_remembered() {
    let (ledger, blocks) = three_keys();
    let (state, rolls) = (ledger.state(), ledger.rolls());
    assert_eq!((rolls.windows.clients.keys, rolls.windows.frontends.keys), (3, 0));
    let recall = |blocks: &[Block], rolls: &Rolls| {
        Ledger::recall(WINDOWS, state.clone(), rolls, sealed(blocks))
    };
    assert!(recall(&blocks, &rolls).is_ok());
    let error = |blocks: &[Block]| recall(blocks, &rolls).unwrap_err();
    let [ann, bob, cid] = blocks.as_slice() else { panic!("{} blocks", blocks.len()) };
    let keys = RestoreError::Keys(ledger.applied());
    assert_eq!(error(&[ann.clone(), cid.clone()]), keys);
    let back = [ann.clone(), cid.clone(), bob.clone()];
    assert!(matches!(error(&back), RestoreError::Chain { .. }));
    // The same key with another order's number; the same order at another index.
    let mut other = cid.clone();
    other.records.clone_from(&bob.records);
    other.header.digest = other.reckon();
    assert_eq!(error(&[ann.clone(), bob.clone(), other]), keys);
    let mut later = cid.clone();
    later.header.index = later.header.index.next();
    later.header.digest = later.reckon();
    assert_eq!(error(&[ann.clone(), bob.clone(), later]), keys);
    let mut wrong = rolls;
    wrong.windows.clients.sum ^= 1;
    assert_eq!(recall(&blocks, &wrong).unwrap_err(), keys);
}

/// What it takes to fill the windows of this ledger, after another index.
fn needed(ledger: &Ledger, after: Index) -> KeysNeeded {
    KeysNeeded { after, ..ledger.state().keys_needed() }
}

/// On the way to a state without the blocks that lead there, a ledger does not arrive.
#[test]
fn a_ledger_does_not_arrive_without_the_keys_of_its_state() {
    let (ledger, blocks) = three_keys();
    let mut away = Ledger::new(WINDOWS);
    let state = ledger.state();
    away.catch_up(&seal(blocks.last().unwrap()), needed(&ledger, Index(0)));
    assert_eq!(away.near(&state).unwrap_err(), RestoreError::Keys(ledger.applied()));
}

/// Rolls of another moment say nothing of this state, even if they are those of the keys found.
#[test]
fn rolls_of_another_state_are_not_believed() {
    let (ledger, blocks) = three_keys();
    let rolls = ledger.rolls();
    let later = State { applied: ledger.applied().next(), ..ledger.state() };
    let recalled = Ledger::recall(WINDOWS, later.clone(), &rolls, sealed(&blocks));
    assert_eq!(recalled.unwrap_err(), RestoreError::Keys(later.applied));
}

#[test]
#[should_panic(expected = "on the way to a state")]
fn nothing_is_applied_on_the_way_to_a_state() {
    let (mut ledger, blocks) = three_keys();
    let mut next = blocks.last().unwrap().clone();
    next.header.index = next.header.index.next();
    next.header.digest = next.reckon();
    let needed = needed(&ledger, Index(0));
    ledger.catch_up(&seal(&next), needed);
    ledger.skip_entry(next.header.index);
}
