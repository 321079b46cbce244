//! Who a replica is, and whom it takes the others for.
//!
//! A data folder belongs to one replica of one store, and is used by one process at a time. Its
//! file `identity.toml` says which; it also holds the *incarnation*: 128 random bits drawn when the
//! folder was made. The others remember it from the first handshake and refuse another under the
//! same id, so that an emptied folder cannot come back and forget what its replica had promised.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use ledger::terms::LedgerId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use wire::exit::Stop;
use wire::proto;

use crate::config::Settings;

/// The format of `identity.toml`.
const VERSION: u32 = 1;

/// The file in the data folder.
const FILE: &str = "identity.toml";

/// Begins the first line of that file.
const CHECKSUM: &str = "# crc32 ";

/// Locked while a process uses the folder.
const LOCK: &str = "lock";

/// 128 random bits as 32 hexadecimal digits.
type Hex = String;

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    cluster: String,
    id: u64,
    incarnation: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ledger: Option<Hex>,
    /// The incarnations of the others, as first met.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    peers: BTreeMap<String, Hex>,
}

/// Why a peer is refused. The text is for its operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    /// It belongs to another store.
    #[error(
        "replica {id} of store \"{theirs}\" called a replica of store \"{ours}\": check the \
         addresses"
    )]
    OtherCluster {
        /// Who called.
        id: u64,
        /// The caller's store.
        theirs: String,
        /// This store.
        ours: String,
    },
    /// It meant somebody else.
    #[error("replica {wanted} was called here, but this is replica {id}: check the addresses")]
    NotMe {
        /// Whom the caller meant.
        wanted: u64,
        /// Who this is.
        id: u64,
    },
    /// Its id is not in the list of replicas.
    #[error("replica {0} is not one of this store's replicas: check its id")]
    Unknown(u64),
    /// Its data folder is another one than before.
    #[error(
        "replica {id} came with another data folder than before: start it with its own folder; \
         if that is lost, replace the replica under a new id"
    )]
    OtherIncarnation {
        /// Who called.
        id: u64,
    },
    /// It holds another ledger.
    #[error(
        "replica {id} holds another ledger ({theirs}, ours is {ours}): start it with its own \
         data folder"
    )]
    OtherLedger {
        /// Who called.
        id: u64,
        /// The caller's ledger.
        theirs: Hex,
        /// This ledger.
        ours: Hex,
    },
    /// The call did not say who calls.
    #[error("a call that does not say who calls")]
    Nameless,
}

/// A data folder in use, and everything known about who is who.
#[derive(Debug)]
pub(crate) struct Identity {
    folder: PathBuf,
    members: Vec<u64>,
    /// Drawn at each start, so that a peer can tell a start from a broken connection.
    start: u64,
    record: Mutex<Record>,
    /// Held for its lock.
    _lock: File,
}

impl Identity {
    /// Takes the data folder into use; makes it if it is not there.
    pub(crate) fn open(settings: &Settings) -> Result<Self, Stop> {
        let folder = settings.data.clone();
        let failed = |what: &str, error: std::io::Error| {
            let place = folder.display();
            Stop::Setup(format!(
                "cannot {what} the data folder {place}: {error}; check the path and its permissions"
            ))
        };
        fs::create_dir_all(&folder).map_err(|error| failed("make", error))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK))
            .map_err(|error| failed("lock", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Stop::Setup(format!(
                    "the data folder {} is in use by another process: stop that one first, or \
                     give another folder",
                    folder.display()
                )));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed("lock", error)),
        }
        let record = match read(&folder.join(FILE))? {
            Some(record) => record,
            None => fresh(settings, &folder)?,
        };
        check_own(&record, settings)?;
        let members = settings.ids();
        Ok(Self { folder, members, start: rand::random(), record: Mutex::new(record), _lock: lock })
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
        }
    }

    /// Checks who calls; remembers it when it is the first time. The caller's id.
    pub(crate) fn admit(&self, sender: Option<&proto::Sender>) -> Result<u64, Stranger> {
        let sender = sender.ok_or(Stranger::Nameless)?;
        let mut record = self.record.lock();
        let next = judge(&record, &self.members, sender)?;
        if let Some(next) = next {
            // Not written, it would be asked for again at the next start: no reason to refuse.
            if let Err(error) = write(&self.folder, &next) {
                tracing::warn!("cannot write {}: {error}", self.folder.join(FILE).display());
            }
            *record = next;
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
    members: &[u64],
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
    if id == record.id || !members.contains(&id) {
        return Err(Stranger::Unknown(id));
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

fn check_own(record: &Record, settings: &Settings) -> Result<(), Stop> {
    let folder = settings.data.display();
    if record.version != VERSION {
        return Err(Stop::Setup(format!(
            "the data folder {folder} is of format {}, this program knows format {VERSION}: use \
             the program that wrote it",
            record.version
        )));
    }
    if record.id != settings.id {
        return Err(Stop::Setup(format!(
            "the data folder {folder} belongs to replica {}, not to {}: give this replica its \
             own folder",
            record.id, settings.id
        )));
    }
    if record.cluster != settings.cluster {
        return Err(Stop::Setup(format!(
            "the data folder {folder} belongs to store \"{}\", not to \"{}\": give another \
             folder, or the store's name",
            record.cluster, settings.cluster
        )));
    }
    Ok(())
}

/// A folder without an identity must be empty: whatever else lies there is not ours to use.
fn fresh(settings: &Settings, folder: &Path) -> Result<Record, Stop> {
    let entries = fs::read_dir(folder).map_err(|error| cannot_write(folder, &error))?;
    let strange = entries.flatten().find(|entry| {
        let name = entry.file_name();
        name != LOCK && name != format!("{FILE}.new").as_str()
    });
    if let Some(strange) = strange {
        return Err(Stop::Setup(format!(
            "the data folder {} has no {FILE}, but holds {}: give an empty folder, or a \
             replica's own",
            folder.display(),
            strange.file_name().to_string_lossy()
        )));
    }
    let bits: u128 = rand::random();
    let record = Record {
        version: VERSION,
        cluster: settings.cluster.clone(),
        id: settings.id,
        incarnation: format!("{bits:032x}"),
        ledger: None,
        peers: BTreeMap::new(),
    };
    write(folder, &record).map_err(|error| cannot_write(folder, &error))?;
    Ok(record)
}

fn cannot_write(folder: &Path, error: &std::io::Error) -> Stop {
    Stop::Setup(format!(
        "cannot write to the data folder {}: {error}; check its permissions and the disk",
        folder.display()
    ))
}

fn read(path: &Path) -> Result<Option<Record>, Stop> {
    let refuse = |what: &str, why: String| {
        Stop::Setup(format!(
            "{} {what}{why}; restore the file, or replace this replica (`oppidum ctl replace`)",
            path.display()
        ))
    };
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).map(Some).map_err(|why| refuse("is damaged at ", why)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(refuse("is damaged: ", error.to_string()))
        }
        Err(error) => Err(refuse("cannot be read: ", error.to_string())),
    }
}

/// Reads a record; the first line is the checksum of all that comes after it.
fn parse(text: &str) -> Result<Record, String> {
    let content = match text.split_once('\n') {
        Some((first, content)) if first.starts_with('#') => {
            if first != checksum(content) {
                return Err("line 1: what follows does not match this checksum".into());
            }
            content
        }
        // Version 1 had none at first.
        _ => text,
    };
    toml::from_str(content).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = content.get(..start).map_or(0, |before| before.matches('\n').count());
        let line = line + 1 + usize::from(text.len() != content.len());
        format!("line {line}: {}", error.message())
    })
}

