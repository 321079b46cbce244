//! Handshakes: which certificates both ends accept, and what a failed one means.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::dial::{self, Route};
use wire::net::ConnectError;
use wire::tls::credentials::Credentials;
use wire::tls::subject::{CertificateRole, Holder};
use wire::tls::trust::Trust;

use crate::authority::Authority;
use crate::{SOON, credentials, listen, route, shop};

const OPERATOR: Holder = Holder::Any(CertificateRole::Operator);
const CATALOG: Holder = Holder::Any(CertificateRole::Catalog);
const ORDER: Holder = Holder::Any(CertificateRole::Order);

/// Reads `/status` by this route.
async fn status(route: &Route, at: &str) -> Result<(), String> {
    wire::status::get(route, at, "/status", SOON).await.map(drop)
}

#[tokio::test]
async fn a_dialer_accepts_only_the_server_that_it_expects() {
    let authority = shop();
    let at = listen(&credentials(&authority, Holder::Replica(2))).await;
    let own = credentials(&authority, Holder::Replica(1));
    for expected in [Holder::Replica(2), ORDER] {
        status(&route(&own, expected), &at).await.unwrap();
    }
    for (expected, words) in [
        (Holder::Replica(1), "not accepted as order-1 of store shop"),
        (Holder::Replica(22), "not accepted as order-22 of store shop"),
        (CATALOG, "not accepted as catalog of store shop"),
    ] {
        let why = status(&route(&own, expected), &at).await.unwrap_err();
        assert!(why.contains(words), "{why}");
    }
    // Another store of the same authority, and the same store of another authority.
    let folder = tempfile::tempdir().unwrap();
    fs::copy(authority.file(), folder.path().join("ca.pem")).unwrap();
    authority.issue_into(folder.path(), ("operator", "o"), "other");
    let other_store = Credentials::load(folder.path(), OPERATOR).unwrap();
    let why = status(&route(&other_store, ORDER), &at).await.unwrap_err();
    assert!(why.contains("not accepted as order of store other"), "{why}");
    let other = credentials(&shop(), OPERATOR);
    let why = status(&route(&other, ORDER), &at).await.unwrap_err();
    assert!(why.contains("not accepted as order of store shop"), "{why}");
}

/// Kind: a caller that trusts the server, and shows a certificate that the server must not accept.
#[tokio::test]
async fn a_listener_accepts_only_certificates_of_its_store() {
    let (authority, foreign) = (shop(), shop());
    let at = listen(&credentials(&authority, Holder::Replica(1))).await;
    // It trusts both authorities, so its own part of the handshake succeeds.
    fs::write(foreign.file(), authority.pem() + &foreign.pem()).unwrap();
    let own = credentials(&foreign, OPERATOR);
    assert!(status(&route(&own, ORDER), &at).await.is_err(), "a certificate of another authority");
    // The right authority, and a certificate that says another store, or no role.
    let pages = [("other", "operator"), ("shop", "owner")];
    for (store, role) in pages {
        let folder = tempfile::tempdir().unwrap();
        authority.issue_into(folder.path(), (role, "o"), store);
        let shown = raw_client(&authority, Some(folder.path()), &[&version::TLS13]);
        let answer = ask(shown, &at, "/status").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{role} of {store}: {answer}");
    }
}

