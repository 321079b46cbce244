//! The notification socket of a unit of `Type=notify`, and its watchdog, in the stand-in for
//! systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::manual::unit::Unit;

/// How long one look at the socket waits: the interval between two looks at the process.
const LOOK: Duration = Duration::from_millis(20);

/// The socket of one unit.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    pub(crate) path: PathBuf,
}

impl NotifySocket {
    /// Opens the socket for every user of the machine.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // A supervisor that was killed has left its socket.
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path)
            .with_context(|| format!("open the socket {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Waits for the next datagram; none within [`LOOK`] is an empty text.
    fn receive(&self) -> String {
        let mut bytes = [0; 4_096];
        let length = self.socket.recv(&mut bytes).unwrap_or_default();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

/// What is known of a process that notifies.
#[derive(Debug, PartialEq, Eq)]
struct Watched {
    is_ready: bool,
    is_stopping: bool,
    /// The last notification that it is alive; the first one begins the watch, as in systemd.
    alive: Option<Instant>,
}

impl Watched {
    fn note(&mut self, datagram: &str, now: Instant) {
        for line in datagram.lines() {
            match line {
                "READY=1" => (self.is_ready, self.alive) = (true, Some(now)),
                "WATCHDOG=1" => self.alive = Some(now),
                "STOPPING=1" => self.is_stopping = true,
                _ => {}
            }
        }
    }

    /// True for a process that was silent for too long. It is watched until its stop.
    fn is_overdue(&self, timeout: Duration, now: Instant) -> bool {
        let is_silent = |alive| timeout < now.duration_since(alive);
        !self.is_stopping && self.alive.is_some_and(is_silent)
    }
}

/// Attends to a unit's process until its end. `ready` is written when the process is ready; the
/// watchdog calls `kill`.
pub(crate) fn attend(
    child: &mut Child,
    unit: &Unit,
    socket: &NotifySocket,
    ready: &Path,
    kill: impl Fn(),
) -> Result<ExitStatus> {
    let mut watched = Watched { is_ready: false, is_stopping: false, alive: None };
    loop {
        if let Some(status) = child.try_wait().context("wait for the unit's command")? {
            return Ok(status);
        }
        watched.note(&socket.receive(), Instant::now());
        if watched.is_ready && !ready.exists() {
            fs::write(ready, "").context("note that the unit is ready")?;
        }
        let timeout = unit.watchdog_seconds.map(Duration::from_secs);
        if timeout.is_some_and(|timeout| watched.is_overdue(timeout, Instant::now())) {
            println!("systemd: watchdog timeout");
            kill();
            return child.wait().context("wait for the unit's command");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_process_is_overdue_from_its_readiness_to_its_stop() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let limit = Duration::from_secs(10);
        let mut watched = Watched { is_ready: false, is_stopping: false, alive: None };
        assert!(!watched.is_overdue(limit, at(60)), "it may start for as long as it takes");
        watched.note("READY=1", at(60));
        assert!(!watched.is_overdue(limit, at(70)));
        assert!(watched.is_overdue(limit, at(71)));
        watched.note("WATCHDOG=1\nSTATUS=well", at(71));
        assert!(!watched.is_overdue(limit, at(81)));
        watched.note("STOPPING=1", at(81));
        assert!(!watched.is_overdue(limit, at(99)));
    }
}
