//! Bulks: every bulk that passes the check can be applied, even if its sender is faulty.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "likewise")]

use ledger::api_key::Actor;
use ledger::codec::bulk::{Bulk, Draft, Encoded, entry, read_outcomes, write_outcomes};
use ledger::command::{Batch, Command, Line, Request, Side};
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::terms::{Index, Key, Name, OrderNumber, Origin, Quantity, Timestamp};
use proptest::prelude::*;

/// The values of one order.
type Values = (bool, String, u64, String, u64, bool);

fn values() -> impl Strategy<Value = Values> {
    (any::<bool>(), "[!-~]{1,255}", 0..9_u64, "[a-z é]{1,60}", 1..1_000_001_u64, any::<bool>())
}

fn request((client, key, deadline, name, quantity, buy): &Values) -> Request {
    let origin = if *client { Origin::Client } else { Origin::Frontend };
    let line = Line {
        name: Name::new(name).unwrap(),
        quantity: Quantity::new(*quantity).unwrap(),
        side: if *buy { Side::Buy } else { Side::Sell },
    };
    Request {
        key: Key::new(origin, key),
        deadline: Some(Timestamp(*deadline)).filter(|deadline| deadline.0 != 0),
        certificate: None,
        command: Command::Place(vec![line]),
    }
}

fn bulk(requests: &[Request]) -> Vec<u8> {
    let mut bulk = Bulk::with_room(requests.len());
    for Request { key, deadline, command, .. } in requests {
        let (Some(key), Command::Place(lines)) = (key, command) else { panic!("no order") };
        let Line { name, quantity, side } = &lines[0];
        bulk.push(&Draft {
            origin: key.origin,
            actor: key.actor.as_ref().map_or("", Actor::as_str),
            key: key.text(),
            deadline: *deadline,
            name: name.as_str(),
            quantity: *quantity,
            side: *side,
        });
    }
    bulk.into_bytes()
}

proptest! {
    #[test]
    fn orders_written_as_bytes_are_the_requests_of_an_entry(
        orders in prop::collection::vec(values(), 1..20), alone in values(),
    ) {
        let requests: Vec<_> = orders.iter().map(request).collect();
        let bytes = bulk(&requests);
        prop_assert!(Encoded::open(&bytes, requests.len() + 1).is_err());
        prop_assert!(Encoded::open(&bytes, requests.len() - 1).is_err());
        let orders = Encoded::open(bytes, requests.len()).unwrap();
        prop_assert_eq!(orders.count(), requests.len());
        let alone = request(&alone);
        let parts = [Encoded::one(&alone), orders, Encoded::one(&alone)];
        let whole = entry(Timestamp(7), Index(3), parts.iter());
        let expected: Vec<_> =
            [&alone].into_iter().chain(&requests).chain([&alone]).cloned().collect();
        let batch = Batch { at: Timestamp(7), settled: Index(3), requests: expected };
        prop_assert_eq!(&whole, &batch.encode());
        prop_assert_eq!(Batch::decode(&whole), Ok(batch));
    }

    /// Random damage is rejected by the check, or the bulk can still be applied: never a third
    /// case.
    #[test]
    fn every_bulk_that_passes_the_check_can_be_decoded(
        orders in prop::collection::vec(values(), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        times in 1..3_usize,
    ) {
        // Orders equal to the order before them take another path in the decoder.
        let orders = orders.iter().flat_map(|order| std::iter::repeat_n(order, times));
        let requests: Vec<_> = orders.map(request).collect();
        let mut bytes = bulk(&requests);
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(orders) = Encoded::open(bytes, requests.len()) {
            let whole = entry(Timestamp(0), Index(0), [orders].iter());
            let batch = Batch::decode(&whole);
            prop_assert!(batch.is_ok(), "{batch:?}");
            prop_assert_eq!(batch.unwrap().encode(), whole);
        }
    }

    #[test]
    fn random_bytes_are_rejected_or_are_outcomes(
        bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0..9_usize,
    ) {
        // In either case the call must not panic.
        if let Ok(outcomes) = read_outcomes(&bytes, count) {
            prop_assert_eq!(write_outcomes(&outcomes), bytes);
        }
    }
}

#[test]
fn outcomes_are_decoded_as_they_were_encoded() {
    let refused = Outcome::Refused(Refusal::OutOfStock(Name::new("fox").unwrap()));
    let outcomes = [
        Outcome::Accepted(Accepted::Placed(OrderNumber(7))),
        refused.clone(),
        Outcome::Repeated { index: Index(4), first: Box::new(refused) },
    ];
    let bytes = write_outcomes(&outcomes);
    assert_eq!(read_outcomes(&bytes, 3).unwrap(), outcomes);
    assert!(read_outcomes(&bytes, 2).is_err(), "an outcome is left over");
    assert!(read_outcomes(&bytes, 4).is_err(), "an outcome is missing");
}

#[test]
fn the_layout_of_version_1_never_changes() {
    let order = (true, "k".to_owned(), 5, "fox".to_owned(), 2, true);
    let bytes = bulk(&[request(&order)]);
    let expected = [
        &[1, 1, 0, 1, b'k', 5, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0][..],
        b"fox",
    ];
    assert_eq!(bytes, expected.concat());
    let outcome = Outcome::Accepted(Accepted::Placed(OrderNumber(9)));
    assert_eq!(write_outcomes(&[outcome]), [1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
}
