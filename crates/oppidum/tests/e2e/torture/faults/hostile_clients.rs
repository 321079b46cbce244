//! Hostile clients beside the customers: they hold connections, heads and bodies, request
//! everything, and read nothing; orders go on.

use std::io::Write;
use std::net::TcpStream;

use crate::crowd::FRONTENDS;
use crate::harness::connect_from;
use crate::torture::Torture;

/// The number of clients of each kind.
const CLIENTS: usize = 20;

/// The bytes that a client of each kind sends; then it stays silent.
const KINDS: [&str; 5] = [
    "",
    "POST /orders HTTP/1.1\r\nHost: shop\r\nX-Slow: ",
    "POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 16000\r\n\r\n{",
    "POST /v1/orders/batch HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /stocks HTTP/1.1\r\nHost: shop\r\n\r\nGET /status HTTP/1.1\r\nHost: shop\r\n\r\n",
];

pub(crate) fn strike(torture: &mut Torture) {
    let frontend = torture.pick(FRONTENDS);
    let port = torture.store.port_of(frontend);
    let mut hostile: Vec<TcpStream> = Vec::new();
    for (host, kind) in (2..).zip(KINDS) {
        for _ in 0..CLIENTS {
            let Ok(mut stream) = connect_from(host, port) else { continue };
            let _ = stream.set_nonblocking(true);
            let bytes = if kind.starts_with("GET") { kind.repeat(500) } else { kind.to_owned() };
            // A rejected connection may be closed already.
            let _ = stream.write(bytes.as_bytes());
            hostile.push(stream);
        }
    }
    torture.crowd.go_on(30);
    drop(hostile);
}
