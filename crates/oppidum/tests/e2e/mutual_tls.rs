//! Mutual TLS between the processes of a whole store: orders, a failover, a renewal, the tools.

use std::fs;

use rcgen::KeyPair;
use rustix::process::Signal;

use crate::customers::{await_transactions, finish, load, placed};
use crate::harness::{Authority, IDS, Plan, Process, Store, get, ports, run, until};

/// A locked store, started and led.
fn secured() -> Store {
    Store::start(Plan { locked: true, ..Plan::stock() })
}

/// [P1, P3, P4, P6, P10] Orders, a killed leader that comes back, and the tools, all with
/// certificates.
#[test]
fn a_whole_store_with_certificates_outlives_its_leader() {
    let mut store = secured();
    assert_eq!(store.buy("GameStart", 1), 0);
    store.kill(456);
    assert_eq!(store.buy("GameStart", 1), 1);
    store.start_order(456, &[]);
    store.await_all_ready();
    assert_eq!(store.buy("GameStart", 1), 2);
    let verified = store.run(&["verify"]);
    assert!(verified.code == Some(0) && verified.stdout.contains("identical"), "{verified:?}");
    // The highest id: on a busy machine no other replica wins the election in its place.
    let moved = store.run(&["ctl", "transfer", "--to", "456"]);
    assert_eq!(moved.code, Some(0), "{moved:?}");
    let listed = store.run(&["ctl", "member", "list"]);
    assert!(listed.code == Some(0) && listed.stdout.contains("leads"), "{listed:?}");
    let restocked = store.run(&["ctl", "product", "restock", "GameStart", "5"]);
    assert_eq!(restocked.code, Some(0), "{restocked:?}");
    let dumped = store.run(&["dump", "--id", "123"]);
    assert!(dumped.code == Some(0) && dumped.stdout.contains("GameStart"), "{dumped:?}");
    store.no_process_reports_a_defect();
}

/// [P10] Without the operator's certificate the tools say what to type.
#[test]
fn the_tools_need_the_certificate_of_an_operator() {
    let store = secured();
    let authority = store.authority();
    let port = store.internal_port(0);
    let (plain, https) = (format!("http://127.0.0.1:{port}"), format!("https://127.0.0.1:{port}"));
    let ca_file = authority.file("ca.pem");
    let ca_file = ca_file.to_str().unwrap();
    for arguments in [
        &["status", "--url", &plain][..],
        &["status", "--url", &https, "--ca-file", ca_file],
        &["verify", "--url", &plain],
    ] {
        let denied = run(arguments);
        assert_eq!(denied.code, Some(2), "{denied:?}");
        assert!(denied.stderr.contains("--tls DIR"), "{denied:?}");
        let allowed = run(&[arguments, &["--tls", authority.folder()]].concat());
        assert_eq!(allowed.code, Some(0), "{allowed:?}");
    }
    // A public port that shows no addresses leads to the internal port of the same process.
    let [public, internal] = ports();
    let orders = IDS.map(|id| format!("{id}={}", store.order_address(id))).join(",");
    let arguments = format!(
        "frontend --host 127.0.0.1 --port {public} --internal 127.0.0.1:{internal} --orders \
         {orders} --catalogs 127.0.0.1:{}",
        store.catalog_port(0)
    );
    let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    let short = Process::start("frontend-short", store.folder(), &arguments);
    short.says("Starting Front End Server on");
    let url = format!("http://127.0.0.1:{public}");
    let denied = run(&["status", "--url", &url]);
    assert_eq!(denied.code, Some(2), "{denied:?}");
    assert!(denied.stderr.contains("demand a certificate: give --tls DIR"), "{denied:?}");
    until("the operator sees the leader", || {
        let allowed = run(&["status", "--url", &url, "--tls", authority.folder()]);
        (allowed.code == Some(0) && allowed.stdout.contains("leader: 456")).then_some(())
    });
    // Plain HTTP gets one sentence from every internal port.
    for port in [store.order_port(123), store.catalog_port(0), port] {
        let reply = get(port, "/livez");
        assert!(reply.status == 400 && reply.body.contains("--tls DIR"), "{reply:?}");
    }
    // A folder with the certificates of processes alone.
    fs::remove_file(authority.file("operator-anna.pem")).unwrap();
    let none = run(&["verify", "--url", &url, "--tls", authority.folder()]);
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.stderr.contains("ctl ca issue --dir … operator NAME"), "{none:?}");
}