/// A client that believes the authority and shows the pair in a folder, or none.
fn raw_client(
    authority: &Authority,
    pair: Option<&std::path::Path>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider);
    let client = client.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
    let Some(pair) = pair else { return client.with_no_client_auth() };
    let file = |end: &str| {
        let files = fs::read_dir(pair).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().unwrap() == end).unwrap()
    };
    let chain = vec![CertificateDer::from_pem_file(file("pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
    client.with_client_auth_cert(chain, key).unwrap()
}

/// Sends `GET` for a page over TLS, and returns the answer.
async fn ask(client: ClientConfig, at: &str, page: &str) -> std::io::Result<String> {
    send(client, at, &format!("GET {page} HTTP/1.1\r\n")).await
}

/// Sends a request without a body over TLS, and returns the answer.
async fn send(client: ClientConfig, at: &str, head: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect(at).await?;
    let name = ServerName::try_from("order.shop.oppidum").unwrap();
    let mut stream =
        tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
    let request = format!("{head}Host: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // The server closes the connection, perhaps without TLS's own end.
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_client_without_a_certificate_sees_probes_only_and_tls_below_1_3_nothing() {
    let authority = shop();
    let at = listen(&credentials(&authority, Holder::Replica(1))).await;
    for (page, expected) in [
        ("/livez", "200"),
        ("/readyz", "200"),
        ("/status", "403"),
        ("/metrics", "403"),
        ("/other", "403"),
    ] {
        let client = raw_client(&authority, None, &[&version::TLS13]);
        let answer = ask(client, &at, page).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{page}: {answer}");
    }
    let old = raw_client(&authority, None, &[&version::TLS12]);
    assert!(ask(old, &at, "/livez").await.is_err(), "TLS 1.2");
    // What the tools do with https and no certificate.
    let trust = Trust::load(Some(&authority.file())).unwrap();
    let stream = TcpStream::connect(&*at).await.unwrap();
    assert!(trust.connect("127.0.0.1", stream).await.is_ok());
}

/// Kind: a page in the operator's browser, which has the operator's certificate.
#[tokio::test]
async fn a_request_of_a_web_page_is_rejected_with_a_valid_certificate_too() {
    let authority = shop();
    let at = listen(&credentials(&authority, Holder::Replica(1))).await;
    let pair = tempfile::tempdir().unwrap();
    authority.issue_into(pair.path(), ("operator", "o"), "shop");
    let status = "GET /status HTTP/1.1\r\n";
    let calls = "POST /oppidum.v1.Store/Calls HTTP/1.1\r\nContent-Length: 0\r\n";
    let evil = "Origin: https://evil.example\r\n";
    for (head, more, expected) in [
        (status, "", "200"),
        (status, evil, "403"),
        (status, "Sec-Fetch-Site: cross-site\r\n", "403"),
        (calls, evil, "403"),
        (calls, "", "505"),
        (calls, "Content-Type: application/grpc\r\n", "505"),
    ] {
        let client = raw_client(&authority, Some(pair.path()), &[&version::TLS13]);
        let answer = send(client, &at, &format!("{head}{more}")).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{head}{more}: {answer}");
    }
}

#[tokio::test]
async fn plain_tcp_gets_one_sentence_and_no_page() {
    let authority = shop();
    let at = listen(&credentials(&authority, Holder::Replica(1))).await;
    for request in ["GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n"] {
        let mut stream = TcpStream::connect(&*at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert!(body.contains("--tls DIR") && body.lines().count() == 1, "{answer}");
    }
    let plain = dial::channel(&Route::plaintext(), &at, SOON).await;
    let plain = plain.map(wire::proto::watch_client::WatchClient::new);
    if let Ok(mut client) = plain {
        assert!(client.follow(futures::stream::empty()).await.is_err(), "a call in plaintext");
    }
}

/// [P7] A refused connect proves a death before any handshake; a broken handshake proves nothing.
#[tokio::test]
async fn a_refused_connect_is_still_told_from_silence_and_from_a_broken_handshake() {
    let authority = shop();
    let route = route(&credentials(&authority, Holder::Replica(1)), Holder::Replica(2));
    let within = Duration::from_millis(300);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let silent = dial::channel(&route, &at, within).await.unwrap_err();
    assert!(matches!(silent, ConnectError::TimedOut { .. }), "{silent}");
    let (broken, ()) = tokio::join!(dial::channel(&route, &at, SOON), async {
        // The first connection is that of the dial that timed out.
        drop(listener.accept().await);
        drop(listener.accept().await);
    });
    let broken = broken.unwrap_err();
    assert!(matches!(broken, ConnectError::NotSecured { .. }) && !broken.is_refused(), "{broken}");
    drop(listener);
    let dead = dial::channel(&route, &at, SOON).await.unwrap_err();
    assert!(dead.is_refused(), "{dead}");
}

/// Both ends refuse a certificate that has expired since it was read.
#[tokio::test]
async fn an_expired_certificate_is_refused_by_both_ends() {
    let authority = shop();
    let until = wire::wall_clock::since_epoch() + Duration::from_secs(2);
    let folder = authority.folder();
    authority.issue_until(folder, ("order", "1"), "shop", until);
    authority.issue_until(folder, ("frontend", "f"), "shop", until);
    let short = credentials(&authority, Holder::Replica(1));
    let caller = credentials(&authority, Holder::Any(CertificateRole::Frontend));
    let (operator, lasting) =
        (credentials(&authority, OPERATOR), credentials(&authority, Holder::Replica(2)));
    let (at, lasting_at) = (listen(&short).await, listen(&lasting).await);
    status(&route(&operator, ORDER), &at).await.unwrap();
    status(&route(&caller, ORDER), &lasting_at).await.unwrap();
    let both = async {
        while status(&route(&operator, ORDER), &at).await.is_ok()
            || status(&route(&caller, ORDER), &lasting_at).await.is_ok()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, both).await.expect("the certificates expire");
    let why = short.renew().unwrap_err().to_string();
    assert!(why.contains("expired at") && why.contains("ctl ca issue --dir … order 1"), "{why}");
}

/// An authority is replaced in three rolling steps, while calls go on: none fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_are_renewed_without_a_failed_call() {
    let (old, new) = (shop(), shop());
    let server = credentials(&old, Holder::Replica(1));
    let caller = credentials(&old, OPERATOR);
    let at = listen(&server).await;
    let (ends, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let route = route(&caller, ORDER);
    let calling = tokio::spawn({
        let (ends, calls, at) = (ends.clone(), calls.clone(), at.clone());
        async move {
            while !ends.load(Ordering::Relaxed) {
                status(&route, &at).await.unwrap();
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let more_calls = async || {
        let before = calls.load(Ordering::Relaxed);
        let more = async {
            while calls.load(Ordering::Relaxed) < before + 3 && !calling.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, more).await.expect("calls go on");
    };
    let renew = async |who: &Arc<Credentials>| {
        let who = who.clone();
        let renewed = tokio::task::spawn_blocking(move || who.renew()).await.unwrap();
        assert_eq!(renewed, Ok(true));
        more_calls().await;
    };
    let issue = |from: &Authority, pair| from.issue_into(old.folder(), pair, "shop");
    more_calls().await;
    // The same authority.
    issue(&old, ("order", "1"));
    renew(&server).await;
    issue(&old, ("operator", "o"));
    renew(&caller).await;
    // 1: both authorities are known everywhere. 2: new certificates. 3: the old one is removed.
    fs::write(old.file(), old.pem() + &new.pem()).unwrap();
    renew(&server).await;
    renew(&caller).await;
    issue(&new, ("order", "1"));
    renew(&server).await;
    issue(&new, ("operator", "o"));
    renew(&caller).await;
    fs::write(old.file(), new.pem()).unwrap();
    renew(&caller).await;
    renew(&server).await;
    ends.store(true, Ordering::Relaxed);
    calling.await.unwrap();
}
