//! Notifications to the service manager: systemd learns that a process listens, is alive, stops.
//!
//! The protocol is that of `sd_notify(3)`: one datagram for each notification, to the socket that
//! `NOTIFY_SOCKET` names. A process without that variable sends nothing. A crate for these lines
//! would bring no abstract addresses, and a blocking send.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// A notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// The listeners of the process are open.
    Ready,
    /// The runtime of the process works.
    Alive,
    /// The process has begun to stop.
    Stopping,
}

impl Notification {
    fn datagram(self) -> &'static [u8] {
        match self {
            Self::Ready => b"READY=1",
            Self::Alive => b"WATCHDOG=1",
            Self::Stopping => b"STOPPING=1",
        }
    }
}

/// Notifies the service manager, if there is one. A simulated process has none.
pub async fn notify(notification: Notification) {
    let address = std::env::var_os("NOTIFY_SOCKET").filter(|_| !cfg!(feature = "simulated"));
    let Some(address) = address else { return };
    if let Err(error) = send(&address, notification).await {
        let address = address.display();
        tracing::warn!(
            "the service manager is not notified ({notification:?}, {address}): {error}"
        );
    }
}

/// Notifies the service manager that the listeners are open, and from then on its watchdog, at
/// half of the timeout. This runs on the runtime: a process whose runtime is stuck is not reported
/// alive. systemd watches a process from the first notification, so none may precede a long start.
pub async fn report() {
    notify(Notification::Ready).await;
    let variable = |name| std::env::var(name).ok();
    let (timeout, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
    let Some(timeout) = watchdog(timeout, pid, std::process::id()) else { return };
    let mut ticks = tokio::time::interval(timeout / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notify(Notification::Alive).await;
    }
}

/// The timeout of the watchdog. `pid`: the variables of a parent are not meant for its children.
fn watchdog(microseconds: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let is_other = |pid: String| pid.parse() != Ok(own);
    if pid.is_some_and(is_other) {
        return None;
    }
    let timeout = Duration::from_micros(microseconds?.parse().ok()?);
    (!timeout.is_zero()).then_some(timeout)
}

async fn send(address: &OsStr, notification: Notification) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&socket_address(address)?)?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixDatagram::from_std(socket)?;
    socket.send(notification.datagram()).await.map(|_| ())
}

/// The address that an `@` at its beginning makes abstract.
fn socket_address(address: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = address.as_bytes().strip_prefix(b"@") {
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_notification_is_one_datagram_to_a_path_or_an_abstract_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@oppidum-test-{}", std::process::id());
        for address in [path.as_os_str(), OsStr::new(&name)] {
            let manager = UnixDatagram::bind_addr(&socket_address(address).unwrap()).unwrap();
            let mut received = [0; 64];
            for notification in [Notification::Ready, Notification::Alive, Notification::Stopping] {
                send(address, notification).await.unwrap();
                let length = manager.recv(&mut received).unwrap();
                assert_eq!(&received[..length], notification.datagram());
            }
        }
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_notified() {
        let timeout = |usec: &str, pid: Option<&str>| {
            watchdog(Some(usec.to_owned()), pid.map(str::to_owned), 7)
        };
        assert_eq!(timeout("10000000", Some("7")), Some(Duration::from_secs(10)));
        assert_eq!(timeout("10000000", None), Some(Duration::from_secs(10)));
        assert_eq!(timeout("10000000", Some("8")), None);
        assert_eq!(timeout("10000000", Some("")), None);
        assert_eq!(timeout("0", None), None);
        assert_eq!(timeout("soon", None), None);
        assert_eq!(watchdog(None, None, 7), None);
    }
}
