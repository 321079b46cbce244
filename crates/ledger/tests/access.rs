//! API keys: who may ask for what, from which index on, and whose an idempotency key is.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has found something"
)]

mod kit;

use kit::{WINDOWS, bears, keyed, opening, plain};
use ledger::access::{API_KEYS_MAX, PRINCIPALS_MAX};
use ledger::api_key::{Actor, ApiKeyDigest, ApiKeyId, Principal, Scopes};
use ledger::api_key_text::{ApiKeyText, RANDOM_BYTES};
use ledger::audit::Auditor;
use ledger::block::Block;
use ledger::command::{Batch, Command, NewApiKey, Request};
use ledger::ledger::{Ledger, Windows};
use ledger::operator_action::OperatorAction;
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::restore::Restoring;
use ledger::state::State;
use ledger::terms::{Index, Key, OrderNumber, Origin, Timestamp};

const DONE: Outcome = Outcome::Accepted(Accepted::Done);

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

fn id(number: usize) -> ApiKeyId {
    ApiKeyId::new(format!("{number:08}").as_bytes()).unwrap()
}

fn new_key(number: usize, principal: &str, scopes: &str) -> NewApiKey {
    NewApiKey {
        id: id(number),
        digest: ApiKeyDigest([7; 16]),
        principal: Principal::new(principal).unwrap(),
        scopes: Scopes::parse(scopes).unwrap(),
        ends: None,
        rate: None,
        note: String::new(),
    }
}

fn issue(number: usize, principal: &str, scopes: &str) -> Request {
    plain(Command::IssueApiKey(new_key(number, principal, scopes)))
}

fn revoke(number: usize, ends: Option<u64>) -> Request {
    plain(Command::RevokeApiKey { id: id(number), ends: ends.map(Timestamp) })
}

fn anonymous(scopes: &str) -> Request {
    plain(Command::SetAnonymousScopes(Scopes::parse(scopes).unwrap()))
}

/// The request of an API key, under an idempotency key.
fn by(principal: &str, number: usize, key: &str, command: Command) -> Request {
    let actor = Some(Actor::new(&Principal::new(principal).unwrap(), id(number)));
    let key = Key::new(Origin::Client, key).unwrap().sent_by(actor);
    Request { key: Some(key), deadline: None, certificate: None, command }
}

/// A ledger whose every block is audited.
struct Store {
    ledger: Ledger,
    blocks: Vec<Block>,
    auditor: Auditor,
    at: u64,
}

impl Store {
    fn open() -> Self {
        let windows = Windows::default();
        let (ledger, auditor) = (Ledger::new(windows), Auditor::new(windows));
        let mut store = Self { ledger, blocks: Vec::new(), auditor, at: 10 };
        assert_eq!(store.ask(&plain(opening())), DONE);
        store
    }

    /// A store that is closed, with one API key of webshop.
    fn closed() -> Self {
        let mut store = Self::open();
        assert_eq!(store.ask(&issue(1, "webshop", "storefront")), DONE);
        assert_eq!(store.ask(&anonymous("none")), DONE);
        store
    }

    /// Decides a request in an entry of its own, at the store's time.
    fn ask(&mut self, request: &Request) -> Outcome {
        self.ask_all(std::slice::from_ref(request)).remove(0)
    }

    fn ask_all(&mut self, requests: &[Request]) -> Vec<Outcome> {
        let requests = requests.to_vec();
        let batch = Batch { at: Timestamp(self.at), settled: Index(0), requests };
        let entry = self.ledger.apply_entry(self.ledger.applied().next(), 1, &batch);
        let block = entry.block.unwrap().block();
        self.auditor.read(&block).unwrap();
        self.blocks.push(block);
        entry.outcomes
    }

    fn placed(&self) -> u64 {
        self.ledger.next_order_number().0 - self.ledger.first_order_number().0
    }
}

fn is_placed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Accepted(Accepted::Placed(_)))
}

#[test]
fn an_open_store_needs_no_api_key_and_a_closed_one_does() {
    let mut store = Store::open();
    assert!(is_placed(&store.ask(&keyed("a", bears(1)))));
    assert_eq!(store.ask(&anonymous("query")), DONE);
    assert_eq!(store.ask(&keyed("b", bears(1))), refused(Refusal::NotAuthenticated));
    assert_eq!(store.ask(&anonymous("query,order")), DONE);
    assert!(is_placed(&store.ask(&keyed("b", bears(1)))), "the refusal was not remembered");
}

