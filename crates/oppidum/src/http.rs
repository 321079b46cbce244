//! A small HTTP/1.1 client over one persistent connection, with TLS or without: the client's
//! commands use it to talk to a frontend.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use ledger::api_key_text::ApiKeyText;
use wire::exit::Stop;
use wire::net;
use wire::tls::stream::MaybeTlsStream;
use wire::tls::trust::Trust;

use crate::address;

/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How long an answer may take: longer than a frontend ever takes.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(2);

/// The file of the authorities that this process trusts; none: those of the system.
static CA_FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The `Authorization` that this process sends, and the only server to which it sends it.
static AUTHORIZATION_OF: OnceLock<(Server, HeaderValue)> = OnceLock::new();

/// A server: its `host:port`, and whether it speaks TLS.
type Server = (String, bool);

/// What this process trusts, once it has needed it.
static TRUST: OnceLock<Result<Trust, String>> = OnceLock::new();

/// Names the file of the certificate authorities that this process trusts. Only the first call
/// counts; a command without the flag reads the variable at its first connection.
pub(crate) fn trust(file: Option<PathBuf>) {
    let _ = CA_FILE.set(file);
}

/// Sends this API key with every request to the server of this URL from now on, and to no other: an
/// answer may name other servers. Only the first call counts.
pub(crate) fn authenticate(url: &str, key: &ApiKeyText) -> Result<(), Stop> {
    let odd = |why| Stop::Setup(format!("{url:?} is no URL of a store: {why}"));
    let server = address::of_url(url).map_err(odd)?;
    let (authority, is_tls) = &server;
    let host = authority.rsplit_once(':').map_or(&**authority, |(host, _)| host);
    if !is_tls && !address::is_loopback(host) {
        note!("oppidum: the API key travels to {authority} in plaintext: use https://");
    }
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.reveal()))
        .expect("an API key has only letters and digits");
    value.set_sensitive(true);
    let _ = AUTHORIZATION_OF.set((server, value));
    Ok(())
}

fn trusted() -> Result<Trust, Stop> {
    let named = || std::env::var_os("OPPIDUM_CA_FILE").filter(|file| !file.is_empty());
    let file = CA_FILE.get_or_init(|| named().map(PathBuf::from));
    let trust = TRUST.get_or_init(|| Trust::load(file.as_deref()));
    trust.clone().map_err(|why| Stop::Setup(format!("ca-file: {why}")))
}

/// An HTTP client of one frontend.
#[derive(Debug)]
pub(crate) struct Client {
    authority: String,
    /// What it trusts, if the server speaks TLS.
    trust: Option<Trust>,
    /// The timeout of a connection.
    connect_timeout: Duration,
    /// The timeout of an answer.
    timeout: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON. A byte order mark before it, which RFC 8259 forbids, is skipped.
    pub(crate) fn json(&self) -> Result<serde_json::Value, String> {
        let body = self.body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.body);
        serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))
    }

    /// True when the body begins with a byte order mark.
    pub(crate) fn is_marked(&self) -> bool {
        self.body.starts_with(BYTE_ORDER_MARK)
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    /// For a URL such as `http://127.0.0.1:1234`.
    pub(crate) fn new(url: &str) -> Result<Self, Stop> {
        let odd = |why| Stop::Setup(format!("{url:?} is no URL of a store: {why}"));
        let (authority, is_tls) = address::of_url(url).map_err(odd)?;
        Ok(Self {
            authority,
            trust: is_tls.then(trusted).transpose()?,
            connect_timeout: CONNECT,
            timeout: ANSWER_TIMEOUT,
            connection: None,
        })
    }

    /// The same, with another timeout for an answer.
    pub(crate) fn with_answer_timeout(url: &str, timeout: Duration) -> Result<Self, Stop> {
        Ok(Self { timeout, ..Self::new(url)? })
    }

    /// The same for an unknown server: a connection may take as long as an answer.
    pub(crate) fn with_timeout(url: &str, timeout: Duration) -> Result<Self, Stop> {
        Ok(Self { connect_timeout: timeout, timeout, ..Self::new(url)? })
    }

    /// `host:port` of the server.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Connects now, so that the connection's latency is no part of the next request.
    pub(crate) async fn open(&mut self) -> Result<(), String> {
        self.connect().await.map(drop)
    }

    /// True when the next request reuses a connection.
    pub(crate) fn is_kept(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.is_closed())
    }

    /// Drops the connection: the next request opens a new one.
    pub(crate) fn let_go(&mut self) {
        self.connection = None;
    }

    /// `GET`.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Reply, String> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// `POST` of JSON.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(HeaderName, String)],
        body: String,
    ) -> Result<Reply, String> {
        self.send(Method::POST, path, headers, Bytes::from(body)).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, String)],
        body: Bytes,
    ) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        self.exchange(request).await
    }

    /// Sends a prepared request with its own headers; `Host` is added.
    pub(crate) async fn exchange(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Reply, String> {
        let host = HeaderValue::from_str(&self.authority).map_err(|error| error.to_string())?;
        request.headers_mut().entry(HOST).or_insert(host);
        if let Some(((authority, is_tls), key)) = AUTHORIZATION_OF.get()
            && (authority, *is_tls) == (&self.authority, self.trust.is_some())
        {
            request.headers_mut().entry(AUTHORIZATION).or_insert(key.clone());
        }
        let timeout = self.timeout;
        let exchange = async {
            let connection = self.connect().await?;
            let answer = connection.send_request(request).await.map_err(|e| e.to_string())?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        let reply = match tokio::time::timeout(timeout, exchange).await {
            Ok(reply) => reply,
            Err(_) => Err(format!("no answer within {timeout:?}")),
        };
        if reply.is_err() {
            self.connection = None;
        }
        reply
    }

    /// Opens a connection, and performs the handshake if the server speaks TLS.
    async fn dial(&self) -> Result<MaybeTlsStream, String> {
        let stream = net::connect(&self.authority, self.connect_timeout).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let Some(trust) = &self.trust else { return Ok(MaybeTlsStream::Plain(stream)) };
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        let handshake = trust.connect(host.trim_matches(['[', ']']), stream);
        match tokio::time::timeout(self.connect_timeout, handshake).await {
            Ok(stream) => stream.map_err(|why| format!("no TLS with {}: {why}", self.authority)),
            Err(_) => Err(format!("no TLS handshake within {:?}", self.connect_timeout)),
        }
    }

    async fn connect(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, String> {
        let open = self.connection.take().filter(|connection| !connection.is_closed());
        let mut connection = match open {
            Some(connection) => connection,
            None => {
                let stream = self.dial().await?;
                // Title case, as curl writes it: some servers know only `Content-Type`.
                let mut builder = http1::Builder::new();
                let builder = builder.title_case_headers(true);
                let shaken = builder.handshake(TokioIo::new(stream)).await;
                let (connection, driver) = shaken.map_err(|error| error.to_string())?;
                tokio::spawn(driver);
                connection
            }
        };
        connection.ready().await.map_err(|error| error.to_string())?;
        Ok(self.connection.insert(connection))
    }
}
