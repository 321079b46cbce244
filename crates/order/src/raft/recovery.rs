//! Bringing a store back when a majority of its replicas is lost: one survivor goes on alone.
//!
//! Works on the data folder of a replica that is stopped. It first tells what the folder knows, so
//! that of several survivors the one that knows most is chosen. Then it writes one entry behind the
//! log's end, by which this replica is the only member, in a term that no lost replica has reached,
//! and draws another incarnation: the others are refused when they come back, and whoever watched
//! the lost ones starts over. Everything in this folder is kept, also what no majority is known to
//! have had; what was acknowledged and is not in it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use ledger::ledger::{Ledger, Windows};
use ledger::terms::Index;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, RaftLogReader};
use wire::exit::Stop;

use super::blocks::{Blocks, Durable, invalid};
use super::log_store::LogStore;
use super::open_error::OpenError;
use super::types::{Address, Entry, LeaderId, LogId, Membership, StoredMembership, Vote};
use super::{EPOCH, epoch, state_machine};
use crate::identity::Identity;

/// What the folder of a stopped replica knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knowledge {
    /// The replica.
    pub id: u64,
    /// Its store.
    pub cluster: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The ledger, in hexadecimal; none: no shop was opened.
    pub ledger: Option<String>,
    /// The voters, as this replica knows them.
    pub voters: Vec<u64>,
    /// The last entry of its log: term and index. Of several survivors the greatest knows most.
    pub last: (u64, u64),
    /// The last entry that it knows to be decided.
    pub committed: u64,
    /// The number that the next order would get, after all of its log.
    pub next_order_number: u64,
    /// Log time at its end, in milliseconds since the Unix epoch.
    pub log_time_ms: u64,
}

/// A stopped replica's folder, in use by nobody else.
#[derive(Debug)]
pub struct Survivor {
    identity: Identity,
    log: LogStore,
    members: StoredMembership,
    knowledge: Knowledge,
}

impl Survivor {
    /// Takes the folder of a stopped replica into use, and looks at all that it knows.
    ///
    /// # Errors
    ///
    /// When it is not this replica's folder, is in use, is damaged, or knows of no store.
    pub async fn open(folder: &Path, id: u64) -> Result<Self, Stop> {
        let identity = Identity::open_stopped(folder, id)?;
        let setup = |error: OpenError| Stop::Setup(error.to_string());
        let mut log = LogStore::open(&folder.join("log"), None).map_err(setup)?;
        let history = folder.join("history");
        let (blocks, durable) = Blocks::open(&history.join(state_machine::FILE)).map_err(setup)?;
        let cannot = |error: io::Error| {
            let place = folder.display();
            Stop::Setup(format!("cannot read what {place} knows: {error}; try another survivor"))
        };
        let ledger = blocks.restore(&durable, Windows::default()).map_err(cannot)?;
        let found = replay(&mut log, ledger, &durable).await.map_err(cannot)?;
        let Found { ledger, members, last, committed } = found;
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
        Ok(Self { identity, log, members, knowledge })
    }

    /// What the folder knows.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// Makes this replica the only one of its store. The term in which it goes on.
    ///
    /// Done again after a crash in the middle, it is done once more, in a later term.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub async fn go_on_alone(mut self) -> Result<u64, Stop> {
        let Knowledge { id, last: (last_term, last_index), .. } = self.knowledge;
        let failed = |error: io::Error| {
            Stop::Setup(format!("cannot write the log: {error}; check the disk, and do it again"))
        };
        let voted = self.log.read_vote().await.map_err(failed)?;
        let before = voted.map_or(0, |vote| vote.leader_id.term).max(last_term);
        let term = (epoch(before) + 1) * EPOCH;
        let leader_id = LeaderId { term, node_id: id };
        let own = self.members.membership().get_node(&id).cloned().unwrap_or_default();
        let nodes = BTreeMap::from([(id, Address { address: own.address })]);
        let alone = Membership::new(vec![BTreeSet::from([id])], nodes)
            .map_err(|error| Stop::Defect(format!("one replica is no membership: {error}")))?;
        self.log.save_vote(&Vote { leader_id, committed: false }).await.map_err(failed)?;
        let log_id = LogId { leader_id, index: last_index + 1 };
        let entry = Entry::new(log_id, EntryPayload::Membership(alone));
        self.log.append([entry], IOFlushed::noop()).await.map_err(failed)?;
        self.log.flush().await.map_err(failed)?;
        self.identity.begin_anew()?;
        Ok(term)
    }
}

/// What the log holds beyond the history.
struct Found {
    ledger: Ledger,
    members: StoredMembership,
    last: Option<LogId>,
    committed: u64,
}

/// Applies what the history does not have yet, decided or not, to a ledger of its own.
async fn replay(log: &mut LogStore, mut ledger: Ledger, durable: &Durable) -> io::Result<Found> {
    let state = log.get_log_state().await?;
    let committed = log.read_committed().await?.max(durable.applied).map_or(0, |id| id.index);
    let mut members = durable.members.clone();
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
                    let (index, term) = (Index(entry.log_id.index), entry.log_id.leader_id.term);
                    ledger.apply_bytes(index, term, &payload.0).map_err(invalid)?;
                }
                EntryPayload::Membership(named) => {
                    members = StoredMembership::new(Some(entry.log_id), named);
                    skip(&mut ledger, entry.log_id.index);
                }
                EntryPayload::Blank => skip(&mut ledger, entry.log_id.index),
            }
        }
    }
    Ok(Found { ledger, members, last, committed })
}

fn skip(ledger: &mut Ledger, index: u64) {
    if ledger.applied() < Index(index) {
        ledger.skip_entry(Index(index));
    }
}
