//! Shared by the random tests: a small shop, random requests, and functions that run a ledger.

#![allow(dead_code, reason = "each test uses a part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has found something"
)]

use ledger::api_key::{Actor, ApiKeyDigest, ApiKeyId, Principal, RequestRate, Scopes};
use ledger::block::{Block, EncodedBlock};
use ledger::certificate_actor::{ActorRole, CertificateActor};
use ledger::codec::BATCH_VERSION;
use ledger::command::{Batch, Command, Definition, Line, NewApiKey, Request, Shop, Side};
use ledger::key_summary::KeySummary;
use ledger::ledger::{Entry, Ledger, Windows};
use ledger::operator_action::{OperatorAction, ReplicaAddress};
use ledger::outcome::Outcome;
use ledger::terms::{
    Cents, Index, Key, LedgerId, Name, ORDER_NUMBER_MAX, OrderNumber, Origin, Quantity, STOCK_MAX,
    Timestamp,
};
use ledger::windows::WindowId;
use proptest::collection::vec;
use proptest::prelude::*;

const NAMES: [&str; 4] = ["bear", "fox", "owl", "whale"];

/// Small windows, so that forgetting keys is tested as well.
pub(crate) const WINDOWS: Windows = Windows {
    client_keys_max: 6,
    client_refusals_max: 3,
    client_age_max_ms: 40,
    frontend_keys_max: 4,
    frontend_refusals_max: 2,
    frontend_age_max_ms: 15,
};

/// An entry before it is applied: its stamp relative to log time, and its content.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) later: u64,
    pub(crate) settled: u64,
    pub(crate) term: u64,
    /// The version of the step's batch.
    pub(crate) version: u8,
    pub(crate) requests: Vec<Request>,
}

impl Step {
    /// A step in term 1, stamped `later` − 2 ms after the last, with a batch of the current
    /// version.
    pub(crate) fn new(later: u64, requests: Vec<Request>) -> Self {
        Self { later, settled: 0, term: 1, version: BATCH_VERSION, requests }
    }

    /// The bytes of this step's batch, after log time `at`.
    pub(crate) fn bytes(&self, at: Timestamp) -> Vec<u8> {
        let mut bytes = self.batch(at).encode();
        bytes[0] = self.version;
        bytes
    }

    /// The batch of this step, after log time `at`. If `later` is below 2, the leader's clock goes
    /// back.
    pub(crate) fn batch(&self, at: Timestamp) -> Batch {
        let at = Timestamp((at.0 + self.later).saturating_sub(2));
        Batch { at, settled: Index(self.settled), requests: self.requests.clone() }
    }
}

/// Bear, fox, owl or whale; the shop opens with the first two.
pub(crate) fn name(number: usize) -> Name {
    Name::new(NAMES[number]).unwrap()
}

pub(crate) fn cents(cents: u64) -> Cents {
    Cents::new(cents).unwrap()
}

pub(crate) fn pieces(pieces: u64) -> Quantity {
    Quantity::new(pieces).unwrap()
}

pub(crate) fn plain(command: Command) -> Request {
    Request { key: None, deadline: None, certificate: None, command }
}

pub(crate) fn keyed(text: &str, command: Command) -> Request {
    Request { key: Key::new(Origin::Client, text), ..plain(command) }
}

/// In name order; the empty one has no API key.
pub(crate) const PRINCIPALS: [&str; 4] = ["", "ant", "bee", "cat"];

fn actor(who: usize) -> Option<Actor> {
    let principal = Principal::new(PRINCIPALS[who])?;
    Some(Actor::new(&principal, ApiKeyId::new(format!("0000000{who}").as_bytes())?))
}

/// Issues the API key of one of the [`PRINCIPALS`].
pub(crate) fn issue(who: usize) -> Request {
    let actor = actor(who).unwrap();
    let id = actor.id().unwrap();
    let principal = Principal::new(actor.principal()).unwrap();
    let (digest, scopes, note) = (ApiKeyDigest([7; 16]), Scopes::ORDER, String::new());
    plain(Command::IssueApiKey(NewApiKey {
        id,
        digest,
        principal,
        scopes,
        ends: None,
        rate: None,
        note,
    }))
}

/// A command with an idempotency key, from one of the [`PRINCIPALS`].
pub(crate) fn sent_by(who: usize, key: &str, command: Command) -> Request {
    let key = Key::new(Origin::Client, key).unwrap().sent_by(actor(who));
    Request { key: Some(key), ..plain(command) }
}

/// An order of `count` bears in one line.
pub(crate) fn bears(count: u64) -> Command {
    Command::Place(vec![Line { name: name(0), quantity: pieces(count), side: Side::Buy }])
}

pub(crate) fn product(name: Name, stock: u64) -> Definition {
    Definition { name, price: cents(100), stock, restock_to: None }
}

/// Opens the shop with five bears and five foxes; the first order has the number 3.
pub(crate) fn opening() -> Command {
    let products = vec![product(name(0), 5), product(name(1), 5)];
    Command::Open(Shop {
        ledger_id: LedgerId([1; 16]),
        first_order_number: OrderNumber(3),
        products,
    })
}

