//! Random requests: the ledger against a naive ledger, and against itself.
//!
//! The naive ledger has no optimization: vectors and ordered maps, and a copy of all products
//! before an order is tried. It shares only types with the real ledger.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has found something"
)]

mod kit;

use std::collections::BTreeMap;

use kit::upgraded_steps;
use kit::{Step, WINDOWS, apply, bears, open_steps, opening, plain, run, sealed, steps};
use ledger::api_key::{Actor, Scopes};
use ledger::block::{Block, EncodedBlock};
use ledger::command::{Batch, Command, Request, Side};
use ledger::ledger::Ledger;
use ledger::outcome::Refusal as No;
use ledger::outcome::{Accepted, Outcome};
use ledger::restore::{RestoreError, Restoring};
use ledger::state::State;
use ledger::terms::{Index, Key, Name, ORDER_NUMBER_MAX, OrderNumber, Origin, STOCK_MAX};
use proptest::prelude::*;

#[derive(Default)]
struct Naive {
    open: bool,
    index: u64,
    term: u64,
    now: u64,
    next: u64,
    /// Price, stock, and the index of the last change.
    products: Products,
    attached: BTreeMap<u64, Name>,
    rights: Rights,
    /// Answers that changed nothing are counted separately.
    separate: bool,
    /// Key, command, index, log time, outcome; oldest first.
    answered: Vec<(Key, Command, u64, u64, Outcome)>,
}

fn is_about_rights(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(No::NotAuthenticated | No::NotAllowed))
}

/// Who may do what: each API key's principal, scopes and end.
#[derive(Default)]
struct Rights {
    keys: BTreeMap<String, (String, Scopes, u64)>,
    /// Without an API key: `None` as in an open store.
    anonymous: Option<Scopes>,
}

impl Rights {
    fn check(&self, request: &Request, now: u64) -> Result<(), No> {
        let needed = match &request.command {
            Command::Place(_) => Scopes::ORDER,
            Command::Define(_)
            | Command::SetPrice { .. }
            | Command::RestockBy { .. }
            | Command::RestockTo { .. } => Scopes::SHOP,
            Command::IssueApiKey(_)
            | Command::RevokeApiKey { .. }
            | Command::SetAnonymousScopes(_) => Scopes::KEYS,
            Command::OperatorAction(_) => Scopes::OPERATE,
            Command::Open(_)
            | Command::Attach { .. }
            | Command::Detach { .. }
            | Command::Reopen { .. } => {
                let actor = request.key.as_ref().and_then(|key| key.actor.as_ref());
                let Some(actor) = actor else { return Ok(()) };
                return Err(self.of(actor, now).map_or(No::NotAuthenticated, |_| No::NotAllowed));
            }
        };
        match request.key.as_ref().and_then(|key| key.actor.as_ref()) {
            Some(actor) => match self.of(actor, now) {
                Some(scopes) if scopes.contain(needed) => Ok(()),
                Some(_) => Err(No::NotAllowed),
                None => Err(No::NotAuthenticated),
            },
            None if needed != Scopes::ORDER => Ok(()),
            None if self.anonymous.is_none_or(|scopes| scopes.contain(needed)) => Ok(()),
            None => Err(No::NotAuthenticated),
        }
    }

    fn of(&self, actor: &Actor, now: u64) -> Option<Scopes> {
        let (principal, id) = actor.as_str().split_once('/')?;
        let (owner, scopes, ends) = self.keys.get(id)?;
        (owner == principal && now < *ends).then_some(*scopes)
    }

