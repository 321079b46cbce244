//! TLS on the public port: the tools over https, a renewed certificate, and bad files.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustix::process::Signal;

use crate::customers::{await_transactions, finish, placed};
use crate::harness::{IDS, Plan, Process, Store, connect_from, get, ports, run, until};

/// A certificate authority, and the folder in which it issues certificates.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    file: String,
}

impl Authority {
    /// `name`: the file of its own certificate.
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(name);
        fs::write(&file, issuer.pem()).unwrap();
        let folder = folder.join("tls");
        fs::create_dir_all(&folder).unwrap();
        Self { issuer, folder, file: file.to_str().unwrap().to_owned() }
    }

    /// Puts a new pair into the folder; it ends with this year.
    fn issue(&self, year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.folder.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(self.folder.join("key.pem"), key.serialize_pem()).unwrap();
    }
}

/// Starts a frontend of the store with these files, and returns it with its public port.
fn frontend(store: &Store, folder: &Path) -> (Process, u16) {
    let folder = folder.to_str().unwrap();
    frontend_with(store, &["--gateways", "loopback", "--public-tls", folder])
}

fn frontend_with(store: &Store, more: &[&str]) -> (Process, u16) {
    let [port, internal] = ports();
    let orders = IDS.map(|id| format!("{id}={}", store.order_address(id))).join(",");
    let arguments = [
        "frontend --host 127.0.0.1 --public-status full".to_owned(),
        format!("--port {port} --internal 127.0.0.1:{internal} --orders {orders}"),
        format!("--catalogs 127.0.0.1:{}", store.catalog_port(0)),
    ];
    let arguments = arguments.iter().flat_map(|line| line.split(' ')).chain(more.iter().copied());
    let arguments: Vec<_> = arguments.map(str::to_owned).collect();
    (Process::start("frontend-tls", store.folder(), &arguments), port)
}

/// [P4, P10] Customers trade over https while the certificate is replaced twice: no request fails.
/// Files that cannot be used are reported, and the certificate in use stays.
#[test]
fn a_certificate_is_renewed_under_load_without_a_failed_request() {
    let store = Store::start(Plan::stock());
    let authority = Authority::new(store.folder(), "ca.pem");
    authority.issue(3000);
    let (process, port) = frontend(&store, &authority.folder);
    process.says(&format!("Starting Front End Server on https://127.0.0.1:{port}"));
    let url = format!("https://127.0.0.1:{port}");
    let flags = ["load", "--clients", "3", "--requests", "100000", "-p", "1", "--url", &url];
    let flags = [&flags[..], &["--ca-file", &authority.file]].concat();
    let arguments: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
    let mut load = Process::start("load", store.folder(), &arguments);
    await_transactions(&load, 20);
    let other = Authority::new(store.folder(), "other-ca.pem");
    let lists = |authority: &Authority| {
        let flags = ["ctl", "product", "list", "--url", &url, "--ca-file", &authority.file];
        run(&flags).code
    };
    for (time, issuer, former) in [(1, &other, &authority), (2, &authority, &other)] {
        issuer.issue(3001);
        process.signal(Signal::HUP);
        until("the new certificate is used", || {
            (process.stderr().matches("use the new certificate").count() == time).then_some(())
        });
        // New connections see the new certificate, which only its own authority vouches for.
        assert_eq!((lists(issuer), lists(former)), (Some(0), Some(2)));
        await_transactions(&load, placed(&load) + 20);
    }
    fs::write(authority.folder.join("key.pem"), KeyPair::generate().unwrap().serialize_pem())
        .unwrap();
    process.signal(Signal::HUP);
    process
        .says("are not a pair: put the key of this certificate beside it; the certificate in use");
    await_transactions(&load, placed(&load) + 20);
    finish(&mut load);
    store.verify();
}

/// A handshake takes as much CPU as ten requests: an address may begin a tenth as many.
#[test]
fn an_address_that_begins_too_many_handshakes_is_not_served() {
    let store = Store::start(Plan::stock());
    let authority = Authority::new(store.folder(), "ca.pem");
    authority.issue(3000);
    let folder = authority.folder.to_str().unwrap();
    let limit = ["--public-tls", folder, "--requests-per-address", "1"];
    let (process, port) = frontend_with(&store, &limit);
    process.says("Starting Front End Server on https://");
    let is_served = |host: u8| {
        let mut stream = connect_from(host, port).unwrap();
        // A handshake that begins without TLS is answered in plaintext.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.contains("this port speaks TLS")
    };
    assert!(is_served(2) && is_served(2) && !is_served(2), "the third at once is too many");
    assert!(is_served(3), "another address");
    until("the address may begin a handshake again", || is_served(2).then_some(()));
}

/// [P10] Each wrong protocol or missing trust gets a line that says what to type.
#[test]
fn the_tools_say_what_is_wrong_with_a_connection() {
    let store = Store::start(Plan::stock());
    let authority = Authority::new(store.folder(), "ca.pem");
    authority.issue(3000);
    let (process, port) = frontend(&store, &authority.folder);
    process.says("Starting Front End Server on https://");
    let https = format!("https://127.0.0.1:{port}");
    let other_port = format!("https://127.0.0.1:{}", store.port());
    let other_name = format!("https://localhost:{port}");
    let missing = store.folder().join("no-such-file");
    let missing = missing.to_str().unwrap();
    for (url, ca_file, words) in [
        (&https, None, "is not trusted here: name its file (`--ca-file`)"),
        (&https, Some(missing), "ca-file: "),
        (&other_name, Some(&*authority.file), "not valid for name \"localhost\""),
        (&other_port, Some(&*authority.file), "the server speaks no TLS: try http://"),
    ] {
        let mut flags = vec!["verify", "--url", url];
        flags.extend(ca_file.into_iter().flat_map(|file| ["--ca-file", file]));
        let ended = run(&flags);
        assert_eq!(ended.code, Some(2), "{url}: {ended:?}");
        assert!(ended.stderr.contains(words), "{url}: {ended:?}");
    }
    let plain = get(port, "/products");
    assert!(plain.status == 400 && plain.body.contains("use https://"), "{plain:?}");
}

/// [P10] A frontend without a usable certificate does not start, and names the file.
#[test]
fn a_frontend_without_a_usable_certificate_does_not_start() {
    let store = Store::start(Plan::stock());
    let authority = Authority::new(store.folder(), "ca.pem");
    let starts_not = |words: &str| {
        let (mut process, _) = frontend(&store, &authority.folder);
        assert_eq!(process.wait(), Some(2), "{}", process.stderr());
        let lines = process.stderr();
        let last = lines.lines().last().unwrap_or_default();
        assert!(last.starts_with("oppidum: public-tls: ") && last.contains(words), "{last}");
    };
    starts_not("cert.pem cannot be read");
    authority.issue(1999);
    starts_not("cert.pem expired at 1999-12-31 00:00:00 UTC");
    authority.issue(3000);
    fs::write(authority.folder.join("key.pem"), "").unwrap();
    starts_not("key.pem holds no private key");
}
