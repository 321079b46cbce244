//! The data folder of a replica: its lock, and whether a replica owns it already.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use wire::exit::Stop;

/// The identity file in it.
pub(crate) const IDENTITY_FILE: &str = "identity.toml";

/// Locked while a process uses the folder.
pub(crate) const LOCK: &str = "lock";

/// True for a folder that belongs to a replica already.
pub fn is_known(folder: &Path) -> bool {
    folder.join(IDENTITY_FILE).exists()
}

/// Locks a folder while the returned file is held.
pub(crate) fn lock(folder: &Path) -> Result<File, Stop> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(folder.join(LOCK));
    let file = file.map_err(|error| cannot_use("lock", folder, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Stop::Setup(format!(
            "the data folder {} is in use by another process: stop that one first, or give another \
             folder",
            folder.display()
        ))),
        Err(fs::TryLockError::Error(error)) => Err(cannot_use("lock", folder, &error)),
    }
}

pub(crate) fn cannot_use(what: &str, folder: &Path, error: &std::io::Error) -> Stop {
    let place = folder.display();
    Stop::Setup(format!(
        "cannot {what} the data folder {place}: {error}; check the path and its permissions"
    ))
}

pub(crate) fn cannot_write(folder: &Path, error: &std::io::Error) -> Stop {
    Stop::Setup(format!(
        "cannot write to the data folder {}: {error}; check its permissions and the disk",
        folder.display()
    ))
}
