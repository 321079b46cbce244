//! Wrong settings: exit code 2, and one line with the fault and the remedy.

use std::net::TcpListener;

use serde_json::Value;

use crate::harness::{Ended, IDS, Plan, Process, Store, ports, run, run_in, until};

fn refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let complaints = ended.stderr.lines().filter(|line| line.starts_with("oppidum:")).count();
    assert_eq!(complaints, 1, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in {ended:?}");
    }
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands: [&[&str]; 20] = [
        &[],
        &["up"],
        &["order"],
        &["catalog"],
        &["frontend"],
        &["client"],
        &["load"],
        &["status"],
        &["verify"],
        &["dump"],
        &["ctl"],
        &["ctl", "product"],
        &["ctl", "product", "define"],
        &["ctl", "product", "price"],
        &["ctl", "product", "restock"],
        &["lab"],
        &["lab", "oversell"],
        &["lab", "double-submit"],
        &["lab", "stale"],
        &["conform"],
    ];
    for command in commands {
        let ended = run(&[command, &["--help"]].concat());
        assert_eq!(ended.code, Some(0), "{command:?}: {ended:?}");
        assert!(ended.stdout.contains("Usage:"), "{command:?}: {ended:?}");
        // Commands that only have subcommands list them instead.
        let shows = ended.stdout.contains("Example") || ended.stdout.contains("Commands:");
        assert!(shows, "{command:?}: {ended:?}");
    }
}

/// [P10, S1-2, S1-3]
#[test]
fn unknown_settings_are_refused_with_the_nearest_known_one() {
    let folder = tempfile::tempdir().unwrap();
    let with =
        |variables: &[(&str, &str)], command: &[&str]| run_in(folder.path(), variables, command);
    refused(&with(&[("OPPIDUM_CASHE", "5")], &["frontend"]), &["OPPIDUM_CASHE", "OPPIDUM_CACHE"]);
    refused(&with(&[("OPPIDUM_CACHE", "many")], &["frontend"]), &["many", "OPPIDUM_CACHE"]);
    refused(&with(&[], &["order"]), &["--id"]);
    refused(&with(&[("ORDER_SERVICE_ID", "7")], &["order"]), &["7", "123, 345, 456"]);
    refused(&with(&[], &["order", "--id", "456", "--shop", "none.toml"]), &["none.toml"]);
    refused(&with(&[], &["order", "--id", "456", "--orders", "456"]), &["ID=HOST:PORT"]);
    refused(&with(&[], &["frontend", "--dialect", "latin"]), &["latin", "stock or toy"]);
    refused(&with(&[], &["catalog", "--lease-ms", "100"]), &["lease"]);
    refused(&with(&[], &["catalog", "--lease-ms", "3000"]), &["3s", "600ms is the most"]);
    refused(&with(&[], &["catalog", "--log", "inof"]), &["inof", "debug"]);
    refused(&with(&[], &["order", "--id", "456", "--data", ""]), &["--data is empty"]);
    std::fs::write(folder.path().join(".env"), "OPPIDUM_PROT=99\n").unwrap();
    refused(&with(&[], &["frontend"]), &[".env", "OPPIDUM_PROT", "OPPIDUM_PORT"]);
    std::fs::write(folder.path().join(".env"), "\u{feff}OPPIDUM_PROT=99 # mine\r\n").unwrap();
    refused(&with(&[], &["status"]), &[".env", "OPPIDUM_PROT", "OPPIDUM_PORT"]);
    std::fs::write(folder.path().join(".env"), "no sense\n").unwrap();
    refused(&with(&[], &["up"]), &[".env", "line 1"]);
    for flags in [&["frontend", "--cashe", "5"][..], &["serve"], &["load", "--clients", "0"]] {
        let ended = run(flags);
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
    let shop = folder.path().join("shop.toml");
    std::fs::write(folder.path().join(".env"), "").unwrap();
    std::fs::write(&shop, "[[product]]\nname = \"a\"\nprice = 1\nquantity = 1\ncolour = 2\n")
        .unwrap();
    let shop = shop.to_str().unwrap();
    refused(&with(&[], &["order", "--id", "456", "--shop", shop]), &[shop, "colour", "5"]);
}

/// [P10] Kind: an address that is taken, and a store that never forms.
#[test]
fn an_address_is_refused_at_the_start_with_its_right_spelling() {
    let bare = "456=::1:21117";
    for (command, words) in [
        (&["order", "--id", "456", "--orders", bare][..], "[::1]:21117"),
        (&["catalog", "--orders", bare], "[::1]:21117"),
        (&["frontend", "--orders", bare], "[::1]:21117"),
        (&["order", "--id", "456", "--listen", "::1:21117"], "[::1]:21117"),
        (&["catalog", "--listen", "::1:21117"], "[::1]:21117"),
        (&["catalog", "--upstream", "::1:21117"], "[::1]:21117"),
        (&["catalog", "--upstream", "127.0.0.1"], "HOST:PORT"),
        (&["catalog", "--listen", "127.0.0.1:9", "--upstream", "localhost:9"], "catalog itself"),
        (&["catalog", "--listen", "192.0.2.1:21117"], "no such address"),
        (&["catalog", "--listen", "127.0.0.1:0"], "give the port"),
        (&["frontend", "--internal", "127.0.0.1:0"], "give the port"),
        (&["frontend", "--host", "192.0.2.1"], "no such address"),
        (&["order", "--id", "456", "--listen", "127.0.0.1:0"], "give the port"),
        (&["order", "--id", "1", "--orders", "1=a:1,01=b:1"], "listed twice"),
        (&["order", "--id", "456", "--data", "~/data"], "~ is not replaced"),
        (&["frontend", "--catalogs", "::1:21117"], "[::1]:21117"),
        (&["frontend", "--catalogs", "http://127.0.0.1:2319"], "HOST:PORT"),
        (&["frontend", "--internal", "::1:21117"], "[::1]:21117"),
        (&["frontend", "--host", "127.0.0.1:21117"], "has a port"),
        (&["status", "--url", "http://::1:21117"], "[::1]:21117"),
        (&["status", "--url", "http://127.0.0.1:21117/stocks"], "http://HOST:PORT"),
    ] {
        let ended = run(command);
        refused(&ended, &[words]);
    }
    for (address, words) in [("::1:21117", "[::1]:21117"), ("a:0", "no port"), ("a", "HOST:PORT")] {
        let add = ["ctl", "member", "add", "--id", "9", "--address", address];
        let replace = ["ctl", "replace", "--id", "1", "--with", "9", "--address", address];
        for command in [&add[..], &replace[..]] {
            let ended = run(command);
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(ended.stderr.contains(words), "{ended:?}");
        }
    }
}

/// Kind: an injected fault that is not logged.
#[test]
fn a_process_with_an_injected_fault_warns() {
    let mut store = Store::prepare(Plan { rule: Some("AcceptedEarly"), ..Plan::toy() });
    store.start_order(456, &["--fault", "hold-answers"]);
    store.order(456).says("WARNING --fault hold-answers breaks this process on purpose");
    store.order(456).says("WARNING --break-rule AcceptedEarly breaks this process on purpose");
    store.start_catalog(0);
    store.catalog(0).says("WARNING --break-rule AcceptedEarly breaks this process on purpose");
}

/// Kind: files with orders and votes that every user of the machine can read.
#[test]
fn a_replicas_files_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut store = Store::start(Plan::toy());
    store.buy("whale", 1);
    store.stop(456);
    let mut paths = vec![store.data(456).parent().unwrap().to_owned()];
    let mut seen = 0;
    while let Some(path) = paths.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{} is {mode:o}", path.display());
        if metadata.is_dir() {
            paths.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen += 1;
    }
    assert!(12 <= seen, "{seen} files and folders");
    // A folder of an earlier version.
    let folder = store.data(456);
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    store.start_order(456, &[]);
    store.order(456).says("now its owner alone can");
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
}

