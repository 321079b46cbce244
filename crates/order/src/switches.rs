//! Faults that a test switches on and off while the replica runs: a disk that stalls, one that lies
//! about syncs, a clock that jumps.
//!
//! With the fault `switches` a thread looks into the file beside the data folder, `ORDER.faults`,
//! every few milliseconds; what it says holds for the whole process, like a disk and a clock do.
//! Without that fault nothing looks, and what is asked here costs one relaxed read of memory.
//!
//! | word | what happens while it is there |
//! |---|---|
//! | `stall` | nothing that is written to disk is known to be there |
//! | `no-sync` | what is written is called synced, and was not |
//! | `clock=MS` | the clock on the wall is so far ahead; behind, when negative |

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Set and cleared with `GATE` held; read without it first, for it is nearly always false.
static STALLED: AtomicBool = AtomicBool::new(false);
static GATE: Mutex<()> = Mutex::new(());
static GOES_ON: Condvar = Condvar::new();
static LIES: AtomicBool = AtomicBool::new(false);

/// What a file of switches says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Switches {
    stall: bool,
    no_sync: bool,
    clock_ms: i64,
}

/// Waits while the disk stalls: before anybody hears that something is on it.
pub(crate) fn await_disk() {
    if STALLED.load(Ordering::Relaxed) {
        let mut gate = GATE.lock();
        while STALLED.load(Ordering::Relaxed) {
            GOES_ON.wait(&mut gate);
        }
    }
}

/// True, but for a disk that lies: what is written is synced too.
pub(crate) fn disk_syncs() -> bool {
    !LIES.load(Ordering::Relaxed)
}

/// Where the switches of the replica with this data folder are.
fn file(data: &Path) -> PathBuf {
    data.with_extension("faults")
}

/// Looks at the switches from now on, until the process ends. What they say at first holds when
/// this returns.
pub(crate) fn watch(data: &Path) -> std::io::Result<()> {
    let file = file(data);
    tracing::warn!("faults are switched on and off by {}: this is for tests", file.display());
    let mut known = Switches::default();
    look(&file, &mut known);
    std::thread::Builder::new().name("switches".into()).spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            look(&file, &mut known);
        }
    })?;
    Ok(())
}

fn look(file: &Path, known: &mut Switches) {
    let now = read(&std::fs::read_to_string(file).unwrap_or_default());
    if now != *known {
        turn(now);
        *known = now;
    }
}

/// A word that is not known switches nothing.
fn read(text: &str) -> Switches {
    let mut switches = Switches::default();
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

fn turn(switches: Switches) {
    LIES.store(switches.no_sync, Ordering::Relaxed);
    wire::telemetry::set_clock_ahead(switches.clock_ms);
    let _gate = GATE.lock();
    STALLED.store(switches.stall, Ordering::Relaxed);
    GOES_ON.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_switches_says_what_holds_and_none_says_that_nothing_does() {
        assert_eq!(read(""), Switches::default());
        assert_eq!(read("stall\n"), Switches { stall: true, ..Switches::default() });
        let all = Switches { stall: true, no_sync: true, clock_ms: -3_600_000 };
        assert_eq!(read("clock=-3600000 no-sync stall"), all);
        assert_eq!(read("stal clock=soon else=1"), Switches::default());
        assert_eq!(file(Path::new("data/order-456")), Path::new("data/order-456.faults"));
    }
}
