//! The CA in a folder: what openssl and rustls make of its certificates, and what becomes of files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use wire::tls::subject::CertificateRole;

use super::subject::{CertificateHost, DAY};
use super::*;

/// A CA in a scratch folder.
struct Scratch {
    folder: tempfile::TempDir,
    store: &'static str,
    made: Duration,
}

impl Scratch {
    fn new(store: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Self { folder, store, made: since_epoch() };
        init(&scratch.dir(), &store.parse().unwrap(), scratch.made).unwrap();
        scratch
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn request(&self, role: CertificateRole, name: &str, hosts: &[&str]) -> IssueCertificate {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let subjects = vec![role.word().to_owned(), name.to_owned()];
        IssueCertificate { dir: self.dir(), subjects, hosts, lifetime: None }
    }

    fn issue(&self, role: CertificateRole, name: &str, hosts: &[&str]) {
        issue(&self.request(role, name, hosts), since_epoch()).unwrap();
    }

    /// Performs a handshake in which both ends show a certificate, and returns the first error.
    fn handshake(&self, server: &str, client: (&Self, &str), name: &str) -> Result<(), String> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(self.roots());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let (chain, key) = self.pair(server);
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_safe_default_protocol_versions().unwrap();
        let server = server.with_client_cert_verifier(verifier.unwrap());
        let server = server.with_single_cert(chain, key).unwrap();
        let (chain, key) = client.0.pair(client.1);
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots);
        let client = client.with_client_auth_cert(chain, key).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).unwrap();
            while !sent.is_empty() {
                let read = server.read_tls(&mut &sent[..]).unwrap();
                sent.drain(..read);
                server.process_new_packets().map_err(|error| error.to_string())?;
            }
            server.write_tls(&mut sent).unwrap();
            while !sent.is_empty() {
                let read = client.read_tls(&mut &sent[..]).unwrap();
                sent.drain(..read);
                client.process_new_packets().map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(self.text("ca.pem").as_bytes()) {
            roots.add(ca.unwrap()).unwrap();
        }
        roots
    }

    fn pair(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(self.file(&format!("{name}.pem")));
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key")));
        (vec![certificate.unwrap()], key.unwrap())
    }

    /// Runs openssl in the folder. `None`: it is not installed.
    fn openssl(&self, arguments: &str) -> Option<Output> {
        let mut command = Command::new("openssl");
        let ended = command.args(arguments.split(' ')).current_dir(self.dir()).output();
        ended.inspect_err(|error| note!("NOT CHECKED: openssl: {error}")).ok()
    }

    fn openssl_says(&self, arguments: &str, words: &[&str]) {
        let Some(output) = self.openssl(arguments) else { return };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments}: {output:?}");
        for word in words {
            assert!(text.contains(word), "{arguments}: {word:?} is not in {text}");
        }
    }
}

/// The error of an issue, which shows no key.
fn refusal(request: &IssueCertificate, now: Duration) -> String {
    let why = issue(request, now).unwrap_err().to_string();
    assert!(!why.contains("PRIVATE KEY") && !why.contains('\n'), "{why}");
    why
}

