//! The folder of a CA: `ca.pem`, `ca.key`, and a pair of files for each subject.
//!
//! A pair is replaced whole: both files are written beside the old ones and synced, then renamed,
//! the key first. A process that reads between the two renames sees a pair that does not match,
//! keeps the one in use, and reads again later. One command at a time writes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Error, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wire::exit::Stop;

use super::authority::{Authority, CertificatePair};
use super::certificate::{self, CertificateView};

/// The name of the CA's own files, before `.pem` and `.key`.
pub(super) const CA: &str = "ca";

/// The longest file that is read: dozens of certificates.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A folder that this process alone may change.
#[derive(Debug)]
pub(super) struct CaFolder {
    path: PathBuf,
    /// Locked, and open to sync names.
    handle: File,
}

/// How long another command may hold the folder: each takes some milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause before the folder is tried again.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(5);

impl CaFolder {
    /// Opens a folder, and makes it if need be, for this user only.
    pub(super) fn create(path: &Path) -> Result<Self, Stop> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| failed(path, &error))?;
        Self::open(path)
    }

    /// Opens a folder.
    pub(super) fn open(path: &Path) -> Result<Self, Stop> {
        let about = fs::metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => no_ca(path),
            _ => failed(path, &error),
        })?;
        if !about.is_dir() {
            return Err(Stop::Setup(format!("{} is no folder", path.display())));
        }
        let handle = File::open(path).map_err(|error| failed(path, &error))?;
        // Not every file system has locks, as not every NFS.
        let began = Instant::now();
        while matches!(handle.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            if began.elapsed() < LOCK_TIMEOUT {
                std::thread::sleep(LOCK_RETRY_PAUSE);
                continue;
            }
            let shown = path.display();
            let why = "another command is writing in it: try again when that one has ended";
            return Err(Stop::Setup(format!("{shown}: {why}")));
        }
        Ok(Self { path: path.to_owned(), handle })
    }

    /// The path of a file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether it has a file of this name, of any kind.
    pub(super) fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.file(name)).is_ok()
    }

    /// The CA in it. `None`: there is neither a certificate nor a key.
    pub(super) fn authority(&self) -> Result<Option<Authority>, Stop> {
        let (file, key_file) = (self.file("ca.pem"), self.file("ca.key"));
        let views = certificates(&file)?;
        let key = read(&key_file)?;
        let (views, key) = match (views, key) {
            (None, None) => return Ok(None),
            (Some(views), Some(key)) => (views, key),
            (Some(_), None) => return Err(lost(&key_file)),
            (None, Some(_)) => {
                let why = "is missing: copy it from the folder of any process; if no certificate \
                           was issued yet, remove ca.key and begin again";
                return Err(Stop::Setup(format!("{} {why}", file.display())));
            }
        };
        let key = Authority::parse_key(&key).ok_or_else(|| {
            let shown = key_file.display();
            Stop::Setup(format!("{shown} holds no private key that `oppidum ctl ca init` made"))
        })?;
        if fs::metadata(&key_file).is_ok_and(|about| about.permissions().mode() & 0o077 != 0) {
            let shown = key_file.display();
            note!("oppidum: other users can read {shown}: chmod 600 {shown}");
        }
        // Every file of certificates has at least one.
        let Some(first) = views.first() else { return Ok(None) };
        let bad = |why: &str| Stop::Setup(format!("{} {why}", file.display()));
        Authority::new(first, key).map(Some).map_err(bad)
    }

    /// Writes `NAME.pem` and `NAME.key`, in place of what they held.
    pub(super) fn write(&self, name: &str, pair: &CertificatePair) -> Result<(), Stop> {
        let files = [("key", 0o600, &pair.key), ("pem", 0o644, &pair.certificate)]
            .map(|(kind, mode, content)| (self.file(&format!("{name}.{kind}")), mode, content));
        for (file, mode, content) in &files {
            let new = beside(file);
            let written = write_new(&new, *mode, content.as_bytes());
            written.map_err(|error| cannot_write(&self.path, &error))?;
        }
        for (file, ..) in &files {
            let renamed = fs::rename(beside(file), file).and_then(|()| self.handle.sync_all());
            renamed.map_err(|error| cannot_write(&self.path, &error))?;
        }
        Ok(())
    }
}

/// Reads the certificates in a file: at least one. `None`: there is no such file.
pub(super) fn certificates(file: &Path) -> Result<Option<Vec<CertificateView>>, Stop> {
    let bad = |why: &str| Stop::Setup(format!("{} {why}", file.display()));
    let Some(pem) = read(file)? else { return Ok(None) };
    certificate::parse(&pem).map(Some).map_err(bad)
}

/// There is no CA in a folder.
pub(super) fn no_ca(path: &Path) -> Stop {
    let shown = path.display();
    Stop::Setup(format!("{shown} holds no CA: `oppidum ctl ca init --dir {shown}` makes one"))
}

/// The key of a CA is not there.
fn lost(key_file: &Path) -> Stop {
    Stop::Setup(format!(
        "{} is missing: issue certificates on the machine that keeps it. To replace a CA that is \
         lost, type `oppidum ctl ca init --dir NEW --store STORE`, and follow docs/security.md",
        key_file.display()
    ))
}

fn failed(path: &Path, error: &Error) -> Stop {
    Stop::Setup(format!("{}: {error}{}", path.display(), advice(error)))
}

fn cannot_write(path: &Path, error: &Error) -> Stop {
    Stop::Setup(format!("{} cannot be written: {error}{}", path.display(), advice(error)))
}

/// What to do about an error of the system.
fn advice(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => ": run this as its owner",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ": free some space",
        _ => ": see what is there, or give another folder (`--dir`)",
    }
}

/// Reads a file. `None`: it does not exist.
fn read(file: &Path) -> Result<Option<Vec<u8>>, Stop> {
    let about = match fs::metadata(file) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(file, &error)),
    };
    if !about.is_file() || FILE_BYTES_MAX < about.len() {
        let why = "is no file of a few certificates or a key";
        return Err(Stop::Setup(format!("{} {why}", file.display())));
    }
    fs::read(file).map(Some).map_err(|error| failed(file, &error))
}

/// The new content of a file, until it is renamed.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Writes and syncs a file. One that an interrupted command left is removed first, as its mode may
/// be another.
fn write_new(file: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut open = options.write(true).create_new(true).mode(mode).open(file)?;
    open.write_all(content)?;
    open.sync_all()
}
