//! Listening sockets of this machine, from `/proc` on Linux: finds the process behind a port, the
//! other addresses on which it listens, and what it was started with.
//!
//! A frontend's internal listener shows where the processes of the store are; its public port need
//! not. On the frontend's own machine a tool that was given the public port finds the internal one
//! here, without further settings.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The state of a listening socket in the kernel's table (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// The other addresses on which the process that listens on `port` listens. Empty where that
/// process belongs to another user, or where there is no `/proc`. Blocking.
pub(crate) fn beside(port: u16) -> Vec<SocketAddr> {
    let sockets = sockets();
    let mut owned = processes().map(|process| others(&sockets, &inodes(&process), port));
    owned.find(|found| !found.is_empty()).unwrap_or_default()
}

/// The folder that a process of this user, which listens on `port` of loopback, was given by this
/// flag of its command line. Blocking.
pub(crate) fn folder_of(port: u16, flag: &str) -> Option<PathBuf> {
    let is_meant = |address: SocketAddr| {
        let here: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        address.port() == port && here.contains(&dialed(address).ip())
    };
    let own = sockets().into_iter().filter(|socket| is_meant(socket.address));
    let own: BTreeSet<u64> = own.map(|socket| socket.inode).collect();
    let user = rustix::process::geteuid().as_raw();
    let is_own = |process: &PathBuf| {
        // Root sees the processes of other users, too, and does not read their folders.
        std::fs::metadata(process).is_ok_and(|about| about.uid() == user)
            && !inodes(process).is_disjoint(&own)
    };
    let process = processes().find(is_own)?;
    let arguments = std::fs::read(process.join("cmdline")).ok()?;
    let folder = value_of(flag, &arguments)?;
    // A relative path counts from where that process runs.
    Some(std::fs::read_link(process.join("cwd")).ok()?.join(OsStr::from_bytes(folder)))
}

/// The value of a flag in the arguments of a process, each of which ends with a zero byte.
fn value_of<'a>(flag: &str, arguments: &'a [u8]) -> Option<&'a [u8]> {
    let mut arguments = arguments.split(|byte| *byte == 0);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix(flag.as_bytes()) {
            Some(b"") => return arguments.next(),
            Some([b'=', value @ ..]) => return Some(value),
            _ => {}
        }
    }
    None
}

/// All listening sockets.
fn sockets() -> Vec<Listening> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok());
    texts.flat_map(|text| parse(&text)).collect()
}

/// The folders of all processes in `/proc`, and entries such as `/proc/net`.
fn processes() -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path())
}

/// A listening socket, with the inode by which a file descriptor names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listening {
    address: SocketAddr,
    inode: u64,
}

/// The sockets of one process that listen on other ports; empty if the process does not listen on
/// `port`.
fn others(sockets: &[Listening], inodes: &BTreeSet<u64>, port: u16) -> Vec<SocketAddr> {
    let own = || sockets.iter().filter(|socket| inodes.contains(&socket.inode));
    if !own().any(|socket| socket.address.port() == port) {
        return Vec::new();
    }
    let other = own().filter(|socket| socket.address.port() != port);
    other.map(|socket| dialed(socket.address)).collect()
}

/// The inodes of the sockets among the descriptors of the process in a folder such as `/proc/7`.
fn inodes(process: &Path) -> BTreeSet<u64> {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return BTreeSet::new() };
    let targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |target: std::path::PathBuf| {
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    targets.filter_map(inode).collect()
}

/// Parses the listening sockets of the table `/proc/net/tcp` or `/proc/net/tcp6`.
fn parse(table: &str) -> Vec<Listening> {
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?;
        let state = fields.get(3)?;
        let inode = fields.get(9)?;
        if *state != LISTEN {
            return None;
        }
        let (ip, port) = local.split_once(':')?;
        let address = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
        Some(Listening { address, inode: inode.parse().ok()? })
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// An address as the kernel writes it: words of four bytes in hexadecimal, each in the machine's
/// byte order.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|bytes| Ipv4Addr::from(bytes).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(|b| Ipv6Addr::from(b).into())).ok()
}

/// The address at which this machine reaches a socket: loopback for a wildcard address.
fn dialed(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:04D2 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 71 1
   1: 00000000:1A85 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 72 1
   2: 0100007F:04D2 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 73 1
   3: broken
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:1A86 00000000000000000000000000000000:0000 0A \
00000000:00000000 00:00000000 00000000     0        0 74 1 0
";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_other_listeners_of_the_process_behind_a_port_are_found() {
        let sockets = [parse(TCP), parse(TCP6)].concat();
        assert_eq!(sockets.iter().map(|socket| socket.inode).collect::<Vec<_>>(), [71, 72, 74]);
        let found =
            |inodes: &[u64], port| others(&sockets, &inodes.iter().copied().collect(), port);
        let all = ["127.0.0.1:6789".parse().unwrap(), "[::1]:6790".parse().unwrap()];
        assert_eq!(found(&[71, 72, 74, 99], 1_234), all);
        assert_eq!(found(&[72, 74], 1_234), [], "of another process");
        assert_eq!(found(&[71], 1_234), [], "it has no other");
    }

    #[test]
    fn the_value_of_a_flag_is_found_in_both_spellings() {
        let value = |arguments: &str| {
            let bytes = arguments.replace(' ', "\0");
            value_of("--tls", bytes.as_bytes())
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        assert_eq!(value("oppidum frontend --tls a/tls --log info ").as_deref(), Some("a/tls"));
        assert_eq!(value("oppidum --tls=a/tls ").as_deref(), Some("a/tls"));
        assert_eq!(value("oppidum --tlsx a --tl b "), None);
        assert_eq!(value("oppidum --public-tls a "), None);
    }

    #[test]
    fn a_process_that_was_given_no_such_folder_has_none() {
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = own.local_addr().unwrap().port();
        assert_eq!(folder_of(port, "--no-such-flag"), None);
    }

    #[test]
    fn a_listener_of_this_process_is_found_in_proc() {
        let public = TcpListener::bind("127.0.0.1:0").unwrap();
        let internal = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = beside(public.local_addr().unwrap().port());
        assert!(found.contains(&internal.local_addr().unwrap()), "{found:?}");
    }
}
