//! The identity file: names the replica and the store of a data folder; beside it lies the lock.
//!
//! The file is replaced whole, so that after a crash it is the old file or the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ledger::terms::LedgerId;
use serde::{Deserialize, Serialize};
use wire::exit::Stop;

use crate::config::Settings;
use crate::data_folder::{IDENTITY_FILE, LOCK, cannot_write};
use crate::incarnation::{Hex, draw};
use crate::log_end::Acknowledged;
use crate::starts::{MetStart, StartHistory};

/// The format of `identity.toml`. Format 1 has no starts; it is read, and written as format 2.
const VERSION: u32 = 2;

/// Begins the first line of that file.
const CHECKSUM: &str = "# crc32 ";

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityFile {
    pub(crate) version: u32,
    pub(crate) cluster: String,
    pub(crate) id: u64,
    pub(crate) incarnation: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ledger: Option<Hex>,
    /// The store has refused this folder as an older copy, and why: it must not be used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// The members of the store, by the last committed entry that was seen.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) members: BTreeSet<u64>,
    /// Former members of the store.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) removed: BTreeSet<u64>,
    /// The incarnations of the other replicas, or their fingerprints, as first met.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) peers: BTreeMap<String, Hex>,
    /// The starts of this folder.
    #[serde(default)]
    pub(crate) starts: StartHistory,
    /// Acknowledged entries that this replica's log was found to lack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lacks: Option<Acknowledged>,
    /// The last met start of each other replica.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) met: BTreeMap<String, MetStart>,
}

impl IdentityFile {
    /// A new data folder of this replica of this store.
    fn new(cluster: String, id: u64) -> Self {
        Self {
            version: VERSION,
            cluster,
            id,
            incarnation: draw(),
            ledger: None,
            peers: BTreeMap::new(),
            members: BTreeSet::new(),
            removed: BTreeSet::new(),
            refused: None,
            starts: StartHistory::default(),
            lacks: None,
            met: BTreeMap::new(),
        }
    }
}

/// The identity of a replica that is restored from a backup: the only member of its store, whose
/// former members are rejected.
pub(crate) fn restored(replica: &RestoredReplica, ledger: Option<LedgerId>) -> IdentityFile {
    let RestoredReplica { id, store, members, .. } = replica;
    let removed = members.iter().copied().filter(|former| former != id);
    IdentityFile {
        ledger: ledger.map(|ledger| ledger.to_string()),
        members: BTreeSet::from([*id]),
        removed: removed.collect(),
        ..IdentityFile::new(store.clone(), *id)
    }
}

/// The replica that a backup is restored to.
#[derive(Clone, Debug)]
pub struct RestoredReplica {
    /// Its id.
    pub id: u64,
    /// The name of its store.
    pub store: String,
    /// The members of the store, as of the backup: they are rejected if they come back.
    pub members: BTreeSet<u64>,
    /// The address at which other processes reach it, if it is known.
    pub address: String,
}

pub(crate) fn check_version(record: &IdentityFile, folder: &Path) -> Result<(), Stop> {
    if (1..=VERSION).contains(&record.version) {
        return Ok(());
    }
    Err(Stop::Setup(format!(
        "the data folder {} is of format {}, this program knows format {VERSION}: use the program \
         that wrote it",
        folder.display(),
        record.version
    )))
}

pub(crate) fn check_own(record: &IdentityFile, settings: &Settings) -> Result<(), Stop> {
    check_version(record, &settings.data)?;
    let folder = settings.data.display();
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

/// Checks the settings of a replica, and that it can use its data folder, also while a process has
/// it in use. Writes nothing.
///
/// # Errors
///
/// Why a replica with these settings would not start, as far as it can be told before.
pub fn check(settings: &Settings) -> Result<(), Stop> {
    settings.check()?;
    let folder = &settings.data;
    let Some(record) = read(&folder.join(IDENTITY_FILE))? else {
        return match folder.try_exists() {
            Ok(true) => check_unused(folder),
            Ok(false) => Ok(()),
            Err(error) => Err(cannot_write(folder, &error)),
        };
    };
    check_own(&record, settings)?;
    record.refused.map_or(Ok(()), |why| Err(Stop::Setup(why)))
}

/// A folder without an identity must be empty: other files in it belong to another program.
fn check_unused(folder: &Path) -> Result<(), Stop> {
    let entries = fs::read_dir(folder).map_err(|error| cannot_write(folder, &error))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    // The first by name, so that the same folder is always refused with the same words.
    let strange =
        names.filter(|name| name != LOCK && name != format!("{IDENTITY_FILE}.new").as_str()).min();
    if let Some(strange) = strange {
        return Err(Stop::Setup(format!(
            "the data folder {} has no {IDENTITY_FILE}, but holds {}: give an empty folder, or a \
             replica's own",
            folder.display(),
            strange.to_string_lossy()
        )));
    }
    Ok(())
}

/// The identity of a new replica, written to its empty folder.
pub(crate) fn fresh(settings: &Settings, folder: &Path) -> Result<IdentityFile, Stop> {
    check_unused(folder)?;
    let record = IdentityFile::new(settings.cluster.clone(), settings.id);
    write(folder, &record).map_err(|error| cannot_write(folder, &error))?;
    Ok(record)
}

/// Notes one more start of the folder, on disk before any peer hears of it.
pub(crate) fn begin(record: &mut IdentityFile, folder: &Path, start: u64) -> Result<(), Stop> {
    record.version = VERSION;
    record.starts.begin(start);
    write(folder, record).map_err(|error| match error.kind() {
        // A full disk can clear by itself: a supervisor may try again.
        std::io::ErrorKind::StorageFull => Stop::Defect(format!(
            "cannot write to the data folder {}: its disk is full; free some space, \
             then start this replica again: nothing acknowledged is lost",
            folder.display()
        )),
        _ => cannot_write(folder, &error),
    })
}

pub(crate) fn read(path: &Path) -> Result<Option<IdentityFile>, Stop> {
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

/// Parses an identity file; its first line is the checksum of the rest.
fn parse(text: &str) -> Result<IdentityFile, String> {
    let content = match text.split_once('\n') {
        Some((first, content)) if first.starts_with('#') => {
            if first != checksum(content) {
                return Err("line 1: what follows does not match this checksum".into());
            }
            content
        }
        // Version 1 had no checksum at first.
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
    // Writing to a `String` cannot fail.
    let _ = write!(line, "{:08x}", crc32fast::hash(content.as_bytes()));
    line
}

/// Replaces the file whole: after a crash it is the old one or the new one.
pub(crate) fn write(folder: &Path, record: &IdentityFile) -> std::io::Result<()> {
    let content = toml::to_string(record).map_err(std::io::Error::other)?;
    let text = format!("{}\n{content}", checksum(&content));
    let draft = folder.join(format!("{IDENTITY_FILE}.new"));
    let mut options = File::options();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(IDENTITY_FILE))?;
    File::open(folder)?.sync_all()
}