    /// `None`: the command changes no right.
    fn change(&mut self, request: &Request, now: u64) -> Option<Result<Accepted, No>> {
        Some(match &request.command {
            Command::IssueApiKey(new) => {
                let actor = request.key.as_ref().and_then(|key| key.actor.as_ref());
                let lacks = |own: Scopes| !own.contain(new.scopes);
                if actor.and_then(|actor| self.of(actor, now)).is_some_and(lacks) {
                    Err(No::NotAllowed)
                } else if self.keys.contains_key(new.id.as_str()) {
                    Err(No::ApiKeyExists)
                } else {
                    let ends = new.ends.map_or(u64::MAX, |ends| ends.0);
                    let key = (new.principal.to_string(), new.scopes, ends);
                    self.keys.insert(new.id.to_string(), key);
                    Ok(Accepted::Done)
                }
            }
            Command::RevokeApiKey { id, ends } => match self.keys.get_mut(id.as_str()) {
                None => Err(No::NoSuchApiKey),
                Some((.., known)) => {
                    let ends = ends.map_or(now, |ends| ends.0.max(now));
                    let earlier = ends < *known;
                    *known = ends.min(*known);
                    Ok(if earlier { Accepted::Done } else { Accepted::Unchanged })
                }
            },
            Command::SetAnonymousScopes(scopes) if scopes.contain(Scopes::KEYS) => {
                Err(No::NotAllowed)
            }
            Command::SetAnonymousScopes(scopes) => {
                let before = self.anonymous.replace(*scopes).unwrap_or(Scopes::OPEN);
                Ok(if before == *scopes { Accepted::Unchanged } else { Accepted::Done })
            }
            _ => return None,
        })
    }
}

impl Naive {
    fn apply(&mut self, request: &Request) -> Outcome {
        let (now, command) = (self.now, &request.command);
        let age = |origin| if origin == Origin::Client { 40 } else { 15 };
        self.answered.retain(|(key, _, _, at, _)| now <= at + age(key.origin));
        if let Err(refusal) = self.rights.check(request, now) {
            return Outcome::Refused(refusal);
        }
        let same = |key: &Key, other: &Key| {
            (key.origin, key.principal(), key.text())
                == (other.origin, other.principal(), other.text())
        };
        let own = request.key.as_ref();
        let mut known =
            self.answered.iter().filter(|(key, ..)| own.is_some_and(|own| same(own, key)));
        match known.next() {
            Some((_, other, ..)) if other != command => return Outcome::Refused(No::KeyReused),
            Some((_, _, index, _, first)) => {
                let (index, first) = (Index(*index), Box::new(first.clone()));
                return Outcome::Repeated { index, first };
            }
            None => {}
        }
        if request.deadline.is_some_and(|deadline| deadline.0 != 0 && deadline.0 < now) {
            return Outcome::Refused(No::Late);
        }
        let done = self.rights.change(request, now).unwrap_or_else(|| self.perform(command));
        let outcome = done.map_or_else(Outcome::Refused, Outcome::Accepted);
        if let Some(key) = request.key.as_ref().filter(|_| !is_about_rights(&outcome)) {
            self.answered.push((key.clone(), command.clone(), self.index, now, outcome.clone()));
            self.forget();
        }
        outcome
    }

    /// Forgets answers beyond the limit of each kind. Of clients, the principal with the most
    /// answers loses its oldest; of several, the last in name order.
    fn forget(&mut self) {
        for (origin, refused, most) in [
            (Origin::Client, false, 6),
            (Origin::Client, true, 3),
            (Origin::Frontend, false, 4),
            (Origin::Frontend, true, 2),
        ] {
            loop {
                let is_one = |(key, .., outcome): &(Key, Command, u64, u64, Outcome)| {
                    let none = matches!(
                        outcome,
                        Outcome::Refused(_) | Outcome::Accepted(Accepted::Unchanged)
                    );
                    key.origin == origin && (self.separate && none) == refused
                };
                let owner = |key: &Key| match origin {
                    Origin::Client => key.principal().to_owned(),
                    Origin::Frontend => String::new(),
                };
                let mut counts = BTreeMap::<String, usize>::new();
                for (key, ..) in self.answered.iter().filter(|answer| is_one(answer)) {
                    *counts.entry(owner(key)).or_default() += 1;
                }
                if counts.values().sum::<usize>() <= most {
                    break;
                }
                let (loser, _) = counts.iter().max_by_key(|(who, count)| (**count, *who)).unwrap();
                let is_lost = |answer: &_| is_one(answer) && owner(&answer.0) == *loser;
                let oldest = self.answered.iter().position(is_lost).unwrap();
                self.answered.remove(oldest);
            }
        }
    }

    fn reopen(&mut self, first: u64) -> Result<Accepted, No> {
        match first {
            _ if !self.open => Err(No::NotOpen),
            _ if ORDER_NUMBER_MAX < first => Err(No::NumbersExhausted),
            _ if first <= self.next => Ok(Accepted::Unchanged),
            _ => {
                self.next = first;
                Ok(Accepted::Done)
            }
        }
    }