/// [P10, D1-14] Ports, ids and folders that belong to another process.
#[test]
fn a_port_a_folder_or_an_id_of_another_process_is_refused() {
    let mut store = Store::start(Plan::stock());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let address = format!("127.0.0.1:{port}");
    let [free, _] = ports();
    let listen = format!("127.0.0.1:{free}");
    let folder = store.folder().to_owned();
    let here = |arguments: &[&str]| run_in(&folder, &[], arguments);
    refused(&here(&["catalog", "--listen", &address]), &[&port]);
    refused(
        &here(&["frontend", "--host", "127.0.0.1", "--port", &port, "--internal", &listen]),
        &[&port],
    );
    let orders = format!("123=127.0.0.1:1,345=127.0.0.1:2,456={listen}");
    let order = |more: &[&str]| {
        let always = ["order", "--orders", &orders, "--data", "data"];
        here(&[&always, more].concat())
    };
    refused(&order(&["--id", "123", "--listen", &address]), &[]);
    refused(&order(&["--id", "7"]), &["7", "123, 345, 456"]);
    // The folder is in use by the running replica.
    refused(&order(&["--id", "456"]), &["order-456", "use"]);
    store.stop(456);
    store.stop(123);
    refused(&order(&["--id", "456", "--cluster", "another"]), &["another", "oppidum"]);
    // The folder of another replica under this one's id.
    let data = folder.join("data");
    std::fs::rename(data.join("order-456"), data.join("aside")).unwrap();
    std::fs::rename(data.join("order-123"), data.join("order-456")).unwrap();
    refused(&order(&["--id", "456"]), &["123", "456"]);
}

