//! Clients with an address of their own, and a frontend as it is deployed: with the default limits.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tokio::net::TcpSocket;

use super::{Connection, IDS, Process, Store, ports, until};

/// A connection from 127.0.0.`host`: on loopback every such address is this machine's.
pub(crate) fn connect_from(host: u8, port: u16) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let connecting = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
        socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await?.into_std()
    };
    let stream = runtime.block_on(connecting)?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// An additional frontend beside those of a store.
pub(crate) struct Deployed {
    pub(crate) process: Process,
    /// Its public port, and its internal one.
    pub(crate) port: u16,
    pub(crate) internal: u16,
}

impl Deployed {
    /// Starts a frontend with nothing but addresses and these flags, and waits until it is ready.
    pub(crate) fn start(store: &Store, more: &[&str]) -> Self {
        Self::start_as(store, more, Process::start)
    }

    /// The same, with a limit of open files.
    pub(crate) fn start_limited(store: &Store, files: u64) -> Self {
        Self::start_as(store, &[], |name, folder, arguments| {
            Process::start_limited(name, folder, files, arguments)
        })
    }

    fn start_as(
        store: &Store,
        more: &[&str],
        start: impl FnOnce(&str, &Path, &[String]) -> Process,
    ) -> Self {
        let [port, internal] = ports();
        let orders = IDS.map(|id| format!("{id}=127.0.0.1:{}", store.order_port(id))).join(",");
        let catalogs = format!("127.0.0.1:{}", store.catalog_port(0));
        let (public, inside) = (port.to_string(), format!("127.0.0.1:{internal}"));
        let listen = ["--host", "127.0.0.1", "--port", &public, "--internal", &inside];
        let lists = ["--orders", &orders, "--catalogs", &catalogs];
        let arguments = [&["frontend"], &listen[..], &lists, more].concat();
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        store.admit_customers(port);
        let process = start("deployed", store.folder(), &arguments);
        until("the deployed frontend is ready", || {
            let reply = Connection::open(port).ok()?.ask("GET", "/readyz", &[], "").ok()?;
            (reply.status == 200).then_some(())
        });
        Self { process, port, internal }
    }
}
