//! The checker: verifies the promises of the store, during a run and at its end.
//!
//! * *agreement*: equal applied index, equal digest, on all replicas, at every moment.
//! * *once*: each acknowledged order is in the history of every replica, once, with its outcome.
//! * *conservation*, *dense*, *chain*, *rules*: the auditor of the ledger reads each history whole.
//! * *truth*: a quantity shown to a client was the stock at that index; a refused order without a
//!   key shows that there was too little.
//! * *fresh*: no answer is older than an answer given before its request.

use std::collections::BTreeMap;

use ledger::audit::Auditor;
use ledger::block::Block;
use ledger::command::{Command, Side};
use ledger::ledger::Windows;
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::shop::ShopState;
use ledger::terms::{Digest, Index, OrderNumber};
use order::history::view::View;

use crate::history::{DefiniteAnswer, History, RecordedOrder, ShownProduct, ShownStock};
use crate::replica::Replica;

/// The checker's observations so far.
#[derive(Debug, Default)]
pub struct Checker {
    digests: BTreeMap<Index, (Digest, u64)>,
    wrong: Vec<String>,
}

/// The content of a history, once it is known to be clean.
struct CleanHistory {
    by_key: BTreeMap<String, (Index, Outcome)>,
    /// The stock of each product after each entry that changed it.
    stocks: BTreeMap<String, BTreeMap<Index, u64>>,
    orders: u64,
}

impl Checker {
    /// Compares a replica's digest with those seen at the same index.
    pub fn look(&mut self, replica: &Replica) {
        let Some(inside) = replica.inside() else { return };
        let (index, digest) = inside.view.read(|ledger| (ledger.applied(), ledger.digest()));
        let known = *self.digests.entry(index).or_insert((digest, replica.id));
        if known.0 != digest {
            let (first, id) = (known.1, replica.id);
            self.wrong.push(format!("agreement: {first} and {id} differ at index {index}"));
        }
    }

    /// Every violation so far.
    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }

    /// Reads every history at the end. All replicas run, and have written the entries they applied.
    pub fn conclude(&mut self, replicas: &[Replica], history: &History) -> u64 {
        let mut first: Option<(u64, Vec<Block>)> = None;
        for replica in replicas {
            let Some(inside) = replica.inside() else {
                self.wrong.push(format!("{} does not run at the end", replica.id));
                continue;
            };
            let blocks = match blocks(&inside.view) {
                Ok(blocks) => blocks,
                Err(why) => {
                    self.wrong.push(format!("{} cannot read its history: {why}", replica.id));
                    continue;
                }
            };
            self.audit(replica.id, &inside.view, &blocks);
            match &first {
                None => first = Some((replica.id, blocks)),
                Some((other, theirs)) if *theirs != blocks => {
                    self.wrong
                        .push(format!("agreement: {other} and {} remember otherwise", replica.id));
                }
                Some(_) => {}
            }
        }
        let Some((_, blocks)) = first else { return 0 };
        let record = record(&blocks);
        for recorded in history.orders() {
            self.wrong.extend(once(&record, &recorded));
        }
        let orders = history.orders();
        for shown in history.shown() {
            self.wrong.extend(truth(&record, &shown));
            self.wrong.extend(fresh(&record, &shown, &orders));
        }
        record.orders
    }

    fn audit(&mut self, id: u64, view: &View, blocks: &[Block]) {
        let mut auditor = Auditor::new(Windows::default());
        for block in blocks {
            if let Err(violation) = auditor.read(block) {
                self.wrong.push(format!("{id}: {violation}"));
                return;
            }
        }
        let summary = auditor.summary();
        let (digest, next) = view.read(|ledger| (ledger.digest(), ledger.next_order_number()));
        let (reckoned, found) = (summary.next_order_number.unwrap_or_default(), summary.digest);
        if (found, reckoned) != (digest, next) {
            self.wrong.push(format!("{id}: its replayed history differs from its state"));
        }
    }
}

