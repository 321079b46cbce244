//! Identity: the replica that a data folder belongs to, and the data folders of the other replicas.
//!
//! A data folder belongs to one replica of one store, and is used by one process at a time. Its
//! file `identity.toml` names the replica and the store. It also holds the *incarnation*: 128
//! random bits drawn when the folder was made. The other replicas remember it from the first
//! handshake and refuse another incarnation under the same id, so that an emptied folder cannot
//! come back and forget what its replica had promised. They also pass incarnations on to each
//! other, and remember removed replicas: an id is never used again.
//!
//! # Invariants
//!
//! * Only a member is admitted: it is in the log or in the list of the start, or it knows this
//!   replica's own incarnation, which only members receive (the entry that added it may not be here
//!   yet). A replica that waits to be added admits any replica that holds a ledger.
//! * An incarnation is sent to dialed addresses alone. A caller is answered with fingerprints: they
//!   say which folder is meant, and no replica can call with a fingerprint. Only a caller that was
//!   met, or that knows this replica's incarnation, is served more than a greeting.
//! * An incarnation is persisted when its replica was met at its own address, or when a replica
//!   that was met there passes it on. Until then the incarnation of a mere caller is kept in
//!   memory, and the incarnation that answers at the address replaces it.
//!
//! The identity also holds the [start history](crate::starts), by which a peer recognises an older
//! copy of the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledger::terms::LedgerId;
use parking_lot::Mutex;
use tokio::sync::watch;
use wire::dial::Route;
use wire::exit::Stop;
use wire::proto;
use wire::tls::credentials::Credentials;
use wire::tls::subject::Holder;

use crate::config::{HINTS_MAX, REPLICAS_MAX, Settings};
use crate::data_folder::{IDENTITY_FILE, cannot_use, cannot_write, is_known, lock};
use crate::handshake_error::{HandshakeError, judge};
use crate::identity_file::{IdentityFile, begin, check_own, check_version, fresh, read, write};
use crate::incarnation::{Hex, draw, fingerprint, is_fingerprint, is_hex, is_same};
use crate::membership::Members;
use crate::private;
use crate::starts::MetStart;

mod starts;

/// The most data folders of other replicas that are remembered: more than a store and its lists
/// ever name.
const KNOWN_MAX: usize = REPLICAS_MAX + HINTS_MAX;

/// A data folder in use, and the data folders of the other replicas.
#[derive(Debug)]
pub(crate) struct Identity {
    folder: PathBuf,
    members: Members,
    /// The removed replicas, for the tasks that pass them on.
    removals: watch::Sender<BTreeSet<u64>>,
    /// Drawn at each start, so that a peer can tell a start from a broken connection.
    start: u64,
    record: Mutex<IdentityFile>,
    /// The incarnations of members that have called and were not met at their address yet.
    callers: Mutex<BTreeMap<u64, Hex>>,
    /// The replica joins: until it has a log, it believes any replica that holds a ledger.
    joins: bool,
    /// The credentials with which this replica dials the others.
    credentials: Option<Arc<Credentials>>,
    /// Held for its lock.
    _lock: File,
}

impl Identity {
    /// Takes the data folder into use; makes it if it is not there.
    pub(crate) fn open(settings: &Settings, members: Members) -> Result<Self, Stop> {
        let folder = settings.data.clone();
        private::create(&folder).map_err(|error| cannot_use("make", &folder, &error))?;
        let lock = lock(&folder)?;
        private::tighten(&folder);
        let mut record = match read(&folder.join(IDENTITY_FILE))? {
            Some(record) => record,
            None => fresh(settings, &folder)?,
        };
        check_own(&record, settings)?;
        if let Some(why) = &record.refused {
            return Err(Stop::Setup(why.clone()));
        }
        let start = rand::random();
        begin(&mut record, &folder, start)?;
        let removals = watch::Sender::new(record.removed.clone());
        let record = Mutex::new(record);
        let callers = Mutex::default();
        Ok(Self {
            folder,
            members,
            removals,
            start,
            record,
            callers,
            joins: settings.join,
            credentials: settings.credentials.clone(),
            _lock: lock,
        })
    }

    /// Opens the folder of a replica that does not run, for the operator's tools; it must exist.
    pub(crate) fn open_stopped(folder: &Path, id: u64) -> Result<Self, Stop> {
        let place = folder.display();
        if !is_known(folder) {
            let advice = "give the folder that holds the replicas' folders, and a replica's id";
            return Err(Stop::Setup(format!("{place} is no replica's data folder: {advice}")));
        }
        let lock = lock(folder)?;
        let Some(record) = read(&folder.join(IDENTITY_FILE))?.filter(|record| record.id == id)
        else {
            return Err(Stop::Setup(format!("the data folder {place} is not of replica {id}")));
        };
        check_version(&record, folder)?;
        let removals = watch::Sender::new(record.removed.clone());
        let folder = folder.to_path_buf();
        let members = Members::none();
        let record = Mutex::new(record);
        let callers = Mutex::default();
        Ok(Self {
            folder,
            members,
            removals,
            start: 0,
            record,
            callers,
            joins: false,
            credentials: None,
            _lock: lock,
        })
    }

