//! Dialing: how a process reaches another one, in plaintext or by mutual TLS.
//!
//! A [`Route`] says which server is expected. A process with credentials never dials in plaintext.
//! A refused connect, the proof of death, is told before the handshake begins. A broken channel
//! stays broken, so that its user notices the break; only channels over a [`Connector`] reconnect.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::limits;
use crate::net::{self, ConnectError, TcpStream};
use crate::tls::credentials::{Credentials, Protocol};
use crate::tls::stream::MaybeTlsStream;
use crate::tls::subject::{CertificateRole, Holder};

/// How connections to one kind of server are made. Clones share the credentials.
#[derive(Clone, Debug)]
pub struct Route {
    tls: Option<(Arc<Credentials>, Holder)>,
}

impl Route {
    /// To any server, in plaintext.
    pub const fn plaintext() -> Self {
        Self { tls: None }
    }

    /// To a server that shows the certificate of `server`; in plaintext for a process without
    /// credentials.
    pub fn to(server: Holder, credentials: Option<&Arc<Credentials>>) -> Self {
        Self { tls: credentials.map(|own| (own.clone(), server)) }
    }

    /// Performs the handshake on a new connection.
    async fn secure(
        &self,
        protocol: Protocol,
        stream: TcpStream,
    ) -> Result<MaybeTlsStream, String> {
        match &self.tls {
            None => Ok(MaybeTlsStream::Plain(stream)),
            Some((credentials, server)) => credentials.connect(*server, protocol, stream).await,
        }
    }
}

/// The routes of a process to the others.
#[derive(Clone, Debug)]
pub struct StoreRoutes {
    /// To any replica.
    pub replicas: Route,
    /// To any catalog.
    pub catalogs: Route,
}

impl StoreRoutes {
    /// With these credentials; in plaintext for a process without credentials.
    pub fn with(credentials: Option<&Arc<Credentials>>) -> Self {
        let to = |role| Route::to(Holder::Any(role), credentials);
        Self { replicas: to(CertificateRole::Order), catalogs: to(CertificateRole::Catalog) }
    }
}

/// Connects within this time, including the handshake.
pub(crate) async fn connect(
    route: &Route,
    protocol: Protocol,
    address: &str,
    within: Duration,
) -> Result<MaybeTlsStream, ConnectError> {
    let until = Instant::now() + within;
    let stream = net::connect(address, within).await?;
    if route.tls.is_none() {
        return Ok(MaybeTlsStream::Plain(stream));
    }
    match tokio::time::timeout_at(until, route.secure(protocol, stream)).await {
        Ok(secured) => {
            secured.map_err(|why| ConnectError::NotSecured { address: address.to_owned(), why })
        }
        Err(_) => Err(ConnectError::TimedOut { address: address.to_owned(), within }),
    }
}

/// Opens a gRPC channel over one new connection. The channel is unusable once that breaks.
pub async fn channel(
    route: &Route,
    address: &str,
    within: Duration,
) -> Result<Channel, ConnectError> {
    let stream = connect(route, Protocol::Http2, address, within).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| unreachable(address, &error))?
        .origin(authority())
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(limits::KEEPALIVE)
        .keep_alive_timeout(limits::KEEPALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let connecting = endpoint.connect_with_connector(Once(Mutex::new(Some(stream))));
    match tokio::time::timeout(within, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(unreachable(address, &error)),
        Err(_) => Err(ConnectError::TimedOut { address: address.to_owned(), within }),
    }
}

/// The URI whose host every call between processes names.
pub fn authority() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

fn unreachable(address: &str, error: &tonic::transport::Error) -> ConnectError {
    ConnectError::Unreachable { address: address.to_owned(), why: error.to_string() }
}

/// Connects whenever a channel needs a connection: for channels that reconnect.
#[derive(Clone, Debug)]
pub struct Connector {
    route: Route,
}

impl Connector {
    /// A connector by this route.
    pub const fn new(route: Route) -> Self {
        Self { route }
    }
}

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<MaybeTlsStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let route = self.route.clone();
        Box::pin(async move {
            let nowhere =
                || io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to");
            let address = uri.authority().ok_or_else(nowhere)?.as_str();
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let secured = route.secure(Protocol::Http2, stream).await;
            // Never of the kind that proves a death: a process has accepted the connection.
            secured.map(TokioIo::new).map_err(io::Error::other)
        })
    }
}

/// Connects once: hands out a connection that exists already.
struct Once(Mutex<Option<MaybeTlsStream>>);

impl tower::Service<http::Uri> for Once {
    type Response = TokioIo<MaybeTlsStream>;
    type Error = io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let stream = self.0.lock().map(|mut stream| stream.take()).unwrap_or_default();
        let broken = || io::Error::new(io::ErrorKind::NotConnected, "the connection broke");
        std::future::ready(stream.map(TokioIo::new).ok_or_else(broken))
    }
}
