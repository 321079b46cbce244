//! One connection to one process, made by hand: so that a refused connect is told from silence, and
//! a broken connection stays broken instead of being mended behind our back.
//!
//! Every socket between processes comes from here: [`TcpListener`] and [`TcpStream`] are those of
//! `tokio`, or the simulator's.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
#[cfg(not(feature = "simulated"))]
use tokio::net::TcpSocket;
#[cfg(not(feature = "simulated"))]
pub use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint};

use crate::limits;
#[cfg(feature = "simulated")]
pub use crate::simulated::{TcpListener, TcpStream};

/// No connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there: if a process did before, it is dead.
    #[error("nobody listens at {0}")]
    Refused(String),
    /// The other machine, or its network, says no.
    #[error("{address} is unreachable: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        why: String,
    },
    /// Nothing came back in time.
    #[error("{address} does not answer within {within:?}")]
    TimedOut {
        /// Where.
        address: String,
        /// How long was waited.
        within: Duration,
    },
}

impl ConnectError {
    /// True when nobody listens there.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// What to do when a process cannot listen at its address.
pub fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it, or give another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: give one that it has",
        io::ErrorKind::PermissionDenied => "ports below 1024 are the system's: give another port",
        _ => "check the address and its port",
    }
}

/// A listener at which `waiting` connections, or as many as the system allows, wait to be accepted.
/// Whoever comes when they are that many is not heard, and tries again after a second.
#[cfg(not(feature = "simulated"))]
pub fn listen(at: SocketAddr, waiting: u32) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // After a crash the address is there again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(waiting)
}

/// The same in the simulator, where everybody is heard.
#[cfg(feature = "simulated")]
pub fn listen(at: SocketAddr, _waiting: u32) -> io::Result<TcpListener> {
    TcpListener::listen(at)
}

/// Ends a fresh connection with these bytes, as far as they leave at once: a client that is
/// rejected must not be waited for.
#[cfg(not(feature = "simulated"))]
pub fn reject(stream: TcpStream, answer: &[u8]) {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = stream.into_std() else { return };
    // It does not block. What has come is read first: unread bytes would reset the connection.
    let _ = stream.read(&mut [0; 4_096]);
    let _ = stream.write(answer);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// In the simulator the client sees the connection end.
#[cfg(feature = "simulated")]
pub fn reject(stream: TcpStream, _answer: &[u8]) {
    drop(stream);
}

/// Connects by TCP, without delays for small writes.
pub async fn connect(address: &str, within: Duration) -> Result<TcpStream, ConnectError> {
    let Ok(connected) = tokio::time::timeout(within, TcpStream::connect(address)).await else {
        return Err(ConnectError::TimedOut { address: address.to_owned(), within });
    };
    let stream = connected.map_err(|error| no_connection(address, &error))?;
    stream.set_nodelay(true).map_err(|error| no_connection(address, &error))?;
    Ok(stream)
}

fn no_connection(address: &str, error: &io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused(address.to_owned()),
        _ => ConnectError::Unreachable { address: address.to_owned(), why: error.to_string() },
    }
}

/// A gRPC channel over one fresh connection. When that breaks, the channel is of no more use.
pub async fn channel(address: &str, within: Duration) -> Result<Channel, ConnectError> {
    let stream = connect(address, within).await?;
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

/// What every call between processes names as its host.
pub fn authority() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

fn unreachable(address: &str, error: &tonic::transport::Error) -> ConnectError {
    ConnectError::Unreachable { address: address.to_owned(), why: error.to_string() }
}

/// Connects by TCP as often as a channel asks for it: for channels that mend themselves.
#[derive(Clone, Copy, Debug)]
pub struct Connector;

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        Box::pin(async move {
            let nowhere =
                || io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to");
            let address = uri.authority().ok_or_else(nowhere)?.as_str();
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Connects once, by handing out a connection that exists already.
struct Once(Mutex<Option<TcpStream>>);

impl tower::Service<http::Uri> for Once {
    type Response = TokioIo<TcpStream>;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: advice to stop a process that is not there.
    #[test]
    fn what_to_do_about_an_address_depends_on_why_it_cannot_be_had() {
        for (kind, words) in [
            (io::ErrorKind::AddrInUse, "another process listens there"),
            (io::ErrorKind::AddrNotAvailable, "no such address"),
            (io::ErrorKind::PermissionDenied, "below 1024"),
            (io::ErrorKind::Other, "check the address"),
        ] {
            assert!(listen_advice(&kind.into()).contains(words), "{kind}");
        }
    }

    /// A refused connect proves that a process is dead; silence proves nothing.
    #[tokio::test]
    async fn a_refused_connect_is_told_from_silence() {
        let listener =
            TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(connect(&address, limits::CONNECT_TIMEOUT).await.is_ok());
        let silent = no_connection(&address, &io::ErrorKind::TimedOut.into());
        assert!(!silent.is_refused());
        drop(listener);
        let dead = connect(&address, limits::CONNECT_TIMEOUT).await.unwrap_err();
        assert!(dead.is_refused(), "{dead}");
    }
}
