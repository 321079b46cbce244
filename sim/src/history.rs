//! What customers asked and what they were told: the evidence.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::command::Side;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use parking_lot::Mutex;

/// An order somebody wants, under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its key.
    pub key: String,
    /// The product.
    pub name: String,
    /// How many.
    pub quantity: u64,
    /// Which way.
    pub side: Side,
}

/// A wish, and what became of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The wish.
    pub wish: Wish,
    /// When it was asked first.
    pub began: u64,
    /// When it was answered first, and how. None: it was not.
    pub told: Option<Told>,
}

/// A definite answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When it came.
    pub at: u64,
    /// The index at which it was decided.
    pub index: Index,
    /// What was decided: never itself a repetition.
    pub outcome: Outcome,
}

/// A product as somebody was shown it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// When it was asked for.
    pub began: u64,
    /// The product.
    pub name: String,
    /// As of this index; not marked as stale.
    pub as_of: Index,
    /// What was said of its stock.
    pub stock: Stock,
}

/// What an answer says of a product's stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    /// There was no such product.
    NoProduct,
    /// There were exactly this many pieces.
    Exactly(u64),
    /// There were fewer: an order without a key was refused for want of them.
    FewerThan(u64),
}

/// All the evidence. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct History {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    asked: BTreeMap<String, Asked>,
    shown: Vec<Shown>,
    wrong: Vec<String>,
}

impl History {
    /// A wish is about to be asked for, maybe not for the first time.
    pub fn asks(&self, wish: &Wish, now: u64) {
        let asked = Asked { wish: wish.clone(), began: now, told: None };
        self.inner.lock().asked.entry(wish.key.clone()).or_insert(asked);
    }

    /// A definite answer came. The same key must have the same answer each time.
    pub fn told(&self, key: &str, at: u64, index: Index, outcome: Outcome) {
        let (index, outcome) = match outcome {
            Outcome::Repeated { index, first } => (index, *first),
            first => (index, first),
        };
        let mut inner = self.inner.lock();
        let Inner { asked, wrong, .. } = &mut *inner;
        let Some(asked) = asked.get_mut(key) else { return };
        match &asked.told {
            None => asked.told = Some(Told { at, index, outcome }),
            Some(told) if told.index == index && told.outcome == outcome => {}
            Some(told) => wrong.push(format!(
                "key {key} was answered {:?} at {}, and later {outcome:?} at {index}",
                told.outcome, told.index
            )),
        }
    }

    /// A product was shown.
    pub fn shows(&self, shown: Shown) {
        self.inner.lock().shown.push(shown);
    }

    /// Something that must not be.
    pub fn is_wrong(&self, what: String) {
        self.inner.lock().wrong.push(what);
    }

    /// Every wish.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner.lock().asked.values().cloned().collect()
    }

    /// Everything shown.
    pub fn shown(&self) -> Vec<Shown> {
        self.inner.lock().shown.clone()
    }

    /// What is known to be wrong already.
    pub fn wrong(&self) -> Vec<String> {
        self.inner.lock().wrong.clone()
    }

    /// How many wishes were answered after this moment.
    pub fn told_after(&self, moment: u64) -> usize {
        let inner = self.inner.lock();
        let told = inner.asked.values().filter_map(|asked| asked.told.as_ref());
        told.filter(|told| moment < told.at).count()
    }
}
