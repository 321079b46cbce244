//! Restoring a replica's ledger at a start: the state from disk, and the keys from the blocks that
//! hold them.
//!
//! If the history has a key summary, only blocks with remembered keys are read, and the summary
//! shows whether all were found. If the history has none (an older program wrote the folder), or
//! the summary shows that a key is missing, all blocks since the oldest key are read. Then the
//! chain of their digests is the proof, and the key summary is rewritten.

use std::io;

use bytes::Bytes;
use ledger::block::EncodedBlock;
use ledger::key_summary::KeySummary;
use ledger::ledger::{Ledger, Windows};
use ledger::restore::{RestoreError, Restoring};
use ledger::state::State;
use ledger::terms::Index;

use crate::history::blocks::{Blocks, Durable};
use crate::history::errors::invalid;

/// The blocks whose keys are noted in one transaction: a week may have millions.
const NOTED_TOGETHER: usize = 10_000;

/// The bytes of blocks that are read at once.
const PART_BYTES: usize = 1 << 20;

impl Blocks {
    /// The ledger as of the durable position.
    pub(crate) fn restore(&self, durable: &Durable, windows: Windows) -> io::Result<Ledger> {
        if durable.applied.is_none() {
            return Ok(Ledger::new(windows));
        }
        let state = State::decode(&durable.state).map_err(invalid)?;
        let after = state.keys_after;
        let to = durable.index();
        if let Some(key_summary) = &durable.key_summary {
            let missing = match self.recall((to, &state), windows, key_summary) {
                Ok(Ok(ledger)) => return Ok(ledger),
                Ok(Err(error)) => error.to_string(),
                // A block is damaged or absent: reading the whole chain tells which.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
                Err(error) => return Err(error),
            };
            tracing::warn!("{missing}; reading all blocks after index {after}");
        }
        self.begin_noting(after, to)?;
        let mut keyed = Vec::new();
        let parts = BlockParts { blocks: self, after, to }.map(|part| {
            let part = part?;
            keyed.extend(part.iter().map(|block| (block.header().index, block.keyed().clone())));
            if NOTED_TOGETHER < keyed.len() {
                self.note(&mut keyed)?;
            }
            Ok(part)
        });
        let whole = until_failure(parts, |parts| {
            Restoring::from_chain(windows, state).finish_with(parts.flatten())
        })?;
        let ledger = whole.map_err(invalid)?;
        self.note(&mut keyed)?;
        self.end_noting(&ledger.key_summary())?;
        Ok(ledger)
    }

    /// Restores with the key summary. The inner error says that state, summary and blocks do not
    /// match.
    fn recall(
        &self,
        (to, state): (Index, &State),
        windows: Windows,
        key_summary: &KeySummary,
    ) -> io::Result<Result<Ledger, RestoreError>> {
        let blocks = self.called(key_summary, to)?;
        let restoring = Restoring::from_summary(windows, state.clone(), key_summary);
        until_failure(blocks, |blocks| restoring.finish_with(blocks))
    }
}

/// Passes the items before the first error to `usage`; returns that error instead of the result.
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

/// All blocks after an index, checked, in parts of about a megabyte.
struct BlockParts<'a> {
    blocks: &'a Blocks,
    after: Index,
    to: Index,
}