fn blocks(view: &View) -> Result<Vec<Block>, String> {
    let found = view.blocks(Index(0), Index(u64::MAX), usize::MAX);
    let found = found.map_err(|error| error.to_string())?;
    let decode = |(_, bytes): &(Index, bytes::Bytes)| Block::decode(bytes);
    found.iter().map(decode).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// True when a replica has applied and written its whole log.
pub fn is_written(view: &View) -> bool {
    view.durable().index() == view.read(ShopState::applied)
}

fn record(blocks: &[Block]) -> CleanHistory {
    let mut record = CleanHistory { by_key: BTreeMap::new(), stocks: BTreeMap::new(), orders: 0 };
    for block in blocks {
        let index = block.header.index;
        for entry in &block.records {
            let outcome = &entry.outcome;
            if let Some(key) = &entry.request.key
                && !is_passing(outcome)
            {
                let answer = (index, outcome.clone());
                record.by_key.entry(key.text().to_owned()).or_insert(answer);
            }
            match (&entry.request.command, outcome) {
                (Command::Open(shop), Outcome::Accepted(Accepted::Done)) => {
                    for product in &shop.products {
                        let stock = BTreeMap::from([(index, product.stock)]);
                        record.stocks.insert(product.name.to_string(), stock);
                    }
                }
                (Command::Place(lines), Outcome::Accepted(Accepted::Placed(_))) => {
                    record.orders += 1;
                    for line in lines {
                        let stocks = record.stocks.entry(line.name.to_string()).or_default();
                        let before = stocks.last_key_value().map_or(0, |(_, stock)| *stock);
                        let quantity = line.quantity.get();
                        let after = match line.side {
                            Side::Buy => before.saturating_sub(quantity),
                            Side::Sell => before + quantity,
                        };
                        stocks.insert(index, after);
                    }
                }
                _ => {}
            }
        }
    }
    record
}

/// True for an outcome that decided nothing or repeated a decision: it is not its key's outcome.
fn is_passing(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Repeated { .. } | Outcome::Refused(Refusal::Late | Refusal::KeyReused)
    )
}

fn once(record: &CleanHistory, recorded: &RecordedOrder) -> Option<String> {
    let key = &recorded.wanted.key;
    match (&recorded.answer, record.by_key.get(key)) {
        (None, _) => Some(format!("liveness: {key} was never answered")),
        (Some(DefiniteAnswer { index, outcome, .. }), None) => {
            Some(format!("once: {key} was told {outcome:?} at {index}, and nothing is there"))
        }
        (Some(answer), Some((index, outcome)))
            if answer.index != *index || answer.outcome != *outcome =>
        {
            let (then, what) = (answer.index, &answer.outcome);
            Some(format!("once: {key} was told {what:?} at {then}; {outcome:?} is at {index}"))
        }
        (Some(_), Some(_)) => None,
    }
}

fn truth(record: &CleanHistory, shown: &ShownProduct) -> Option<String> {
    let ShownProduct { name, as_of, stock, .. } = shown;
    let before = |stocks: &BTreeMap<Index, u64>| {
        stocks.range(..=*as_of).next_back().map(|(_, stock)| *stock)
    };
    let was = record.stocks.get(name).and_then(before);
    let is_true = match (*stock, was) {
        (ShownStock::NoProduct, was) => was.is_none(),
        (ShownStock::Exactly(stock), was) => was == Some(stock),
        // Within an entry that changed it, the stock may have been lower for a moment.
        (ShownStock::FewerThan(quantity), was) => {
            let moved = record.stocks.get(name).is_some_and(|stocks| stocks.contains_key(as_of));
            moved || was.is_some_and(|was| was < quantity)
        }
    };
    (!is_true).then(|| format!("truth: {name} was shown as {stock:?} at {as_of}, was {was:?}"))
}

fn fresh(record: &CleanHistory, shown: &ShownProduct, orders: &[RecordedOrder]) -> Option<String> {
    let before = orders.iter().filter(|recorded| recorded.wanted.name == shown.name);
    let before = before.filter_map(|recorded| recorded.answer.as_ref());
    let accepted = before.filter(|answer| {
        answer.at < shown.began && matches!(answer.outcome, Outcome::Accepted(Accepted::Placed(_)))
    });
    let newest = accepted.map(|answer| answer.index).max()?;
    // An answer may name the index of the product's own last change.
    let changed = record.stocks.get(&shown.name)?;
    let hidden =
        shown.as_of < newest && changed.range(shown.as_of.next()..=newest).next().is_some();
    let ShownProduct { name, as_of, .. } = shown;
    hidden.then(|| format!("fresh: {name} was shown as of {as_of}, after {newest} had been told"))
}

/// The number that a replica gives to its next order.
pub fn next_number(view: &View) -> OrderNumber {
    view.read(ShopState::next_order_number)
}
