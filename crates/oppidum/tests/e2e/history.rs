//! The history checker: is the set of all answers strictly serializable? Decided by sorting.
//!
//! Each order buys one piece and answers with its index, and nothing else changes stock. So when
//! all orders are known, the stock of a product at every index is known, and a quantity shown to a
//! client gives the index from which it is true. No search is needed: an answer stands at its
//! index, and no query sent after a client learned of an index may be answered from before that
//! index.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct RecordedAnswer {
    pub(crate) sent_at: Instant,
    pub(crate) answered: Instant,
    pub(crate) product: &'static str,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// An order of one piece, placed at this index, with this number.
    Placed { index: u64, number: u64 },
    /// A query: the quantity in stock that it showed.
    Shown { quantity: u64 },
}

/// Every answer that any client received. Shared by all clients.
#[derive(Debug, Default)]
pub(crate) struct History {
    answers: Mutex<Vec<RecordedAnswer>>,
    /// Acknowledged orders: key, body, number.
    keys: Mutex<Vec<(String, String, u64)>>,
}

impl History {
    pub(crate) fn record(&self, answer: RecordedAnswer) {
        self.answers.lock().unwrap().push(answer);
    }

    /// An order was acknowledged under this key.
    pub(crate) fn keep(&self, key: String, body: String, number: u64) {
        self.keys.lock().unwrap().push((key, body, number));
    }

    /// Every acknowledged order: key, body, number.
    pub(crate) fn keys(&self) -> Vec<(String, String, u64)> {
        self.keys.lock().unwrap().clone()
    }

    /// The acknowledged order of this place, counted in circles: key, body, number.
    pub(crate) fn key(&self, place: usize) -> Option<(String, String, u64)> {
        let keys = self.keys.lock().unwrap();
        keys.get(place.checked_rem(keys.len())?).cloned()
    }

    /// The last acknowledged order.
    pub(crate) fn newest_key(&self) -> Option<(String, String, u64)> {
        self.keys.lock().unwrap().last().cloned()
    }

    /// How long the orders took, from the first try to the answer; the shortest first.
    pub(crate) fn order_times(&self) -> Vec<Duration> {
        let answers = self.answers.lock().unwrap();
        let placed = answers.iter().filter(|answer| matches!(answer.what, What::Placed { .. }));
        let mut times: Vec<_> = placed.map(|it| it.answered.duration_since(it.sent_at)).collect();
        times.sort_unstable();
        times
    }

    /// The numbers of all acknowledged orders.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let answers = self.answers.lock().unwrap();
        let number = |answer: &RecordedAnswer| match answer.what {
            What::Placed { number, .. } => Some(number),
            What::Shown { .. } => None,
        };
        answers.iter().filter_map(number).collect()
    }

    /// The longest time without an acknowledged order that ended after `since`.
    pub(crate) fn longest_gap(&self, since: Instant) -> Duration {
        let answers = self.answers.lock().unwrap();
        let placed = answers.iter().filter(|answer| matches!(answer.what, What::Placed { .. }));
        let mut times: Vec<Instant> = placed.map(|answer| answer.answered).collect();
        times.sort_unstable();
        let first = times.partition_point(|at| *at < since).saturating_sub(1);
        let gaps = times[first..].iter().zip(times[first..].iter().skip(1));
        gaps.map(|(one, next)| next.duration_since(*one)).max().unwrap_or_default()
    }

    /// The number of orders acknowledged so far.
    pub(crate) fn placed(&self) -> usize {
        let answers = self.answers.lock().unwrap();
        answers.iter().filter(|answer| matches!(answer.what, What::Placed { .. })).count()
    }

    /// The number of queries answered so far.
    pub(crate) fn shown(&self) -> usize {
        let answers = self.answers.lock().unwrap();
        answers.iter().filter(|answer| matches!(answer.what, What::Shown { .. })).count()
    }

    /// The first impossible answer; each product began with `stock` pieces.
    pub(crate) fn violation(&self, stock: u64) -> Option<String> {
        let answers = self.answers.lock().unwrap();
        // For each product, the indexes at which one piece was sold, in order.
        let mut sold: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        let mut numbers = Vec::new();
        for answer in answers.iter() {
            if let What::Placed { index, number } = answer.what {
                sold.entry(answer.product).or_default().push(index);
                numbers.push(number);
            }
        }
        for indexes in sold.values_mut() {
            indexes.sort_unstable();
        }
        numbers.sort_unstable();
        let twice = numbers.iter().zip(numbers.iter().skip(1)).find(|(one, next)| one == next);
        if let Some((number, _)) = twice {
            return Some(format!("order {number} was placed twice"));
        }
        let none = Vec::new();
        let of = |product: &str| sold.get(product).unwrap_or(&none);
        // The index that each answer reveals, by the time at which it was given.
        let mut revealed = Vec::new();
        for answer in answers.iter() {
            let index = match answer.what {
                What::Placed { index, .. } => index,
                What::Shown { quantity } => {
                    let sold = usize::try_from(stock - quantity.min(stock)).unwrap();
                    match sold.checked_sub(1).map(|last| of(answer.product).get(last)) {
                        None => 0,
                        Some(Some(index)) => *index,
                        Some(None) => {
                            let product = answer.product;
                            return Some(format!("{quantity} of {product} were never in stock"));
                        }
                    }
                }
            };
            revealed.push((answer.answered, index));
        }
        revealed.sort_unstable();
        let mut greatest = 0;
        for (_, index) in &mut revealed {
            greatest = greatest.max(*index);
            *index = greatest;
        }
        for answer in answers.iter() {
            let What::Shown { quantity } = answer.what else { continue };
            let before = revealed.partition_point(|(at, _)| *at < answer.sent_at);
            let Some((_, known)) = before.checked_sub(1).map(|last| revealed[last]) else {
                continue;
            };
            let sold = of(answer.product).partition_point(|index| *index <= known);
            let most = stock - u64::try_from(sold).unwrap();
            if most < quantity {
                let product = answer.product;
                return Some(format!(
                    "{quantity} of {product} were shown; a client had been told of index {known} \
                     before the query, and {most} were left at it"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(answers: &[(u64, u64, What)]) -> History {
        let history = History::default();
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        for (sent_at, answered, what) in answers {
            let (sent_at, answered) = (at(*sent_at), at(*answered));
            history.record(RecordedAnswer { sent_at, answered, product: "fox", what: *what });
        }
        history
    }

    /// A checker is trusted only after it has caught a fault.
    #[test]
    fn a_quantity_from_before_an_acknowledged_order_is_noticed() {
        let placed = |index, number| What::Placed { index, number };
        let shown = |quantity| What::Shown { quantity };
        let fine = [(0, 4, placed(7, 0)), (1, 2, shown(10)), (3, 5, shown(9)), (5, 6, shown(9))];
        assert_eq!(history(&fine).violation(10), None);
        let old = [(0, 4, placed(7, 0)), (5, 6, shown(10))];
        assert!(history(&old).violation(10).unwrap().contains("index 7"));
        let back = [(0, 9, placed(7, 0)), (1, 2, shown(9)), (3, 4, shown(10))];
        assert!(history(&back).violation(10).is_some(), "shown new, then old");
        let never = [(0, 4, placed(7, 0)), (5, 6, shown(8))];
        assert!(history(&never).violation(10).unwrap().contains("never"));
        let twice = [(0, 4, placed(7, 0)), (5, 6, placed(8, 0))];
        assert!(history(&twice).violation(10).unwrap().contains("twice"));
    }
}
