//! Answers that wait: an answer that reveals the state at an index leaves once that index is
//! settled.
//!
//! An acceptance, a refusal, the answer to a repeated key and a look-up each show a client a state
//! that no other client may contradict afterwards. So each answer waits until every attached
//! catalog has seen the index it reveals. Answers are held by index and released together.

use std::collections::BTreeMap;

use ledger::terms::Index;
use wire::watch::rules::Rules;

/// Holds answers of kind `T` until their index is settled.
#[derive(Debug)]
pub struct Acknowledger<T> {
    pub(super) rules: Rules,
    pub(super) settled: Index,
    held: BTreeMap<Index, Vec<T>>,
}

/// How an answer reveals the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reveals {
    /// A request was accepted.
    Acceptance,
    /// A request was refused.
    Refusal,
    /// The key was answered before; the index is that of the first decision.
    Repetition,
    /// An order, or a product, as of an index.
    Reading,
}

impl<T> Acknowledger<T> {
    /// Starts with no answer held; answers up to `settled` pass at once.
    pub fn new(settled: Index, rules: Rules) -> Self {
        Self { rules, settled, held: BTreeMap::new() }
    }

    /// Returns the answer when its index is settled, or holds it.
    pub fn hold(&mut self, reveals: Reveals, index: Index, answer: T) -> Option<T> {
        if self.may_leave(reveals, index) {
            return Some(answer);
        }
        self.held.entry(index).or_default().push(answer);
        None
    }

    /// Raises the settled index; returns the answers that waited for it, oldest first.
    pub fn settle(&mut self, settled: Index) -> Vec<T> {
        if settled <= self.settled {
            return Vec::new();
        }
        self.settled = settled;
        let later = self.held.split_off(&settled.next());
        let due = std::mem::replace(&mut self.held, later);
        due.into_values().flatten().collect()
    }

    /// Answers up to this index pass at once.
    pub fn settled(&self) -> Index {
        self.settled
    }

    /// How many answers are held.
    pub fn held(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    /// Gives up all held answers: this replica leads no more, and their clients ask another
    /// replica.
    pub fn release(&mut self) -> Vec<T> {
        std::mem::take(&mut self.held).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_waits_until_its_index_is_settled() {
        let mut acknowledger = Acknowledger::new(Index(4), Rules::default());
        assert_eq!(acknowledger.hold(Reveals::Refusal, Index(4), "old"), Some("old"));
        assert_eq!(acknowledger.hold(Reveals::Acceptance, Index(6), "six"), None);
        assert_eq!(acknowledger.hold(Reveals::Reading, Index(5), "five"), None);
        assert_eq!(acknowledger.settle(Index(5)), ["five"]);
        assert_eq!(acknowledger.settle(Index(3)), Vec::<&str>::new(), "settled never goes back");
        assert_eq!(acknowledger.held(), 1);
        assert_eq!(acknowledger.settle(Index(9)), ["six"]);
    }
}