    fn perform(&mut self, command: &Command) -> Result<Accepted, No> {
        let index = self.index;
        match command {
            Command::Open(_) if self.open => return Ok(Accepted::Unchanged),
            Command::Open(shop) => {
                (self.open, self.next) = (true, shop.first_order_number.0);
                for new in &shop.products {
                    self.products.insert(new.name.clone(), (new.price.get(), new.stock, index));
                }
            }
            Command::Attach { incarnation, name } => match self.attached.get(incarnation) {
                Some(_) => return Ok(Accepted::Unchanged),
                None => drop(self.attached.insert(*incarnation, name.clone())),
            },
            Command::Detach { term, .. } if *term != self.term => return Ok(Accepted::Unchanged),
            Command::Detach { incarnation, .. } => match self.attached.remove(incarnation) {
                Some(_) => {}
                None => return Ok(Accepted::Unchanged),
            },
            Command::IssueApiKey(_)
            | Command::RevokeApiKey { .. }
            | Command::SetAnonymousScopes(_) => unreachable!("they change rights"),
            Command::OperatorAction(_) => {}
            Command::Reopen { next_number } => return self.reopen(next_number.0),
            _ if !self.open => return Err(No::NotOpen),
            Command::Define(new) if self.products.contains_key(&new.name) => {
                return Err(No::ProductExists(new.name.clone()));
            }
            Command::Define(new) => {
                let product = (new.price.get(), limited(&new.name, new.stock)?, index);
                self.products.insert(new.name.clone(), product);
            }
            Command::SetPrice { name, price } => {
                let product = find(&mut self.products, name)?;
                (product.0, product.2) = (price.get(), index);
            }
            Command::RestockBy { name, quantity } => {
                let product = find(&mut self.products, name)?;
                (product.1, product.2) = (limited(name, product.1 + quantity.get())?, index);
            }
            Command::RestockTo { name, quantity } => match find(&mut self.products, name)? {
                (_, stock @ 0, version) => (*stock, *version) = (quantity.get(), index),
                _ => return Ok(Accepted::Unchanged),
            },
            Command::Place(_) if ORDER_NUMBER_MAX < self.next => return Err(No::NumbersExhausted),
            Command::Place(lines) if lines.is_empty() => return Err(No::LinesOutOfRange),
            Command::Place(lines) => {
                let mut after = self.products.clone();
                lines.iter().try_for_each(|line| find(&mut after, &line.name).map(drop))?;
                for line in lines {
                    let (name, pieces) = (&line.name, line.quantity.get());
                    let product = find(&mut after, name)?;
                    (product.1, product.2) = match (line.side, product.1.checked_sub(pieces)) {
                        (Side::Sell, _) => (limited(name, product.1 + pieces)?, index),
                        (Side::Buy, Some(left)) => (left, index),
                        (Side::Buy, None) => return Err(No::OutOfStock(name.clone())),
                    };
                }
                self.products = after;
                self.next += 1;
                return Ok(Accepted::Placed(OrderNumber(self.next - 1)));
            }
        }
        Ok(Accepted::Done)
    }
}

type Products = BTreeMap<Name, (u64, u64, u64)>;

fn find<'a>(products: &'a mut Products, name: &Name) -> Result<&'a mut (u64, u64, u64), No> {
    products.get_mut(name).ok_or_else(|| No::NoSuchProduct(name.clone()))
}

fn limited(name: &Name, stock: u64) -> Result<u64, No> {
    if stock <= STOCK_MAX { Ok(stock) } else { Err(No::StockLimit(name.clone())) }
}

/// The real ledger's products, as the naive ledger has them.
fn products(ledger: &Ledger) -> Products {
    let all = ledger.products(None, usize::MAX).into_iter();
    all.map(|p| (p.name, (p.price.get(), p.stock, p.version.0))).collect()
}

/// A ledger that is restored from all these blocks.
fn restored(state: State, blocks: Vec<EncodedBlock>) -> Result<Ledger, RestoreError> {
    Restoring::from_chain(WINDOWS, state).finish_with(blocks)
}

