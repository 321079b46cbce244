//! Output: the only place that writes to stdout and stderr. stdout is the answer, stderr the story.
//!
//! A line that cannot be written is lost and nothing else: the store stays open, and a command ends
//! with the exit code that it has come to. A process that stays writes through the
//! [line queues](wire::lines), so that a reader which does not read cannot hold it up. A command
//! that ends by itself writes at once, as other tools do; where its answer was lost to more than a
//! reader that has gone away, the command has failed.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wire::lines;

/// How long the end of a process waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Whether this process stays, and writes through queues.
static QUEUED: AtomicBool = AtomicBool::new(false);

/// The first reason why an answer was not written, other than a reader that has gone away.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// A line of the answer, to stdout, in the form of `println!`.
macro_rules! answer {
    ($($line:tt)*) => { $crate::output::answer(::std::format_args!($($line)*)) };
}

/// A line of the story, to stderr, in the form of `eprintln!`.
macro_rules! note {
    ($($line:tt)*) => { $crate::output::note(::std::format_args!($($line)*)) };
}

/// From now on no line holds this process up: it stays.
pub(crate) fn queue_lines() {
    QUEUED.store(true, Ordering::Relaxed);
}

/// Writes a line of the answer. See [`answer!`].
pub(crate) fn answer(line: fmt::Arguments<'_>) {
    match QUEUED.load(Ordering::Relaxed) {
        true => lines::stdout().push(&line.to_string()),
        false => write_answer(format_args!("{line}\n")),
    }
}

/// Writes a part of a line of the answer: a prompt, a number that changes in its place.
pub(crate) fn answer_part(part: fmt::Arguments<'_>) {
    write_answer(part);
}

/// Writes a line of the story. See [`note!`].
pub(crate) fn note(line: fmt::Arguments<'_>) {
    match QUEUED.load(Ordering::Relaxed) {
        true => lines::stderr().push(&line.to_string()),
        false => note_part(format_args!("{line}\n")),
    }
}

/// Writes a part of a line of the story: a bar that moves.
pub(crate) fn note_part(part: fmt::Arguments<'_>) {
    // In one piece, as far as the system does that: others may write to the same terminal.
    let _ = io::stderr().write_all(part.to_string().as_bytes());
}

/// What clap says instead of a command: help, the version, or what is wrong with the command line.
/// Colours are clap's.
pub(crate) fn show(said: &clap::Error) {
    let written = said.print();
    if !said.use_stderr() {
        check(written.and_then(|()| io::stdout().flush()));
    }
}

/// Whether stdout is a terminal.
pub(crate) fn answers_a_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stderr is a terminal.
pub(crate) fn notes_to_a_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Cancelled when the reader of the answer has gone away, as `head` does: more of it is in vain.
pub(crate) fn reader_gone() -> &'static CancellationToken {
    static GONE: OnceLock<CancellationToken> = OnceLock::new();
    GONE.get_or_init(CancellationToken::new)
}

/// Writes the last lines of this process, if they can be written at all. Returns why the answer is
/// not whole.
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
        // The first reason is the one that is said.
        Err(error) => drop(LOST.set(error)),
    }
}
