//! Refusals push out only keys of refusals: a flood of refused orders, which costs no stock, makes
//! no accepted order be placed twice. [P4]

#![expect(clippy::unwrap_used, reason = "a test that panics has found something")]
#![expect(clippy::arithmetic_side_effects, reason = "these numbers are small")]

mod kit;

use std::collections::BTreeMap;

use kit::{Step, WINDOWS, apply, bears, keyed, open_steps, opening, plain};
use ledger::command::{Command, Line, Request, Side};
use ledger::ledger::{Ledger, Windows};
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::terms::{Key, Name, Origin, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

/// Orders of a product that does not exist, each with a key of its own.
fn flood(step: usize, count: usize, origin: Origin) -> impl Iterator<Item = Request> {
    (0..count).map(move |number| {
        let name = Name::new("unicorn").unwrap();
        let line = Line { name, quantity: kit::pieces(1), side: Side::Buy };
        let key = Key::new(origin, &format!("flood-{step}-{number}"));
        Request { key, ..plain(Command::Place(vec![line])) }
    })
}

/// Answers that changed the shop: how many of them the origin had before, and the log time.
type Effects = BTreeMap<Key, (usize, Timestamp)>;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// A key whose answer changed the shop keeps that answer until its age limit, or until its
    /// window is full of later answers of its origin that *changed the shop*.
    #[test]
    fn an_accepted_key_is_pushed_out_by_accepted_keys_alone(
        steps in open_steps(), floods in vec((0..9_usize, any::<bool>()), 20)
    ) {
        let mut ledger = Ledger::new(WINDOWS);
        let mut effects = Effects::new();
        let mut counts = BTreeMap::from([(Origin::Client, 0_usize), (Origin::Frontend, 0)]);
        for (number, (step, (count, client))) in steps.iter().zip(floods).enumerate() {
            let origin = if client { Origin::Client } else { Origin::Frontend };
            // Several principals share the limits: tests/principals.rs.
            let requests = step.requests.clone().into_iter().map(|request| Request {
                key: request.key.map(|key| key.sent_by(None)),
                ..request
            });
            let requests = flood(number, count, origin).chain(requests);
            let step = Step { requests: requests.collect(), ..step.clone() };
            let outcomes = apply(&mut ledger, &step).outcomes;
            let now = ledger.log_time();
            for (request, outcome) in step.requests.iter().zip(outcomes) {
                let Some(key) = &request.key else { continue };
                // What its sender may not ask for is not looked up.
                if matches!(&outcome, Outcome::Refused(refusal) if refusal.is_about_rights()) {
                    continue;
                }
                let (most, age) = match key.origin {
                    Origin::Client => (WINDOWS.client_keys_max, WINDOWS.client_age_max_ms),
                    Origin::Frontend => (WINDOWS.frontend_keys_max, WINDOWS.frontend_age_max_ms),
                };
                let count = counts.get_mut(&key.origin).unwrap();
                let remembered = effects.get(key).is_some_and(|(before, at)| {
                    *count - before <= most && now.0 <= at.0 + age
                });
                let again = matches!(
                    outcome, Outcome::Repeated { .. } | Outcome::Refused(Refusal::KeyReused)
                );
                prop_assert!(again || !remembered, "{key:?} was forgotten: {outcome:?}");
                let done = matches!(
                    outcome, Outcome::Accepted(Accepted::Placed(_) | Accepted::Done)
                );
                if done {
                    effects.insert(key.clone(), (*count, now));
                    *count += 1;
                }
            }
        }
    }
}

/// Refused orders in batches of 1,000, of which one client can send two million in seconds. Here
/// they are ten times as many as the window of accepted keys holds.
#[test]
fn a_flood_of_refused_orders_does_not_place_an_order_twice() {
    let windows = Windows { client_keys_max: 2_000, client_refusals_max: 250, ..WINDOWS };
    let mut ledger = Ledger::new(Windows { client_age_max_ms: 1_000, ..windows });
    apply(&mut ledger, &Step::new(3, vec![plain(opening())]));
    let victim = Step::new(3, vec![keyed("victim", bears(1))]);
    let first = apply(&mut ledger, &victim).outcomes;
    for number in 0..20 {
        apply(&mut ledger, &Step::new(3, flood(number, 1_000, Origin::Client).collect()));
    }
    let again = apply(&mut ledger, &victim).outcomes;
    let Some(Outcome::Repeated { first: told, .. }) = again.first() else {
        panic!("the retry got {again:?}")
    };
    assert_eq!(Some(told.as_ref()), first.first());
    let counts = ledger.key_counts().shared;
    assert_eq!((counts.clients, counts.client_refusals), (1, 250));
}