/// What a replica keeps: its state and the blocks that hold its keys, encoded and decoded.
fn kept(ledger: &Ledger, blocks: &[Block]) -> (State, Vec<Block>) {
    let state = State::decode(&ledger.state().encode()).unwrap();
    let after = state.keys_after;
    let blocks = blocks.iter().filter(|block| after < block.header.index);
    (state, blocks.map(|block| Block::decode(&block.encode()).unwrap()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// After every entry, outcomes, products and numbers equal those of the naive ledger. [P2, P3,
    /// P4]
    #[test]
    fn the_ledger_agrees_with_the_naive_one(
        steps in prop_oneof![4 => upgraded_steps(), 1 => steps()]
    ) {
        let (mut ledger, mut naive) = (Ledger::new(WINDOWS), Naive::default());
        let mut settled = 0;
        for step in &steps {
            naive.now = naive.now.max(step.batch(ledger.log_time()).at.0);
            let entry = apply(&mut ledger, step);
            (naive.index, naive.term) = (ledger.applied().0, step.term);
            if step.version == 2 {
                naive.separate = true;
                naive.forget();
            }
            let expected: Vec<_> = step.requests.iter().map(|r| naive.apply(r)).collect();
            prop_assert_eq!(&entry.outcomes, &expected, "P4");
            prop_assert_eq!(products(&ledger), naive.products.clone(), "P2");
            for product in ledger.products(None, usize::MAX) {
                let audited = ledger.audited(product.name.as_str()).unwrap();
                prop_assert!(audited.is_conserved(), "P2 at {}", naive.index);
            }
            prop_assert_eq!(ledger.next_order_number().0, naive.next, "P3");
            prop_assert_eq!(ledger.log_time().0, naive.now);
            settled = settled.max(step.settled);
            prop_assert_eq!(ledger.settled().0, settled);
            let attached: BTreeMap<_, _> =
                ledger.attached().map(|(who, name)| (who, name.clone())).collect();
            prop_assert_eq!(&attached, &naive.attached);
            // Watchers receive each product that this entry changed, and no other.
            let changed = ledger.products(None, usize::MAX).into_iter();
            let changed: Vec<_> = changed.filter(|p| p.version == ledger.applied()).collect();
            prop_assert_eq!(entry.changes, changed);
        }
    }

    /// A batch has the same effect as it was built and as it was decoded from the log.
    #[test]
    fn a_replica_that_reads_the_log_holds_the_same_ledger(steps in open_steps()) {
        let (mut asked, mut read) = (Ledger::new(WINDOWS), Ledger::new(WINDOWS));
        for step in &steps {
            let index = asked.applied().next();
            let batch = step.batch(asked.log_time());
            let written = Batch::decode(&batch.encode()).unwrap();
            let one = asked.apply_entry(index, step.term, &batch);
            let two = read.apply_entry(index, step.term, &written);
            prop_assert_eq!(one.outcomes, two.outcomes);
            prop_assert_eq!(one.changes, two.changes);
            prop_assert_eq!(&one.block, &two.block);
            let again = one.block.as_ref().map(|block| block.block().encode());
            prop_assert_eq!(again.as_ref(), two.block.as_ref().map(EncodedBlock::bytes));
            prop_assert_eq!(asked.digest(), read.digest());
            prop_assert_eq!(asked.state(), read.state());
        }
    }

    /// The grouping of requests into entries changes neither stock nor numbers as long as time
    /// stands still. It changes the digest.
    #[test]
    fn requests_have_the_same_effect_in_one_entry_or_in_many(steps in open_steps()) {
        let requests: Vec<_> = steps.iter().flat_map(|step| step.requests.clone()).collect();
        let step = |requests| Step::new(2, requests);
        let (mut one, mut many) = (Ledger::new(WINDOWS), Ledger::new(WINDOWS));
        run(&mut one, &[step(requests.clone())]);
        let still = |step: Step, nth: usize| Step { later: if nth == 0 { 2 } else { 0 }, ..step };
        let each = requests.iter().enumerate().map(|(nth, r)| still(step(vec![r.clone()]), nth));
        run(&mut many, &each.collect::<Vec<_>>());
        prop_assert_eq!(kit::stocks(&one), kit::stocks(&many));
        prop_assert_eq!(one.next_order_number(), many.next_order_number());
        prop_assert_eq!(one.key_counts(), many.key_counts());
        prop_assert_eq!(one.digest() == many.digest(), requests.len() == 1);
    }

    /// A ledger restored from its bytes stays equal to the one that never stopped. [P4]
    #[test]
    fn a_restored_ledger_stays_equal_to_the_original(
        before in upgraded_steps(), after in steps()
    ) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &before);
        let (state, blocks) = kept(&ledger, &blocks);
        let mut restored = restored(state, sealed(&blocks)).unwrap();
        prop_assert_eq!(restored.key_counts(), ledger.key_counts());
        prop_assert_eq!(restored.state(), ledger.state());
        for step in &after {
            let (one, two) = (apply(&mut ledger, step), apply(&mut restored, step));
            prop_assert_eq!(one, two);
            prop_assert_eq!(ledger.state(), restored.state());
        }
    }

    /// A replay of the blocks alone gives the same blocks and the same state, but for the settled
    /// index: a store is restored from a backup in this way.
    #[test]
    fn a_replay_of_the_blocks_gives_the_same_ledger(steps in open_steps()) {
        let (mut ledger, mut replayed) = (Ledger::new(WINDOWS), Ledger::new(WINDOWS));
        let (_, blocks) = run(&mut ledger, &steps);
        for block in sealed(&blocks) {
            let header = *block.header();
            let entry = replayed.apply_bytes(header.index, header.term, &block.batch()).unwrap();
            prop_assert_eq!(entry.block.as_ref(), Some(&block));
            prop_assert_eq!(replayed.next_order_number(), block.next_order_number());
        }
        let expected = ledger.state();
        if replayed.applied() < expected.applied {
            // Entries without requests have no block.
            let (at, settled) = (expected.at, expected.settled);
            let batch = Batch { at, settled, requests: Vec::new() };
            replayed.apply_entry(expected.applied, 1, &batch);
        }
        prop_assert_eq!(State { settled: expected.settled, ..replayed.state() }, expected);
    }

    /// A state and blocks that do not belong together are rejected.
    #[test]
    fn a_ledger_is_not_restored_from_blocks_that_are_not_its_own(
        steps in open_steps(), which in any::<prop::sample::Index>()
    ) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &steps);
        let (state, blocks) = kept(&ledger, &blocks);
        prop_assume!(!blocks.is_empty());
        let mut fewer = blocks.clone();
        fewer.remove(which.index(blocks.len()));
        prop_assert!(restored(state.clone(), sealed(&fewer)).is_err());
        let mut twice = blocks.clone();
        twice.insert(which.index(blocks.len()), blocks[which.index(blocks.len())].clone());
        let chain = restored(state.clone(), sealed(&twice)).unwrap_err();
        prop_assert!(matches!(chain, RestoreError::Chain { .. }), "{}", chain);
        // An index goes back, although every digest fits.
        let mut back = blocks.clone();
        let last = back.len() - 1;
        if 0 < last {
            back[last].header.index = back[last - 1].header.index;
            back[last].header.digest = back[last].compute_digest();
            let state = State { digest: back[last].header.digest, ..state.clone() };
            let chain = restored(state, sealed(&back)).unwrap_err();
            prop_assert!(matches!(chain, RestoreError::Chain { .. }), "{}", chain);
        }
        let older = State { digest: blocks[0].header.previous, ..state };
        prop_assert!(restored(older, sealed(&blocks)).is_err());
    }
}

/// Equal requests in equal entries give equal digests; in other entries, another digest.
#[test]
fn the_digest_depends_on_requests_and_entries() {
    let step = |requests| Step::new(0, requests);
    let digest = |steps: &[Step]| {
        let mut ledger = Ledger::new(WINDOWS);
        run(&mut ledger, &[step(vec![plain(opening())])]);
        run(&mut ledger, steps);
        ledger.digest()
    };
    let (one, two) = (plain(bears(1)), plain(bears(2)));
    let together = digest(&[step(vec![one.clone(), two.clone()])]);
    assert_eq!(together, digest(&[step(vec![one.clone(), two.clone()])]));
    assert_ne!(together, digest(&[step(vec![two.clone(), one.clone()])]));
    assert_ne!(together, digest(&[step(vec![one.clone()]), step(vec![two.clone()])]));
    assert_ne!(together, digest(&[Step { term: 2, ..step(vec![one.clone(), two.clone()]) }]));
    assert_ne!(together, digest(&[Step { later: 9, ..step(vec![one.clone(), two.clone()]) }]));
    // Another index, since an entry without requests was applied before.
    assert_ne!(together, digest(&[step(Vec::new()), step(vec![one, two])]));
}
