//! Who a replica is, and whom it takes the others for.
//!
//! A data folder belongs to one replica of one store, and is used by one process at a time. Its
//! file `identity.toml` says which; it also holds the *incarnation*: 128 random bits drawn when the
//! folder was made. The others remember it from the first handshake and refuse another under the
//! same id, so that an emptied folder cannot come back and forget what its replica had promised.
//! They also tell it each other, and remember who has been removed: an id is never used again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ledger::terms::LedgerId;
use parking_lot::Mutex;
use tokio::sync::watch;
use wire::exit::Stop;
use wire::proto;

use crate::config::Settings;
use crate::members::Members;
use crate::record::{
    FILE, Record, cannot_use, cannot_write, check_own, check_version, draw, fresh, is_known, lock,
    read, write,
};
use crate::stranger::Stranger;

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
    /// Held for its lock.
    _lock: File,
}

impl Identity {
    /// Takes the data folder into use; makes it if it is not there.
    pub(crate) fn open(settings: &Settings, members: Members) -> Result<Self, Stop> {
        let folder = settings.data.clone();
        fs::create_dir_all(&folder).map_err(|error| cannot_use("make", &folder, &error))?;
        let lock = lock(&folder)?;
        let record = match read(&folder.join(FILE))? {
            Some(record) => record,
            None => fresh(settings, &folder)?,
        };
        check_own(&record, settings)?;
        let removals = watch::Sender::new(record.removed.clone());
        let (start, record) = (rand::random(), Mutex::new(record));
        Ok(Self { folder, members, removals, start, record, _lock: lock })
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
        Ok(Self { folder, members, removals, start: 0, record: Mutex::new(record), _lock: lock })
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
            Some(proto::Known { id: id.parse().ok()?, incarnation: incarnation.clone() })
        });
        known.collect()
    }

    /// Another replica tells which data folders it knows: those not met yet are remembered, so that
    /// who was added later refuses an emptied folder as well.
    pub(crate) fn learn(&self, known: &[proto::Known]) {
        let mut record = self.record.lock();
        let mut next = record.clone();
        for proto::Known { id, incarnation } in known {
            if *id != record.id && is_hex(incarnation) && !next.removed.contains(id) {
                next.peers.entry(id.to_string()).or_insert_with(|| incarnation.clone());
            }
        }
        self.keep(&mut record, next);
    }

    /// These are the members, by an entry that is committed.
    pub(crate) fn settle(&self, members: &BTreeSet<u64>) {
        let mut record = self.record.lock();
        let mut next = record.clone();
        next.removed.extend(record.members.difference(members));
        next.removed.retain(|id| !members.contains(id));
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

    /// Checks who calls; remembers it when it is the first time. The caller's id.
    pub(crate) fn admit(&self, sender: Option<&proto::Sender>) -> Result<u64, Stranger> {
        let sender = sender.ok_or(Stranger::Nameless)?;
        let mut record = self.record.lock();
        let is_member = self.members.look(|now| now.is_member(sender.id));
        if let Some(next) = judge(&record, is_member, sender)? {
            self.keep(&mut record, next);
        }
        Ok(sender.id)
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

/// Whether a caller is who it should be; and the record with what is new about it, if anything is.
fn judge(
    record: &Record,
    is_member: bool,
    sender: &proto::Sender,
) -> Result<Option<Record>, Stranger> {
    let id = sender.id;
    if sender.cluster != record.cluster {
        let (theirs, ours) = (sender.cluster.clone(), record.cluster.clone());
        return Err(Stranger::OtherCluster { id, theirs, ours });
    }
    if sender.to != record.id {
        return Err(Stranger::NotMe { wanted: sender.to, id: record.id });
    }
    if record.removed.contains(&id) {
        return Err(Stranger::Removed(id));
    }
    // One that holds our ledger may have been added while this replica was away.
    let theirs = &sender.ledger_id;
    let may_be_new = !theirs.is_empty() && record.ledger.as_ref().is_none_or(|own| own == theirs);
    if id == record.id || !(is_member || may_be_new) {
        return Err(Stranger::Unknown(id));
    }
    if !sender.to_incarnation.is_empty() && sender.to_incarnation != record.incarnation {
        return Err(Stranger::NotMyFolder { id: record.id });
    }
    let key = id.to_string();
    let known = record.peers.get(&key);
    if known.is_some_and(|known| *known != sender.incarnation) || !is_hex(&sender.incarnation) {
        return Err(Stranger::OtherIncarnation { id });
    }
    match &record.ledger {
        Some(ours) if !sender.ledger_id.is_empty() && sender.ledger_id != *ours => {
            let (theirs, ours) = (sender.ledger_id.clone(), ours.clone());
            return Err(Stranger::OtherLedger { id, theirs, ours });
        }
        _ => {}
    }
    if known.is_some() {
        return Ok(None);
    }
    let mut next = record.clone();
    next.peers.insert(key, sender.incarnation.clone());
    Ok(Some(next))
}

fn is_hex(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
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
        identity.admit(Some(&caller(123, 7))).unwrap();
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
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
        drop(identity);
        let identity = open(&settings(folder.path())).unwrap();
        let refused = identity.admit(Some(&caller(123, 8)));
        assert_eq!(refused, Err(Stranger::OtherIncarnation { id: 123 }));
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
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
