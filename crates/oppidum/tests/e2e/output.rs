//! Log readers that are gone, full, or do not read: only log lines are lost.

use std::fs::File;
use std::io::pipe;
use std::process::Stdio;

use rustix::process::Signal;

use crate::harness::{Plan, Store, Town, run_to, signal_to, until};

/// Opens a store whose log goes to `err`, makes it log, and closes it.
fn opens_sells_and_closes(what: &str, err: impl Into<Stdio>, lose_reader: impl FnOnce()) {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_oppidum");
    let flags = ["--ephemeral", "--log", "debug"];
    let mut town = Town::start_as(program.as_ref(), folder.path(), err, &flags);
    lose_reader();
    town.sells();
    // `up` itself logs a line about this.
    let first = town.pid("catalog").unwrap();
    signal_to(first, Signal::KILL);
    until("the catalog is started again", || town.pid("catalog").filter(|second| *second != first));
    town.sells();
    town.up.signal(Signal::INT);
    assert_eq!(town.up.wait(), Some(0), "{what}");
}

/// Kind: a stderr reader that closes its end, in the middle or before the first line.
#[test]
fn the_store_stays_open_when_the_reader_of_its_lines_goes_away() {
    let (reader, writer) = pipe().unwrap();
    let mut kept = Some(reader);
    opens_sells_and_closes("goes away later", writer, || drop(kept.take()));
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    opens_sells_and_closes("was never there", writer, || {});
}

/// Kind: a full disk under the log file.
#[test]
fn the_store_stays_open_when_the_disk_of_its_lines_is_full() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    opens_sells_and_closes("full", full, || {});
}

/// Kind: a stderr reader that stays open and does not read: a full pipe, a stopped terminal.
#[test]
fn the_store_stays_open_when_the_reader_of_its_lines_does_not_read() {
    let (reader, writer) = pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // The pipe is full: the next byte would block.
    std::thread::spawn(move || {
        use std::io::Write;
        let _ = filler.write_all(&vec![b'x'; 1 << 20]);
    });
    opens_sells_and_closes("full pipe", writer, || {});
    drop(reader);
}

/// A command without a reader ends quietly with its own exit code; a command whose answer is lost
/// to a full disk fails.
#[test]
fn a_command_without_a_reader_keeps_its_exit_code_and_one_with_a_full_disk_fails() {
    let store = Store::start(Plan::toy());
    let url = store.url();
    let commands: [&[&str]; 6] = [
        &["--help"],
        &["--version"],
        &["status", "--url", &url],
        &["verify", "--url", &url],
        &["dump", "--id", "456", "--url", &url],
        &["load", "--requests", "2000000", "--url", &url],
    ];
    for command in commands {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let ended = run_to(writer, command);
        assert_eq!(ended.code, Some(0), "{command:?}: {ended:?}");
        assert!(!ended.stderr.contains("oppidum: defect"), "{command:?}: {ended:?}");
        if command[0] == "load" {
            continue;
        }
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended = run_to(full, command);
        assert_eq!(ended.code, Some(2), "{command:?}: {ended:?}");
        assert!(ended.stderr.contains("No space left on device"), "{command:?}: {ended:?}");
    }
}
