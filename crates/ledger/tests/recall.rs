//! Rebuilt keys: from few blocks with a key summary, or block by block while a snapshot is
//! installed. Either way the ledger equals one that never forgot them. [P4]

mod kit;

use kit::{
    Step, WINDOWS, apply, blocks_to_recall, keyed, opening, plain, run, seal, sealed, steps,
    upgraded_steps,
};
use ledger::block::{Block, EncodedBlock};
use ledger::key_summary::KeySummary;
use ledger::ledger::Ledger;
use ledger::restore::{RestoreError, Restoring};
use ledger::state::State;
use proptest::prelude::*;

/// Both ledgers stay equal over all entries that follow.
fn stay_equal(mut one: Ledger, mut two: Ledger, after: &[Step]) -> Result<(), TestCaseError> {
    prop_assert_eq!((one.state(), one.key_summary()), (two.state(), two.key_summary()));
    for step in after {
        prop_assert_eq!(apply(&mut one, step), apply(&mut two, step), "P4");
        prop_assert_eq!((one.state(), one.key_summary()), (two.state(), two.key_summary()));
    }
    Ok(())
}

/// A ledger that is restored with a key summary.
fn recall(
    state: State,
    summary: &KeySummary,
    blocks: Vec<EncodedBlock>,
) -> Result<Ledger, RestoreError> {
    Restoring::from_summary(WINDOWS, state, summary).finish_with(blocks)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_recalled_ledger_stays_equal_to_the_original(
        before in upgraded_steps(), after in steps()) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &before);
        let summary = KeySummary::decode(&ledger.key_summary().encode()).unwrap();
        let few = sealed(&blocks_to_recall(&summary, &blocks));
        let recalled = recall(ledger.state(), &summary, few).unwrap();
        let all = recall(ledger.state(), &summary, sealed(&blocks)).unwrap();
        stay_equal(ledger.clone(), recalled, &after)?;
        stay_equal(ledger, all, &after)?;
    }

    #[test]
    fn a_missing_block_with_a_remembered_key_is_detected(
        steps in upgraded_steps(), which in any::<prop::sample::Index>()
    ) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &steps);
        let summary = ledger.key_summary();
        let mut few = blocks_to_recall(&summary, &blocks);
        prop_assume!(!few.is_empty());
        few.remove(which.index(few.len()));
        match recall(ledger.state(), &summary, sealed(&few)) {
            // The missing block held no key that was still remembered: nothing is lost.
            Ok(recalled) => stay_equal(ledger, recalled, &[])?,
            Err(error) => prop_assert_eq!(error, RestoreError::Keys(ledger.applied())),
        }
    }

    #[test]
    fn a_ledger_that_catches_up_equals_one_that_was_never_behind(
        steps in upgraded_steps(), at in any::<prop::sample::Index>(), after in steps()
    ) {
        let mut away = Ledger::new(WINDOWS);
        let (before, missed) = steps.split_at(at.index(steps.len()));
        run(&mut away, before);
        let mut ledger = away.clone();
        let (_, blocks) = run(&mut ledger, missed);
        let state = ledger.state();
        let (_, mut restoring) = Restoring::from_ledger(away, state);
        for block in sealed(&blocks) {
            restoring.take(&block).unwrap();
            // A block that is taken again is rejected, and changes nothing.
            prop_assert!(restoring.take(&block).is_err());
        }
        let away = restoring.finish().unwrap();
        stay_equal(ledger, away, &after)?;
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

/// A key summary detects other keys, another answer, and another index of an answer.
#[test]
fn a_key_summary_detects_any_difference_in_the_rebuilt_keys() {
    let (ledger, blocks) = three_keys();
    let (state, summary) = (ledger.state(), ledger.key_summary());
    assert_eq!(summary.windows.shared.map(|window| window.keys).clients, 3);
    let recall = |blocks: &[Block], summary: &KeySummary| {
        Restoring::from_summary(WINDOWS, state.clone(), summary).finish_with(sealed(blocks))
    };
    assert!(recall(&blocks, &summary).is_ok());
    let error = |blocks: &[Block]| recall(blocks, &summary).unwrap_err();
    let [ann, bob, cid] = blocks.as_slice() else { panic!("{} blocks", blocks.len()) };
    let keys = RestoreError::Keys(ledger.applied());
    assert_eq!(error(&[ann.clone(), cid.clone()]), keys);
    let back = [ann.clone(), cid.clone(), bob.clone()];
    assert!(matches!(error(&back), RestoreError::Chain { .. }));
    // The same key with another order's number; the same order at another index.
    let mut other = cid.clone();
    other.records.clone_from(&bob.records);
    other.header.digest = other.compute_digest();
    assert_eq!(error(&[ann.clone(), bob.clone(), other]), keys);
    let mut later = cid.clone();
    later.header.index = later.header.index.next();
    later.header.digest = later.compute_digest();
    assert_eq!(error(&[ann.clone(), bob.clone(), later]), keys);
    let mut wrong = summary.clone();
    wrong.windows.shared.clients.sum ^= 1;
    assert_eq!(recall(&blocks, &wrong).unwrap_err(), keys);
}

/// A ledger is not restored to a state without all keys of it.
#[test]
fn a_ledger_is_not_restored_to_a_state_without_its_keys() {
    let (ledger, blocks) = three_keys();
    let (_, mut restoring) = Restoring::from_ledger(Ledger::new(WINDOWS), ledger.state());
    restoring.take(&seal(blocks.last().unwrap())).unwrap();
    assert_eq!(restoring.finish().unwrap_err(), RestoreError::Keys(ledger.applied()));
}

/// A key summary of another index is rejected, even if it matches the keys that were found.
#[test]
fn a_key_summary_of_another_state_is_rejected() {
    let (ledger, blocks) = three_keys();
    let summary = ledger.key_summary();
    let later = State { applied: ledger.applied().next(), ..ledger.state() };
    let recalled =
        Restoring::from_summary(WINDOWS, later.clone(), &summary).finish_with(sealed(&blocks));
    assert_eq!(recalled.unwrap_err(), RestoreError::Keys(later.applied));
}