fn line() -> impl Strategy<Value = Line> {
    (0..4_usize, 1..4_u64, any::<bool>()).prop_map(|(number, count, buy)| Line {
        name: name(number),
        quantity: pieces(count),
        side: if buy { Side::Buy } else { Side::Sell },
    })
}

/// One of three API keys.
fn api_key_id() -> impl Strategy<Value = ApiKeyId> {
    (0..3_u8).prop_map(|number| ApiKeyId::new(format!("0000000{number}").as_bytes()).unwrap())
}

/// One of two principals.
fn principal() -> impl Strategy<Value = Principal> {
    any::<bool>().prop_map(|shop| Principal::new(if shop { "shop" } else { "press" }).unwrap())
}

fn scopes() -> impl Strategy<Value = Scopes> {
    let list = prop_oneof![Just("none"), Just("storefront"), Just("owner,keys"), Just("root")];
    list.prop_map(|list| Scopes::parse(list).unwrap())
}

/// A command about API keys.
fn about_api_keys() -> impl Strategy<Value = Command> {
    let ends = || proptest::option::weighted(0.4, (1..90_u64).prop_map(Timestamp));
    let rate = proptest::option::of((1..9_u32, 1..9_u32));
    let rate = rate.prop_map(|rate| rate.and_then(|(rate, burst)| RequestRate::new(rate, burst)));
    let new = (api_key_id(), principal(), scopes(), ends(), rate);
    let anonymous = prop_oneof![4 => Just(Scopes::OPEN), 1 => scopes()];
    prop_oneof![
        4 => new.prop_map(|(id, principal, scopes, ends, rate)| {
            let (digest, note) = (ApiKeyDigest([3; 16]), String::new());
            Command::IssueApiKey(NewApiKey { id, digest, principal, scopes, ends, rate, note })
        }),
        1 => (api_key_id(), ends()).prop_map(|(id, ends)| Command::RevokeApiKey { id, ends }),
        2 => anonymous.prop_map(Command::SetAnonymousScopes),
    ]
}

/// True for the commands that make a state one of version 3.
fn is_newer(command: &Command) -> bool {
    command.is_about_api_keys() || matches!(command, Command::Reopen { .. })
}

/// A new series of order numbers: mostly a little above the numbers given out, or below them.
fn reopen() -> impl Strategy<Value = Command> {
    let next = prop_oneof![8 => 0..60_u64, 1 => ORDER_NUMBER_MAX - 2..ORDER_NUMBER_MAX + 3];
    next.prop_map(|next| Command::Reopen { next_number: OrderNumber(next) })
}

/// Any command; most are orders.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    let any_name = || (0..4_usize).prop_map(name);
    let some = || (1..9_u64).prop_map(pieces);
    let stock = prop_oneof![4 => 0..9_u64, 1 => STOCK_MAX - 3..=STOCK_MAX];
    let restock_to = proptest::option::of(some());
    prop_oneof![
        16 => vec(line(), 1..4).prop_map(Command::Place),
        1 => Just(Command::Place(Vec::new())),
        2 => (any_name(), some()).prop_map(|(n, q)| Command::RestockBy { name: n, quantity: q }),
        2 => (any_name(), some()).prop_map(|(n, q)| Command::RestockTo { name: n, quantity: q }),
        2 => (any_name(), 0..500_u64)
            .prop_map(|(n, price)| Command::SetPrice { name: n, price: cents(price) }),
        2 => (any_name(), stock, restock_to).prop_map(|(name, stock, restock_to)| {
            Command::Define(Definition { restock_to, ..product(name, stock) })
        }),
        1 => (0..3_u64, any_name())
            .prop_map(|(incarnation, name)| Command::Attach { incarnation, name }),
        1 => (0..3_u64, 1..3_u64)
            .prop_map(|(incarnation, term)| Command::Detach { incarnation, term }),
        1 => Just(opening()),
        1 => reopen(),
        3 => about_api_keys(),
        1 => (1..4_u64, operator_action())
            .prop_map(|(id, action)| Command::OperatorAction(action(id))),
    ]
}

fn certificate() -> impl Strategy<Value = CertificateActor> {
    let role = prop_oneof![Just(ActorRole::Operator), Just(ActorRole::Catalog)];
    let name = prop_oneof![Just("anna"), Just("a-1")];
    (role, name).prop_map(|(role, name)| CertificateActor::new(role, name).unwrap())
}

/// An action on some replica.
fn operator_action() -> impl Strategy<Value = fn(u64) -> OperatorAction> {
    let add: fn(u64) -> OperatorAction = |id| {
        let address = ReplicaAddress::new("10.0.0.4:1115").unwrap();
        OperatorAction::AddReplica { id, address }
    };
    let other: [fn(u64) -> OperatorAction; 5] = [
        |id| OperatorAction::RemoveReplica { id },
        |to| OperatorAction::TransferLead { to },
        |id| OperatorAction::Repair { id },
        |id| OperatorAction::Recover { id },
        |id| OperatorAction::Restore { id },
    ];
    prop_oneof![1 => Just(add), 4 => proptest::sample::select(other.to_vec())]
}

