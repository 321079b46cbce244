//! `oppidum ctl backup` and `ctl restore`.
//!
//! A backup is the blocks of a ledger up to an entry. They are immutable and chained by digest, and
//! the state follows from them; so a backup grows by what is new, and every block in it is a moment
//! to which the store can be restored.
//!
//! Reading order: the formats in `core` (`block_file`, `block_range`, `restore_point`), `storage`,
//! `writer` with `backup_lock` and `retention`, `online` (from a running replica), `reader`,
//! `verification`, `restore`.

mod backup_error;
mod backup_lock;
mod core;
#[cfg(test)]
mod memory_storage;
mod online;
mod reader;
pub(crate) mod restore;
mod storage;
mod verification;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wire::exit::Stop;

use self::backup_error::BackupError;
use self::core::restore_point::label;
pub(crate) use self::core::utc_second::UtcSecond;
use self::online::OnlineBackup;
use self::storage::{BackupStorage, FolderStorage};
use self::verification::VerifiedBackup;
use self::writer::BackedUp;
use crate::cli::backup::{Backup, BackupFrom, BackupOn};
use crate::cli::values::FreeText;
use crate::settings::Settings;
use crate::signals::Interrupt;

/// `oppidum ctl backup`. False: the backup is damaged.
pub(crate) async fn backup(flags: Backup) -> Result<bool, Stop> {
    match flags.on {
        Some(BackupOn::List(from)) => list(existing(&from)?).await,
        Some(BackupOn::Verify(from)) => verify(existing(&from)?).await,
        None => write(flags).await.map(|()| true),
    }
}

/// The folder of a flag.
pub(crate) fn folder_of(flag: &str, text: &str) -> Result<String, Stop> {
    let folder: Result<FreeText, String> = text.parse();
    let FreeText(folder) = folder.map_err(|why| Stop::Setup(format!("{flag} {text}: {why}")))?;
    if folder.contains("://") {
        return Err(Stop::Setup(format!("{flag} {text}: give a folder; {text} is none")));
    }
    Ok(folder)
}

/// The storage of a backup that exists.
pub(crate) fn existing(BackupFrom { from }: &BackupFrom) -> Result<Arc<dyn BackupStorage>, Stop> {
    let folder = folder_of("--from", from)?;
    Ok(Arc::new(FolderStorage::existing(Path::new(&folder))?))
}

async fn write(flags: Backup) -> Result<(), Stop> {
    crate::roles::keep_private();
    let Backup { to, every, keep, url, .. } = flags;
    let url = url.resolve(&mut Settings::load()?)?;
    let folder = folder_of("--to", to.as_deref().unwrap_or_default())?;
    let interrupt = Interrupt::listen()?;
    interrupt.exit_when_hurried();
    loop {
        let began = tokio::time::Instant::now();
        let storage = FolderStorage::new(Path::new(&folder)).map(Arc::new);
        let done = match storage {
            Ok(storage) => online::back_up(&url, storage, keep, &interrupt.stop).await,
            Err(stop) => Err(stop),
        };
        match (done, every) {
            (Ok(done), _) => tell(&done),
            // The next one may succeed.
            (Err(stop), Some(_)) if !interrupt.stop.is_cancelled() => note!("oppidum: {stop}"),
            (Err(stop), _) => return Err(stop),
        }
        let Some(every) = every else { return Ok(()) };
        tokio::select! {
            () = tokio::time::sleep_until(began + every) => {}
            () = interrupt.stop.cancelled() => return Ok(()),
        }
    }
}

fn tell(done: &OnlineBackup) {
    let OnlineBackup { backed_up, replica, took, removed } = done;
    let BackedUp { point, is_new, blocks, bytes } = backed_up;
    let name = point.name();
    let label = label(&name).unwrap_or_default();
    if *is_new {
        answer!(
            "restore point {label}: {} orders; {} new blocks, {}.{} MB, from replica {replica} in \
             {:.1} s",
            grouped(point.orders),
            grouped(*blocks),
            bytes / 1_000_000,
            bytes / 100_000 % 10,
            took.as_secs_f64()
        );
    } else {
        answer!("nothing is new since restore point {label}");
    }
    if 0 < *removed {
        answer!("restore points older than --keep: {removed} removed");
    }
}

async fn list(storage: Arc<dyn BackupStorage>) -> Result<bool, Stop> {
    let lines = blocking(move || verification::list(&*storage)).await?.map_err(Stop::from)?;
    answer!(
        "{:<32} {:>12} {:>12} {:>12}   log time",
        "restore point",
        "entry",
        "orders",
        "next order"
    );
    for line in lines {
        answer!("{line}");
    }
    Ok(true)
}

async fn verify(storage: Arc<dyn BackupStorage>) -> Result<bool, Stop> {
    match blocking(move || verification::verify(&*storage)).await? {
        Ok(VerifiedBackup { entries, orders, points }) => {
            answer!(
                "{} entries, {} orders, restore points: {points}; every file is intact, blocks are \
                 chained, the states follow from them",
                grouped(entries),
                grouped(orders)
            );
            Ok(true)
        }
        Err(damage @ BackupError::Damaged { .. }) => {
            answer!("{damage}");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs what may wait for a disk, off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stop> {
    tokio::task::spawn_blocking(task).await.map_err(|error| Stop::Defect(error.to_string()))
}

/// A number with commas, for people.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if 0 < place && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The time since the epoch of a log time.
pub(crate) fn log_second(log_time_ms: u64) -> UtcSecond {
    UtcSecond::of(Duration::from_millis(log_time_ms))
}
