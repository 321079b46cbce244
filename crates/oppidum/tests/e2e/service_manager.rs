//! Under a service manager: each process reports that it listens, that its runtime works, and that
//! it stops; SIGHUP stops none.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::process::Signal;

use crate::harness::{Process, SOON, ports};

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 64];
        let length = self.0.recv(&mut bytes).expect("a notification");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// Waits for a notification; skips others.
    fn until(&self, notification: &str) {
        while self.next() != notification {}
    }
}

/// [P10] Kind: a process that waits for the others is killed because it takes too long to start.
#[test]
fn each_process_alone_is_ready_for_its_manager_alive_and_not_stopped_by_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let free = [ports(), ports(), ports()].concat();
    let free: Vec<String> = free.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let [replica, second, third, catalog, public, internal] = &free[..] else { panic!("{free:?}") };
    let orders = format!("123={replica},345={second},456={third}");
    let port = public.rsplit(':').next().unwrap();
    let roles: [(&str, &[&str]); 3] = [
        ("order", &["--id", "123", "--shop", "stock", "--open", "--data", "data"]),
        ("catalog", &["--listen", catalog]),
        ("frontend", &["--host", "127.0.0.1", "--port", port, "--internal", internal]),
    ];
    for (role, flags) in roles {
        let path = folder.path().join(format!("{role}.notify"));
        let manager = Manager::listen(&path);
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
        let arguments = [&[role, "--orders", &orders], flags].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let mut process = Process::start_with(role, folder.path(), &variables, &arguments);
        assert_eq!(manager.next(), "READY=1", "it is not watched before it listens");
        process.signal(Signal::HUP);
        process.says("SIGHUP: this process has no certificates that could be read again");
        for _ in 0..3 {
            manager.until("WATCHDOG=1");
        }
        process.signal(Signal::TERM);
        manager.until("STOPPING=1");
        assert_eq!(process.wait(), Some(0), "{}", process.stderr());
    }
}