impl Iterator for BlockParts<'_> {
    type Item = io::Result<Vec<EncodedBlock<Bytes>>>;

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
    use ledger::api_key::{Actor, ApiKeyDigest, ApiKeyId, Principal, Scopes};
    use ledger::command::{Batch, Command, Definition, Line, NewApiKey, Request, Shop, Side};
    use ledger::terms::{Cents, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};
    use redb::{ReadableDatabase, ReadableTable};

    use super::*;
    use crate::history::blocks::META;
    use crate::history::key_tables::{KEYS, PRINCIPAL_KEYS};
    use crate::history::rows::Row;
    use crate::raft::codec::encode_position;
    use crate::raft::types::{LeaderId, LogId};

    /// A change to a table of indexes.
    type Spoil = fn(&mut redb::Table<'_, u64, ()>);

    /// A change to the table of principals.
    type SpoilRows = fn(&mut redb::Table<'_, (&'static str, u8, u64), ()>);

    fn name() -> Name {
        Name::new("bear").unwrap()
    }

    fn request(key: Option<Key>, command: Command) -> Request {
        Request { key, deadline: None, certificate: None, command }
    }

    /// The shop opens at 1; ann orders at 2, bob at 6 and a frontend at 4; the other orders have no
    /// key, and 7 is blank. All of it is on disk, with the key summary.
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
        let (state, key_summary) = (ledger.state().encode().into(), Some(ledger.key_summary()));
        let durable = Durable { applied, state, key_summary, ..Durable::default() };
        blocks.write(&rows, Some(&durable)).unwrap();
        (blocks, durable, ledger)
    }

    fn restored(blocks: &Blocks, durable: &Durable) -> io::Result<(State, KeySummary)> {
        let ledger = blocks.restore(durable, Windows::default())?;
        Ok((ledger.state(), ledger.key_summary()))
    }

    /// Overwrites the block of an index with other bytes.
    fn spoil(blocks: &Blocks, index: u64) {
        let (index, first) = (Index(index), OrderNumber(5 + index));
        let row = Bytes::from_static(b"spoilt");
        let keys = blocks.tables().unwrap().checked(index).unwrap().keyed().clone();
        blocks.write(&[Row { first, index, row, pieces: Vec::new(), keys }], None).unwrap();
    }

    #[test]
    fn a_start_reads_only_the_blocks_with_remembered_keys() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history(folder.path());
        let expected = (ledger.state(), ledger.key_summary());
        spoil(&blocks, 3);
        spoil(&blocks, 5);
        assert_eq!(restored(&blocks, &durable).unwrap(), expected);
        // Without a key summary all blocks are read.
        let uncalled = Durable { key_summary: None, ..durable.clone() };
        let error = restored(&blocks, &uncalled).unwrap_err().to_string();
        assert!(error.contains("the block of index 3"), "{error}");
        // A block with a key is needed, of a client or of a frontend.
        for index in [2, 4] {
            let folder = tempfile::tempdir().unwrap();
            let (blocks, durable, _) = history(folder.path());
            spoil(&blocks, index);
            let error = restored(&blocks, &durable).unwrap_err().to_string();
            assert!(error.contains(&format!("the block of index {index}")), "{error}");
        }
    }

    /// Two principals order: the quiet one at 2 and, in vain, at 3; the busy one from 4 to 9. Three
    /// accepted keys fit. 10 is blank.
    fn history_of_two(folder: &std::path::Path, windows: Windows) -> (Blocks, Durable, Ledger) {
        let (blocks, _) = Blocks::open(&folder.join("blocks.redb")).unwrap();
        let mut ledger = Ledger::new(windows);
        let mut rows = Vec::new();
        let who = |name: &str| Principal::new(name).unwrap();
        let id = |name: &str| ApiKeyId::new(format!("0000{name}").as_bytes()).unwrap();
        let issue = |name| {
            Command::IssueApiKey(NewApiKey {
                id: id(name),
                digest: ApiKeyDigest([1; 16]),
                principal: who(name),
                scopes: Scopes::ORDER,
                ends: None,
                rate: None,
                note: String::new(),
            })
        };
        let price = Cents::new(1).unwrap();
        let bear = Definition { name: name(), price, stock: 9, restock_to: None };
        let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(7));
        let shop = Shop { ledger_id, first_order_number, products: vec![bear] };
        let open = [Command::Open(shop), issue("rare"), issue("many")];
        let order = |name, number: u64, toy: &str| {
            let key = Key::new(Origin::Client, &number.to_string());
            let key = key.map(|key| key.sent_by(Some(Actor::new(&who(name), id(name)))));
            let (name, quantity) = (Name::new(toy).unwrap(), Quantity::new(1).unwrap());
            request(key, Command::Place(vec![Line { name, quantity, side: Side::Sell }]))
        };
        let mut entries = vec![open.map(|command| request(None, command)).to_vec()];
        entries.extend([("bear", 2), ("wolf", 3)].map(|(toy, at)| vec![order("rare", at, toy)]));
        entries.extend((4..=9).map(|number| vec![order("many", number, "bear")]));
        for (index, requests) in (1..).map(Index).zip(entries) {
            let batch = Batch { at: Timestamp(9), settled: Index(0), requests };
            rows.push(Row::new(&ledger.apply_entry(index, 1, &batch).block.unwrap().held_by()));
        }
        ledger.skip_entry(Index(10));
        let applied = Some(LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index: 10 });
        let (state, key_summary) = (ledger.state().encode().into(), Some(ledger.key_summary()));
        let durable = Durable { applied, state, key_summary, ..Durable::default() };
        blocks.write(&rows, Some(&durable)).unwrap();
        (blocks, durable, ledger)
    }

    #[test]
    fn a_start_reads_of_a_quiet_principal_only_the_blocks_with_its_keys() {
        let windows = Windows { client_keys_max: 3, ..Windows::default() };
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history_of_two(folder.path(), windows);
        let expected = (ledger.state(), ledger.key_summary());
        assert_eq!(ledger.state().keys_after, Index(1));
        let called = || {
            let called = blocks.called(&ledger.key_summary(), Index(10)).unwrap();
            called.map(|block| block.map_or(0, |block| block.header().index.0)).collect::<Vec<_>>()
        };
        let rows = || {
            let read = blocks.rows.begin_read().unwrap();
            let read = read.open_table(PRINCIPAL_KEYS).unwrap();
            let rows = read.iter().unwrap().map(|row| row.unwrap().0.value().2);
            rows.collect::<Vec<_>>()
        };
        assert_eq!(called(), [2, 3, 8, 9]);
        assert_eq!(rows(), [8, 9, 2, 3], "rows that no start needs are gone");
        let restored = |durable: &Durable| {
            let ledger = blocks.restore(durable, windows).unwrap();
            (ledger.state(), ledger.key_summary())
        };
        assert_eq!(restored(&durable), expected);
        // A row is lost, of an accepted or of a refused request, or names a block that does not
        // exist: all blocks are read, and the rows are written again.
        let changes: [(SpoilRows, &[u64]); 3] = [
            (|rows| drop(rows.remove(("rare", 1, 2)).unwrap()), &[3, 8, 9]),
            (|rows| drop(rows.remove(("rare", 2, 3)).unwrap()), &[2, 8, 9]),
            (|rows| drop(rows.insert(("rare", 1, 10), ()).unwrap()), &[2, 3, 8, 9, 0]),
        ];
        for (change, found) in changes {
            let write = blocks.rows.begin_write().unwrap();
            change(&mut write.open_table(PRINCIPAL_KEYS).unwrap());
            write.commit().unwrap();
            assert_eq!(called(), found);
            assert_eq!(restored(&durable), expected);
            assert_eq!(called(), [2, 3, 8, 9]);
        }
    }

    #[test]
    fn a_key_summary_that_does_not_match_is_rejected_and_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, durable, ledger) = history(folder.path());
        let expected = (ledger.state(), ledger.key_summary());
        let change = |change: Spoil| {
            let write = blocks.rows.begin_write().unwrap();
            change(&mut write.open_table(KEYS.clients).unwrap());
            write.commit().unwrap();
        };
        let called = || blocks.called(&ledger.key_summary(), Index(7)).unwrap().count();
        // Ann's block is missing from the table; then the table names a block that does not exist.
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

    /// A program that knows no key summary leaves an existing one, and writes to no table of keys.
    #[test]
    fn a_key_summary_of_another_state_is_ignored() {
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
        assert_eq!(found.key_summary, None);
        let (_, key_summary) = restored(&blocks, &found).unwrap();
        let before = ledger.key_summary().windows;
        assert_eq!(
            (key_summary.windows.shared.clients, key_summary.windows.shared.frontends),
            (before.shared.clients, before.shared.frontends)
        );
        // From now on the summary exists.
        drop(blocks);
        let (blocks, found) = Blocks::open(&path).unwrap();
        assert_eq!(found.key_summary.as_ref(), Some(&key_summary));
        assert_eq!(blocks.called(&key_summary, Index(8)).unwrap().count(), 3);
        // A damaged summary is ignored, too.
        let write = blocks.rows.begin_write().unwrap();
        write.open_table(META).unwrap().insert("keys", [7_u8; 61].as_slice()).unwrap();
        write.commit().unwrap();
        drop(blocks);
        assert_eq!(Blocks::open(&path).unwrap().1.key_summary, None);
    }
}
