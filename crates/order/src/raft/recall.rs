//! How a replica's ledger comes back at a start: the state as it is on disk, and the keys out of
//! the blocks that hold them.
//!
//! Where the history has the rolls of the keys that were remembered, only blocks with such keys are
//! read, and the rolls say whether all were found. Where it has none (the folder was written by a
//! program that knew of none), or they find something missing, all blocks since the oldest key are
//! read, the chain of their digests says the same, and the rolls are written anew.

use std::io;

use bytes::Bytes;
use ledger::ledger::{Ledger, Windows};
use ledger::rolls::Rolls;
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
        let (after, to) = (state.keys_after, durable.index());
        if let Some(rolls) = &durable.rolls {
            let missing = match self.recall((to, &state), windows, rolls) {
                Ok(Ok(ledger)) => return Ok(ledger),
                Ok(Err(error)) => error.to_string(),
                // A block that is damaged, or never was: the whole chain tells which.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
                Err(error) => return Err(error),
            };
            tracing::warn!("{missing}; reading all blocks after index {after}");
        }
        let mut keyed = Vec::new();
        let parts = Parts { blocks: self, after, to };
        let whole = until_failure(parts, |parts| {
            let blocks = parts.flatten().inspect(|block| {
                keyed.push((block.header().index, block.keyed()));
            });
            Ledger::restore(windows, state, blocks)
        })?;
        let ledger = whole.map_err(invalid)?;
        self.call_anew((after, to), &keyed, &ledger.rolls())?;
        Ok(ledger)
    }

    /// The same with the help of rolls. What does not belong together is the inner error.
    fn recall(
        &self,
        (to, state): (Index, &State),
        windows: Windows,
        rolls: &Rolls,
    ) -> io::Result<Result<Ledger, ledger::ledger::RestoreError>> {
        let blocks = self.called(*rolls, to)?;
        until_failure(blocks, |blocks| Ledger::recall(windows, state.clone(), rolls, blocks))
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
    use crate::raft::blocks::{KEYS, META};
    use crate::raft::codec::encode_position;
    use crate::raft::rows::Row;
    use crate::raft::types::{LeaderId, LogId};

    /// What happens to a table of indexes.
    type Spoil = fn(&mut redb::Table<'_, u64, ()>);

    fn name() -> Name {
        Name::new("bear").unwrap()
    }

    fn request(key: Option<Key>, command: Command) -> Request {
        Request { key, deadline: None, command }
    }

    /// The shop opens at 1; ann orders at 2 and bob at 6, frontends at 4, and nobody with a key in
    /// between; 7 is blank. On disk is all of it, and with rolls.
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
        ledger.skip_entry(Index(7));
        let (blocks, _) = Blocks::open(&folder.join("blocks.redb")).unwrap();
        let applied = Some(LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index: 7 });
        let (state, rolls) = (ledger.state().encode().into(), Some(ledger.rolls()));
        let durable = Durable { applied, state, rolls, ..Durable::default() };
        blocks.write(&rows, Some(&durable)).unwrap();
        (blocks, durable, ledger)
    }

    fn restored(blocks: &Blocks, durable: &Durable) -> io::Result<(State, Rolls)> {
        let ledger = blocks.restore(durable, Windows::default())?;
        Ok((ledger.state(), ledger.rolls()))
    }

    /// Puts something else in the place of the block of an index.
    fn spoil(blocks: &Blocks, index: u64) {
        let (index, first) = (Index(index), OrderNumber(5 + index));
        let row = Bytes::from_static(b"spoilt");
        let keys = blocks.tables().unwrap().checked(index).unwrap().keyed();
        blocks.write(&[Row { first, index, row, pieces: Vec::new(), keys }], None).unwrap();
    }

    #[test]
    fn only_blocks_with_keys_that_are_remembered_are_read_at_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history(folder.path());
        let expected = (ledger.state(), ledger.rolls());
        spoil(&blocks, 3);
        spoil(&blocks, 5);
        assert_eq!(restored(&blocks, &durable).unwrap(), expected);
        // Without rolls all are read.
        let uncalled = Durable { rolls: None, ..durable.clone() };
        let error = restored(&blocks, &uncalled).unwrap_err().to_string();
        assert!(error.contains("the block of index 3"), "{error}");
        // One with a key is needed, whoever made the key.
        for index in [2, 4] {
            let folder = tempfile::tempdir().unwrap();
            let (blocks, durable, _) = history(folder.path());
            spoil(&blocks, index);
            let error = restored(&blocks, &durable).unwrap_err().to_string();
            assert!(error.contains(&format!("the block of index {index}")), "{error}");
        }
    }

    #[test]
    fn rolls_that_do_not_fit_are_not_believed_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history(folder.path());
        let expected = (ledger.state(), ledger.rolls());
        let change = |change: Spoil| {
            let write = blocks.rows.begin_write().unwrap();
            change(&mut write.open_table(KEYS.clients).unwrap());
            write.commit().unwrap();
        };
        let called = || blocks.called(ledger.rolls(), Index(7)).unwrap().count();
        // Ann's block is missing; one is named that never was.
        let spoils: [(Spoil, usize); 2] = [
            (|clients| drop(clients.remove(2).unwrap()), 2),
            (|clients| drop(clients.insert(7, ()).unwrap()), 4),
        ];
        for (spoil, left) in spoils {
            change(spoil);
            assert_eq!(called(), left);
            assert_eq!(restored(&blocks, &durable).unwrap(), expected);
            assert_eq!(called(), 3);
        }
    }

    /// A program that knew of no rolls leaves those that it finds, and writes into no table of
    /// keys.
    #[test]
    fn rolls_of_another_state_are_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history(folder.path());
        let write = blocks.rows.begin_write().unwrap();
        write.open_table(KEYS.clients).unwrap().remove(6).unwrap();
        let position = LogId { index: 8, ..durable.applied.unwrap() };
        let position = encode_position(Some(position), &durable.members).unwrap();
        let state = State { applied: Index(8), ..ledger.state() }.encode();
        let mut meta = write.open_table(META).unwrap();
        meta.insert("position", position.as_slice()).unwrap();
        meta.insert("state", state.as_slice()).unwrap();
        drop(meta);
        write.commit().unwrap();
        drop(blocks);
        let path = folder.path().join("blocks.redb");
        let (blocks, found) = Blocks::open(&path).unwrap();
        assert_eq!(found.rolls, None);
        let (_, rolls) = restored(&blocks, &found).unwrap();
        let before = ledger.rolls().windows;
        assert_eq!(
            (rolls.windows.clients, rolls.windows.frontends),
            (before.clients, before.frontends)
        );
        // And from then on they are there.
        drop(blocks);
        let (blocks, found) = Blocks::open(&path).unwrap();
        assert_eq!(found.rolls, Some(rolls));
        assert_eq!(blocks.called(rolls, Index(8)).unwrap().count(), 3);
        // Damaged ones are as good as none, too.
        let write = blocks.rows.begin_write().unwrap();
        write.open_table(META).unwrap().insert("keys", [7_u8; 61].as_slice()).unwrap();
        write.commit().unwrap();
        drop(blocks);
        assert_eq!(Blocks::open(&path).unwrap().1.rolls, None);
    }
}
