//! `oppidum up` in trouble: children that cannot run, signals of all kinds, a store that has just
//! been killed. The store stays open while a majority lives, and no process is left behind.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::{Process, Town, ports, runs, signal_to, until};

/// Flips a bit in the middle of a stopped replica's log.
fn damage(data: &Path, id: u64) {
    let log = data.join(format!("order-{id}/log"));
    let entries = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let ended = |path: &PathBuf| path.extension().is_some_and(|it| it == "wal");
    let path = entries.filter(ended).min().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[300] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
}

/// Kind: a child of `up` that cannot run must not stop the others, neither while the store is open
/// nor at the next start.
#[test]
fn a_damaged_folder_keeps_one_replica_down_and_the_store_open() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = ["--data", data.to_str().unwrap()];
    let mut town = Town::start(folder.path(), &flags);
    for _ in 0..5 {
        town.sells();
    }
    let pid = town.pid("order-123").unwrap();
    signal_to(pid, Signal::STOP);
    damage(&data, 123);
    signal_to(pid, Signal::KILL);
    town.up.says("order-123 cannot run with its settings (exit code 2)");
    town.sells();
    town.up.signal(Signal::INT);
    assert_eq!(town.up.wait(), Some(0), "{}", town.up.stderr());

    // The folder is left as it is.
    let before = town.up.stderr().len();
    let mut town = Town::start(folder.path(), &flags);
    town.up.says_after(before, "order-123 cannot run with its settings");
    town.sells();
    town.up.signal(Signal::INT);
    assert_eq!(town.up.wait(), Some(0), "{}", town.up.stderr());

    // Without a majority of intact folders `up` does not open a store.
    damage(&data, 345);
    let arguments = ["up", "--ports", "auto", "--data", flags[1]].map(str::to_owned);
    let mut up = Process::start("up", folder.path(), &arguments);
    assert_eq!(up.wait(), Some(2), "{}", up.stderr());
    assert!(up.stderr().contains("cannot open without order-123, order-345"), "{}", up.stderr());
}

/// Kind: a program file that cannot be started just now.
#[test]
fn up_retries_while_its_program_is_being_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (program, away) = (folder.path().join("oppidum"), folder.path().join("away"));
    let built = Path::new(env!("CARGO_BIN_EXE_oppidum"));
    // A hard link cannot cross to another file system.
    if std::fs::hard_link(built, &program).is_err() {
        std::fs::copy(built, &program).unwrap();
    }
    let err = std::fs::File::create(folder.path().join("up.err")).unwrap();
    let town = Town::start_as(&program, folder.path(), err, &["--ephemeral"]);
    let first = town.pid("order-123").unwrap();
    std::fs::rename(&program, &away).unwrap();
    signal_to(first, Signal::KILL);
    town.up.says("order-123 cannot be started");
    town.sells();
    std::fs::rename(&away, &program).unwrap();
    until("123 is started again", || town.pid("order-123").filter(|second| *second != first));
}

/// Kind: every catchable signal that ends `up`.
#[test]
fn after_any_signal_the_processes_and_the_folder_of_up_are_gone() {
    for signal in [Signal::QUIT, Signal::USR1, Signal::ALARM] {
        let folder = tempfile::tempdir().unwrap();
        let temporary = folder.path().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let variables = [("TMPDIR", temporary.to_str().unwrap())];
        let mut town = Town::start_with(folder.path(), &variables, &["--ephemeral"]);
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
        let children = town.pids();
        town.up.signal(signal);
        assert_eq!(town.up.wait(), Some(0), "{signal:?}: {}", town.up.stderr());
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "{signal:?}");
        for (name, pid) in children {
            assert!(!runs(pid), "{signal:?}: {name} outlived the store");
        }
    }
}

/// The second signal ends `up` at once, and leaves no process or folder behind either.
#[test]
fn a_second_signal_ends_up_at_once_and_its_folder_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let variables = [("TMPDIR", temporary.to_str().unwrap())];
    let mut town = Town::start_with(folder.path(), &variables, &["--ephemeral"]);
    let children = town.pids();
    // A frozen replica does not end in order.
    signal_to(town.pid("order-345").unwrap(), Signal::STOP);
    town.up.signal(Signal::INT);
    town.up.says("closing the store");
    town.up.signal(Signal::TERM);
    assert_eq!(town.up.wait(), Some(130), "{}", town.up.stderr());
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    for (name, pid) in children {
        assert!(!runs(pid), "{name} outlived the store");
    }
}

/// Kind: ports and folders that a just-killed store still holds.
#[test]
fn a_store_is_started_right_after_another_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let [port, _] = ports();
    let port = port.to_string();
    let data = folder.path().join("data");
    let flags = ["--data", data.to_str().unwrap(), "--port", &port];
    let mut town = Town::start(folder.path(), &flags);
    assert_eq!(town.port.to_string(), port, "the given port is used");
    town.sells();
    town.up.kill();
    let town = Town::start(folder.path(), &flags);
    town.sells();
}
