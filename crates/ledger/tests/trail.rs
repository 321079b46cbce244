//! The audit trail in the ledger: operators' actions, and the certificates that requests came with.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has found something"
)]

mod kit;

use kit::{bears, keyed, opening, plain};
use ledger::api_key::Actor;
use ledger::audit::Auditor;
use ledger::block::Block;
use ledger::certificate_actor::{ActorRole, CERTIFICATE_NAME_BYTES_MAX, CertificateActor};
use ledger::codec::bulk::{BULK_VERSION, Encoded};
use ledger::command::{Batch, Command, Request};
use ledger::ledger::{Ledger, Windows};
use ledger::operator_action::{OperatorAction, REPLICA_ADDRESS_BYTES_MAX, ReplicaAddress};
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::terms::{Index, Timestamp};

const DONE: Outcome = Outcome::Accepted(Accepted::Done);

fn operator(name: &str) -> CertificateActor {
    CertificateActor::new(ActorRole::Operator, name).unwrap()
}

/// The request of an operator.
fn of(name: &str, request: Request) -> Request {
    Request { certificate: Some(operator(name)), ..request }
}

fn action(action: OperatorAction) -> Command {
    Command::OperatorAction(action)
}

fn apply(ledger: &mut Ledger, requests: &[Request]) -> (Vec<Outcome>, Block) {
    let batch = Batch { at: Timestamp(9), settled: Index(0), requests: requests.to_vec() };
    let entry = ledger.apply_entry(ledger.applied().next(), 1, &batch);
    (entry.outcomes, entry.block.unwrap().block())
}

#[test]
fn an_action_changes_nothing_but_the_history_and_its_repetition_is_known() {
    let mut ledger = Ledger::new(Windows::default());
    let remove = action(OperatorAction::RemoveReplica { id: 7 });
    let (before, _) = apply(&mut ledger, &[of("anna", plain(remove.clone()))]);
    assert_eq!(before, [DONE], "a store in trouble need not be open");
    apply(&mut ledger, &[plain(opening())]);
    let state = ledger.state();
    let (outcomes, block) = apply(
        &mut ledger,
        &[
            of("anna", keyed("k", remove.clone())),
            of("anna", keyed("k", remove)),
            of("anna", keyed("k", action(OperatorAction::Repair { id: 7 }))),
        ],
    );
    assert_eq!(outcomes[0], DONE);
    assert_eq!(outcomes[1], Outcome::Repeated { index: Index(3), first: Box::new(DONE) });
    assert_eq!(outcomes[2], Outcome::Refused(Refusal::KeyReused));
    let after = ledger.state();
    assert_eq!((after.products, after.access), (state.products, state.access));
    assert_eq!(after.next_order_number, state.next_order_number);
    assert_eq!(block.records[0].request.certificate, Some(operator("anna")));
}

/// The same operator with a renewed certificate, or a colleague, may repeat a request.
#[test]
fn a_certificate_decides_nothing_and_owns_no_idempotency_key() {
    let mut ledger = Ledger::new(Windows::default());
    apply(&mut ledger, &[plain(opening())]);
    let order = keyed("k", bears(1));
    let (outcomes, block) =
        apply(&mut ledger, &[of("anna", order.clone()), of("ben", order.clone()), order]);
    assert!(matches!(outcomes[0], Outcome::Accepted(Accepted::Placed(_))), "{outcomes:?}");
    for repeated in &outcomes[1..] {
        assert!(matches!(repeated, Outcome::Repeated { .. }), "{outcomes:?}");
    }
    let owners: Vec<_> = block.orders().map(|order| order.principal).collect();
    assert_eq!(owners, [""], "a certificate is no principal");
}