    /// This replica's id.
    pub(crate) fn id(&self) -> u64 {
        self.record.lock().id
    }

    /// How this replica introduces itself to replica `to`, which it dials.
    pub(crate) fn sender(&self, to: u64) -> proto::Sender {
        let record = self.record.lock();
        proto::Sender {
            id: record.id,
            cluster: record.cluster.clone(),
            incarnation: record.incarnation.clone(),
            ledger_id: record.ledger.clone().unwrap_or_default(),
            to,
            start: self.start,
            to_incarnation: record.peers.get(&to.to_string()).cloned().unwrap_or_default(),
        }
    }

    /// How this replica introduces itself to a caller that says to be replica `to`.
    pub(crate) fn answer(&self, to: u64) -> proto::Sender {
        let sender = self.sender(to);
        let to_incarnation = if sender.to_incarnation.is_empty() {
            String::new()
        } else {
            fingerprint(&sender.to_incarnation)
        };
        proto::Sender { incarnation: fingerprint(&sender.incarnation), to_incarnation, ..sender }
    }

    /// The route to replica `to`, which must show its own certificate.
    pub(crate) fn route(&self, to: u64) -> Route {
        Route::to(Holder::Replica(to), self.credentials.as_ref())
    }

    /// The members of the store, as the log says.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// The store of this folder.
    pub(crate) fn cluster(&self) -> String {
        self.record.lock().cluster.clone()
    }

    /// The data folders of the others, for a caller.
    pub(crate) fn known_fingerprints(&self) -> Vec<proto::Known> {
        let mut known = self.known();
        for other in &mut known {
            other.incarnation = fingerprint(&other.incarnation);
        }
        known
    }

    /// The data folders of the others, as far as they are known here: for a replica that is dialed.
    pub(crate) fn known(&self) -> Vec<proto::Known> {
        let record = self.record.lock();
        let known = record.peers.iter().filter_map(|(id, incarnation)| {
            let met = record.met.get(id).and_then(MetStart::out);
            Some(proto::Known { id: id.parse().ok()?, incarnation: incarnation.clone(), met })
        });
        known.collect()
    }

    /// Takes over the data folders that replica `from` knows: those of members not met yet are
    /// remembered, so that a replica that was added later refuses an emptied folder as well. A list
    /// that is longer than any honest one is ignored, and so is the list of a replica that was not
    /// met at its own address.
    pub(crate) fn learn(&self, from: u64, known: &[proto::Known]) {
        let waits = self.waits();
        let is_named =
            |id: u64| waits || self.members.look(|now| now.is_member(id)) || self.members.hints(id);
        let mut record = self.record.lock();
        if KNOWN_MAX < known.len() || !record.peers.contains_key(&from.to_string()) {
            return;
        }
        let mut next = record.clone();
        for proto::Known { id, incarnation, met } in known {
            let is_other = *id != record.id && !next.removed.contains(id);
            let is_sound = is_hex(incarnation) || is_fingerprint(incarnation);
            if is_other && is_sound && is_named(*id) && next.peers.len() < KNOWN_MAX {
                let known = next.peers.entry(id.to_string()).or_insert_with(|| incarnation.clone());
                if is_same(known, incarnation) {
                    if is_fingerprint(known) {
                        known.clone_from(incarnation);
                    }
                    next.hear_of(*id, *met);
                }
            }
        }
        self.keep(&mut record, next);
    }

    /// True while this replica waits to be added to a store, and knows no members but hints.
    pub(crate) fn waits(&self) -> bool {
        self.joins && !self.members.look(|now| now.begun)
    }

    /// True while this replica is being added: as long as its own log does not name it, the log
    /// need not name the leader either, which may have been added shortly before.
    fn is_joining(&self, own: u64) -> bool {
        self.joins && !self.members.look(|now| now.begun && now.is_member(own))
    }

    /// These are the members, by a committed entry.
    pub(crate) fn settle(&self, members: &BTreeSet<u64>) {
        let mut record = self.record.lock();
        let mut next = record.clone();
        next.removed.extend(record.members.difference(members));
        next.removed.retain(|id| !members.contains(id));
        let removed = &next.removed;
        let stays = |id: &str| id.parse().is_ok_and(|id: u64| !removed.contains(&id));
        next.peers.retain(|id, _| stays(id));
        next.met.retain(|id, _| stays(id));
        next.members.clone_from(members);
        let removed = next.removed.clone();
        self.keep(&mut record, next);
        drop(record);
        self.removals.send_if_modified(|known| {
            let is_news = *known != removed;
            *known = removed;
            is_news
        });
    }

