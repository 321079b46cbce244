//! `oppidum ctl restore`: makes the data folder of a replica from a backup.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ledger::block::{Block, Header};
use ledger::command::Command;
use ledger::outcome::{Accepted, Outcome};
use ledger::terms::OrderNumber;
use order::config::REPLICA_ID_MAX;
use order::new_series::NewSeries;
use order::raft::restoration::{Restoration, RestorationError, RestoredReplica};
use wire::exit::Stop;

use super::backup_error::BackupError;
use super::core::restore_point::{self, POINT_VERSION, PastRestore, RestorePoint};
use super::core::utc_second::UtcSecond;
use super::reader::{self, PastRestores};
use super::storage::BackupStorage;
use super::{blocking, existing, log_second};
use crate::cli::backup::Restore;
use crate::cli::values::FreeText;
use crate::recover::{is_confirmed, order_numbers};
use crate::settings::{self, Settings};

/// The moment that the operator asks for.
#[derive(Clone, Debug)]
enum RestoreTarget {
    Newest,
    At(UtcSecond),
    Index(u64),
}

impl RestoreTarget {
    /// True if an entry belongs to the restored store.
    fn includes(&self, header: &Header) -> bool {
        match self {
            Self::Newest => true,
            Self::At(second) => log_second(header.at.0) <= *second,
            Self::Index(index) => header.index.0 <= *index,
        }
    }
}

/// What the entries after the target did, as far as the backup has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LostEntries {
    entries: u64,
    orders: u64,
    /// The greatest term.
    term: u64,
    /// The number of the next order after them.
    next_order_number: u64,
    /// The API keys that were revoked there.
    revoked: Vec<String>,
}

impl LostEntries {
    fn note(&mut self, block: &Block) {
        self.entries += 1;
        self.orders += u64::from(block.header.orders);
        self.term = self.term.max(block.header.term);
        let next = block.header.first_order_number.0.saturating_add(block.header.orders.into());
        self.next_order_number = self.next_order_number.max(next);
        let done = Outcome::Accepted(Accepted::Done);
        for record in block.records.iter().filter(|record| record.outcome == done) {
            match &record.request.command {
                Command::RevokeApiKey { id, .. } => self.revoked.push(id.to_string()),
                Command::Reopen { next_number } => {
                    self.next_order_number = self.next_order_number.max(next_number.0);
                }
                _ => {}
            }
        }
    }
}

/// `oppidum ctl restore`. False: the operator did not confirm it, or the backup is damaged.
pub(crate) async fn restore(flags: Restore) -> Result<bool, Stop> {
    crate::roles::keep_private();
    let FreeText(data) = Settings::load()?.want(settings::DATA, flags.data)?;
    let (data, id) = (PathBuf::from(data), flags.id);
    if !(1..=REPLICA_ID_MAX).contains(&id) {
        return Err(Stop::Setup(format!("the id of a replica is from 1 to {REPLICA_ID_MAX}")));
    }
    let storage = existing(&flags.from)?;
    let target = match (flags.at, flags.index) {
        (Some(second), _) => RestoreTarget::At(second),
        (None, Some(index)) => RestoreTarget::Index(index),
        (None, None) => RestoreTarget::Newest,
    };
    let place = data.join(format!("order-{id}"));
    let from = storage.clone();
    let read = blocking(move || Replayed::read(&*from, &target, &place)).await?;
    let Replayed { store, point, restoration, lost, past } = match read? {
        Ok(replayed) => replayed,
        Err(damage @ BackupError::Damaged { .. }) => {
            answer!("{damage}; nothing is restored");
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let PastRestores { term, free, damaged } = past;
    if let Some(damaged) = damaged.filter(|_| flags.orders_from.is_none()) {
        answer!(
            "{damaged}; it noted a restore from this backup: give --orders-from, above all numbers \
             given out since"
        );
        return Ok(false);
    }
    // What the rest of the backup proves: its numbers are given out, and its terms were used.
    let free = free.max(lost.next_order_number).max(point.next_order_number);
    let series = restoration.new_series(flags.orders_from.map(OrderNumber), OrderNumber(free))?;
    let term = restoration.next_epoch(term.max(lost.term).max(point.term))?;
    tell(&restoration, &series, &point, &lost);
    let confirmed = match &flags.yes {
        Some(name) => *name == store,
        None => is_confirmed(&store).await,
    };
    if !confirmed {
        answer!("not confirmed, the store is {store}: nothing is restored");
        return Ok(false);
    }
    let members = point.members.keys().filter_map(|id| id.parse().ok()).collect();
    let address = point.members.get(&id.to_string()).cloned().unwrap_or_default();
    let replica = RestoredReplica { id, store: store.clone(), members, address };
    let first_order_number = series.first().0;
    let this = PastRestore { version: POINT_VERSION, term, first_order_number };
    let is_chosen = flags.orders_from.is_some();
    blocking(move || remember(&*storage, this, is_chosen)).await??;
    restoration.finish(&replica, &series, term).await?;
    answer!(
        "replica {id} of store \"{store}\" is restored, in {}, from term {term} on. Start it \
         with its own address in --orders, run `oppidum verify`, and add new replicas: `oppidum \
         ctl member add --help`",
        data.join(format!("order-{id}")).display()
    );
    Ok(true)
}

/// Notes this restore in the backup, so that the next one gives no number out again.
/// `is_chosen`: the operator chose the numbers, and goes on without a note if there can be none.
fn remember(storage: &dyn BackupStorage, this: PastRestore, is_chosen: bool) -> Result<(), Stop> {
    let content = restore_point::seal(&this).map_err(Stop::Setup)?;
    match storage.write_new(&this.name(), &content) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Stop::Setup(
            "the backup is being restored by another command as well, and nothing was restored \
             here: only one of them may go on"
                .into(),
        )),
        Err(error) if is_chosen => {
            note!(
                "the backup cannot note this restore: {error}. Restore it nowhere else: the other \
                 store would be in the same epoch"
            );
            Ok(())
        }
        Err(error) => Err(Stop::Setup(format!(
            "the backup cannot note this restore: {error}; another restore would give the same \
             order numbers. Make the folder writable, or give --orders-from, above all numbers \
             given out"
        ))),
    }
}

