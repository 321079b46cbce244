//! Who a replica is, and whom it takes the others for.
//!
//! A data folder belongs to one replica of one store, and is used by one process at a time. Its
//! file `identity.toml` says which; it also holds the *incarnation*: 128 random bits drawn when the
//! folder was made. The others remember it from the first handshake and refuse another under the
//! same id, so that an emptied folder cannot come back and forget what its replica had promised.
//! They also tell it each other, and remember who has been removed: an id is never used again.
//!
//! # Invariants
//!
//! * Only a member is admitted: it is in the log or in the list of the start, or it knows this
//!   replica's own incarnation, which members alone are told (the entry that added it may not be
//!   here yet). A replica that waits to be added admits any replica that holds a ledger.
//! * An incarnation is persisted when its replica was met at its own address, or when a replica
//!   that was met there tells it. One that was only heard of in a call counts until then, in
//!   memory, and gives way to what answers at the address.
//!
//! It holds the [start history](crate::starts), too, by which a peer recognises an older copy of
//! the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use ledger::terms::LedgerId;
use parking_lot::Mutex;
use tokio::sync::watch;
use wire::exit::Stop;
use wire::proto;

use crate::config::{HINTS_MAX, REPLICAS_MAX, Settings};
use crate::members::Members;
use crate::private;
use crate::record::{
    FILE, Hex, Record, begin, cannot_use, cannot_write, check_own, check_version, draw, fresh,
    is_known, lock, read, write,
};
use crate::starts::MetStart;
use crate::stranger::{Stranger, is_hex, judge};

mod starts;

/// The most data folders that are known by replica: more than a store and its lists ever name.
const KNOWN_MAX: usize = REPLICAS_MAX + HINTS_MAX;

/// A data folder in use, and everything known about who is who.
#[derive(Debug)]
pub(crate) struct Identity {
    folder: PathBuf,
    members: Members,
    /// Who was removed, for those who must tell it.
    removals: watch::Sender<BTreeSet<u64>>,
    /// Drawn at each start, so that a peer can tell a start from a broken connection.
    start: u64,
    record: Mutex<Record>,
    /// The incarnations of members that have called and were not met at their address yet.
    callers: Mutex<BTreeMap<u64, Hex>>,
    /// It joins: until it has a log, it takes the word of any replica that holds a ledger.
    joins: bool,
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
        let mut record = match read(&folder.join(FILE))? {
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
        let (callers, joins) = (Mutex::default(), settings.join);
        Ok(Self { folder, members, removals, start, record, callers, joins, _lock: lock })
    }

    /// The folder of a replica that does not run, for those who look after it; it must be there.
    pub(crate) fn open_stopped(folder: &Path, id: u64) -> Result<Self, Stop> {
        let place = folder.display();
        if !is_known(folder) {
            let advice = "give the folder that holds the replicas' folders, and a replica's id";
            return Err(Stop::Setup(format!("{place} is no replica's data folder: {advice}")));
        }
        let lock = lock(folder)?;
        let Some(record) = read(&folder.join(FILE))?.filter(|record| record.id == id) else {
            return Err(Stop::Setup(format!("the data folder {place} is not of replica {id}")));
        };
        check_version(&record, folder)?;
        let removals = watch::Sender::new(record.removed.clone());
        let (folder, members) = (folder.to_path_buf(), Members::of_nobody());
        let (record, callers, joins) = (Mutex::new(record), Mutex::default(), false);
        Ok(Self { folder, members, removals, start: 0, record, callers, joins, _lock: lock })
    }

    /// This replica's id.
    pub(crate) fn id(&self) -> u64 {
        self.record.lock().id
    }

    /// How this replica introduces itself to replica `to`.
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

    /// The members of the store, as the log says.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// The store of this folder.
    pub(crate) fn cluster(&self) -> String {
        self.record.lock().cluster.clone()
    }

    /// The data folders of the others, as far as they are known here.
    pub(crate) fn known(&self) -> Vec<proto::Known> {
        let record = self.record.lock();
        let known = record.peers.iter().filter_map(|(id, incarnation)| {
            let met = record.met.get(id).and_then(MetStart::out);
            Some(proto::Known { id: id.parse().ok()?, incarnation: incarnation.clone(), met })
        });
        known.collect()
    }

