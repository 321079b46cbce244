//! Recovery from a lost majority: one surviving replica goes on alone.
//!
//! It works on the data folder of a stopped replica. First it reports what the folder knows, so
//! that the operator can choose the survivor that knows most. Then it writes one entry behind the
//! log's end that names this replica as the only member, in a term that no lost replica has
//! reached, and draws a new incarnation: the other replicas are rejected when they come back, and
//! watchers of the lost replicas start over. Everything in this folder is kept, even entries that
//! no majority is known to have had; acknowledged entries that are not in it are lost. A second
//! entry announces the recovery for the audit trail, and begins a new series of order numbers, so
//! that no number of a lost order is given out again.
//!
//! The log's own term counts, and the vote's only within `bounds`: a vote for a forged term at the
//! end of the range, which no election can follow, is not copied into the new log.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use ledger::block::EncodedBlock;
use ledger::command::{Batch, Command, Request};
use ledger::ledger::{Ledger, Windows};
use ledger::operator_action::OperatorAction;
use ledger::terms::{FIRST_ORDER_NUMBER_MAX, Index, OrderNumber, Timestamp};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, RaftLogReader};
use wire::exit::Stop;
use wire::wall_clock::since_epoch;

use super::bounds::{Bounds, next_epoch};
use super::log_store::LogStore;
use super::types::{
    Address, Entry, LeaderId, LogId, Payload, RaftMembership, StoredMembership, Vote,
};
use crate::clock::LogClock;
use crate::data_folder::cannot_use;
use crate::formats;
use crate::history::blocks::{Blocks, Durable};
use crate::history::errors::invalid;
use crate::history::open_error::OpenError;
use crate::identity::Identity;
use crate::new_series::{NewSeries, OrderRate};

/// The copy of a log, while it is being written.
const DRAFT: &str = "log.new";

/// The log before a vote was dropped from it.
const BEFORE: &str = "log.before";

/// What the folder of a stopped replica knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knowledge {
    /// The replica's id.
    pub id: u64,
    /// The name of its store.
    pub cluster: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The ledger's id, in hexadecimal; `None`: no shop was opened.
    pub ledger: Option<String>,
    /// The voters, as this replica knows them.
    pub voters: Vec<u64>,
    /// The last entry of its log: term and index. Of several survivors, the greatest knows most.
    pub last: (u64, u64),
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The number that the next order would get, after all of its log.
    pub next_order_number: u64,
    /// Log time at its end, in milliseconds since the Unix epoch.
    pub log_time_ms: u64,
}

/// The folder of a stopped replica, locked against other processes.
#[derive(Debug)]
pub struct Survivor {
    identity: Identity,
    log: LogStore,
    members: StoredMembership,
    /// The log is beyond what release 0.1 reads.
    is_activated: bool,
    blocks: Blocks,
    /// The log time of the entries beyond the history, and how many orders each placed.
    beyond_history: Vec<(Timestamp, u32)>,
    knowledge: Knowledge,
}

impl Survivor {
    /// Locks the folder of a stopped replica, and reads everything that it knows.
    ///
    /// # Errors
    ///
    /// When the folder belongs to another replica, is in use, is damaged, or knows of no store.
    pub async fn open(folder: &Path, id: u64) -> Result<Self, Stop> {
        let identity = Identity::open_stopped(folder, id)?;
        let setup = |error: OpenError| Stop::Setup(error.to_string());
        put_back(folder).map_err(|error| cannot_use("repair", folder, &error))?;
        let mut log = LogStore::open(&folder.join("log"), None).map_err(setup)?;
        let history = folder.join("history");
        let (blocks, durable) = Blocks::open(&history.join(crate::history::FILE)).map_err(setup)?;
        let cannot = |error: io::Error| {
            let place = folder.display();
            Stop::Setup(format!("cannot read what {place} knows: {error}; try another survivor"))
        };
        let ledger = blocks.restore(&durable, Windows::default()).map_err(cannot)?;
        let found = replay(&mut log, ledger, &durable).await.map_err(cannot)?;
        let Replayed { ledger, members, last, committed, beyond_history } = found;
        let Some(last) = last else {
            return Err(Stop::Setup(format!(
                "the folder {} knows of no store yet: try another survivor",
                folder.display()
            )));
        };
        let knowledge = Knowledge {
            id,
            cluster: identity.cluster(),
            folder: folder.to_path_buf(),
            ledger: ledger.ledger_id().map(|id| id.to_string()),
            voters: members.membership().voter_ids().collect(),
            last: (last.leader_id.term, last.index),
            committed,
            next_order_number: ledger.next_order_number().0,
            log_time_ms: ledger.log_time().0,
        };
        let is_activated = formats::is_activated(&ledger);
        Ok(Self { identity, log, members, is_activated, blocks, beyond_history, knowledge })
    }

