//! Output: the only module that writes to stdout (the answer) and to stderr (progress and logs). At
//! a terminal two libraries draw as well: the progress bar, and the line editor of the demo.
//!
//! A line that cannot be written is dropped without further effect: the store stays open, and a
//! command keeps its exit code. A long-running process writes through the [line
//! queues](wire::lines), so that a stalled reader cannot block it. A short-lived command writes at
//! once, as other tools do; if its answer was lost for any reason but a closed reader, the command
//! has failed.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wire::lines;

/// How long a process waits at its end for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Whether this process is long-running, and writes through queues.
static QUEUED: AtomicBool = AtomicBool::new(false);

/// The first reason why an answer was not written, other than a closed reader.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Writes a line of the answer to stdout, as `println!` does.
macro_rules! answer {
    ($($line:tt)*) => { $crate::output::answer(::std::format_args!($($line)*)) };
}

/// Writes a line of progress to stderr, as `eprintln!` does.
macro_rules! note {
    ($($line:tt)*) => { $crate::output::note(::std::format_args!($($line)*)) };
}

/// Switches to queues: from now on no line blocks this process.
pub(crate) fn queue_lines() {
    QUEUED.store(true, Ordering::Relaxed);
}

/// Writes a line of the answer. See [`answer!`].
pub(crate) fn answer(line: fmt::Arguments<'_>) {
    if QUEUED.load(Ordering::Relaxed) {
        lines::stdout().push(&line.to_string());
    } else {
        write_answer(format_args!("{line}\n"));
    }
}

/// Writes a part of a line of the answer: a prompt, a number that is redrawn.
pub(crate) fn answer_part(part: fmt::Arguments<'_>) {
    write_answer(part);
}

/// Writes a line of progress. See [`note!`].
pub(crate) fn note(line: fmt::Arguments<'_>) {
    if QUEUED.load(Ordering::Relaxed) {
        lines::stderr().push(&line.to_string());
    } else {
        // In one write, as far as the system allows: other processes may use the same terminal.
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

/// Prints clap's own output: help, the version, or an error in the command line. Clap chooses the
/// colours.
pub(crate) fn show(said: &clap::Error) {
    let written = said.print();
    if !said.use_stderr() {
        check(written.and_then(|()| io::stdout().flush()));
    }
}

/// A time in milliseconds, for people.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1_000.0)
}

/// Whether stdout is a terminal.
pub(crate) fn answers_a_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stderr is a terminal.
pub(crate) fn notes_to_a_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Cancelled when the reader of stdout is gone, as `head` is: further answers are in vain.
pub(crate) fn reader_gone() -> &'static CancellationToken {
    static GONE: OnceLock<CancellationToken> = OnceLock::new();
    GONE.get_or_init(CancellationToken::new)
}

/// Writes the last lines of this process, as far as possible. Returns why the answer is incomplete.
pub(crate) fn finish() -> Option<&'static io::Error> {
    if QUEUED.load(Ordering::Relaxed) {
        lines::stdout().flush(LAST_LINES);
        lines::stderr().flush(LAST_LINES);
    }
    LOST.get()
}

fn write_answer(part: fmt::Arguments<'_>) {
    if reader_gone().is_cancelled() {
        return;
    }
    let mut out = io::stdout().lock();
    check(out.write_fmt(part).and_then(|()| out.flush()));
}

fn check(written: io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => reader_gone().cancel(),
        // The first reason is the one reported.
        Err(error) => drop(LOST.set(error)),
    }
}
