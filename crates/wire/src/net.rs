//! Connections between processes: a failed connect says whether it was refused or met silence.
//!
//! A refused connect proves that a process is dead; silence proves nothing. Every socket between
//! processes comes from this file: [`TcpListener`] and [`TcpStream`] are those of `tokio`, or the
//! simulator's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

#[cfg(not(feature = "simulated"))]
use tokio::net::TcpSocket;
#[cfg(not(feature = "simulated"))]
pub use tokio::net::{TcpListener, TcpStream};

#[cfg(feature = "simulated")]
pub use crate::simulated::{TcpListener, TcpStream};

/// Why a connect failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No process listens at the address: a process that listened there before is dead.
    #[error("no process listens at {0}")]
    Refused(String),
    /// The other machine or the network rejects the connect.
    #[error("{address} is unreachable: {why}")]
    Unreachable {
        /// The address that was dialed.
        address: String,
        /// The system's error.
        why: String,
    },
    /// A process listens at the address, and the TLS handshake with it failed.
    #[error("no TLS with {address}: {why}")]
    NotSecured {
        /// The address that was dialed.
        address: String,
        /// Why it failed.
        why: String,
    },
    /// No response came in time, which proves nothing about the process.
    #[error("{address} does not answer within {within:?}")]
    TimedOut {
        /// The address that was dialed.
        address: String,
        /// The timeout.
        within: Duration,
    },
}

impl ConnectError {
    /// True when no process listens at the address.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// Advice for the operator of a process that cannot listen at its address.
pub fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it, or give another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: give one of its own",
        io::ErrorKind::PermissionDenied => "ports below 1024 are the system's: give another port",
        _ => "check the address and its port",
    }
}

/// Opens a listener with a backlog of `waiting` connections, or of the system's limit if that is
/// lower. While the backlog is full the system drops new connects, and clients retry after 1 s.
#[cfg(not(feature = "simulated"))]
pub fn listen(at: SocketAddr, waiting: u32) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a crashed process in TIME_WAIT do not block the address.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(waiting)
}

/// Opens a listener in the simulator, where the backlog has no limit.
#[cfg(feature = "simulated")]
pub fn listen(at: SocketAddr, _waiting: u32) -> io::Result<TcpListener> {
    TcpListener::listen(at)
}

/// Rejects a new connection: sends as much of `answer` as the socket takes at once, and closes it.
/// The process never waits for a rejected client.
#[cfg(not(feature = "simulated"))]
pub fn reject(stream: TcpStream, answer: &[u8]) {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = stream.into_std() else { return };
    // The socket does not block. Unread bytes would reset the connection, so they are read first.
    let _ = stream.read(&mut [0; 4_096]);
    let _ = stream.write(answer);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Closes a new connection in the simulator, without an answer.
#[cfg(feature = "simulated")]
pub fn reject(stream: TcpStream, _answer: &[u8]) {
    drop(stream);
}

/// Waits for the first byte of a connection, and leaves it there. `None`: the connection ended or
/// failed before.
#[cfg(not(feature = "simulated"))]
pub async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) => Some(first[0]),
        _ => None,
    }
}

/// In the simulator no listener looks at the first byte.
#[cfg(feature = "simulated")]
pub fn first_byte(_stream: &TcpStream) -> std::future::Ready<Option<u8>> {
    std::future::ready(None)
}

/// Connects by TCP, with Nagle's delay of small writes off.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    /// Guards against advice to stop a process that does not exist.
    #[test]
    fn the_advice_depends_on_why_the_address_cannot_be_bound() {
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
    async fn a_refused_connect_is_distinguished_from_silence() {
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
