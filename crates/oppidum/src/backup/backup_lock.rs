//! The lock of a backup: a file that names its only writer. It is renewed while the backup goes on,
//! and goes stale if its writer was killed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backup_error::BackupError;
use super::core::utc_second::UtcSecond;
use super::storage::BackupStorage;

/// The name of the file.
const LOCK: &str = "lock";

/// How often a writer renews its lock.
const RENEWED_EVERY: Duration = Duration::from_mins(1);

/// A lock that was not renewed for this long is stale.
pub(crate) const LOCK_STALE_AFTER: Duration = Duration::from_mins(10);

/// The lock of this writer.
#[derive(Debug)]
pub(crate) struct BackupLock {
    writer: String,
    renewed: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
struct LockFile {
    writer: String,
    time_ms: u64,
}

impl BackupLock {
    /// Takes the lock, also from a writer whose lock is stale at `now`.
    pub(crate) fn take(
        storage: &dyn BackupStorage,
        writer: &str,
        now: Duration,
    ) -> Result<Self, BackupError> {
        let lock = Self { writer: writer.to_owned(), renewed: now };
        if lock.write(storage)? {
            return Ok(lock);
        }
        if let Some((other, since)) = read(storage)?
            && now < since.saturating_add(LOCK_STALE_AFTER)
            // A clock that was set back must not keep a lock for as long.
            && since < now.saturating_add(LOCK_STALE_AFTER)
        {
            return Err(held(&other, since));
        }
        storage.remove(LOCK).map_err(BackupError::storage("remove", LOCK))?;
        if lock.write(storage)? {
            return Ok(lock);
        }
        let (other, since) = read(storage)?.unwrap_or_default();
        Err(held(&other, since))
    }

    /// Renews the lock when that is due. Fails if it is another writer's by now.
    pub(crate) fn renew(
        &mut self,
        storage: &dyn BackupStorage,
        now: Duration,
    ) -> Result<(), BackupError> {
        if now < self.renewed.saturating_add(RENEWED_EVERY) {
            return Ok(());
        }
        self.release(storage)?;
        self.renewed = now;
        if self.write(storage)? {
            return Ok(());
        }
        let (other, since) = read(storage)?.unwrap_or_default();
        Err(held(&other, since))
    }

    /// Fails if the lock is not this writer's any more: another one may have found it stale.
    pub(crate) fn confirm(&self, storage: &dyn BackupStorage) -> Result<(), BackupError> {
        match read(storage)? {
            Some((writer, _)) if writer == self.writer => Ok(()),
            Some((other, since)) => Err(held(&other, since)),
            None => {
                let why = "the file `lock` of the backup is gone: try again";
                Err(BackupError::Impossible(why.into()))
            }
        }
    }

    /// Removes the lock, if it is still this writer's.
    pub(crate) fn release(&self, storage: &dyn BackupStorage) -> Result<(), BackupError> {
        match read(storage)? {
            Some((writer, _)) if writer == self.writer => {
                storage.remove(LOCK).map_err(BackupError::storage("remove", LOCK))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, storage: &dyn BackupStorage) -> Result<bool, BackupError> {
        let time_ms = u64::try_from(self.renewed.as_millis()).unwrap_or(u64::MAX);
        let file = LockFile { writer: self.writer.clone(), time_ms };
        let content = toml::to_string(&file).unwrap_or_default();
        storage.write_new(LOCK, content.as_bytes()).map_err(BackupError::storage("write", LOCK))
    }
}

/// The writer that holds the lock, and since when. A file that cannot be parsed is stale.
fn read(storage: &dyn BackupStorage) -> Result<Option<(String, Duration)>, BackupError> {
    let content = storage.read(LOCK).map_err(BackupError::storage("read", LOCK))?;
    let content = content.unwrap_or_default();
    let file = std::str::from_utf8(&content).ok().and_then(|text| toml::from_str(text).ok());
    Ok(file.map(|LockFile { writer, time_ms }| (writer, Duration::from_millis(time_ms))))
}

fn held(writer: &str, since: Duration) -> BackupError {
    BackupError::Impossible(format!(
        "{writer} writes this backup, as of {}: wait for it; if it was killed, try again after 10 \
         minutes, or remove the file `lock`",
        UtcSecond::of(since)
    ))
}

#[cfg(test)]
mod tests {
    use super::super::memory_storage::MemoryStorage;
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_second_writer_is_refused_until_the_lock_is_stale() {
        let storage = MemoryStorage::default();
        let mut first = BackupLock::take(&storage, "first", HOUR).unwrap();
        let later = HOUR + LOCK_STALE_AFTER;
        let early =
            BackupLock::take(&storage, "second", later.saturating_sub(Duration::from_millis(1)));
        let why = early.unwrap_err().to_string();
        assert!(why.contains("first writes this backup, as of 1970-01-01 01:00:00 UTC"), "{why}");
        first.renew(&storage, HOUR + RENEWED_EVERY).unwrap();
        assert!(BackupLock::take(&storage, "second", later).is_err(), "it was renewed");
        let later = later + RENEWED_EVERY;
        let second = BackupLock::take(&storage, "second", later).unwrap();
        second.confirm(&storage).unwrap();
        let why = first.confirm(&storage).unwrap_err().to_string();
        assert!(why.contains("second writes this backup"), "{why}");
        let why = first.renew(&storage, later).unwrap_err().to_string();
        assert!(why.contains("second writes this backup"), "{why}");
        first.release(&storage).unwrap();
        assert!(BackupLock::take(&storage, "third", later).is_err(), "it is the second's");
        second.release(&storage).unwrap();
        BackupLock::take(&storage, "third", later).unwrap();
    }

    #[test]
    fn a_lock_that_cannot_be_read_is_stale() {
        let storage = MemoryStorage::default();
        storage.write_new(LOCK, b"\xff").unwrap();
        BackupLock::take(&storage, "second", HOUR).unwrap();
    }
}
