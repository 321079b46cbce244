//! How a replica's ledger comes back at a start: the state as it is on disk, and the keys out of the
//! blocks that hold them.
//!
//! Where the history has marks of the keys that were remembered, only blocks with such keys are
//! read, and the marks say whether all were found. Where it has none (a snapshot was installed by
//! another program, the folder is older than them), or they find something missing, all blocks
//! since the oldest key are read, and the chain of their digests says the same.

use std::io;

use bytes::Bytes;
use ledger::ledger::{Ledger, Windows};
use ledger::marks::Marks;
use ledger::sealed::Sealed;
use ledger::state::State;
use ledger::terms::Index;

use crate::raft::blocks::{Blocks, Durable, invalid};

/// How many bytes of blocks are read at once.
const PART_BYTES: usize = 1 << 20;

impl Blocks {
    /// The ledger as it was at a position.
    pub(crate) fn restore(&self, durable: &Durable, windows: Windows) -> io::Result<Ledger> {
        if durable.applied.is_none() {
            return Ok(Ledger::new(windows));
        }
        let state = State::decode(&durable.state).map_err(invalid)?;
        if let Some(marks) = &durable.marks {
            match self.recall((durable.index(), &state), windows, marks)? {
                Ok(ledger) => return Ok(ledger),
                Err(error) => {
                    let after = state.keys_after;
                    tracing::warn!("{error}; reading all blocks after index {after}");
                }
            }
        }
        let parts = Parts { blocks: self, after: state.keys_after, to: durable.index() };
        let whole = until_failure(parts, |parts| Ledger::restore(windows, state, parts.flatten()))?;
        whole.map_err(invalid)
    }

    /// The same with the help of marks. What does not belong together is the inner error.
    fn recall(
        &self,
        (to, state): (Index, &State),
        windows: Windows,
        marks: &Marks,
    ) -> io::Result<Result<Ledger, ledger::ledger::RestoreError>> {
        let blocks = self.marked(*marks, to)?;
        until_failure(blocks, |blocks| Ledger::recall(windows, state.clone(), marks, blocks))
    }
}

/// Uses what comes until something fails, which is then what it came to.
fn until_failure<I, T, R>(
    all: I,
    usage: impl FnOnce(&mut dyn Iterator<Item = T>) -> R,
) -> io::Result<R>
where
    I: Iterator<Item = io::Result<T>>,
{
    let mut failure = None;
    let mut sound = all.map_while(|one| one.map_err(|error| failure = Some(error)).ok());
    let result = usage(&mut sound);
    drop(sound);
    failure.map_or(Ok(result), Err)
}

/// All blocks after an index, checked, about a megabyte at a time.
struct Parts<'a> {
    blocks: &'a Blocks,
    after: Index,
    to: Index,
}