/// A record says who asked, so a forged name must break the chain.
#[test]
fn the_auditor_accepts_a_trail_and_no_other() {
    let mut ledger = Ledger::new(Windows::default());
    let transfer = action(OperatorAction::TransferLead { to: 7 });
    let requests = [plain(opening()), of("anna", keyed("k", transfer))];
    let (_, block) = apply(&mut ledger, &requests);
    let audit = |block: &Block| Auditor::new(Windows::default()).read(block);
    assert_eq!(audit(&block), Ok(()));
    let forge = |forgery: fn(&mut Block)| {
        let mut forged = block.clone();
        forgery(&mut forged);
        audit(&forged).unwrap_err().to_string()
    };
    let other_name = forge(|block| block.records[1].request.certificate = Some(operator("ben")));
    assert!(other_name.starts_with("digest"), "{other_name}");
    let no_name = forge(|block| block.records[1].request.certificate = None);
    assert!(no_name.starts_with("digest"), "{no_name}");
    let refused = forge(|block| {
        block.records[1].outcome = Outcome::Refused(Refusal::NotOpen);
        block.header.digest = block.compute_digest();
    });
    assert!(refused.starts_with("rules"), "{refused}");
}

/// A frontend writes the bytes of its orders itself: it must not write an operator into them.
#[test]
fn a_bulk_of_a_frontend_names_no_certificate() {
    let bytes = |request: &Request| {
        let mut bytes = vec![BULK_VERSION];
        request.encode_to(&mut bytes);
        bytes
    };
    let order = keyed("k", bears(1));
    assert!(Encoded::open(bytes(&order), 1).is_ok());
    let forged = Encoded::open(bytes(&of("anna", order)), 1);
    assert_eq!(forged.unwrap_err().to_string(), "certificate out of range");
}

#[test]
fn a_holder_of_a_certificate_is_no_api_key_and_no_free_text() {
    assert_eq!(operator("anna").to_string(), "operator anna");
    assert_eq!(Actor::parse("operator anna"), None);
    let named = |name: &str| CertificateActor::new(ActorRole::Catalog, name);
    assert!(named(&"a".repeat(CERTIFICATE_NAME_BYTES_MAX)).is_some());
    for odd in ["", "Anna", "a b", "a/b", "a\n", "ä", &"a".repeat(CERTIFICATE_NAME_BYTES_MAX + 1)]
    {
        assert_eq!(named(odd), None, "{odd:?}");
    }
    assert!(ReplicaAddress::new(&"a".repeat(REPLICA_ADDRESS_BYTES_MAX)).is_some());
    for odd in ["", "a b:1", "\u{1b}[31m:1", "ä:1", &"a".repeat(REPLICA_ADDRESS_BYTES_MAX + 1)] {
        assert_eq!(ReplicaAddress::new(odd), None, "{odd:?}");
    }
}

/// Kind: bytes that no replica wrote.
#[test]
fn hostile_bytes_of_certificates_and_actions_are_refused() {
    let request = of("anna", plain(action(OperatorAction::RemoveReplica { id: 7 })));
    let batch = Batch { at: Timestamp(9), settled: Index(0), requests: vec![request] };
    let sound = batch.encode();
    // After the head of 21 bytes: the first byte of the request, role, length, name; after the
    // deadline of 8 bytes: the command and the action.
    let (first, role, length, name, tag) = (21, 22, 23, 24, 36);
    assert_eq!(sound[first..first + 8], *b"\x04\x01\x04anna\0");
    assert_eq!(sound[tag..tag + 2], [11, 2]);
    for (place, odd) in [
        (first, 3),
        (first, 7),
        (first, 8),
        (first, 0x84),
        (role, 0),
        (role, 3),
        (length, 0),
        (length, 3),
        (length, 255),
        (name, b'A'),
        (name, b'/'),
        (name, 0xff),
        (tag, 12),
        (tag, 13),
        (tag + 1, 0),
        (tag + 1, 1),
        (tag + 1, 7),
    ] {
        let mut bytes = sound.clone();
        bytes[place] = odd;
        assert!(Batch::decode(&bytes).is_err(), "{odd} at {place}");
        let mut ledger = Ledger::new(Windows::default());
        assert!(ledger.apply_bytes(Index(1), 1, &bytes).is_err(), "{odd} at {place}");
    }
}
