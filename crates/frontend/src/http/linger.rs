//! The lingering close: ends a connection so that its last answer arrives.
//!
//! If a socket is closed with unread input, or input arrives afterwards, the system resets the
//! connection, and a reset destroys the bytes that the client has not read yet (RFC 9112, section
//! 9.6). So only the sending side is closed. Further input is read and dropped until the client
//! closes its side, or a limit is reached.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::tls::stream::MaybeTlsStream;

use crate::limits;

/// Sends `out`, the last bytes, and closes the connection.
pub(crate) async fn close(mut stream: MaybeTlsStream, out: &[u8]) {
    let last = async {
        stream.write_all(out).await?;
        stream.shutdown().await
    };
    match tokio::time::timeout(limits::SEND_TIMEOUT, last).await {
        Ok(Ok(())) => {}
        // The client is gone, or reads nothing.
        Ok(Err(_)) | Err(_) => return,
    }
    let drained = async {
        let mut room = vec![0; 8 * 1024];
        let mut left = limits::LINGER_BYTES_MAX;
        while let Ok(count @ 1..) = stream.read(&mut room).await {
            match left.checked_sub(count) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(limits::LINGER_TIMEOUT, drained).await;
}