/// The first line of the file.
fn checksum(content: &str) -> String {
    let mut line = CHECKSUM.to_owned();
    // Writing to a text cannot fail.
    let _ = write!(line, "{:08x}", crc32fast::hash(content.as_bytes()));
    line
}

/// Replaces the file whole: after a crash it is the old one or the new one.
fn write(folder: &Path, record: &Record) -> std::io::Result<()> {
    let content = toml::to_string(record).map_err(std::io::Error::other)?;
    let text = format!("{}\n{content}", checksum(&content));
    let draft = folder.join(format!("{FILE}.new"));
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::three;

    fn settings(folder: &Path) -> Settings {
        Settings { data: folder.to_path_buf(), ..three() }
    }

    fn caller(id: u64, incarnation: u128) -> proto::Sender {
        proto::Sender {
            id,
            cluster: "test".into(),
            incarnation: format!("{incarnation:032x}"),
            ledger_id: String::new(),
            to: 456,
            start: 1,
        }
    }

    #[test]
    fn a_folder_keeps_its_replica_and_its_store() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::open(&settings(folder.path())).unwrap().sender(123);
        let again = Identity::open(&settings(folder.path())).unwrap().sender(123);
        assert_eq!(first.incarnation, again.incarnation);
        assert_ne!(first.start, again.start);
        let other_id = Settings { id: 345, ..settings(folder.path()) };
        let other_store = Settings { cluster: "another".into(), ..settings(folder.path()) };
        for strange in [other_id, other_store] {
            let Err(Stop::Setup(line)) = Identity::open(&strange) else { panic!("taken") };
            assert!(line.contains("belongs to") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_folder_in_use_or_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let held = Identity::open(&settings(folder.path())).unwrap();
        let Err(Stop::Setup(line)) = Identity::open(&settings(folder.path())) else { panic!() };
        assert!(line.contains("in use"), "{line}");
        drop(held);
        let strange = tempfile::tempdir().unwrap();
        fs::write(strange.path().join("letters.txt"), "dear").unwrap();
        let Err(Stop::Setup(line)) = Identity::open(&settings(strange.path())) else { panic!() };
        assert!(line.contains("letters.txt"), "{line}");
    }

    #[test]
    fn a_damaged_identity_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        drop(Identity::open(&settings(folder.path())).unwrap());
        fs::write(folder.path().join(FILE), "version = ").unwrap();
        assert!(matches!(Identity::open(&settings(folder.path())), Err(Stop::Setup(_))));
    }

    #[test]
    fn every_flipped_bit_and_every_lost_end_of_an_identity_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::open(&settings(folder.path())).unwrap();
        identity.admit(Some(&caller(123, 7))).unwrap();
        identity.hold_ledger(LedgerId([1; 16])).unwrap();
        drop(identity);
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let Err(Stop::Setup(line)) = Identity::open(&settings(folder.path())) else {
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
        assert!(Identity::open(&settings(folder.path())).is_ok());
        let (_, old) = std::str::from_utf8(&whole).unwrap().split_once('\n').unwrap();
        fs::write(&path, old).unwrap();
        assert!(Identity::open(&settings(folder.path())).is_ok(), "written before checksums");
    }

    #[test]
    fn an_emptied_folder_does_not_come_back_under_its_old_id() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::open(&settings(folder.path())).unwrap();
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
        drop(identity);
        let identity = Identity::open(&settings(folder.path())).unwrap();
        let refused = identity.admit(Some(&caller(123, 8)));
        assert_eq!(refused, Err(Stranger::OtherIncarnation { id: 123 }));
        assert_eq!(identity.admit(Some(&caller(123, 7))), Ok(123));
    }

    #[test]
    fn strangers_are_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::open(&settings(folder.path())).unwrap();
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
