//! Windows of principals: all of them share a limit, and each keeps its fair share of it. [P4]

#![expect(clippy::unwrap_used, reason = "a test that panics has found something")]
#![expect(clippy::arithmetic_side_effects, reason = "these numbers are small")]

mod kit;

use kit::{PRINCIPALS, Step, WINDOWS, apply, blocks_to_recall, opening, plain, sealed};
use ledger::access::PRINCIPALS_MAX;
use ledger::api_key::{Actor, Principal};
use ledger::block::Block;
use ledger::command::{Command, Line, Request, Side};
use ledger::key_summary::KeySummary;
use ledger::ledger::{Ledger, Windows};
use ledger::outcome::Outcome;
use ledger::restore::Restoring;
use ledger::state::State;
use ledger::terms::Name;
use ledger::windows::{PerAnswer, PerOwner};
use proptest::collection::vec;
use proptest::prelude::*;

/// A principal's order with a key. It sells a bear, or something that the shop does not know.
fn order(who: usize, key: u64, refused: bool) -> Request {
    let name = Name::new(if refused { "unicorn" } else { "bear" }).unwrap();
    let lines = vec![Line { name, quantity: kit::pieces(1), side: Side::Sell }];
    kit::sent_by(who, &key.to_string(), Command::Place(lines))
}

/// A shop in which each principal has an API key.
fn shop(windows: Windows) -> (Ledger, Vec<Block>) {
    let mut ledger = Ledger::new(windows);
    let keys = (1..PRINCIPALS.len()).map(kit::issue);
    let first = Step::new(3, std::iter::once(plain(opening())).chain(keys).collect());
    let block = apply(&mut ledger, &first).block.unwrap().block();
    (ledger, vec![block])
}

/// Whether each order was decided now, not repeated.
fn decided(ledger: &mut Ledger, orders: Vec<Request>) -> Vec<bool> {
    let outcomes = apply(ledger, &Step::new(2, orders)).outcomes;
    outcomes.iter().map(|outcome| !matches!(outcome, Outcome::Repeated { .. })).collect()
}

fn accepted(ledger: &Ledger, who: &str) -> u64 {
    ledger.key_counts().principals.get(who).map_or(0, |counts| counts.accepted)
}

#[test]
fn a_principal_with_no_more_than_its_share_loses_no_key_to_another() {
    let (mut ledger, _) = shop(WINDOWS);
    // Six keys fit: a third of them is ant's share.
    let own = vec![order(1, 1, false), order(1, 2, false)];
    decided(&mut ledger, own.clone());
    for key in 0..100 {
        decided(&mut ledger, vec![order(2, key, false), order(3, key, false)]);
    }
    assert_eq!(decided(&mut ledger, own), [false, false]);
    let counts = ["ant", "bee", "cat"].map(|who| accepted(&ledger, who));
    assert_eq!(counts, [2, 2, 2]);
}

#[test]
fn a_principal_alone_has_all_room_and_gives_it_up_when_others_come() {
    let (mut ledger, _) = shop(WINDOWS);
    decided(&mut ledger, (0..9).map(|key| order(1, key, false)).collect());
    assert_eq!(accepted(&ledger, "ant"), 6);
    assert_eq!(decided(&mut ledger, vec![order(1, 3, false), order(1, 8, false)]), [false; 2]);
    decided(&mut ledger, (0..3).map(|key| order(2, key, false)).collect());
    assert_eq!((accepted(&ledger, "ant"), accepted(&ledger, "bee")), (3, 3));
    // Of two with the most, the last in name order gives up a key.
    decided(&mut ledger, vec![order(0, 0, false)]);
    assert_eq!((accepted(&ledger, "ant"), accepted(&ledger, "bee")), (3, 2));
    assert_eq!(ledger.key_counts().shared.clients, 1);
}

#[test]
fn a_flood_of_one_principals_refusals_pushes_out_only_its_refusals() {
    let (mut ledger, _) = shop(WINDOWS);
    let others = vec![order(1, 1, false), order(1, 2, true), order(2, 1, false)];
    decided(&mut ledger, others.clone());
    decided(&mut ledger, (10..500).map(|key| order(2, key, true)).collect());
    assert_eq!(decided(&mut ledger, others), [false; 3]);
    let refused = |who| ledger.key_counts().principals.get(who).map(|counts| counts.refused);
    assert_eq!((refused("ant"), refused("bee")), (Some(1), Some(2)));
}

/// Two thousand names without an API key are met, then a principal in one chunk with another name:
/// its key stays in its own windows, as on a replica that has met none of them.
#[test]
fn names_without_keys_make_room_and_take_no_window_away() {
    let (mut ledger, _) = shop(WINDOWS);
    let stranger = |number: usize| {
        let actor = Actor::parse(&format!("x{number}/0000000{}", number % 10)).unwrap();
        let request = order(0, 1, false);
        Request { key: request.key.map(|key| key.sent_by(Some(actor))), ..request }
    };
    apply(&mut ledger, &Step::new(2, (0..2 * PRINCIPALS_MAX - 1).map(stranger).collect()));
    let mut fresh = ledger.clone();
    let requests = vec![order(1, 1, false), stranger(9_999), order(2, 1, false)];
    apply(&mut ledger, &Step::new(2, requests.clone()));
    assert_eq!((accepted(&ledger, "ant"), accepted(&ledger, "bee")), (1, 1));
    assert_eq!(ledger.key_counts().shared.clients, 0);
    let (_, restoring) = Restoring::from_ledger(shop(WINDOWS).0, fresh.state());
    fresh = restoring.finish_with(sealed(&[])).unwrap();
    apply(&mut fresh, &Step::new(2, requests));
    assert_eq!((fresh.state(), fresh.key_summary()), (ledger.state(), ledger.key_summary()));
    let again = vec![order(1, 1, false), order(2, 1, false)];
    assert_eq!(decided(&mut ledger, again), [false, false]);
}