    /// Replica `from` tells which data folders it knows: those of members not met yet are
    /// remembered, so that a replica that was added later refuses an emptied folder as well. A
    /// list that is longer than any honest one is passed over, as is one of a replica that was not
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
            if is_other && is_hex(incarnation) && is_named(*id) && next.peers.len() < KNOWN_MAX {
                let known = next.peers.entry(id.to_string()).or_insert_with(|| incarnation.clone());
                if known == incarnation {
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

    /// These are the members, by an entry that is committed.
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

    /// Who has been removed, as it changes.
    pub(crate) fn removals(&self) -> watch::Receiver<BTreeSet<u64>> {
        self.removals.subscribe()
    }

    /// Begins a new life of this folder's store, with this replica alone: whoever met the old one
    /// does not know it any more.
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

    fn keep(&self, record: &mut Record, next: Record) {
        if *record == next {
            return;
        }
        // Not written, it would be asked for again at the next start: no reason to refuse.
        if let Err(error) = write(&self.folder, &next) {
            tracing::warn!("cannot write {}: {error}", self.folder.join(FILE).display());
        }
        *record = next;
    }

    /// Checks who calls. The caller's id.
    pub(crate) fn admit(&self, sender: Option<&proto::Sender>) -> Result<u64, Stranger> {
        let sender = sender.ok_or(Stranger::Nameless)?;
        let id = sender.id;
        let record = self.record.lock();
        self.judge(&record, sender)?;
        if record.peers.contains_key(&id.to_string()) {
            return Ok(id);
        }
        let mut callers = self.callers.lock();
        let is_full = KNOWN_MAX <= callers.len() && !callers.contains_key(&id);
        match callers.get(&id) {
            Some(before) if *before != sender.incarnation => Err(Stranger::NotMetYet(id)),
            _ if is_full => Err(Stranger::Unknown(id)),
            _ => {
                callers.insert(id, sender.incarnation.clone());
                Ok(id)
            }
        }
    }

    /// Checks who answers at the address of a member, and remembers it when it is the first time.
    /// The answering replica's id.
    pub(crate) fn meet(&self, sender: Option<&proto::Sender>) -> Result<u64, Stranger> {
        let sender = sender.ok_or(Stranger::Nameless)?;
        let mut record = self.record.lock();
        self.judge(&record, sender)?;
        self.callers.lock().remove(&sender.id);
        let key = sender.id.to_string();
        if !record.peers.contains_key(&key) {
            if KNOWN_MAX <= record.peers.len() {
                return Err(Stranger::Unknown(sender.id));
            }
            let mut next = record.clone();
            next.peers.insert(key, sender.incarnation.clone());
            self.keep(&mut record, next);
        }
        Ok(sender.id)
    }

    fn judge(&self, record: &Record, sender: &proto::Sender) -> Result<(), Stranger> {
        let is_member = self.members.look(|now| now.is_member(sender.id));
        judge(record, is_member || self.members.hints(sender.id), self.waits(), sender)
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
mod tests {
    use std::fs;

    use super::*;
    use crate::config::tests::three;

    fn settings(folder: &Path) -> Settings {
        Settings { data: folder.to_path_buf(), ..three() }
    }

    fn open(settings: &Settings) -> Result<Identity, Stop> {
        Identity::open(settings, Members::new(settings))
    }

    fn caller(id: u64, incarnation: u128) -> proto::Sender {
        proto::Sender {
            id,
            cluster: "test".into(),
            incarnation: format!("{incarnation:032x}"),
            ledger_id: String::new(),
            to: 456,
            start: 1,
            to_incarnation: String::new(),
        }
    }

    #[test]
    fn a_folder_keeps_its_replica_and_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(&settings(folder.path())).unwrap().sender(123);
        let again = open(&settings(folder.path())).unwrap().sender(123);
        assert_eq!(first.incarnation, again.incarnation);
        assert_ne!(first.start, again.start);
        let other_id = Settings { id: 345, ..settings(folder.path()) };
        let other_store = Settings { cluster: "another".into(), ..settings(folder.path()) };
        for strange in [other_id, other_store] {
            let Err(Stop::Setup(line)) = open(&strange) else { panic!("taken") };
            assert!(line.contains("belongs to") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_folder_in_use_or_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let held = open(&settings(folder.path())).unwrap();
        let Err(Stop::Setup(line)) = open(&settings(folder.path())) else { panic!() };
        assert!(line.contains("in use"), "{line}");
        drop(held);
        let strange = tempfile::tempdir().unwrap();
        fs::write(strange.path().join("letters.txt"), "dear").unwrap();
        let Err(Stop::Setup(line)) = open(&settings(strange.path())) else { panic!() };
        assert!(line.contains("letters.txt"), "{line}");
    }

    #[test]
    fn a_damaged_identity_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(&settings(folder.path())).unwrap());
        fs::write(folder.path().join(FILE), "version = ").unwrap();
        assert!(matches!(open(&settings(folder.path())), Err(Stop::Setup(_))));
    }

    #[test]
    fn every_flipped_bit_and_every_lost_end_of_an_identity_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let identity = open(&settings(folder.path())).unwrap();
        identity.meet(Some(&caller(123, 7))).unwrap();
        identity.hold_ledger(LedgerId([1; 16])).unwrap();
        drop(identity);
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let Err(Stop::Setup(line)) = open(&settings(folder.path())) else {
                panic!("taken: {}", String::from_utf8_lossy(bytes));
            };
            assert!(line.contains(FILE), "{line}");
        };
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            refused(&bytes);
            refused(&whole[..place]);
        }
        fs::write(&path, &whole).unwrap();
        assert!(open(&settings(folder.path())).is_ok());
        let (_, old) = std::str::from_utf8(&whole).unwrap().split_once('\n').unwrap();
        fs::write(&path, old).unwrap();
        assert!(open(&settings(folder.path())).is_ok(), "written before checksums");
    }

