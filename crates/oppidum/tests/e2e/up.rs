//! `oppidum up`: one command, a whole store.

use std::net::TcpListener;

use rustix::process::Signal;

use crate::harness::{Connection, Town, get, post, run, run_in, runs, signal_to, until};

/// `up` prints what the user needs, restarts each process that dies, and ends them all on Ctrl-C.
#[test]
fn one_command_starts_a_store_keeps_it_running_and_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("kept");
    let mut town =
        Town::start(folder.path(), &["--dialect", "toy", "--data", data.to_str().unwrap()]);
    let printed = town.up.stdout();
    for word in ["order-123", "order-456", "catalog-1", "frontend-1", "curl ", "whale", "kill -9"] {
        assert!(printed.contains(word), "no {word:?} in {printed}");
    }
    for (name, pid) in town.pids() {
        assert!(printed.contains(&pid.to_string()), "no pid {pid} of {name} in {printed}");
    }
    assert_eq!(post(town.port, r#"{"name":"whale","quantity":2}"#).number(), 0);
    let first = town.pid("order-456").unwrap();
    signal_to(first, Signal::KILL);
    assert_eq!(post(town.port, r#"{"name":"tux","quantity":3}"#).number(), 1);
    let second =
        until("456 is started again", || town.pid("order-456").filter(|second| *second != first));
    assert!(runs(second));
    let children = town.pids();
    assert_eq!(children.len(), 5, "{children:?}");
    town.up.signal(Signal::INT);
    assert_eq!(town.up.wait(), Some(0), "{}", town.up.stderr());
    for (name, pid) in children {
        assert!(!runs(pid), "{name} outlived the store");
    }
    assert!(!town.up.stderr().contains("panicked"), "{}", town.up.stderr());

    // After a restart the orders are still there.
    let town = Town::start(folder.path(), &["--dialect", "toy", "--data", data.to_str().unwrap()]);
    assert_eq!(get(town.port, "/orders/1").json()["data"]["name"], "tux");
    assert_eq!(post(town.port, r#"{"name":"tux","quantity":1}"#).number(), 2);
}

/// A process that was told to stay down stays down; the children do not outlive `up`, however it
/// ends.
#[test]
fn no_process_outlives_up_even_when_up_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--ephemeral", "--restart", "never", "--frontends", "2", "--catalogs", "2"];
    let mut town = Town::start(folder.path(), &more);
    let children = town.pids();
    // A frontend's status lists no other frontends: three replicas, two catalogs, itself.
    assert_eq!(children.len(), 6, "{children:?}");
    let leader = town.pid("order-456").unwrap();
    signal_to(leader, Signal::KILL);
    town.up.says("order-456 is down");
    let sold = post(town.port, r#"{"name":"FishCo","quantity":1,"type":"buy"}"#);
    assert_eq!(sold.number(), 0);
    // The public status is a moment old.
    until("456 stays down", || town.pid("order-456").is_none().then_some(()));
    town.up.kill();
    for (name, pid) in children {
        until(&format!("{name} ends after up was killed"), || (!runs(pid)).then_some(()));
    }
    assert!(Connection::open(town.port).is_err());
}

/// Kind: any program of the machine passes for a process of the store. Tools on the same machine
/// find the operator's certificate by themselves.
#[test]
fn the_processes_of_up_refuse_callers_without_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let town = Town::start(folder.path(), &[]);
    let url = format!("http://127.0.0.1:{}", town.port);
    let status = get(town.port, "/status").json();
    let replica = status["processes"].as_array().unwrap().iter().find(|p| p["role"] == "order");
    let address = replica.unwrap()["address"].as_str().unwrap().to_owned();
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let plain = Connection::open(port).and_then(|mut own| own.ask("GET", "/status", &[], ""));
    let plain = plain.unwrap();
    assert_eq!(plain.status, 400, "{}", plain.body);
    assert!(plain.body.contains("TLS"), "{}", plain.body);
    town.sells();
    for command in [&["verify"][..], &["status"], &["ctl", "member", "list"]] {
        let ended = run(&[command, &["--url", &url]].concat());
        assert_eq!(ended.code, Some(0), "{command:?}: {ended:?}");
    }
    let ended = run(&["verify", "--url", &url, "--tls", "none"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--tls DIR"), "{ended:?}");
    let ended = run(&["status", "--url", &url, "--tls", "none"]);
    assert!(ended.code == Some(0) && ended.stdout.contains(" * "), "{ended:?}");
    let named = [("OPPIDUM_CLUSTER", "My Shop")];
    let ended = run_in(folder.path(), &named, &["up", "--ephemeral", "--ports", "auto"]);
    let line = "\"My Shop\" is no name for a certificate";
    assert!(ended.code == Some(2) && ended.stderr.contains(line), "{ended:?}");
    assert!(ended.stderr.contains("--open-internal"), "{ended:?}");
}

/// [P10] A taken port, a senseless flag: one line, exit code 2, and no process is left running.
#[test]
fn a_taken_port_ends_up_with_one_line() {
    // One of the documented ports is enough, in use by any process.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(&["up", "--ephemeral", "--port", &port]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let lines: Vec<&str> = ended.stderr.lines().filter(|l| l.starts_with("oppidum:")).collect();
    assert_eq!(lines.len(), 1, "{ended:?}");
    assert!(lines[0].contains("is taken") && lines[0].contains("give"), "{ended:?}");
    for odd in [
        &["up", "--frontends", "0"][..],
        &["up", "--ephemeral", "--data", "x"],
        &["up", "--dialect", "latin"],
        &["up", "--ephemeral", "--ports", "auto", "--cache", "lots"],
        &["up", "--shop", "none.toml"],
    ] {
        let ended = run(odd);
        assert_eq!(ended.code, Some(2), "{odd:?}: {ended:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let ended = run_in(folder.path(), &[("OPPIDUM_DAAT", "x")], &["up"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("OPPIDUM_DATA"), "{ended:?}");
    let ended = run_in(
        folder.path(),
        &[("OPPIDUM_LISTEN", "127.0.0.1:9"), ("OPPIDUM_DATA", "x")],
        &["up", "--ephemeral", "--port", &port],
    );
    let line = "ignored here: OPPIDUM_LISTEN: `up` gives each process its own; OPPIDUM_DATA";
    assert!(ended.code == Some(2) && ended.stderr.contains(line), "{ended:?}");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing was written");
}
