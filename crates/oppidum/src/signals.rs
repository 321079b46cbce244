//! Signals that would kill the process: caught, so that it ends in order.
//!
//! The list has every signal that ends a process by default and can be caught, except those that
//! report a fault of the process itself (SIGSEGV, SIGBUS, SIGFPE, SIGILL: returning from them
//! repeats the fault).

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

/// The real-time signals, which have numbers and no names.
#[cfg(target_os = "linux")]
const REAL_TIME: Range<i32> = 34..64;

#[cfg(not(target_os = "linux"))]
const REAL_TIME: Range<i32> = 0..0;

/// SIGXFSZ: a file has reached the process's size limit (`ulimit -f`). The write fails and is
/// reported as any failed write, so the signal is ignored.
const FILE_SIZE: i32 = 25;

/// A stream of the signals that this process receives.
#[derive(Debug)]
pub(crate) struct Signals {
    came: mpsc::Receiver<()>,
}

impl Signals {
    /// Catches the signals: from now on none of them ends the process by itself.
    pub(crate) fn catch() -> Result<Self, Stop> {
        let no = |error| Stop::Setup(format!("signals cannot be caught: {error}"));
        // Two signals count: the first ends the process in order, the second at once.
        let (sender, came) = mpsc::channel(2);
        for number in ENDING.into_iter().chain(REAL_TIME) {
            let mut signals = match signal(SignalKind::from_raw(number)) {
                Ok(signals) => signals,
                // The C library reserves some of them.
                Err(_) if REAL_TIME.contains(&number) => continue,
                Err(error) => return Err(no(error)),
            };
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    // A full channel means that the process is ending already.
                    let _ = sender.try_send(());
                }
            });
        }
        // The handler stays installed after the stream is dropped.
        drop(signal(SignalKind::from_raw(FILE_SIZE)).map_err(no)?);
        Ok(Self { came })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        if self.came.recv().await.is_none() {
            // The sending tasks end only with the runtime.
            std::future::pending::<()>().await;
        }
    }
}