    #[test]
    fn an_emptied_folder_does_not_come_back_under_its_old_id() {
        let folder = tempfile::tempdir().unwrap();
        let identity = open(&settings(folder.path())).unwrap();
        assert_eq!(identity.meet(Some(&caller(123, 7))), Ok(123));
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
        drop(identity);
        let identity = open(&settings(folder.path())).unwrap();
        let refused = identity.admit(Some(&caller(123, 8)));
        assert_eq!(refused, Err(Stranger::OtherIncarnation { id: 123 }));
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
    }

    /// The kind: a process that names the store and its ledger, which are no secrets, and is none
    /// of its members.
    #[test]
    fn only_a_member_is_admitted_or_a_replica_that_members_have_told_who_this_is() {
        let folder = tempfile::tempdir().unwrap();
        let identity = open(&settings(folder.path())).unwrap();
        identity.hold_ledger(LedgerId([1; 16])).unwrap();
        let ledger_id = LedgerId([1; 16]).to_string();
        let own = identity.sender(123).incarnation;
        let stranger = proto::Sender { ledger_id: ledger_id.clone(), ..caller(567, 7) };
        assert_eq!(identity.admit(Some(&stranger)), Err(Stranger::Unknown(567)));
        let added = proto::Sender { to_incarnation: own, ..stranger };
        assert_eq!(identity.admit(Some(&added)), Ok(567));
        let guesses = proto::Sender { to_incarnation: format!("{:032x}", 9), ..added };
        assert_eq!(identity.admit(Some(&guesses)), Err(Stranger::Unknown(567)));
        // A replica that waits to be added knows nobody, and takes any store's word.
        let folder = tempfile::tempdir().unwrap();
        let joins = Settings { join: true, ..settings(folder.path()) };
        let joining = open(&joins).unwrap();
        let stranger = proto::Sender { ledger_id, ..caller(567, 7) };
        assert_eq!(joining.admit(Some(&stranger)), Ok(567));
        assert_eq!(joining.admit(Some(&caller(678, 7))), Err(Stranger::Unknown(678)), "no ledger");
    }