#[test]
fn openssl_finds_in_a_certificate_what_was_asked_for() {
    let ca = Scratch::new("shop-1");
    ca.issue(CertificateRole::Order, "123", &["10.0.0.1", "::1", "One.Example", "10.0.0.1"]);
    let strict = "verify -x509_strict -CAfile ca.pem -purpose";
    for (check, is_right) in [
        ("sslserver", true),
        ("sslclient", true),
        ("sslserver -verify_hostname order.shop-1.oppidum", true),
        ("sslserver -verify_hostname order-123.shop-1.oppidum", true),
        ("sslserver -verify_hostname one.example", true),
        ("sslserver -verify_ip 10.0.0.1", true),
        ("sslserver -verify_hostname order-124.shop-1.oppidum", false),
        ("sslserver -verify_hostname order.oppidum.oppidum", false),
        ("sslserver -verify_hostname catalog.shop-1.oppidum", false),
        ("sslserver -verify_ip 10.0.0.2", false),
        ("timestampsign", false),
    ] {
        let Some(output) = ca.openssl(&format!("{strict} {check} order-123.pem")) else { return };
        assert_eq!(output.status.success(), is_right, "{check}: {output:?}");
    }
    let names = "DNS:order.shop-1.oppidum, DNS:order-123.shop-1.oppidum, IP Address:10.0.0.1, \
                 IP Address:0:0:0:0:0:0:0:1, DNS:one.example\n";
    let usages = "TLS Web Server Authentication, TLS Web Client Authentication";
    ca.openssl_says(
        "x509 -in order-123.pem -noout -text",
        &[names, usages, "CA:FALSE", "Digital Signature\n", "P-256", "Authority Key Identifier"],
    );
    ca.openssl_says(
        "x509 -in ca.pem -noout -text",
        &["CA:TRUE, pathlen:0", "Certificate Sign\n", "P-256", "Subject: CN = shop-1\n"],
    );
    ca.openssl_says("pkey -in order-123.key -noout -check", &["Key is valid"]);
    assert!(ca.text("order-123.key").starts_with("-----BEGIN PRIVATE KEY-----"));
}

#[test]
fn both_ends_of_a_connection_accept_certificates_of_their_ca_for_the_expected_name() {
    let (ca, other) = (Scratch::new("oppidum"), Scratch::new("oppidum"));
    for ca in [&ca, &other] {
        ca.issue(CertificateRole::Order, "123", &["localhost"]);
        ca.issue(CertificateRole::Frontend, "web-1", &[]);
    }
    let client = (&ca, "frontend-web-1");
    for name in ["order.oppidum.oppidum", "order-123.oppidum.oppidum", "localhost"] {
        assert_eq!(ca.handshake("order-123", client, name), Ok(()), "{name}");
    }
    for name in ["order-124.oppidum.oppidum", "catalog.oppidum.oppidum", "order.b.oppidum"] {
        let error = ca.handshake("order-123", client, name).unwrap_err();
        assert!(error.contains("not valid for name"), "{name}: {error}");
    }
    let expected = "order.oppidum.oppidum";
    assert!(ca.handshake("order-123", (&other, "frontend-web-1"), expected).is_err());
    // A CA is replaced in three steps: in the first, both are trusted.
    let both = ca.text("ca.pem") + &other.text("ca.pem");
    fs::write(ca.file("ca.pem"), &both).unwrap();
    assert_eq!(ca.handshake("order-123", (&other, "frontend-web-1"), expected), Ok(()));
    assert_eq!(ca.handshake("order-123", client, expected), Ok(()));
    fs::copy(other.file("order-123.pem"), ca.file("order-345.pem")).unwrap();
    for certificate in ["order-123.pem", "order-345.pem"] {
        let verify = format!("verify -x509_strict -CAfile ca.pem {certificate}");
        ca.openssl_says(&verify, &["OK"]);
    }
    // The old one still issues, as it comes first.
    ca.issue(CertificateRole::Order, "456", &[]);
    let swapped = other.text("ca.pem") + &ca.text("ca.pem");
    fs::write(ca.file("ca.pem"), swapped).unwrap();
    let why = refusal(&ca.request(CertificateRole::Order, "456", &[]), since_epoch());
    assert!(
        why.ends_with("ca.pem does not begin with the certificate of ca.key: put that one first")
    );
}

