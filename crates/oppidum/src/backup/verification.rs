//! Verifies a backup, without a store: every file, the chain of blocks, every outcome, every state.
//!
//! Two ledgers read the blocks. The auditor's is the second implementation of the rules; the first
//! one is replayed, and must make the same blocks and, at each restore point, the same state.

use std::time::Duration;

use ledger::audit::Auditor;
use ledger::block::EncodedBlock;
use ledger::command::Batch;
use ledger::ledger::{Ledger, Windows};
use ledger::state::State;
use ledger::terms::Index;

use super::backup_error::BackupError;
use super::core::block_range::{BlockRange, cover};
use super::core::restore_point::{POINTS, RestorePoint, hex, label, state_name};
use super::core::utc_second::UtcSecond;
use super::reader;
use super::storage::BackupStorage;

/// What an intact backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedBackup {
    /// The last entry of the newest restore point.
    pub(crate) entries: u64,
    /// The orders up to there.
    pub(crate) orders: u64,
    /// The restore points.
    pub(crate) points: usize,
}

/// Both ledgers, as of one entry.
struct Replay {
    auditor: Auditor,
    ledger: Ledger,
    last: Option<(Index, u64)>,
    orders: u64,
}

impl Replay {
    /// Reads the next block; the error says what is wrong with its file.
    fn read(&mut self, block: &EncodedBlock<bytes::Bytes>) -> Result<(), String> {
        let header = block.header();
        self.auditor.read(&block.block()).map_err(|violation| violation.to_string())?;
        let entry = self.ledger.apply_bytes(header.index, header.term, &block.batch());
        let again = entry.map_err(|error| error.to_string())?.block;
        if again.is_none_or(|again| again.bytes()[..] != block.bytes()[..]) {
            return Err(format!("rules: block {} is not what the rules give", header.index));
        }
        self.last = Some((header.index, header.term));
        self.orders += u64::from(header.orders);
        Ok(())
    }

    /// Compares a restore point and its state with the blocks read so far.
    fn compare(
        &mut self,
        storage: &dyn BackupStorage,
        point: &RestorePoint,
    ) -> Result<(), BackupError> {
        let damaged = |why: &str| Err(BackupError::damaged(point.name(), why));
        let (index, term) = self.last.unwrap_or_default();
        let is_end = (point.last_block, point.term) == (index.0, term);
        if !is_end || point.digest != self.ledger.digest().to_string() {
            return damaged("the blocks do not lead to it");
        }
        if (point.orders, point.next_order_number)
            != (self.orders, self.ledger.next_order_number().0)
        {
            return damaged("its orders are not those of the blocks");
        }
        let name = state_name(point.index);
        let content = reader::content(storage, &name)?;
        if hex(blake3::hash(&content).as_bytes()) != point.state {
            return Err(BackupError::damaged(name, "its content does not match its digest"));
        }
        let state = State::decode(&content);
        let state = state.map_err(|error| BackupError::damaged(&name, error))?;
        if (state.applied.0, state.at.0) != (point.index, point.log_time_ms) {
            return damaged("its state is of another entry");
        }
        self.advance(&state);
        // Blocks do not record the settled index, which decides nothing.
        if (State { settled: state.settled, ..self.ledger.state() }) != state {
            return Err(BackupError::damaged(name, "the state does not follow from the blocks"));
        }
        let products = state.products.iter();
        let stocks = products.map(|(name, product)| (name.to_string(), product.stock));
        match self.auditor.finish(stocks) {
            Ok(_) => Ok(()),
            Err(violation) => Err(BackupError::damaged(name, violation)),
        }
    }

    /// Applies what the entries between the last block and the state did, which have no block: they
    /// carried no request, and only moved log time.
    fn advance(&mut self, state: &State) {
        if self.ledger.applied() < state.applied && self.ledger.log_time() <= state.at {
            let batch = Batch { at: state.at, settled: state.settled, requests: Vec::new() };
            self.ledger.apply_entry(state.applied, 1, &batch);
        }
    }
}

/// Verifies the backup.
pub(crate) fn verify(storage: &dyn BackupStorage) -> Result<VerifiedBackup, BackupError> {
    let store = reader::store(storage)?;
    if let Some(damaged) = reader::past_restores(storage)?.damaged {
        return Err(damaged);
    }
    let names = reader::list(storage, POINTS)?;
    let points = names.iter().filter(|name| label(name).is_some());
    let points = points.map(|name| reader::point(storage, name));
    let mut points = points.collect::<Result<Vec<_>, _>>()?;
    points.sort_by_key(|point| point.index);
    let Some(newest) = points.last() else {
        let why = "there is no restore point: no backup was ever completed here";
        return Err(BackupError::Impossible(why.into()));
    };
    let (entries, end) = (newest.index, newest.last_block);
    let ranges = reader::ranges(storage)?;
    let chosen = cover(ranges.clone());
    for range in ranges.iter().filter(|range| !chosen.contains(range)) {
        check_alone(storage, *range)?;
    }
    let to = chosen.last().map_or(0, |range| range.last).max(end);
    let windows = Windows::default();
    let mut replay = Replay {
        auditor: Auditor::new(windows),
        ledger: Ledger::new(windows),
        last: None,
        orders: 0,
    };
    let mut open = points.iter().peekable();
    reader::each_block(storage, (0, to), |name, header, bytes| {
        while let Some(point) = open.next_if(|point| point.last_block < header.index.0) {
            replay.compare(storage, point)?;
        }
        let block = EncodedBlock::open(bytes);
        let block = block.map_err(|error| BackupError::damaged(name, error))?;
        replay.read(&block).map_err(|why| BackupError::damaged(name, why))?;
        Ok(true)
    })?;
    for point in open {
        replay.compare(storage, point)?;
    }
    reader::check_ledger(&store, replay.ledger.ledger_id())?;
    let orders = points.last().map_or(0, |newest| newest.orders);
    Ok(VerifiedBackup { entries, orders, points: points.len() })
}

/// Checks a file that others make superfluous.
fn check_alone(storage: &dyn BackupStorage, range: BlockRange) -> Result<(), BackupError> {
    for block in reader::blocks(storage, range)? {
        let opened = EncodedBlock::open(block);
        opened.map_err(|error| BackupError::damaged(range.name(), error))?;
    }
    Ok(())
}

/// `oppidum ctl backup list`: a line for each restore point.
pub(crate) fn list(storage: &dyn BackupStorage) -> Result<Vec<String>, BackupError> {
    reader::store(storage)?;
    let mut names = reader::list(storage, POINTS)?;
    names.retain(|name| label(name).is_some());
    names.sort();
    let line = |name: &String| {
        let point = reader::point(storage, name);
        let label = label(name).unwrap_or_default();
        match point {
            Ok(point) => {
                let log_time = UtcSecond::of(Duration::from_millis(point.log_time_ms));
                let RestorePoint { index, orders, next_order_number: next, .. } = point;
                format!("{label:<32} {index:>12} {orders:>12} {next:>12}   {log_time}")
            }
            Err(error) => format!("{label:<32} {error}"),
        }
    };
    Ok(names.iter().map(line).collect())
}