/// Kind: a mistake in the settings that is found at the next restart.
#[test]
fn check_says_whether_a_process_could_start_also_while_it_runs() {
    let store = Store::start(Plan::stock());
    let folder = store.folder().to_owned();
    let check = |arguments: &[&str]| run_in(&folder, &[], &[arguments, &["--check"]].concat());
    let [free, _] = ports();
    let orders = format!("123=127.0.0.1:1,345=127.0.0.1:2,456=127.0.0.1:{free}");
    let order = |more: &[&str]| check(&[&["order", "--orders", &orders], more].concat());
    for data in ["data", "new"] {
        let checked = order(&["--id", "456", "--data", data]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
        for line in ["id: 456 (flag --id)", "replica 456 could start with these settings"] {
            assert!(checked.stdout.contains(line), "{line}: {checked:?}");
        }
    }
    assert!(!folder.join("new").exists(), "it wrote nothing");
    refused(&order(&["--id", "7", "--data", "data"]), &["7", "123, 345, 456"]);
    let another = ["--id", "456", "--data", "data", "--cluster", "another"];
    refused(&order(&another), &["another", "oppidum"]);
    std::fs::create_dir_all(folder.join("odd/order-456")).unwrap();
    std::fs::write(folder.join("odd/order-456/file"), "x").unwrap();
    refused(&order(&["--id", "456", "--data", "odd"]), &["holds file"]);
    for role in [&["catalog"][..], &["frontend"]] {
        let checked = check(role);
        assert!(checked.code == Some(0) && checked.stdout.contains("could start"), "{checked:?}");
        refused(&check(&[role, &["--tls", "nowhere"]].concat()), &["nowhere"]);
    }
    refused(&check(&["catalog", "--restock-seconds", "0"]), &["restock-seconds"]);
    refused(&check(&["frontend", "--drain", "61"]), &["drain"]);
}

/// [S0-26, S1-26] Signals end every process cleanly, without a traceback.
#[test]
fn a_signal_ends_every_process_cleanly() {
    use rustix::process::Signal;
    let mut store = Store::start(Plan::toy());
    store.buy("whale", 1);
    store.frontend(0).signal(Signal::INT);
    assert_eq!(store.frontend(0).wait(), Some(0));
    store.catalog(0).signal(Signal::TERM);
    assert_eq!(store.catalog(0).wait(), Some(0));
    for id in IDS {
        assert_eq!(store.stop(id), Some(0), "{id}");
    }
    store.no_process_reports_a_defect();
}

/// Kind: machines that read the log.
#[test]
fn a_log_in_json_has_one_object_for_each_line() {
    let mut store = Store::prepare(Plan::toy());
    std::fs::write(store.folder().join(".env"), "OPPIDUM_LOG_FORMAT=json\n").unwrap();
    store.start_order(456, &[]);
    let line = r#"{"id":456,"level":"info","message":"socket is listening","role":"order""#;
    store.order(456).says(line);
    let folder = store.folder().to_owned();
    let odd = run_in(&folder, &[], &["catalog", "--log-format", "yaml"]);
    refused(&odd, &["log-format", "text or json", "yaml"]);
}

/// Kind: machines that read the log.
#[test]
fn the_json_lines_of_a_catalog_and_a_frontend_have_fields() {
    let mut store = Store::prepare(Plan::toy());
    std::fs::write(store.folder().join(".env"), "OPPIDUM_LOG_FORMAT=json\n").unwrap();
    store.start_all();
    let leader = store.await_leader(None);
    let message = format!("watching order {leader}");
    assert_eq!(logged(store.catalog(0), &message)["peer"], format!("order {leader}"));
    let found = logged(store.frontend(0), &format!("New leader id: {leader}"));
    assert_eq!(found["leader"], leader);
    let follower = IDS.into_iter().find(|id| *id != leader).unwrap();
    store.kill(follower);
    assert_eq!(logged(store.frontend(0), &format!("{follower} is down"))["peer"], follower);
}

/// The first JSON line of a process with this message.
fn logged(process: &Process, message: &str) -> Value {
    until(&format!("a line with {message:?}"), || {
        let lines = process.stderr();
        let mut objects = lines.lines().filter_map(|line| serde_json::from_str(line).ok());
        objects.find(|object: &Value| object["message"] == message)
    })
}

/// [S1-1, S1-2] Every value is logged, with its source.
#[test]
fn every_setting_is_logged_with_its_source() {
    let mut store = Store::prepare(Plan::toy());
    std::fs::write(store.folder().join(".env"), "OPPIDUM_LOG=info\n").unwrap();
    store.start_catalog(0);
    store.catalog(0).says("log: info (.env OPPIDUM_LOG)");
    store.catalog(0).says("restock-seconds: 0.5 (flag --restock-seconds)");
    store.catalog(0).says("lease-ms: 500 (default)");
    std::fs::remove_file(store.folder().join(".env")).unwrap();
    store.start_frontend(0);
    store.frontend(0).says("No .env found, proceeding as normal");
    store.frontend(0).says("cache: 5 (flag --cache)");
}