/// The remembered answers of one kind: principal, key and log time, oldest first.
#[derive(Default)]
struct Naive(Vec<(usize, u64, u64)>);

impl Naive {
    fn push(&mut self, answer: (usize, u64, u64), most: usize) {
        self.0.push(answer);
        if most < self.0.len() {
            let loser = (0..PRINCIPALS.len()).max_by_key(|who| (self.count(*who), *who)).unwrap();
            let oldest = self.0.iter().position(|(who, ..)| *who == loser).unwrap();
            self.0.remove(oldest);
        }
    }

    fn count(&self, who: usize) -> u64 {
        u64::try_from(self.0.iter().filter(|(own, ..)| *own == who).count()).unwrap()
    }

    fn has(&self, who: usize, key: u64) -> bool {
        self.0.iter().any(|answer| (answer.0, answer.1) == (who, key))
    }
}

/// Both ledgers remember the same, and write the same.
fn equal(one: &Ledger, two: &Ledger) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.state(), two.state());
    prop_assert_eq!(one.key_summary(), two.key_summary());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Four principals against a list of what each is remembered of, with restarts of each kind.
    #[test]
    fn every_replica_forgets_the_same_keys_of_the_same_principals(
        entries in vec((0..12_u64, vec((0..4_usize, 0..9_u64, any::<bool>()), 0..6)), 1..40),
        away in any::<prop::sample::Index>(),
    ) {
        let (mut ledger, mut blocks) = shop(WINDOWS);
        let mut behind = ledger.clone();
        let away = away.index(entries.len());
        let (mut accepted, mut refused) = (Naive::default(), Naive::default());
        for (number, (later, orders)) in entries.iter().enumerate() {
            let requests = orders.iter().map(|(who, key, refused)| {
                order(*who, 2 * key + u64::from(*refused), *refused)
            });
            let entry = apply(&mut ledger, &Step::new(*later, requests.collect()));
            blocks.extend(entry.block.map(|block| block.block()));
            let now = ledger.log_time().0;
            for naive in [&mut accepted, &mut refused] {
                naive.0.retain(|(.., at)| now <= at + WINDOWS.client_age_max_ms);
            }
            for ((who, key, refuses), outcome) in orders.iter().zip(entry.outcomes) {
                let naive = if *refuses { &mut refused } else { &mut accepted };
                let repeated = matches!(outcome, Outcome::Repeated { .. });
                prop_assert_eq!(repeated, naive.has(*who, *key), "P4: {} {}", who, key);
                if !repeated {
                    let most = if *refuses { 3 } else { 6 };
                    naive.push((*who, *key, now), most);
                }
            }
            let mut expected = PerOwner::default();
            expected.shared.clients = accepted.count(0);
            expected.shared.client_refusals = refused.count(0);
            for (who, name) in PRINCIPALS.iter().enumerate().skip(1) {
                let counts =
                    PerAnswer { accepted: accepted.count(who), refused: refused.count(who) };
                if counts != PerAnswer::default() {
                    expected.principals.insert(Principal::new(name).unwrap(), counts);
                }
            }
            prop_assert_eq!(ledger.key_counts(), expected);
            if number == away {
                behind = ledger.clone();
            }
        }
        // A restart with the key summary, one with all blocks, and a replica that catches up.
        let state = State::decode(&ledger.state().encode()).unwrap();
        let summary = KeySummary::decode(&ledger.key_summary().encode()).unwrap();
        let few = sealed(&blocks_to_recall(&summary, &blocks));
        let recalled = Restoring::from_summary(WINDOWS, state.clone(), &summary);
        equal(&recalled.finish_with(few).unwrap(), &ledger)?;
        let kept = sealed(&blocks).into_iter().filter(|block| {
            state.keys_after < block.header().index
        });
        let chained = Restoring::from_chain(WINDOWS, state.clone()).finish_with(kept).unwrap();
        equal(&chained, &ledger)?;
        let applied = behind.applied();
        let missed = sealed(&blocks).into_iter().filter(|block| applied < block.header().index);
        let missed: Vec<_> = missed.collect();
        let (_, restoring) = Restoring::from_ledger(behind, state);
        let mut caught_up = restoring.finish_with(missed).unwrap();
        equal(&caught_up, &ledger)?;
        // What comes next is decided and forgotten alike.
        for key in 100..120 {
            let step = Step::new(2, vec![order(1, key, false), order(2, key, key % 2 == 0)]);
            apply(&mut ledger, &step);
            apply(&mut caught_up, &step);
            equal(&caught_up, &ledger)?;
        }
    }
}
