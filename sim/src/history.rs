//! The requests of the customers and their answers: the evidence for the checker.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::command::Side;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use parking_lot::Mutex;

/// An order that a customer wants, under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedOrder {
    /// Its key.
    pub key: String,
    /// The product.
    pub name: String,
    /// The quantity.
    pub quantity: u64,
    /// Buy or sell.
    pub side: Side,
}

/// A wanted order, and its outcome.
#[derive(Clone, Debug)]
pub struct RecordedOrder {
    /// The wanted order.
    pub wanted: WantedOrder,
    /// When it was sent first.
    pub began: u64,
    /// When it was answered first, and how. None: never.
    pub answer: Option<DefiniteAnswer>,
}

/// A definite answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefiniteAnswer {
    /// When the answer arrived.
    pub at: u64,
    /// The index at which the order was decided.
    pub index: Index,
    /// The outcome: never itself a repetition.
    pub outcome: Outcome,
}

/// A product as it was shown to a customer.
#[derive(Clone, Debug)]
pub struct ShownProduct {
    /// When the query was sent.
    pub began: u64,
    /// The product.
    pub name: String,
    /// The index as of which it was shown; not marked as stale.
    pub as_of: Index,
    /// The stock in the answer.
    pub stock: ShownStock,
}

/// The stock of a product according to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownStock {
    /// There was no such product.
    NoProduct,
    /// There were exactly this many pieces.
    Exactly(u64),
    /// There were fewer: an order without a key was refused as out of stock.
    FewerThan(u64),
}

/// All the evidence. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct History {
    inner: Arc<Mutex<HistoryState>>,
}

#[derive(Debug, Default)]
struct HistoryState {
    orders: BTreeMap<String, RecordedOrder>,
    shown: Vec<ShownProduct>,
    wrong: Vec<String>,
}

impl History {
    /// Records that an order is about to be sent, maybe not for the first time.
    pub fn note_sent(&self, wanted: &WantedOrder, now: u64) {
        let order = RecordedOrder { wanted: wanted.clone(), began: now, answer: None };
        self.inner.lock().orders.entry(wanted.key.clone()).or_insert(order);
    }

    /// Records a definite answer. The same key must have the same answer each time.
    pub fn note_answer(&self, key: &str, at: u64, index: Index, outcome: Outcome) {
        let (index, outcome) = match outcome {
            Outcome::Repeated { index, first } => (index, *first),
            first => (index, first),
        };
        let mut inner = self.inner.lock();
        let HistoryState { orders, wrong, .. } = &mut *inner;
        let Some(order) = orders.get_mut(key) else { return };
        match &order.answer {
            None => order.answer = Some(DefiniteAnswer { at, index, outcome }),
            Some(answer) if answer.index == index && answer.outcome == outcome => {}
            Some(answer) => wrong.push(format!(
                "key {key} was answered {:?} at {}, and later {outcome:?} at {index}",
                answer.outcome, answer.index
            )),
        }
    }

    /// Records a shown product.
    pub fn shows(&self, shown: ShownProduct) {
        self.inner.lock().shown.push(shown);
    }

    /// Records a violation.
    pub fn is_wrong(&self, what: String) {
        self.inner.lock().wrong.push(what);
    }

    /// Every wanted order.
    pub fn orders(&self) -> Vec<RecordedOrder> {
        self.inner.lock().orders.values().cloned().collect()
    }

    /// Every shown product.
    pub fn shown(&self) -> Vec<ShownProduct> {
        self.inner.lock().shown.clone()
    }

    /// The violations found so far.
    pub fn wrong(&self) -> Vec<String> {
        self.inner.lock().wrong.clone()
    }

    /// The number of orders answered after this moment.
    pub fn answers_after(&self, moment: u64) -> usize {
        let inner = self.inner.lock();
        let answers = inner.orders.values().filter_map(|order| order.answer.as_ref());
        answers.filter(|answer| moment < answer.at).count()
    }
}