#[test]
fn an_api_key_decides_nothing_after_its_revocation_not_even_in_the_same_entry() {
    let mut store = Store::closed();
    let order = |key| by("webshop", 1, key, bears(1));
    let outcomes = store.ask_all(&[order("a"), revoke(1, None), order("b"), order("a")]);
    assert!(is_placed(&outcomes[0]));
    assert_eq!(
        outcomes[1..],
        [DONE, refused(Refusal::NotAuthenticated), refused(Refusal::NotAuthenticated)]
    );
    assert_eq!(store.ask(&order("c")), refused(Refusal::NotAuthenticated));
    assert_eq!(store.placed(), 1);
}

#[test]
fn an_api_key_ends_at_its_log_time_and_can_only_be_made_to_end_earlier() {
    let mut store = Store::closed();
    assert_eq!(store.ask(&revoke(1, Some(20))), DONE);
    assert_eq!(store.ask(&revoke(1, Some(30))), Outcome::Accepted(Accepted::Unchanged));
    store.at = 19;
    assert!(is_placed(&store.ask(&by("webshop", 1, "a", bears(1)))));
    store.at = 20;
    let order = by("webshop", 1, "b", bears(1));
    assert_eq!(store.ask(&order), refused(Refusal::NotAuthenticated));
    assert_eq!(store.ask(&revoke(9, None)), refused(Refusal::NoSuchApiKey));
}

#[test]
fn each_command_needs_its_scope_and_no_api_key_opens_shops_or_attaches_catalogs() {
    let product = kit::name(0);
    let price = Command::SetPrice { name: product.clone(), price: kit::cents(5) };
    let restock = Command::RestockBy { name: product, quantity: kit::pieces(5) };
    let commands = [
        (bears(1), "order"),
        (price, "shop"),
        (restock, "shop"),
        (Command::IssueApiKey(new_key(2, "x", "query")), "keys"),
        (Command::RevokeApiKey { id: id(2), ends: None }, "keys"),
        (Command::SetAnonymousScopes(Scopes::NONE), "keys"),
        (Command::OperatorAction(OperatorAction::Repair { id: 7 }), "operate"),
        (Command::Attach { incarnation: 1, name: kit::name(1) }, ""),
        (Command::Detach { incarnation: 1, term: 1 }, ""),
        (opening(), ""),
    ];
    let all = ["query", "order", "order:any", "import", "shop", "monitor", "operate", "keys"];
    for (command, needed) in commands {
        for scope in all {
            let mut store = Store::open();
            let has = if scope == "keys" { "keys,query" } else { scope };
            assert_eq!(store.ask(&issue(1, "webshop", has)), DONE);
            let outcome = store.ask(&by("webshop", 1, "k", command.clone()));
            let is_refused = outcome == refused(Refusal::NotAllowed);
            assert_eq!(is_refused, scope != needed, "{command:?} with {scope}: {outcome:?}");
        }
    }
}

#[test]
fn an_api_key_issues_no_scope_that_it_lacks() {
    let mut store = Store::open();
    assert_eq!(store.ask(&issue(1, "owner", "keys,shop")), DONE);
    let ask = |scopes| by("owner", 1, scopes, Command::IssueApiKey(new_key(2, "helper", scopes)));
    assert_eq!(store.ask(&ask("order")), refused(Refusal::NotAllowed));
    assert_eq!(store.ask(&ask("shop")), DONE);
    let issuer = store.ledger.access().keys[&id(2)].issuer.clone().unwrap();
    assert_eq!(issuer.as_str(), format!("owner/{}", id(1)));
    assert_eq!(store.ask(&issue(2, "x", "query")), refused(Refusal::ApiKeyExists));
    assert_eq!(
        store.ask(&anonymous("keys")),
        refused(Refusal::NotAllowed),
        "without a key no request operates"
    );
}