/// Any command, often with one of a few keys, sometimes with a deadline.
pub(crate) fn request() -> impl Strategy<Value = Request> {
    let origin = prop_oneof![Just(Origin::Client), Just(Origin::Frontend)];
    let key = proptest::option::of((origin, 0..9_u8));
    let actor = (principal(), api_key_id()).prop_map(|(principal, id)| Actor::new(&principal, id));
    let actor = proptest::option::weighted(0.3, actor);
    let key = (key, actor).prop_map(|(key, actor)| {
        key.map(|(o, n)| Key::new(o, &n.to_string()).unwrap().sent_by(actor))
    });
    let deadline = proptest::option::weighted(0.2, (0..80_u64).prop_map(Timestamp));
    let certificate = proptest::option::weighted(0.2, certificate());
    (key, deadline, certificate, command()).prop_map(|(key, deadline, certificate, command)| {
        Request { key, deadline, certificate, command }
    })
}

/// Entries, in which some requests are repeated, as a client would repeat them.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Most entries are small; a large one exceeds what a ledger prefetches together.
    let requests = prop_oneof![19 => vec(request(), 0..6), 1 => vec(request(), 60..140)];
    let step = (0..9_u64, 0..20_u64, 1..3_u64, requests);
    let again = vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..9);
    (vec(step, 1..20), again).prop_map(|(steps, again)| {
        let step =
            |(later, settled, term, requests)| Step { settled, term, ..Step::new(later, requests) };
        let mut steps: Vec<_> = steps.into_iter().map(step).collect();
        for (from, to) in again {
            let from = &steps[from.index(steps.len())].requests;
            let Some(request) = from.first().cloned() else { continue };
            let to = to.index(steps.len());
            steps[to].requests.push(request);
        }
        steps
    })
}

/// Entries, after one that opens the shop.
pub(crate) fn open_steps() -> impl Strategy<Value = Vec<Step>> {
    steps().prop_map(|steps| {
        let first = Step::new(3, vec![plain(opening())]);
        std::iter::once(first).chain(steps).collect()
    })
}

/// Like [`open_steps`], but a program without windows for refusals wrote the first of them.
pub(crate) fn upgraded_steps() -> impl Strategy<Value = Vec<Step>> {
    (open_steps(), any::<prop::sample::Index>()).prop_map(|(mut steps, first)| {
        let first = first.index(steps.len() + 1);
        for step in steps.iter_mut().take(first) {
            step.version = 1;
            // That program knew no API keys, and no second series.
            step.requests.retain(|request| !is_newer(&request.command));
        }
        steps
    })
}

/// Applies one step.
pub(crate) fn apply(ledger: &mut Ledger, step: &Step) -> Entry {
    let (index, bytes) = (ledger.applied().next(), step.bytes(ledger.log_time()));
    ledger.apply_bytes(index, step.term, &bytes).unwrap()
}

/// Applies every step, and returns all outcomes and all blocks.
pub(crate) fn run(ledger: &mut Ledger, steps: &[Step]) -> (Vec<Outcome>, Vec<Block>) {
    let (mut outcomes, mut blocks) = (Vec::new(), Vec::new());
    for step in steps {
        let entry = apply(ledger, step);
        outcomes.extend(entry.outcomes);
        blocks.extend(entry.block.map(|block| block.block()));
    }
    (outcomes, blocks)
}

/// These blocks as a replica keeps them: encoded.
pub(crate) fn sealed(blocks: &[Block]) -> Vec<EncodedBlock> {
    blocks.iter().map(seal).collect()
}

/// This block as a replica keeps it.
pub(crate) fn seal(block: &Block) -> EncodedBlock {
    EncodedBlock::open(block.encode()).unwrap()
}

/// What a replica reads at a start: the blocks with keys that the key summary locates.
pub(crate) fn blocks_to_recall(summary: &KeySummary, blocks: &[Block]) -> Vec<Block> {
    let wanted = |block: &&Block| {
        let (index, sealed) = (block.header.index, seal(block));
        let keyed = sealed.keyed();
        let principals = keyed.principals.keys().map(Principal::as_str);
        let mut windows = principals
            .chain([""])
            .flat_map(|principal| WindowId::ALL.into_iter().map(move |id| (id, principal)));
        windows.any(|(id, principal)| {
            keyed.get(id, principal) == Some(&true) && summary.after(id, principal) < index
        })
    };
    blocks.iter().filter(wanted).cloned().collect()
}

/// Each product's stock, by name.
pub(crate) fn stocks(ledger: &Ledger) -> Vec<(String, u64)> {
    let products = ledger.products(None, usize::MAX);
    products.into_iter().map(|product| (product.name.to_string(), product.stock)).collect()
}