    /// The series of order numbers that begins when this replica goes on alone: from the number
    /// that the operator chose on, or from a number that no lost order can have had. `None`: no
    /// shop was opened, so no order is lost.
    ///
    /// # Errors
    ///
    /// If the chosen number was given out, no number is left, or the disk fails.
    pub fn new_series(&self, chosen: Option<OrderNumber>) -> Result<Option<NewSeries>, Stop> {
        if self.knowledge.ledger.is_none() {
            return Ok(None);
        }
        let next = OrderNumber(self.knowledge.next_order_number);
        if let Some(first) = chosen {
            return NewSeries::chosen(next, next, first).map(Some).map_err(Stop::Setup);
        }
        let mut rate = OrderRate::default();
        self.blocks.headers(|header| rate.note(header.at, header.orders)).map_err(|error| {
            Stop::Setup(format!("cannot read the history: {error}; give --orders-from"))
        })?;
        self.beyond_history.iter().for_each(|(at, orders)| rate.note(*at, *orders));
        estimated_series(next, rate, Timestamp(self.knowledge.log_time_ms)).map(Some)
    }

    /// What the folder knows.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// Makes this replica the only member of its store, whose order numbers go on in this series.
    /// Returns the new term.
    ///
    /// After a crash in the middle, a second call does the same again, in a later term.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub async fn go_on_alone(mut self, series: Option<&NewSeries>) -> Result<u64, Stop> {
        let Knowledge { id, last: (last_term, last_index), .. } = self.knowledge;
        let failed = cannot_write_log;
        let voted = self.log.read_vote().await.map_err(failed)?;
        let voted = voted.map_or(0, |vote| vote.leader_id.term);
        let forged = Bounds::of(last_term).term(voted).is_err();
        let before = if forged { last_term } else { voted.max(last_term) };
        let term = next_epoch(before).ok_or_else(|| {
            Stop::Setup(format!(
                "its log ends in term {before}, after which no later term exists: try \
                 another survivor"
            ))
        })?;
        if forged {
            tracing::warn!(
                term = voted,
                "the vote for term {voted} is left behind: no election comes so far"
            );
            self.log = without_vote(&self.knowledge.folder, self.log).await?;
        }
        let own = self.members.membership().get_node(&id).cloned().unwrap_or_default();
        let log_time = Timestamp(self.knowledge.log_time_ms);
        let action = OperatorAction::Recover { id };
        let epoch = NewEpoch { term, id, address: own.address, after: last_index };
        let batch = first_batch(action, series, log_time, self.is_activated);
        epoch.begin(&mut self.log, batch).await?;
        self.identity.begin_anew()?;
        Ok(term)
    }
}

/// The beginning of a new epoch, with one replica.
pub(super) struct NewEpoch {
    /// Its first term.
    pub(super) term: u64,
    /// The replica.
    pub(super) id: u64,
    /// The address at which other processes reach the replica, if it is known.
    pub(super) address: String,
    /// The last entry before it.
    pub(super) after: u64,
}

impl NewEpoch {
    /// The members.
    pub(super) fn members(&self) -> Result<RaftMembership, Stop> {
        let nodes = BTreeMap::from([(self.id, Address { address: self.address.clone() })]);
        RaftMembership::new(vec![BTreeSet::from([self.id])], nodes)
            .map_err(|error| Stop::Defect(format!("one replica is no membership: {error}")))
    }