#[test]
fn an_api_key_of_another_principal_is_unknown() {
    let mut store = Store::closed();
    let foreign = by("other", 1, "a", bears(1));
    assert_eq!(store.ask(&foreign), refused(Refusal::NotAuthenticated));
    let unknown = by("webshop", 5, "a", bears(1));
    assert_eq!(store.ask(&unknown), refused(Refusal::NotAuthenticated));
}

/// One key of one principal has one answer, from each of its API keys. [P4]
#[test]
fn an_idempotency_key_belongs_to_its_principal() {
    let mut store = Store::open();
    for (number, principal) in [(1, "webshop"), (2, "webshop"), (3, "other")] {
        assert_eq!(store.ask(&issue(number, principal, "order")), DONE);
    }
    let first = store.ask(&by("webshop", 1, "k", bears(1)));
    let Outcome::Accepted(Accepted::Placed(number)) = first else { panic!("{first:?}") };
    let again = store.ask(&by("webshop", 2, "k", bears(1)));
    assert!(matches!(again, Outcome::Repeated { .. }), "the other API key of webshop: {again:?}");
    assert_eq!(store.ask(&by("webshop", 2, "k", bears(2))), refused(Refusal::KeyReused));
    for request in [by("other", 3, "k", bears(1)), keyed("k", bears(1))] {
        let outcome = store.ask(&request);
        let placed = matches!(outcome, Outcome::Accepted(Accepted::Placed(n)) if n > number);
        assert!(placed, "the same text of another principal is another key: {outcome:?}");
    }
    let owners: Vec<_> = store.blocks.iter().flat_map(Block::orders).map(|o| o.principal).collect();
    assert_eq!(owners, ["webshop", "other", ""]);
}

/// Kind: the answer of a request that was not even looked at stays with its idempotency key, and
/// the order is never placed.
#[test]
fn a_request_that_was_not_allowed_is_decided_under_the_next_api_key_of_its_principal() {
    let mut store = Store::closed();
    assert_eq!(store.ask(&issue(2, "webshop", "query")), DONE);
    let order = bears(1);
    assert_eq!(store.ask(&by("webshop", 2, "k", order.clone())), refused(Refusal::NotAllowed));
    let unknown = store.ask(&by("webshop", 3, "k", order.clone()));
    assert_eq!(unknown, refused(Refusal::NotAuthenticated));
    assert!(is_placed(&store.ask(&by("webshop", 1, "k", order.clone()))));
    let repeated = store.ask(&by("webshop", 1, "k", order.clone()));
    assert!(matches!(repeated, Outcome::Repeated { .. }), "{repeated:?}");
    assert_eq!(store.ask(&by("webshop", 2, "k", order)), refused(Refusal::NotAllowed));
    assert_eq!(store.placed(), 1);
}

#[test]
fn an_order_is_shown_to_its_principal_and_to_who_may_see_all() {
    let mut store = Store::closed();
    store.ask(&issue(2, "other", "storefront"));
    store.ask(&issue(3, "auditor", "order:any"));
    store.ask(&issue(4, "webshop", "query"));
    let actor = |principal, number| Actor::new(&Principal::new(principal).unwrap(), id(number));
    let access = store.ledger.access().clone();
    let shows = |principal, number| {
        access.shows_orders_of("webshop", Some(&actor(principal, number)), Timestamp(10))
    };
    assert!(shows("webshop", 1) && shows("auditor", 3));
    assert!(!shows("other", 2) && !shows("webshop", 4) && !shows("webshop", 2));
    assert!(!access.shows_orders_of("webshop", None, Timestamp(10)));
    assert!(!access.shows_orders_of("", None, Timestamp(10)), "the store is closed");
    store.ask(&anonymous("order"));
    let access = store.ledger.access();
    assert!(access.shows_orders_of("", None, Timestamp(10)));
    assert!(!access.shows_orders_of("webshop", None, Timestamp(10)));
}

#[test]
fn ten_thousand_api_keys_are_the_most_and_ended_ones_make_room() {
    let mut store = Store::open();
    let all: Vec<_> = (0..API_KEYS_MAX).map(|number| issue(number, "webshop", "order")).collect();
    assert!(store.ask_all(&all).iter().all(|outcome| *outcome == DONE));
    assert_eq!(store.ask(&issue(API_KEYS_MAX, "x", "order")), refused(Refusal::ApiKeysLimit));
    assert_eq!(store.ask(&revoke(3, None)), DONE);
    assert_eq!(store.ask(&issue(API_KEYS_MAX, "x", "order")), DONE);
    let state = State::decode(&store.ledger.state().encode()).unwrap();
    assert_eq!(state.access, *store.ledger.access());
}

