//! Answers that wait: whatever reveals the state at an index is given once that index is settled.
//!
//! An acceptance, a refusal, the answer to a repeated key, a look-up: each tells its reader
//! something that no other reader may contradict afterwards. So each waits until every attached
//! catalog has seen the index it reveals. Answers are held by index and released together.

use std::collections::BTreeMap;

use ledger::terms::Index;
use wire::watch::rules::{Mutant, Rules};

/// Holds answers of kind `T` until they may be given.
#[derive(Debug)]
pub struct Acknowledger<T> {
    rules: Rules,
    settled: Index,
    held: BTreeMap<Index, Vec<T>>,
}

/// How an answer reveals the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reveals {
    /// A request was accepted.
    Acceptance,
    /// A request was refused.
    Refusal,
    /// A key had its answer already; the index is that of the first decision.
    Repetition,
    /// An order, or a product, as of an index.
    Reading,
}

impl<T> Acknowledger<T> {
    /// Nothing held, everything up to `settled` may be told.
    pub fn new(settled: Index, rules: Rules) -> Self {
        Self { rules, settled, held: BTreeMap::new() }
    }

    /// Gives the answer back when it may be given at once, or holds it.
    pub fn hold(&mut self, reveals: Reveals, index: Index, answer: T) -> Option<T> {
        let early = match reveals {
            Reveals::Acceptance => Mutant::AcceptedEarly,
            Reveals::Refusal => Mutant::RefusedEarly,
            Reveals::Repetition => Mutant::RepeatedEarly,
            Reveals::Reading => Mutant::LookupEarly,
        };
        if index <= self.settled || self.rules.broken(early) {
            return Some(answer);
        }
        self.held.entry(index).or_default().push(answer);
        None
    }

    /// Everything up to `settled` may be told: these answers were waiting for it, oldest first.
    pub fn settle(&mut self, settled: Index) -> Vec<T> {
        if settled <= self.settled {
            return Vec::new();
        }
        self.settled = settled;
        let later = self.held.split_off(&settled.next());
        let due = std::mem::replace(&mut self.held, later);
        due.into_values().flatten().collect()
    }

    /// Everything up to here may be told.
    pub fn settled(&self) -> Index {
        self.settled
    }

    /// How many answers are held.
    pub fn held(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    /// Gives up all that is held: this replica leads no more, and their askers ask elsewhere.
    pub fn release(&mut self) -> Vec<T> {
        std::mem::take(&mut self.held).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_waits_until_its_index_is_settled() {
        let mut desk = Acknowledger::new(Index(4), Rules::default());
        assert_eq!(desk.hold(Reveals::Refusal, Index(4), "old"), Some("old"));
        assert_eq!(desk.hold(Reveals::Acceptance, Index(6), "six"), None);
        assert_eq!(desk.hold(Reveals::Reading, Index(5), "five"), None);
        assert_eq!(desk.settle(Index(5)), ["five"]);
        assert_eq!(desk.settle(Index(3)), Vec::<&str>::new(), "settled never goes back");
        assert_eq!(desk.held(), 1);
        assert_eq!(desk.settle(Index(9)), ["six"]);
    }
}