    /// Writes the replica's vote for itself, the first batch, and an entry that names it as the
    /// only member. If the end of the log is lost in a crash, the replica does not go on alone
    /// without the new series of order numbers.
    pub(super) async fn begin(&self, log: &mut LogStore, batch: Option<Batch>) -> Result<(), Stop> {
        let leader_id = LeaderId { term: self.term, node_id: self.id };
        let alone = EntryPayload::Membership(self.members()?);
        let batch = batch.map(|batch| EntryPayload::Normal(Payload(batch.encode().into())));
        let entries = (self.after + 1..).zip([batch, Some(alone)].into_iter().flatten());
        let entries =
            entries.map(|(index, payload)| Entry::new(LogId { leader_id, index }, payload));
        let entries: Vec<_> = entries.collect();
        let failed = cannot_write_log;
        log.save_vote(&Vote { leader_id, committed: false }).await.map_err(failed)?;
        log.append(entries, IOFlushed::noop()).await.map_err(failed)?;
        log.flush().await.map_err(failed)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn cannot_write_log(error: io::Error) -> Stop {
    Stop::Setup(format!(
        "cannot write the log: {error}; check the disk, then run the command again"
    ))
}

/// The series that follows on a history with this rate, until now.
pub(super) fn estimated_series(
    next: OrderNumber,
    rate: OrderRate,
    log_time: Timestamp,
) -> Result<NewSeries, Stop> {
    let now = Timestamp(u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX));
    NewSeries::estimate(next, rate, log_time, now).ok_or_else(|| {
        Stop::Setup(format!(
            "no order number is left that no lost order can have had: give --orders-from, above \
             {next} and at most {FIRST_ORDER_NUMBER_MAX}"
        ))
    })
}

/// The first batch of a new epoch: it announces what was done, and begins the series. The command
/// is given on the replica's host, so no certificate names an operator. `None`: numbers go on as
/// before, and the log is one of release 0.1, which reads no announcement.
pub(super) fn first_batch(
    action: OperatorAction,
    series: Option<&NewSeries>,
    log_time: Timestamp,
    is_activated: bool,
) -> Option<Batch> {
    let series = series.filter(|series| !series.is_continued());
    if series.is_none() && !is_activated {
        return None;
    }
    let reopen = series.map(|series| Command::Reopen { next_number: series.first() });
    let commands = [Some(Command::OperatorAction(action)), reopen].into_iter().flatten();
    let plain = |command| Request { key: None, deadline: None, certificate: None, command };
    let at = LogClock::default().stamp(log_time);
    Some(Batch { at, settled: Index(0), requests: commands.map(plain).collect() })
}

/// Copies a log without its vote, and replaces the log by the copy. The old log is kept beside it.
async fn without_vote(folder: &Path, mut log: LogStore) -> Result<LogStore, Stop> {
    let place = folder.join("log");
    let draft = folder.join(DRAFT);
    let kept = folder.join(BEFORE);
    let failed = |error: io::Error| {
        Stop::Setup(format!(
            "cannot copy the log: {error}; check the disk, then run the command again"
        ))
    };
    let damaged = |error: OpenError| Stop::Setup(error.to_string());
    for old in [&draft, &kept] {
        match std::fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let mut copy = LogStore::open(&draft, None).map_err(damaged)?;
    copy_entries(&mut log, &mut copy).await.map_err(failed)?;
    drop((log, copy));
    std::fs::rename(&place, &kept).map_err(failed)?;
    std::fs::rename(&draft, &place).map_err(failed)?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    LogStore::open(&place, None).map_err(damaged)
}

async fn copy_entries(log: &mut LogStore, copy: &mut LogStore) -> io::Result<()> {
    let state = log.get_log_state().await?;
    if let Some(purged) = state.last_purged_log_id {
        copy.purge(purged).await?;
    }
    let mut next = state.last_purged_log_id.map_or(0, |id| id.index + 1);
    let end = state.last_log_id.map_or(0, |id| id.index + 1);
    while next < end {
        let entries = log.limited_get_log_entries(next, end).await?;
        let Some(last) = entries.last().map(|entry| entry.log_id.index) else {
            return Err(invalid(format!("the log has no entry {next}")));
        };
        next = last + 1;
        copy.append(entries, IOFlushed::noop()).await?;
    }
    let committed = log.read_committed().await?;
    copy.save_committed(committed).await?;
    copy.flush().await
}

/// Restores a log that a crash during the copying has left beside its place.
fn put_back(folder: &Path) -> io::Result<()> {
    let place = folder.join("log");
    let backup = folder.join(BEFORE);
    if !place.exists() && backup.exists() { std::fs::rename(backup, place) } else { Ok(()) }
}

/// The result of replaying the log beyond the history.
struct Replayed {
    ledger: Ledger,
    members: StoredMembership,
    last: Option<LogId>,
    committed: u64,
    /// The log time of the entries beyond the history, and how many orders each placed.
    beyond_history: Vec<(Timestamp, u32)>,
}

/// Applies the entries that the history lacks, committed or not, to a separate ledger.
async fn replay(log: &mut LogStore, mut ledger: Ledger, durable: &Durable) -> io::Result<Replayed> {
    let state = log.get_log_state().await?;
    let committed = log.read_committed().await?.max(durable.applied).map_or(0, |id| id.index);
    let mut members = durable.members.clone();
    let mut beyond_history = Vec::new();
    let last = state.last_log_id.max(durable.applied);
    let mut next = durable.applied.map_or(0, |id| id.index + 1);
    let end = state.last_log_id.map_or(0, |id| id.index + 1);
    while next < end {
        let entries = log.limited_get_log_entries(next, end).await?;
        if entries.first().is_none_or(|entry| entry.log_id.index != next) {
            return Err(invalid(format!("the log has no entry {next}")));
        }
        for entry in entries {
            next = entry.log_id.index + 1;
            match entry.payload {
                EntryPayload::Normal(payload) => {
                    let index = Index(entry.log_id.index);
                    let term = entry.log_id.leader_id.term;
                    let entry = ledger.apply_bytes(index, term, &payload.0).map_err(invalid)?;
                    let headers = entry.block.iter().map(EncodedBlock::header);
                    beyond_history.extend(headers.map(|header| (header.at, header.orders)));
                }
                EntryPayload::Membership(named) => {
                    members = StoredMembership::new(Some(entry.log_id), named);
                    skip(&mut ledger, entry.log_id.index);
                }
                EntryPayload::Blank => skip(&mut ledger, entry.log_id.index),
            }
        }
    }
    Ok(Replayed { ledger, members, last, committed, beyond_history })
}

fn skip(ledger: &mut Ledger, index: u64) {
    if ledger.applied() < Index(index) {
        ledger.skip_entry(Index(index));
    }
}

#[cfg(test)]
mod tests {
    use super::super::EPOCH;
    use super::*;
    use crate::config::Settings;
    use crate::config::tests::three;
    use crate::membership::Members;

    fn log_id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 456 }, index }
    }

    /// A stopped replica whose log has two entries of term 7, and a vote for `voted`.
    async fn stopped(data: &Path, voted: u64, purged: bool) -> Survivor {
        let settings = Settings { data: data.to_path_buf(), ..three() };
        drop(Identity::open(&settings, Members::new(&settings)).unwrap());
        let mut log = LogStore::open(&data.join("log"), None).unwrap();
        let ids = BTreeMap::from([(456, Address { address: "here:1".into() })]);
        let members = RaftMembership::new(vec![BTreeSet::from([456])], ids).unwrap();
        let named = Entry::new(log_id(7, 0), EntryPayload::Membership(members));
        let blank = Entry::new(log_id(7, 1), EntryPayload::Blank);
        log.append([named, blank], IOFlushed::noop()).await.unwrap();
        if purged {
            log.purge(log_id(7, 0)).await.unwrap();
        }
        let leader_id = LeaderId { term: voted, node_id: 123 };
        log.save_vote(&Vote { leader_id, committed: false }).await.unwrap();
        log.flush().await.unwrap();
        let identity = Identity::open_stopped(data, 456).unwrap();
        let knowledge = Knowledge {
            id: 456,
            cluster: identity.cluster(),
            folder: data.to_path_buf(),
            ledger: None,
            voters: vec![456],
            last: (7, 1),
            committed: 0,
            next_order_number: 0,
            log_time_ms: 0,
        };
        let members = StoredMembership::default();
        let (blocks, _) = Blocks::open(&data.join(crate::history::FILE)).unwrap();
        let beyond_history = Vec::new();
        let is_activated = false;
        Survivor { identity, log, members, is_activated, blocks, beyond_history, knowledge }
    }

    /// Kind: an entry that release 0.1 cannot read, in a store that has used nothing newer.
    #[tokio::test]
    async fn a_recovery_is_announced_if_the_log_is_beyond_release_0_1() {
        for is_activated in [false, true] {
            let data = tempfile::tempdir().unwrap();
            let survivor = Survivor { is_activated, ..stopped(data.path(), 7, false).await };
            survivor.go_on_alone(None).await.unwrap();
            let mut log = LogStore::open(&data.path().join("log"), None).unwrap();
            let entries = log.try_get_log_entries(2..9).await.unwrap();
            // A log whose end is torn off names no new members, and so does not go on alone.
            let (members, before) = entries.split_last().unwrap();
            assert!(matches!(members.payload, EntryPayload::Membership(_)));
            let announced = before.first().map(|entry| match &entry.payload {
                EntryPayload::Normal(payload) => Batch::decode(&payload.0).unwrap(),
                other => panic!("{other:?}"),
            });
            let recover = Command::OperatorAction(OperatorAction::Recover { id: 456 });
            let commands = announced.map(|batch| batch.requests[0].command.clone());
            assert_eq!(commands, is_activated.then_some(recover));
        }
    }

    /// Kind: the number of a lost order that is given out again.
    #[tokio::test]
    async fn a_recovery_begins_a_new_series_of_order_numbers() {
        let data = tempfile::tempdir().unwrap();
        let mut survivor = stopped(data.path(), 7, false).await;
        assert_eq!(survivor.new_series(None).unwrap(), None, "no shop, no orders");
        survivor.knowledge.ledger = Some("ab".into());
        survivor.knowledge.next_order_number = 40;
        survivor.knowledge.log_time_ms = u64::MAX;
        survivor.beyond_history = vec![(Timestamp(7), 40)];
        let series = survivor.new_series(None).unwrap().unwrap();
        assert_eq!(series.first(), OrderNumber(2_000_000));
        let chosen = |first| survivor.new_series(Some(OrderNumber(first)));
        assert!(chosen(39).is_err() && chosen(40).unwrap().unwrap().is_continued());
        survivor.knowledge.log_time_ms = 0;
        survivor.go_on_alone(Some(&series)).await.unwrap();
        let mut log = LogStore::open(&data.path().join("log"), None).unwrap();
        let entries = log.try_get_log_entries(2..3).await.unwrap();
        let EntryPayload::Normal(payload) = &entries[0].payload else { panic!("{entries:?}") };
        let batch = Batch::decode(&payload.0).unwrap();
        let commands: Vec<_> = batch.requests.into_iter().map(|request| request.command).collect();
        let recover = Command::OperatorAction(OperatorAction::Recover { id: 456 });
        assert_eq!(commands, [recover, Command::Reopen { next_number: series.first() }]);
    }

    /// Kind: arithmetic over a term that another replica may have forged.
    #[tokio::test]
    async fn a_recovery_drops_a_forged_vote_and_keeps_the_log() {
        for (voted, purged, expected) in [
            (7, false, EPOCH),
            (3 * EPOCH + 5, false, 4 * EPOCH),
            (u64::MAX, false, EPOCH),
            (u64::MAX, true, EPOCH),
            (u64::MAX / 2, false, EPOCH),
            (5_000 * EPOCH, false, EPOCH),
        ] {
            let data = tempfile::tempdir().unwrap();
            let survivor = stopped(data.path(), voted, purged).await;
            assert_eq!(survivor.go_on_alone(None).await.unwrap(), expected, "{voted}");
            let mut log = LogStore::open(&data.path().join("log"), None).unwrap();
            assert_eq!(log.read_vote().await.unwrap().unwrap().leader_id.term, expected);
            let state = log.get_log_state().await.unwrap();
            assert_eq!(state.last_purged_log_id, purged.then_some(log_id(7, 0)));
            let entries = log.try_get_log_entries(1..3).await.unwrap();
            let terms: Vec<u64> = entries.iter().map(|e| e.log_id.leader_id.term).collect();
            assert_eq!(terms, [7, expected], "{voted}");
        }
    }
}
