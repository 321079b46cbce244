//! Signals that would end the process, caught: it ends in order instead.
//!
//! These are all that end a process by default and can be caught, but for those that report a fault
//! of the process itself (SIGSEGV, SIGBUS, SIGFPE, SIGILL: returning from them repeats the fault).

use std::ops::Range;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use wire::exit::Stop;

/// HUP, INT, QUIT, TRAP, ABRT, USR1, USR2, ALRM, TERM, STKFLT, XCPU, VTALRM, PROF, IO, PWR, SYS.
#[cfg(target_os = "linux")]
const ENDING: [i32; 16] = [1, 2, 3, 5, 6, 10, 12, 14, 15, 16, 24, 26, 27, 29, 30, 31];

/// HUP, INT, QUIT, TRAP, ABRT, SYS, ALRM, TERM, XCPU, VTALRM, PROF, USR1, USR2.
#[cfg(not(target_os = "linux"))]
const ENDING: [i32; 13] = [1, 2, 3, 5, 6, 12, 14, 15, 24, 26, 27, 30, 31];

/// Signals with a number and no name.
#[cfg(target_os = "linux")]
const REAL_TIME: Range<i32> = 34..64;

#[cfg(not(target_os = "linux"))]
const REAL_TIME: Range<i32> = 0..0;

/// A file has reached the limit that this process may write (`ulimit -f`): the write fails, which
/// is told like every other failure, and the signal says nothing more.
const FILE_SIZE: i32 = 25;

/// The signals that this process was sent, from now on.
#[derive(Debug)]
pub(crate) struct Signals {
    came: mpsc::Receiver<()>,
}

impl Signals {
    /// From now on no signal that can be caught ends the process.
    pub(crate) fn catch() -> Result<Self, Stop> {
        let no = |error| Stop::Setup(format!("signals cannot be caught: {error}"));
        // Two count: the first ends the process in order, the second at once.
        let (sender, came) = mpsc::channel(2);
        for number in ENDING.into_iter().chain(REAL_TIME) {
            let mut signals = match signal(SignalKind::from_raw(number)) {
                Ok(signals) => signals,
                // The C library keeps some of them for itself.
                Err(_) if REAL_TIME.contains(&number) => continue,
                Err(error) => return Err(no(error)),
            };
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    // Full: an end is on its way already.
                    let _ = sender.try_send(());
                }
            });
        }
        // Its handler stays when the stream is dropped.
        drop(signal(SignalKind::from_raw(FILE_SIZE)).map_err(no)?);
        Ok(Self { came })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        if self.came.recv().await.is_none() {
            // The tasks that send end with the runtime only.
            std::future::pending::<()>().await;
        }
    }
}