    /// The removed replicas, and every change.
    pub(crate) fn removals(&self) -> watch::Receiver<BTreeSet<u64>> {
        self.removals.subscribe()
    }

    /// Begins a new life of this folder's store, with this replica alone: replicas of the old store
    /// no longer recognise it.
    pub(crate) fn begin_anew(&self) -> Result<(), Stop> {
        let mut record = self.record.lock();
        let mut next = record.clone();
        next.incarnation = draw();
        next.removed.extend(next.peers.keys().filter_map(|id| id.parse::<u64>().ok()));
        next.removed.extend(&record.members);
        let own = next.id;
        next.removed.retain(|id| *id != own);
        next.members = BTreeSet::from([own]);
        next.peers.clear();
        next.met.clear();
        (next.refused, next.lacks) = (None, None);
        write(&self.folder, &next).map_err(|error| cannot_write(&self.folder, &error))?;
        *record = next;
        Ok(())
    }

    fn keep(&self, record: &mut IdentityFile, next: IdentityFile) {
        if *record == next {
            return;
        }
        // If the write fails, the peers pass it on again after the next start: no reason to refuse.
        if let Err(error) = write(&self.folder, &next) {
            tracing::warn!("cannot write {}: {error}", self.folder.join(IDENTITY_FILE).display());
        }
        *record = next;
    }

    /// Checks the sender of a call; returns its id.
    pub(crate) fn admit(&self, sender: Option<&proto::Sender>) -> Result<u64, HandshakeError> {
        let sender = sender.ok_or(HandshakeError::Nameless)?;
        let id = sender.id;
        let mut record = self.record.lock();
        self.judge(&record, sender)?;
        if is_fingerprint(&sender.incarnation) {
            return Err(HandshakeError::OtherIncarnation { id });
        }
        let key = id.to_string();
        if let Some(known) = record.peers.get(&key) {
            if is_fingerprint(known) {
                let mut next = record.clone();
                next.peers.insert(key, sender.incarnation.clone());
                self.keep(&mut record, next);
            }
            return Ok(id);
        }
        let mut callers = self.callers.lock();
        let is_full = KNOWN_MAX <= callers.len() && !callers.contains_key(&id);
        match callers.get(&id) {
            Some(before) if *before != sender.incarnation => Err(HandshakeError::NotMetYet(id)),
            _ if is_full => Err(HandshakeError::Unknown(id)),
            _ => {
                callers.insert(id, sender.incarnation.clone());
                Ok(id)
            }
        }
    }

    /// Checks the replica that answers at a member's address, and remembers it at the first time;
    /// returns its id.
    pub(crate) fn meet(&self, sender: Option<&proto::Sender>) -> Result<u64, HandshakeError> {
        let sender = sender.ok_or(HandshakeError::Nameless)?;
        let mut record = self.record.lock();
        self.judge(&record, sender)?;
        let called = self.callers.lock().remove(&sender.id);
        let key = sender.id.to_string();
        if !record.peers.contains_key(&key) {
            if KNOWN_MAX <= record.peers.len() {
                return Err(HandshakeError::Unknown(sender.id));
            }
            let mut next = record.clone();
            let called = called.filter(|called| is_same(called, &sender.incarnation));
            next.peers.insert(key, called.unwrap_or_else(|| sender.incarnation.clone()));
            self.keep(&mut record, next);
        }
        Ok(sender.id)
    }

    /// True when an admitted caller has proved which replica it is: its data folder was met at its
    /// own address, or another member passed it on; or it was added meanwhile, and knows this
    /// folder's incarnation. A replica that is being added has nothing to compare with.
    pub(crate) fn is_proven(&self, sender: &proto::Sender) -> bool {
        let record = self.record.lock();
        if self.is_joining(record.id) {
            return true;
        }
        let is_known = record.peers.contains_key(&sender.id.to_string());
        is_known || sender.to_incarnation == record.incarnation
    }

    fn judge(&self, record: &IdentityFile, sender: &proto::Sender) -> Result<(), HandshakeError> {
        let is_member = self.members.look(|now| now.is_member(sender.id));
        let is_known = is_member || self.members.hints(sender.id);
        judge(record, is_known, self.is_joining(record.id), sender)
    }

    /// Remembers the ledger that this replica holds.
    pub(crate) fn hold_ledger(&self, ledger: LedgerId) -> Result<(), Stop> {
        let mut record = self.record.lock();
        let ledger = ledger.to_string();
        match &record.ledger {
            Some(known) if *known == ledger => Ok(()),
            Some(known) => Err(Stop::Defect(format!(
                "the data folder {} is of ledger {known}, but its state is of ledger {ledger}: \
                 set the folder aside and keep it for inspection",
                self.folder.display()
            ))),
            None => {
                record.ledger = Some(ledger);
                write(&self.folder, &record).map_err(|error| cannot_write(&self.folder, &error))
            }
        }
    }
}

#[cfg(test)]
mod tests;
