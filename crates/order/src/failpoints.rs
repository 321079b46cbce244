//! Failpoints: faults that a test switches on and off while the replica runs: a disk that stalls, a
//! disk that lies about syncs, a clock that jumps.
//!
//! With the fault `switches` a thread reads the file beside the data folder, `ORDER.faults`,
//! every few milliseconds. Its words hold for the whole process, as a disk and a clock do. Without
//! that fault no thread runs, and each check here costs one relaxed read of memory.
//!
//! | word | effect while it is in the file |
//! |---|---|
//! | `stall` | no write to the disk is reported as done |
//! | `no-sync` | a write is reported as synced, and was not |
//! | `clock=MS` | the wall clock is this many milliseconds ahead; behind, when negative |

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How often the file is read.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Set and cleared with `GATE` held; read without it first, for it is nearly always false.
static STALLED: AtomicBool = AtomicBool::new(false);
static GATE: Mutex<()> = Mutex::new(());
static RESUMED: Condvar = Condvar::new();
static NO_SYNC: AtomicBool = AtomicBool::new(false);

/// The failpoints that a file sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Failpoints {
    stall: bool,
    no_sync: bool,
    clock_ms: i64,
}

/// Waits while the disk stalls, before a write is reported as done.
pub(crate) fn await_disk() {
    if STALLED.load(Ordering::Relaxed) {
        let mut gate = GATE.lock();
        while STALLED.load(Ordering::Relaxed) {
            RESUMED.wait(&mut gate);
        }
    }
}

/// True unless the disk lies: a written entry is synced too.
pub(crate) fn disk_syncs() -> bool {
    !NO_SYNC.load(Ordering::Relaxed)
}

/// The failpoint file of the replica with this data folder.
fn file(data: &Path) -> PathBuf {
    data.with_extension("faults")
}

/// Watches the failpoint file from now on, until the process ends. Its first contents hold when
/// this returns.
pub(crate) fn watch(data: &Path) -> std::io::Result<()> {
    let file = file(data);
    tracing::warn!("faults are switched on and off by {}: this is for tests", file.display());
    let mut known = Failpoints::default();
    look(&file, &mut known);
    std::thread::Builder::new().name("switches".into()).spawn(move || {
        loop {
            std::thread::sleep(POLL_INTERVAL);
            look(&file, &mut known);
        }
    })?;
    Ok(())
}

fn look(file: &Path, known: &mut Failpoints) {
    let now = read(&std::fs::read_to_string(file).unwrap_or_default());
    if now != *known {
        turn(now);
        *known = now;
    }
}

/// An unknown word sets nothing.
fn read(text: &str) -> Failpoints {
    let mut switches = Failpoints::default();
    for word in text.split_whitespace() {
        match word.split_once('=') {
            None if word == "stall" => switches.stall = true,
            None if word == "no-sync" => switches.no_sync = true,
            Some(("clock", millis)) => switches.clock_ms = millis.parse().unwrap_or(0),
            _ => {}
        }
    }
    switches
}

fn turn(switches: Failpoints) {
    NO_SYNC.store(switches.no_sync, Ordering::Relaxed);
    wire::wall_clock::set_clock_ahead(switches.clock_ms);
    let _gate = GATE.lock();
    STALLED.store(switches.stall, Ordering::Relaxed);
    RESUMED.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_file_sets_the_named_faults_and_no_file_sets_none() {
        assert_eq!(read(""), Failpoints::default());
        assert_eq!(read("stall\n"), Failpoints { stall: true, ..Failpoints::default() });
        let all = Failpoints { stall: true, no_sync: true, clock_ms: -3_600_000 };
        assert_eq!(read("clock=-3600000 no-sync stall"), all);
        assert_eq!(read("stal clock=soon else=1"), Failpoints::default());
        assert_eq!(file(Path::new("data/order-456")), Path::new("data/order-456.faults"));
    }
}
