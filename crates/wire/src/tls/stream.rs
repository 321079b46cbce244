//! A connection with TLS or without, for code that reads and writes both alike.
//!
//! A write to TLS is complete when its encrypted bytes are with the system: the next write waits
//! for the ones before it, and a flush for all. So a client that reads nothing shows as a write
//! that waits, as it does without TLS.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use crate::net::{self, TcpStream};

/// The most encrypted bytes that a connection holds for a client that does not read.
const UNSENT_BYTES_MAX: usize = 32 * 1024;

/// The type of a handshake's record (RFC 8446, section 5.1), its first byte.
const HANDSHAKE: u8 = 22;

/// A connection.
#[derive(Debug)]
pub enum MaybeTlsStream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<Tls>),
}

/// A connection with TLS.
#[derive(Debug)]
pub struct Tls {
    stream: TlsStream<TcpStream>,
    /// Encrypted bytes of the last write may not be with the system yet.
    unsent: bool,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The client does not speak TLS: it may be told so.
    NotTls(TcpStream),
    /// The client does not trust the certificate, or is gone.
    Failed(io::Error),
}

impl MaybeTlsStream {
    /// The certificates that the other end has shown, its own first. `None`: none, or no TLS.
    pub fn shown_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.stream.get_ref().1.peer_certificates(),
        }
    }
}

impl From<TlsStream<TcpStream>> for MaybeTlsStream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(Tls { stream, unsent: false }))
    }
}

/// True if one end rejects the other in a handshake; false if the connection itself failed.
pub fn is_rejection(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
}

/// What a listener performs handshakes with.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// The turn to make a signature.
    turn: Arc<Semaphore>,
}

impl Acceptor {
    /// With this configuration.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self { config, turn: Arc::new(Semaphore::new(1)) }
    }

    /// With another configuration, and the same turns.
    pub fn with_config(&self, config: Arc<ServerConfig>) -> Self {
        Self { config, turn: self.turn.clone() }
    }
}

/// Performs the server's part of a handshake.
pub async fn accept(
    acceptor: Acceptor,
    stream: TcpStream,
) -> Result<MaybeTlsStream, HandshakeError> {
    let bounded = |session: &mut rustls::ServerConnection| {
        session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
    };
    // rustls would answer with an alert first, and a client without TLS could not read the rest.
    if net::first_byte(&stream).await.is_some_and(|byte| byte != HANDSHAKE) {
        return Err(HandshakeError::NotTls(stream));
    }
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await;
    let hello = hello.map_err(HandshakeError::Failed)?;
    let turn = acceptor.turn.acquire().await;
    tokio::task::yield_now().await;
    let mut rest = pin!(hello.into_stream_with(acceptor.config, bounded));
    let signed = futures::poll!(rest.as_mut());
    drop(turn);
    let accepted = match signed {
        Poll::Ready(accepted) => accepted,
        Poll::Pending => rest.await,
    };
    accepted.map(|stream| TlsStream::from(stream).into()).map_err(HandshakeError::Failed)
}

impl AsyncRead for MaybeTlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_read(cx, buf),
        }
    }
}

impl Tls {
    /// Ready: every encrypted byte is with the system.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unsent = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MaybeTlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(tls) => {
                ready!(tls.poll_sent(cx))?;
                let written = ready!(Pin::new(&mut tls.stream).poll_write(cx, buf))?;
                tls.unsent = true;
                if let Poll::Ready(Err(error)) = tls.poll_sent(cx) {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Self::Plain(stream) = this {
            return Pin::new(stream).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|part| !part.is_empty());
        Pin::new(this).poll_write(cx, first.map_or(&[][..], |part| part))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(tls) => tls.poll_sent(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}