#[test]
fn keys_are_private_and_a_ca_is_never_overwritten() {
    let ca = Scratch::new("oppidum");
    ca.issue(CertificateRole::Catalog, "one", &[]);
    let mode = |file: PathBuf| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(ca.dir()) & 0o077, 0);
    for key in ["ca.key", "catalog-one.key"] {
        assert_eq!(mode(ca.file(key)), 0o600, "{key}");
    }
    let files = |ca: &Scratch| [ca.text("ca.pem"), ca.text("ca.key")];
    let before = files(&ca);
    let store: StoreName = ca.store.parse().unwrap();
    let again = || init(&ca.dir(), &store, since_epoch()).unwrap_err().to_string();
    assert!(again().contains("ca.pem is there already, and is kept"), "{}", again());
    assert_eq!(files(&ca), before);
    // One file of two is enough.
    fs::rename(ca.file("ca.pem"), ca.file("kept")).unwrap();
    assert!(again().contains("ca.key is there already, and is kept"), "{}", again());
    assert!(!ca.file("ca.pem").exists());
    let why = refusal(&ca.request(CertificateRole::Catalog, "one", &[]), since_epoch());
    assert!(why.contains("ca.pem is missing: copy it from"), "{why}");
}

#[test]
fn a_renewed_pair_replaces_both_files_and_leaves_nothing_beside_them() {
    let ca = Scratch::new("oppidum");
    let request = ca.request(CertificateRole::Frontend, "web-1", &["shop.example"]);
    issue(&request, since_epoch()).unwrap();
    let pair = || [ca.text("frontend-web-1.pem"), ca.text("frontend-web-1.key")];
    let first = pair();
    // What an interrupted command left, for all users to read.
    let left = ca.file("frontend-web-1.key.new");
    fs::write(&left, "half a key").unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
    issue(&request, since_epoch() + DAY).unwrap();
    let second = pair();
    assert!(first[0] != second[0] && first[1] != second[1]);
    let mode = fs::metadata(ca.file("frontend-web-1.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = (&ca, "frontend-web-1");
    assert_eq!(ca.handshake("frontend-web-1", client, "shop.example"), Ok(()));
    let mut files: Vec<_> =
        fs::read_dir(ca.dir()).unwrap().map(|it| it.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["ca.key", "ca.pem", "frontend-web-1.key", "frontend-web-1.pem"]);
    // A pair that cannot be written leaves the old one.
    fs::create_dir(&left).unwrap();
    let why = refusal(&request, since_epoch());
    assert!(why.contains("cannot be written") && why.contains("give another folder"), "{why}");
    assert_eq!(pair(), second);
    fs::remove_dir(&left).unwrap();
    let held = CaFolder::open(&ca.dir()).unwrap();
    let why = refusal(&request, since_epoch());
    assert!(why.contains("another command is writing in it"), "{why}");
    drop(held);
    issue(&request, since_epoch()).unwrap();
}

#[test]
fn a_certificate_ends_with_its_ca_at_the_latest() {
    let ca = Scratch::new("oppidum");
    let now = ca.made;
    let mut request = ca.request(CertificateRole::Operator, "anna", &[]);
    request.lifetime = Some(DAY * 3_650 + DAY);
    let why = refusal(&request, now);
    assert!(why.contains("give at most `--for 3650d`, or replace the CA"), "{why}");
    request.lifetime = Some(DAY * 3_650);
    issue(&request, now).unwrap();
    request.lifetime = None;
    let late = now + DAY * 3_640;
    let why = refusal(&request, late);
    assert!(why.contains("at most `--for 10d`"), "{why}");
    let why = refusal(&request, now + DAY * 4_000);
    assert!(why.contains("this CA ends at") && why.contains("replace it"), "{why}");
    let why = refusal(&request, now.saturating_sub(DAY * 8));
    assert!(why.contains("set this machine's clock"), "{why}");
    // Clocks need not agree.
    issue(&request, now.saturating_sub(DAY * 6)).unwrap();
    assert!(refusal(&request, Duration::from_secs(u64::MAX)).contains("this CA ends at"));
}

#[test]
fn the_list_says_what_ends_within_fourteen_days() {
    let (ca, now) = (Scratch::new("oppidum"), since_epoch());
    ca.issue(CertificateRole::Order, "123", &["10.0.0.1", "::1"]);
    ca.issue(CertificateRole::Operator, "anna", &[]);
    fs::write(ca.file("notes.pem"), "no certificate").unwrap();
    let read = |days: u32| Listing::read(&ca.dir(), now + DAY * days).unwrap();
    let lines = read(0).lines();
    let words: Vec<Vec<&str>> =
        lines.iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["file", "role", "name", "hosts", "ends", "(UTC)", "days", "left"]);
    for (row, expected) in [
        (1, ["ca.pem", "ca", "oppidum", "-"]),
        (2, ["operator-anna.pem", "operator", "anna", "-"]),
        (3, ["order-123.pem", "order", "123", "10.0.0.1,::1"]),
    ] {
        assert_eq!(words[row][..4], expected);
    }
    assert_eq!(words.len(), 4);
    let left: i64 = words[3][6].parse().unwrap();
    assert!((89..=90).contains(&left), "{lines:?}");
    for (days, ending) in [(0, 0), (15, 0), (17, 1), (75, 1), (77, 2), (3_635, 2), (3_637, 3)] {
        assert_eq!(read(days).ending, ending, "after {days} days");
    }
    assert!(read(31).lines()[2].ends_with("has ended"));
    assert!(list(&ca.dir(), now).unwrap());
    assert!(!list(&ca.dir(), now + DAY * 17).unwrap());
    // Files that cannot be read do not hide the others.
    fs::copy(ca.file("order-123.pem"), ca.file("order-345.pem")).unwrap();
    fs::copy(ca.file("order-123.key"), ca.file("catalog-a.pem")).unwrap();
    let listing = read(0);
    assert_eq!(listing.lines().len(), 4);
    let why = list(&ca.dir(), now).unwrap_err().to_string();
    assert!(why.contains("order-345.pem is not the certificate of order 345: issue it"), "{why}");
    assert!(why.contains("catalog-a.pem holds no certificate"), "{why}");
}

/// Kind: an error that does not say what to type, or that shows a key.
#[test]
fn each_unusable_folder_gets_a_sentence() {
    let ca = Scratch::new("oppidum");
    let now = since_epoch();
    let request = ca.request(CertificateRole::Order, "123", &[]);
    let refuses = |words: &str| {
        let why = refusal(&request, now);
        assert!(why.contains(words), "{words:?}: {why}");
    };
    let (pem, key) = (ca.text("ca.pem"), ca.text("ca.key"));
    let secret = key.lines().nth(1).unwrap();
    for content in ["", &pem, &key[..key.len() / 2]] {
        fs::write(ca.file("ca.key"), content).unwrap();
        refuses("ca.key holds no private key that `oppidum ctl ca init` made");
    }
    fs::write(ca.file("ca.key"), Scratch::new("oppidum").text("ca.key")).unwrap();
    refuses("ca.pem does not begin with the certificate of ca.key");
    fs::write(ca.file("ca.key"), &key).unwrap();
    for (content, words) in [
        ("", "ca.pem holds no certificate"),
        (&*key, "ca.pem holds no certificate"),
        (&pem[..pem.len() / 2], "ca.pem is not PEM, or cut off"),
        (&*"x".repeat(300_000), "ca.pem is no file of a few certificates or a key"),
    ] {
        fs::write(ca.file("ca.pem"), content).unwrap();
        refuses(words);
        let why = Listing::read(&ca.dir(), now).unwrap_err().to_string();
        assert!(why.contains(words) && !why.contains(secret), "{why}");
    }
    fs::write(ca.file("ca.pem"), &pem).unwrap();
    ca.issue(CertificateRole::Frontend, "a", &[]);
    fs::copy(ca.file("frontend-a.pem"), ca.file("ca.pem")).unwrap();
    refuses("ca.pem begins with a certificate that is no CA's");
    fs::write(ca.file("ca.pem"), &pem).unwrap();
    fs::remove_file(ca.file("ca.key")).unwrap();
    refuses("ca.key is missing: issue certificates on the machine that keeps it. To replace a CA");
    fs::remove_file(ca.file("ca.pem")).unwrap();
    refuses("holds no CA: `oppidum ctl ca init --dir ");
    fs::remove_dir_all(ca.dir()).unwrap();
    refuses("holds no CA: `oppidum ctl ca init --dir ");
    fs::write(ca.dir(), "").unwrap();
    refuses("ca is no folder");
    let why = init(&ca.dir(), &"oppidum".parse().unwrap(), now).unwrap_err().to_string();
    assert!(why.contains("ca: "), "{why}");
    let many = vec!["a".parse::<CertificateHost>().unwrap(); HOSTS_MAX + 1];
    let why = issue(&IssueCertificate { hosts: many, ..request }, now).unwrap_err().to_string();
    assert!(why.contains("at most 32 values of `--host`"), "{why}");
}

/// Kind: a CA of other software, whose name this program would write differently.
#[test]
fn a_foreign_ca_issues_nothing() {
    let ca = Scratch::new("oppidum");
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key \
               -out ca.pem -days 30 -subj";
    for subject in ["/CN=Shop", "/O=Shop/CN=oppidum", "/O=Shop"] {
        let Some(made) = ca.openssl(&format!("{new} {subject}")) else { return };
        assert!(made.status.success(), "{made:?}");
        let why = refusal(&ca.request(CertificateRole::Operator, "a", &[]), since_epoch());
        assert!(why.contains("`oppidum ctl ca init` did not make"), "{subject}: {why}");
    }
}

#[test]
fn a_store_on_one_machine_has_certificates_that_never_end() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tls");
    let store = "oppidum".parse().unwrap();
    let subject = |role, name| Subject::new(role, name).unwrap();
    let subjects = [
        subject(CertificateRole::Order, "123"),
        subject(CertificateRole::Frontend, "frontend-1"),
        subject(CertificateRole::Operator, "operator"),
    ];
    local::complete(&dir, &store, &subjects[..2]).unwrap();
    let read = |file: &Path| fs::read_to_string(dir.join(file)).unwrap();
    let old = ["ca.pem", "order-123.key"].map(|file| read(file.as_ref()));
    local::complete(&dir, &store, &subjects).unwrap();
    assert_eq!(["ca.pem", "order-123.key"].map(|file| read(file.as_ref())), old);
    let century = DAY * 36_525;
    for now in [Duration::ZERO, century, century * 80] {
        let listing = Listing::read(&dir, now).unwrap();
        assert_eq!((listing.lines().len(), listing.ending), (5, 0));
        assert!(listing.lines()[4].contains("127.0.0.1,::1"), "{listing:?}");
    }
    let Ok(text) = Command::new("openssl")
        .args(["verify", "-x509_strict", "-CAfile", "ca.pem", "-attime", "250000000000"])
        .args(["operator-operator.pem", "order-123.pem"])
        .current_dir(&dir)
        .output()
    else {
        return;
    };
    assert!(text.status.success(), "{text:?}");
    // A half of a pair is made whole; a new CA replaces all.
    fs::remove_file(dir.join("order-123.pem")).unwrap();
    local::complete(&dir, &store, &subjects).unwrap();
    assert_ne!(read("order-123.key".as_ref()), old[1]);
    let operator = read("operator-operator.pem".as_ref());
    fs::remove_file(dir.join("ca.pem")).unwrap();
    assert!(local::complete(&dir, &store, &subjects).is_err(), "its key is kept");
    fs::remove_file(dir.join("ca.key")).unwrap();
    local::complete(&dir, &store, &subjects).unwrap();
    assert_ne!(read("operator-operator.pem".as_ref()), operator);
}
