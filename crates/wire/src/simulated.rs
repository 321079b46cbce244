//! Simulated sockets and clocks, compiled for the simulator only.
//!
//! The simulator sets the [`Machine`] of a process before it runs the process's code. Connections
//! go through that machine's network, and times are read from that machine's clocks. All code above
//! the sockets is the real code.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a connection.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Pipe for T {}

/// A listener of a machine; closed on drop.
pub trait Door: Send + Sync + 'static {
    /// The next connection, and the address that it comes from.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Pipe>, SocketAddr)>>;

    /// The address of the listener.
    fn address(&self) -> SocketAddr;
}

/// The machine that a process runs on: its network and its clocks.
pub trait Machine: Send + Sync + 'static {
    /// Connects to a listener on any machine.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>>;

    /// Opens a listener.
    fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Door>>;

    /// The time since the process started, by the machine's steady clock.
    fn since_start(&self) -> Duration;

    /// The time since the Unix epoch, by the machine's wall clock. It may jump.
    fn wall(&self) -> Duration;
}

thread_local! {
    static MACHINE: RefCell<Option<Arc<dyn Machine>>> = const { RefCell::new(None) };
}

/// Sets the machine on which all code of this thread runs from now on.
pub fn enter(machine: Arc<dyn Machine>) {
    MACHINE.set(Some(machine));
}

fn machine() -> io::Result<Arc<dyn Machine>> {
    let nowhere = || io::Error::other("this thread runs on no machine");
    MACHINE.with_borrow(Clone::clone).ok_or_else(nowhere)
}

/// The steady clock of the machine that runs now.
pub(crate) fn since_start() -> Duration {
    machine().map(|machine| machine.since_start()).unwrap_or_default()
}

/// The wall clock of the machine that runs now.
pub(crate) fn wall() -> Duration {
    machine().map(|machine| machine.wall()).unwrap_or_default()
}

/// A simulated connection, with the interface of `tokio`'s.
pub struct TcpStream {
    pipe: Box<dyn Pipe>,
}

impl std::fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpStream").finish_non_exhaustive()
    }
}

impl TcpStream {
    /// Connects to `host:port`; the host must be an IP address.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let to = address.parse().map_err(io::Error::other)?;
        let connecting = machine()?.connect(to);
        connecting.await.map(|pipe| Self { pipe })
    }

    /// Does nothing: a simulated connection never delays small writes.
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the face of the real one")]
    pub fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, into)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// A simulated listener, with the interface of `tokio`'s.
pub struct TcpListener {
    door: Box<dyn Door>,
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpListener").field("at", &self.door.address()).finish_non_exhaustive()
    }
}

impl TcpListener {
    /// Opens a listener on the machine that runs now.
    #[expect(clippy::unused_async, reason = "the face of the real one")]
    pub async fn bind(at: SocketAddr) -> io::Result<Self> {
        Self::listen(at)
    }

    /// Opens a listener like [`Self::bind`], without `async`.
    pub(crate) fn listen(at: SocketAddr) -> io::Result<Self> {
        Ok(Self { door: machine()?.listen(at)? })
    }

    /// The next connection, and the address that it comes from.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (pipe, from) = std::future::poll_fn(|cx| self.door.poll_accept(cx)).await?;
        Ok((TcpStream { pipe }, from))
    }

    /// The address of the listener.
    #[expect(clippy::unnecessary_wraps, reason = "the face of the real one")]
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.door.address())
    }
}