/// A backup, replayed up to the target.
struct Replayed {
    store: String,
    point: RestorePoint,
    restoration: Restoration,
    lost: LostEntries,
    past: PastRestores,
}

impl Replayed {
    /// Replays the backup. The outer error is one of the folder or of the flags.
    fn read(
        storage: &dyn BackupStorage,
        target: &RestoreTarget,
        place: &Path,
    ) -> Result<Result<Self, BackupError>, Stop> {
        let store = match reader::store(storage) {
            Ok(store) => store,
            Err(error) => return Ok(Err(error)),
        };
        let past = match reader::past_restores(storage) {
            Ok(past) => past,
            Err(error) => return Ok(Err(error)),
        };
        let point = match reader::newest_readable_point(storage) {
            Ok(Some(point)) => point,
            Ok(None) => {
                let why = "there is no restore point: no backup was ever completed here";
                return Err(Stop::Setup(why.into()));
            }
            Err(error) => return Ok(Err(error)),
        };
        if let RestoreTarget::Index(index) = target
            && point.index < *index
        {
            return Err(Stop::Setup(format!("the backup ends with entry {}", point.index)));
        }
        let mut restoration = Restoration::begin(place)?;
        let mut lost = LostEntries::default();
        let read = reader::each_block(storage, (0, point.last_block), |name, header, bytes| {
            if !target.includes(header) {
                let block = Block::decode(&bytes);
                restoration.note_lost(header);
                lost.note(&block.map_err(|error| BackupError::damaged(name, error))?);
                return Ok(true);
            }
            take(&mut restoration, name, bytes)?;
            Ok(true)
        });
        // Blocks after the target matter only for what is told about them.
        let last = restoration.last().map(|last| last.index.0);
        let is_reached = matches!(target, RestoreTarget::Index(index) if last == Some(*index));
        match read {
            Err(BackupError::Damaged { .. }) if is_reached || 0 < lost.entries => {}
            Err(BackupError::Damaged { name, why }) => {
                let why = match last {
                    Some(last) => format!("{why}; the last entry before it is --index {last}"),
                    None => why,
                };
                return Ok(Err(BackupError::Damaged { name, why }));
            }
            Err(error) => return Ok(Err(error)),
            Ok(()) => {}
        }
        if restoration.last().is_none() {
            return Err(Stop::Setup("the backup has no entry so early".into()));
        }
        if let Err(damaged) = reader::check_ledger(&store, restoration.shop().ledger_id()) {
            return Ok(Err(damaged));
        }
        let store = store.store;
        Ok(Ok(Self { store, point, restoration, lost, past }))
    }
}