    #[test]
    fn a_caller_gives_way_to_the_replica_that_answers_at_the_address() {
        let folder = tempfile::tempdir().unwrap();
        let identity = open(&settings(folder.path())).unwrap();
        assert_eq!(identity.admit(Some(&caller(123, 6))), Ok(123));
        assert!(identity.known().is_empty(), "nothing is persisted of a call");
        assert_eq!(identity.admit(Some(&caller(123, 7))), Err(Stranger::NotMetYet(123)));
        assert_eq!(identity.meet(Some(&caller(123, 7))), Ok(123));
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
        let refused = identity.admit(Some(&caller(123, 6)));
        assert_eq!(refused, Err(Stranger::OtherIncarnation { id: 123 }));
    }

    /// The kind: whatever a peer says that is persisted has a bound.
    #[test]
    fn what_others_say_of_data_folders_is_kept_for_members_alone_and_within_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let identity = open(&settings(folder.path())).unwrap();
        let tell = |ids: std::ops::Range<u64>| -> Vec<proto::Known> {
            ids.map(|id| proto::Known { id, incarnation: format!("{id:032x}"), met: None })
                .collect()
        };
        identity.learn(123, &tell(300..350));
        assert!(identity.known().is_empty(), "123 was not met");
        identity.meet(Some(&caller(123, 7))).unwrap();
        let size = || fs::metadata(folder.path().join(FILE)).unwrap().len();
        let before = size();
        identity.learn(123, &tell(1_000..31_000));
        identity.learn(123, &tell(300..30_300));
        identity.learn(123, &tell(1_000..1_050));
        assert_eq!((identity.known().len(), size()), (1, before));
        identity.learn(123, &tell(300..350));
        let ids: Vec<u64> = identity.known().iter().map(|known| known.id).collect();
        assert_eq!(ids, [123, 345], "a member, and no other");
        // One that waits to be added does not know the members yet.
        let folder = tempfile::tempdir().unwrap();
        let joining = open(&Settings { join: true, ..settings(folder.path()) }).unwrap();
        joining.meet(Some(&caller(123, 7))).unwrap();
        for at in 0..40 {
            joining.learn(123, &tell(1_000 + at * 10..1_010 + at * 10));
        }
        assert_eq!(joining.known().len(), KNOWN_MAX);
    }

    #[test]
    fn strangers_are_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let identity = open(&settings(folder.path())).unwrap();
        identity.hold_ledger(LedgerId([1; 16])).unwrap();
        let ours = LedgerId([1; 16]).to_string();
        let theirs = LedgerId([2; 16]).to_string();
        let other_store = proto::Sender { cluster: "x".into(), ..caller(123, 7) };
        let other_target = proto::Sender { to: 345, ..caller(123, 7) };
        let other_ledger = proto::Sender { ledger_id: theirs.clone(), ..caller(123, 7) };
        let same_ledger = proto::Sender { ledger_id: ours.clone(), ..caller(123, 7) };
        let not_hex = proto::Sender { incarnation: "me".into(), ..caller(123, 7) };
        assert_eq!(
            identity.admit(Some(&other_store)),
            Err(Stranger::OtherCluster { id: 123, theirs: "x".into(), ours: "test".into() })
        );
        assert_eq!(
            identity.admit(Some(&other_target)),
            Err(Stranger::NotMe { wanted: 345, id: 456 })
        );
        assert_eq!(identity.admit(Some(&caller(7, 7))), Err(Stranger::Unknown(7)));
        assert_eq!(identity.admit(Some(&caller(456, 7))), Err(Stranger::Unknown(456)));
        assert_eq!(identity.admit(Some(&not_hex)), Err(Stranger::OtherIncarnation { id: 123 }));
        assert_eq!(identity.admit(None), Err(Stranger::Nameless));
        assert_eq!(
            identity.admit(Some(&other_ledger)),
            Err(Stranger::OtherLedger { id: 123, theirs, ours })
        );
        assert_eq!(identity.admit(Some(&same_ledger)), Ok(123));
    }
}