/// [P4, P10] Every certificate is replaced and the leader dies while customers trade: no request
/// fails. A pair that cannot be used is reported, and the old one stays.
#[test]
fn certificates_are_renewed_under_load_without_a_failed_request() {
    let mut store = secured();
    let more = ["--clients", "3", "--requests", "100000", "-p", "1"];
    let mut customers = load(&store, &more);
    await_transactions(&customers, 20);
    store.authority().issue_all();
    let renewed = "new connections use the new certificate";
    for id in IDS {
        store.order(id).signal(Signal::HUP);
        store.order(id).says(renewed);
    }
    store.catalog(0).signal(Signal::HUP);
    store.catalog(0).says(renewed);
    store.frontend(0).signal(Signal::HUP);
    store.frontend(0).says(renewed);
    // New connections, with the new certificates.
    store.kill(456);
    await_transactions(&customers, placed(&customers) + 20);
    store.start_order(456, &[]);
    store.await_all_ready();
    store.authority().issue(("order", "345"), "other", 3000);
    store.order(345).signal(Signal::HUP);
    store.order(345).says("is that of order-345 of store other, and this process is order-345");
    store.order(345).says("the certificate in use stays");
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    fs::write(store.authority().file("order-123.key"), other_key).unwrap();
    store.order(123).signal(Signal::HUP);
    store.order(123).says("order-123.pem and order-123.key in");
    store.order(123).says("are not a pair");
    await_transactions(&customers, placed(&customers) + 20);
    finish(&mut customers);
    let verified = store.run(&["verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    store.no_process_reports_a_defect();
}

/// [P10] A process without a usable certificate does not start, and says what to type.
#[test]
fn a_process_without_a_usable_certificate_does_not_start() {
    let mut store = Store::prepare(Plan::stock());
    let authority = Authority::new(&store.folder().join("tls"));
    fs::write(store.folder().join(".env"), format!("OPPIDUM_TLS={}\n", authority.folder()))
        .unwrap();
    let stranger = Authority::new(&store.folder().join("stranger"));
    let mut starts_not = |words: &str| {
        store.start_order(123, &[]);
        assert_eq!(store.end_of(123), Some(2), "{}", store.order(123).stderr());
        let lines = store.order(123).stderr();
        let last = lines.lines().last().unwrap_or_default();
        assert!(last.starts_with("oppidum: tls: ") && last.contains(words), "{last}");
        assert!(last.contains("ctl ca issue --dir … order 123"), "{last}");
    };
    let own = ("order", "123");
    authority.issue(own, "oppidum", 1999);
    starts_not("order-123.pem expired at 1999-12-31 00:00:00 UTC");
    authority.issue(own, "other", 3000);
    starts_not("that of order-123 of store other, and this store is oppidum: give --cluster other");
    fs::copy(authority.file("order-345.pem"), authority.file("order-123.pem")).unwrap();
    fs::copy(authority.file("order-345.key"), authority.file("order-123.key")).unwrap();
    starts_not("is that of order-345 of store oppidum");
    stranger.issue(own, "oppidum", 3000);
    for end in ["pem", "key"] {
        let file = format!("order-123.{end}");
        fs::copy(stranger.file(&file), authority.file(&file)).unwrap();
    }
    starts_not("was issued by no authority in ca.pem");
    fs::remove_file(authority.file("order-123.pem")).unwrap();
    starts_not("holds no certificate of order-123, only catalog-a");
}

/// A process without certificates reaches no process that has them, and the other way round: no
/// connection falls back to plaintext.
#[test]
fn no_process_falls_back_to_plaintext() {
    let store = secured();
    let authority = store.authority();
    let start = |name: &str, tls: &str, orders: &str| {
        let [port, internal] = ports();
        let arguments = format!(
            "frontend --host 127.0.0.1 --port {port} --internal 127.0.0.1:{internal} --catalogs \
             none --orders {orders} --tls {tls}"
        );
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        (Process::start(name, store.folder(), &arguments), port)
    };
    let orders = IDS.map(|id| format!("{id}={}", store.order_address(id))).join(",");
    let (plain, port) = start("frontend-plain", "none", &orders);
    plain.says("Starting Front End Server on");
    assert_eq!(get(port, "/products").status, 503);
    until("a replica reports it", || {
        let said = |id| {
            store.order(id).stderr().contains("a connection without TLS from 127.0.0.1 was refused")
        };
        IDS.into_iter().any(said).then_some(())
    });
    let plaintext = Store::start(Plan::stock());
    let orders = IDS.map(|id| format!("{id}={}", plaintext.order_address(id))).join(",");
    let (secured, port) = start("frontend-secured", authority.folder(), &orders);
    secured.says("Starting Front End Server on");
    secured.says("a process without --tls, or another program, answers");
    assert_eq!(get(port, "/products").status, 503);
}
