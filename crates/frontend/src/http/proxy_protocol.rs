//! PROXY protocol, version 2: how a gateway of connections names the address of its customer.
//!
//! The header stands before the first byte of the customer, also before a TLS handshake
//! (haproxy.org/download/2.8/doc/proxy-protocol.txt). It is read from gateways only, and only if
//! the settings say that they send it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the version with the command, the family, and the length of the rest.
const START_BYTES: usize = 16;

/// The longest rest of a header: the addresses of Unix sockets and some kilobytes of extensions.
const REST_BYTES_MAX: usize = 4_096;

/// The address of the customer. `None`: the connection is the gateway's own, such as a health
/// check, or the customer has no IP address.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut start = [0; START_BYTES];
    stream.read_exact(&mut start).await?;
    let (signature, rest) = start.split_at(SIGNATURE.len());
    let [command, family, length @ ..] = rest else { return Err(malformed("too few bytes came")) };
    if signature != SIGNATURE || command >> 4 != 2 {
        return Err(malformed("other bytes came first"));
    }
    let length = <[u8; 2]>::try_from(length).map_or(0, u16::from_be_bytes).into();
    if REST_BYTES_MAX < length {
        return Err(malformed("the header is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    let source = match (command & 15, family >> 4) {
        (1, 1) => rest.first_chunk().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes).into()),
        (1, 2) => rest.first_chunk().map(|bytes: &[u8; 16]| Ipv6Addr::from(*bytes).into()),
        (0 | 1, _) => return Ok(None),
        _ => None,
    };
    source.map(Some).ok_or_else(|| malformed("the header is malformed"))
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    async fn parsed(bytes: &[u8]) -> Option<Option<String>> {
        let mut bytes = bytes;
        let address = read(&mut bytes).await.ok()?;
        assert_eq!(bytes, b"GET", "nothing of the customer's bytes is read");
        Some(address.map(|address| address.to_string()))
    }

    #[tokio::test]
    async fn the_customer_of_a_header_is_its_source() {
        let v4 = [198, 51, 100, 7, 10, 0, 0, 5, 0x12, 0x34, 0, 80];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        v6[15] = 7;
        let extended = [&v4[..], &[4, 0, 1, 0]].concat();
        for (command, family, rest, customer) in [
            (0x21, 0x11, &v4[..], Some("198.51.100.7")),
            (0x21, 0x11, &extended, Some("198.51.100.7")),
            (0x21, 0x21, &v6, Some("2001:db8::7")),
            (0x20, 0x00, &[], None),
            (0x20, 0x11, &v4, None),
            (0x21, 0x31, &[7; 216], None),
            (0x21, 0x00, &[], None),
        ] {
            let bytes = [&header(command, family, rest)[..], b"GET"].concat();
            assert_eq!(parsed(&bytes).await, Some(customer.map(str::to_owned)), "{bytes:x?}");
        }
    }

    #[tokio::test]
    async fn another_beginning_is_no_header() {
        let long = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff], &[7; 9_000]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"[..],
            b"PROXY TCP4 198.51.100.7 10.0.0.5 4660 80\r\n",
            b"",
            &SIGNATURE,
            &header(0x11, 0x11, &[0; 12]),
            &header(0x21, 0x11, &[0; 3]),
            &header(0x21, 0x21, &[0; 12]),
            &header(0x22, 0x11, &[0; 12]),
            &header(0x21, 0x11, &[0; 12])[..20],
            &long,
        ] {
            assert!(read(&mut &*bytes).await.is_err(), "{bytes:x?}");
        }
    }
}