impl Iterator for Parts<'_> {
    type Item = io::Result<Vec<Sealed<Bytes>>>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.blocks.read(self.after, self.to, PART_BYTES).and_then(|part| {
            let blocks = part.into_iter().map(|(index, bytes)| self.blocks.check(index, bytes));
            blocks.collect::<io::Result<Vec<_>>>()
        });
        if let Ok(part) = &part {
            self.after = part.last()?.header().index;
        }
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
    use ledger::terms::{Cents, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};

    use super::*;
    use crate::raft::blocks::CLIENTS;
    use crate::raft::rows::Row;
    use crate::raft::types::{LeaderId, LogId};

    fn name() -> Name {
        Name::new("bear").unwrap()
    }

    fn request(key: Option<Key>, command: Command) -> Request {
        Request { key, deadline: None, command }
    }

    /// The shop opens at 1; ann orders at 2 and bob at 6, frontends at 4, and nobody with a key in
    /// between. On disk is all of it, and with marks.
    fn history(folder: &std::path::Path) -> (Blocks, Durable, Ledger) {
        let price = Cents::new(1).unwrap();
        let bear = Definition { name: name(), price, stock: 9, restock_to: None };
        let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(7));
        let shop = Shop { ledger_id, first_order_number, products: vec![bear] };
        let keys = [
            None,
            Key::new(Origin::Client, "ann"),
            None,
            Key::new(Origin::Frontend, "front"),
            None,
            Key::new(Origin::Client, "bob"),
        ];
        let mut ledger = Ledger::new(Windows::default());
        let mut rows = Vec::new();
        for (index, key) in (1..).map(Index).zip(keys) {
            let line = Line { name: name(), quantity: Quantity::new(1).unwrap(), side: Side::Buy };
            let command = match index.0 {
                1 => Command::Open(shop.clone()),
                _ => Command::Place(vec![line]),
            };
            let requests = vec![request(key, command)];
            let batch = Batch { at: Timestamp(9), settled: Index(0), requests };
            let block = ledger.apply_entry(index, 1, &batch).block.unwrap();
            rows.push(Row::new(&block.held_by()));
        }
        let (blocks, _) = Blocks::open(&folder.join("blocks.redb")).unwrap();
        let applied = Some(LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index: 6 });
        let (state, marks) = (ledger.state().encode().into(), Some(ledger.marks()));
        let durable = Durable { applied, state, marks, ..Durable::default() };
        blocks.write(&rows, Some(&durable)).unwrap();
        (blocks, durable, ledger)
    }

    fn restored(blocks: &Blocks, durable: &Durable) -> io::Result<(State, Marks)> {
        let ledger = blocks.restore(durable, Windows::default())?;
        Ok((ledger.state(), ledger.marks()))
    }

    /// Puts something else in the place of the block of an index.
    fn spoil(blocks: &Blocks, index: u64) {
        let (index, first) = (Index(index), OrderNumber(5 + index));
        let row = Bytes::from_static(b"spoilt");
        let keys = blocks.shelf().unwrap().checked(index).unwrap().origins();
        blocks.write(&[Row { first, index, row, pieces: Vec::new(), keys }], None).unwrap();
    }

    #[test]
    fn only_blocks_with_keys_that_are_remembered_are_read_at_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history(folder.path());
        let expected = (ledger.state(), ledger.marks());
        spoil(&blocks, 3);
        spoil(&blocks, 5);
        assert_eq!(restored(&blocks, &durable).unwrap(), expected);
        // Without marks all are read.
        let unmarked = Durable { marks: None, ..durable.clone() };
        let error = restored(&blocks, &unmarked).unwrap_err().to_string();
        assert!(error.contains("the block of index 3"), "{error}");
        // One with a key is needed, whoever made the key.
        for index in [4, 2] {
            spoil(&blocks, index);
            let error = restored(&blocks, &durable).unwrap_err().to_string();
            assert!(error.contains(&format!("the block of index {index}")), "{error}");
        }
    }

    #[test]
    fn marks_that_do_not_fit_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history(folder.path());
        let expected = (ledger.state(), ledger.marks());
        let write = blocks.rows.begin_write().unwrap();
        write.open_table(CLIENTS).unwrap().remove(2).unwrap();
        write.commit().unwrap();
        let few = blocks.marked(ledger.marks(), Index(6)).unwrap();
        assert_eq!(few.count(), 2, "ann's block is not found any more");
        assert_eq!(restored(&blocks, &durable).unwrap(), expected);
    }

    #[test]
    fn a_folder_from_before_there_were_marks_is_read_whole_and_has_them_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history(folder.path());
        let write = blocks.rows.begin_write().unwrap();
        write.delete_table(CLIENTS).unwrap();
        write.delete_table(crate::raft::blocks::FRONTENDS).unwrap();
        write.open_table(crate::raft::blocks::META).unwrap().remove("keys after").unwrap();
        write.commit().unwrap();
        drop(blocks);
        let (blocks, found) = Blocks::open(&folder.path().join("blocks.redb")).unwrap();
        assert_eq!(found.marks, None, "these tables know nothing of index 2");
        assert_eq!(restored(&blocks, &found).unwrap(), (ledger.state(), ledger.marks()));
        // The windows have moved beyond what the tables do not know.
        let mut marks = ledger.marks();
        (marks.clients.after, marks.frontends.after) = (Index(6), Index(6));
        blocks.write(&[], Some(&Durable { marks: Some(marks), ..durable })).unwrap();
        drop(blocks);
        let (_, found) = Blocks::open(&folder.path().join("blocks.redb")).unwrap();
        assert_eq!(found.marks, Some(marks));
    }
}