#[test]
fn a_thousand_principals_are_the_most_and_those_whose_keys_have_ended_make_room() {
    let mut store = Store::open();
    let all: Vec<_> =
        (0..PRINCIPALS_MAX).map(|n| issue(n, &format!("shop-{n}"), "order")).collect();
    assert!(store.ask_all(&all).iter().all(|outcome| *outcome == DONE));
    assert_eq!(store.ask(&issue(5_000, "x", "order")), refused(Refusal::ApiKeysLimit));
    assert_eq!(store.ask(&issue(5_000, "shop-7", "order")), DONE, "it has windows already");
    assert_eq!(store.ask(&revoke(3, None)), DONE);
    assert_eq!(store.ask(&issue(5_001, "x", "order")), DONE);
    let mut auditor = Auditor::new(Windows::default());
    store.blocks.iter().for_each(|block| auditor.read(block).unwrap());
}

/// A restart forgets no API key, no revocation, and whose each idempotency key is.
#[test]
fn a_restored_ledger_decides_as_before() {
    let mut store = Store::closed();
    store.ask(&issue(2, "other", "order"));
    store.ask(&revoke(2, Some(1_000)));
    store.ask(&by("webshop", 1, "k", bears(1)));
    let state = State::decode(&store.ledger.state().encode()).unwrap();
    let restoring = Restoring::from_chain(Windows::default(), state);
    let blocks =
        store.blocks.iter().map(|b| ledger::block::EncodedBlock::open(b.encode()).unwrap());
    let restored = restoring.finish_with(blocks).unwrap();
    assert_eq!(restored.access(), store.ledger.access());
    for request in [
        by("webshop", 1, "k", bears(1)),
        by("webshop", 1, "k", bears(2)),
        by("other", 2, "k", bears(1)),
        keyed("k", bears(1)),
    ] {
        let index = store.ledger.applied().next();
        let mut other = restored.clone();
        let mut before = store.ledger.clone();
        let outcome = other.apply(index, Timestamp(11), &request).outcome;
        assert_eq!(outcome, before.apply(index, Timestamp(11), &request).outcome, "{request:?}");
    }
}

/// As long as no API key was ever issued, all that is written is what release 0.1 reads.
#[test]
fn a_store_without_api_keys_writes_the_formats_of_release_0_1() {
    let mut store = Store::open();
    store.ask(&keyed("a", bears(1)));
    assert_eq!(store.ledger.state().encode()[0], 2);
    store.ask(&anonymous("query"));
    assert_eq!(store.ledger.state().encode()[0], 3);
}

#[test]
fn the_secret_of_an_api_key_is_never_in_the_ledger() {
    let key = ApiKeyText::new(&[9; RANDOM_BYTES]);
    let mut store = Store::open();
    let new = NewApiKey { id: key.id(), digest: key.digest(), ..new_key(1, "webshop", "order") };
    assert_eq!(store.ask(&plain(Command::IssueApiKey(new))), DONE);
    let secret = &key.reveal().as_bytes()[13..];
    let state = store.ledger.state().encode();
    let blocks: Vec<u8> = store.blocks.iter().flat_map(Block::encode).collect();
    for bytes in [state, blocks] {
        assert!(bytes.windows(secret.len()).all(|window| window != secret));
    }
}

#[test]
fn small_windows_still_remember_per_principal() {
    let mut ledger = Ledger::new(WINDOWS);
    let mut index = Index(0);
    let mut ask = |request: &Request| {
        index = index.next();
        ledger.apply(index, Timestamp(1), request).outcome
    };
    ask(&plain(opening()));
    ask(&issue(1, "webshop", "order"));
    let placed = ask(&by("webshop", 1, "k", bears(1)));
    assert!(matches!(placed, Outcome::Accepted(Accepted::Placed(OrderNumber(_)))));
    assert!(matches!(ask(&by("webshop", 1, "k", bears(1))), Outcome::Repeated { .. }));
}
