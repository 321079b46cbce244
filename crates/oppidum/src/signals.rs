//! Signals: tells the rest of the program that Ctrl-C, SIGTERM or any other signal that would kill
//! it has come. The first one ends the process in order, the second at once.
//!
//! The list has every signal that ends a process by default and can be caught, except those that
//! report a fault of the process itself (SIGSEGV, SIGBUS, SIGFPE, SIGILL: returning from them
//! repeats the fault).

use std::ops::Range;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::output;

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

/// SIGHUP: a terminal closes, or an operator asks a process to read its files again.
const HANGUP: i32 = 1;

/// SIGXFSZ: a file has reached the process's size limit (`ulimit -f`). The write fails and is
/// reported as any failed write, so the signal is ignored.
const FILE_SIZE: i32 = 25;

/// The requests to end this process, or its experiment.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    /// Cancelled by the first signal. A process that stops for another reason cancels it as well;
    /// then the first signal is the second request.
    pub(crate) stop: CancellationToken,
    /// Cancelled by the second request.
    pub(crate) hurry: CancellationToken,
}

impl Interrupt {
    /// Catches the signals: from now on none of them ends the process by itself.
    pub(crate) fn listen() -> Result<Self, Stop> {
        Self::listen_and(false, || {})
    }

    /// The same; calls `announce` at the first signal, unless the process is stopping already.
    /// `reloads`: SIGHUP does not end the process, which reads its certificates again.
    pub(crate) fn listen_and(reloads: bool, announce: fn()) -> Result<Self, Stop> {
        let mut signals = catch(reloads)?;
        let interrupt = Self { stop: CancellationToken::new(), hurry: CancellationToken::new() };
        let Self { stop, hurry } = interrupt.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if stop.is_cancelled() {
                    hurry.cancel();
                } else {
                    announce();
                    stop.cancel();
                }
            }
        });
        Ok(interrupt)
    }

    /// Lets the second request end the process, with the exit code of a shell for Ctrl-C.
    pub(crate) fn exit_when_hurried(&self) {
        let hurry = self.hurry.clone();
        tokio::spawn(async move {
            hurry.cancelled().await;
            std::process::exit(130);
        });
    }

    /// Runs a future until it completes or the first signal arrives.
    pub(crate) async fn unless<T>(
        &self,
        doing: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            done = doing => done,
            () = self.stop.cancelled() => {
                if output::notes_to_a_terminal() {
                    // Keeps an unfinished line of the terminal apart from the next one.
                    note!("");
                }
                Err(Stop::Setup("stopped before the end".into()))
            }
        }
    }
}

/// Catches every signal of the list; each sends one item.
fn catch(reloads: bool) -> Result<mpsc::Receiver<()>, Stop> {
    let no = |error| Stop::Setup(format!("signals cannot be caught: {error}"));
    // Two signals count: the first ends the process in order, the second at once.
    let (sender, received) = mpsc::channel(2);
    let ending = ENDING.into_iter().filter(|number| !(reloads && *number == HANGUP));
    for number in ending.chain(REAL_TIME) {
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
    if reloads {
        drop(signal(SignalKind::from_raw(HANGUP)).map_err(no)?);
    }
    // The handler stays installed after the stream is dropped.
    drop(signal(SignalKind::from_raw(FILE_SIZE)).map_err(no)?);
    Ok(received)
}