fn take(restoration: &mut Restoration, name: &str, bytes: Bytes) -> Result<(), BackupError> {
    restoration.take(bytes).map_err(|error| match error {
        RestorationError::Block(why) => BackupError::damaged(name, why),
        RestorationError::Disk(why) => BackupError::Impossible(why),
    })
}

/// Tells the operator what happens, before it does.
fn tell(restoration: &Restoration, series: &NewSeries, point: &RestorePoint, lost: &LostEntries) {
    let Some(last) = restoration.last() else { return };
    let shop = restoration.shop();
    let at = log_second(last.at.0);
    answer!("Restores to:   entry {} of {at}, of backup {}.", last.index, point.name());
    let next = shop.next_order_number().0;
    match next.checked_sub(1).filter(|_| shop.first_order_number().0 < next) {
        Some(before) => answer!("Kept:          every order up to number {before}."),
        None => answer!("Kept:          no order: none was placed by then."),
    }
    answer!("{}", order_numbers(series));
    let LostEntries { entries, orders, revoked, .. } = lost;
    answer!(
        "Lost:          everything after it: of this backup {entries} blocks with {orders} orders, \
         and what came after the backup. A client that repeats a lost order places it again, under \
         a new number."
    );
    let live = shop.access().keys.values().filter(|key| key.ends.is_none_or(|ends| last.at < ends));
    let live = live.count();
    let again = match &revoked[..] {
        [] => String::new(),
        revoked => format!(" Revoked later, and live again: {}.", revoked.join(", ")),
    };
    answer!(
        "API keys:      {live} are live as of that entry.{again} Keys that were revoked after the \
         backup are live again, too: check `oppidum ctl key list` before clients connect.\n"
    );
}

#[cfg(test)]
mod tests {
    use ledger::api_key::ApiKeyId;
    use ledger::block::Record;
    use ledger::command::Request;
    use ledger::terms::{Digest, Index, Timestamp};

    use super::*;
    use crate::backup::memory_storage::MemoryStorage;

    fn header(index: u64, at: u64) -> Header {
        Header {
            index: Index(index),
            term: 1,
            at: Timestamp(at),
            first_order_number: OrderNumber(0),
            orders: 2,
            previous: Digest::default(),
            digest: Digest::default(),
        }
    }

    #[test]
    fn the_target_is_the_last_entry_at_or_before_the_time_asked_for() {
        let at = RestoreTarget::At("2024-04-26T22:21:55Z".parse().unwrap());
        for (millis, included) in [
            (1_714_170_114_999, true),
            (1_714_170_115_000, true),
            (1_714_170_115_999, true),
            (1_714_170_116_000, false),
        ] {
            assert_eq!(at.includes(&header(1, millis)), included, "{millis}");
        }
        assert!(RestoreTarget::Index(7).includes(&header(7, 0)));
        assert!(!RestoreTarget::Index(7).includes(&header(8, 0)));
        assert!(RestoreTarget::Newest.includes(&header(u64::MAX, u64::MAX)));
    }

    /// Kind: two restores of one backup at the same time, which go on in one epoch.
    #[test]
    fn of_two_restores_at_once_one_goes_on() {
        let storage = MemoryStorage::default();
        let this = PastRestore { version: POINT_VERSION, term: 9, first_order_number: 7 };
        remember(&storage, this, false).unwrap();
        for is_chosen in [false, true] {
            let Err(Stop::Setup(why)) = remember(&storage, this, is_chosen) else { panic!() };
            assert!(why.contains("by another command"), "{why}");
        }
        assert_eq!(reader::past_restores(&storage).unwrap().free, 8);
    }

    #[test]
    fn what_is_lost_names_the_keys_that_are_live_again() {
        let id = ApiKeyId::new(b"7f3kq2mw").unwrap();
        let command = Command::RevokeApiKey { id, ends: None };
        let request = Request { key: None, deadline: None, certificate: None, command };
        let record =
            |accepted| Record { request: request.clone(), outcome: Outcome::Accepted(accepted) };
        let records = vec![record(Accepted::Unchanged), record(Accepted::Done)];
        let mut lost = LostEntries::default();
        lost.note(&Block { header: header(9, 0), records });
        let expected = LostEntries {
            entries: 1,
            orders: 2,
            term: 1,
            next_order_number: 2,
            revoked: vec!["7f3kq2mw".into()],
        };
        assert_eq!(lost, expected);
    }
}
