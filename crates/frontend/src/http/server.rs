//! The public listener: admits connections, and stops gracefully.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::connections::{Connections, Places, Rejected};
use wire::limits::HANDSHAKE_TIMEOUT;
use wire::net::{self, TcpListener, TcpStream};
use wire::problem::{Code, Problem};
use wire::tls::stream::{self, Acceptor, HandshakeError, MaybeTlsStream};

use crate::answer;
use crate::api::Api;
use crate::classic::render_error;
use crate::client_address::{ClientAddress, CustomerAddress};
use crate::http::connection;
use crate::http::handler::{Client, Handler};
use crate::http::linger;
use crate::http::proxy_protocol;
use crate::limits;

/// How long requests in progress may take to finish once the process stops.
const GOODBYE: Duration = Duration::from_secs(6);

/// The shortest time between two warnings about a gateway without a header.
const GATEWAY_WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// A listener, and how it serves its connections.
pub(crate) struct PublicPort {
    pub(crate) listener: TcpListener,
    pub(crate) connections: Connections,
    /// With TLS, and with this configuration.
    pub(crate) tls: Option<Acceptor>,
}

/// Serves until `stop`, then lets the requests in progress finish.
pub(crate) async fn serve(port: PublicPort, api: Api, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let serving = async {
        accept(port, &api, &connections, &stop).await;
        connections.close();
        if tokio::time::timeout(GOODBYE, connections.wait()).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
    };
    tokio::select! {
        () = serving => {}
        () = api.read_scheduler().run() => {}
    }
}

/// Accepts connections until `stop`.
async fn accept(port: PublicPort, api: &Api, tasks: &TaskTracker, stop: &CancellationToken) {
    let PublicPort { listener, connections: open, tls } = port;
    let rejections = Arc::new(Rejections::new(open.places(), tls.is_some()));
    let stop = stop.clone();
    let server =
        ConnectionServer { open, rejections, tls, stop: stop.clone(), warned: Arc::default() };
    let mut accepted_now = 0;
    loop {
        accepted_now += 1;
        if limits::ACCEPTED_MAX <= accepted_now {
            accepted_now = 0;
            tokio::task::yield_now().await;
        }
        let mut accepting = pin!(listener.accept());
        let at_once = futures::poll!(accepting.as_mut());
        api.read_scheduler().note_backlog(at_once.is_ready());
        let accepted = match at_once {
            _ if stop.is_cancelled() => break,
            Poll::Ready(accepted) => accepted,
            Poll::Pending => tokio::select! {
                accepted = accepting => accepted,
                () = stop.cancelled() => break,
            },
        };
        match accepted {
            Ok((stream, from)) => server.admit(stream, from.ip(), api, tasks),
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                // Most likely out of file descriptors: wait until some are closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What a new connection needs to be served or rejected.
#[derive(Clone)]
struct ConnectionServer {
    open: Connections,
    rejections: Arc<Rejections>,
    tls: Option<Acceptor>,
    stop: CancellationToken,
    /// When a gateway without a header was last reported.
    warned: Arc<Mutex<Option<Instant>>>,
}

impl ConnectionServer {
    /// Gives a connection a place and serves it, or rejects it.
    fn admit(&self, stream: TcpStream, peer: IpAddr, api: &Api, tasks: &TaskTracker) {
        let clients = api.clients();
        let address = ClientAddress::of_connection(peer, &clients.gateways);
        match self.open.open(peer, address.is_exempt, &self.stop) {
            Err(why) => self.rejections.send(stream, why, tasks),
            Ok(place) => {
                let client = Client { address, place };
                let has_header =
                    address.is_exempt && clients.customer_address == CustomerAddress::ProxyProtocol;
                let (server, api, tasks) = (self.clone(), api.clone(), tasks.clone());
                tasks.clone().spawn(async move {
                    let begun = if has_header {
                        server.with_customer(stream, client, &tasks).await
                    } else {
                        Some((stream, client))
                    };
                    if let Some((stream, client)) = begun {
                        server.serve(stream, client, api).await;
                    }
                });
            }
        }
    }

    /// The connection with the customer that its gateway names: the limits per address are those of
    /// the customer. `None`: the connection is over.
    async fn with_customer(
        &self,
        mut stream: TcpStream,
        client: Client,
        tasks: &TaskTracker,
    ) -> Option<(TcpStream, Client)> {
        let header = tokio::time::timeout(HANDSHAKE_TIMEOUT, proxy_protocol::read(&mut stream));
        let named = tokio::select! {
            named = header => named,
            () = client.place.closing().cancelled() => return None,
        };
        let customer = match named {
            Ok(Ok(Some(customer))) => customer,
            // What names no customer counts for the gateway.
            Ok(Ok(None)) => {
                let address = ClientAddress { is_exempt: false, ..client.address };
                return Some((stream, Client { address, ..client }));
            }
            Ok(Err(error)) => {
                self.warn_of_gateway(client.address.address, &error.to_string());
                return None;
            }
            Err(_) => {
                self.warn_of_gateway(client.address.address, "none came in time");
                return None;
            }
        };
        drop(client);
        let address = ClientAddress::of_customer(customer);
        match self.open.open(customer, false, &self.stop) {
            Ok(place) => Some((stream, Client { address, place })),
            Err(why) => {
                self.rejections.send(stream, why, tasks);
                None
            }
        }
    }

    fn warn_of_gateway(&self, gateway: IpAddr, why: &str) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|warned| GATEWAY_WARNING_INTERVAL <= warned.elapsed()) {
            *warned = Some(Instant::now());
            tracing::warn!(
                %gateway,
                "{gateway} sends no PROXY protocol header of version 2, so its connections are \
                 closed: {why}"
            );
        }
    }

    async fn serve(&self, stream: TcpStream, client: Client, api: Api) {
        if self.tls.is_some() && !api.rates().take_handshake(client.address) {
            self.open.note_refused();
            return net::reject(stream, b"");
        }
        let closing = client.place.closing();
        let stream = tokio::select! {
            // Without TLS there is nothing to wait for, also at a stop.
            biased;
            stream = perform_handshake(stream, self.tls.clone()) => stream,
            () = closing.cancelled() => None,
        };
        if let Some(stream) = stream {
            connection::serve(stream, client, api).await;
        }
    }
}

/// The connection after its handshake, if it has TLS. `None`: the handshake failed.
async fn perform_handshake(stream: TcpStream, tls: Option<Acceptor>) -> Option<MaybeTlsStream> {
    stream.set_nodelay(true).ok()?;
    let Some(tls) = tls else { return Some(MaybeTlsStream::Plain(stream)) };
    let handshake = stream::accept(tls, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(HandshakeError::NotTls(stream))) => {
            linger::close(MaybeTlsStream::Plain(stream), not_tls().as_bytes()).await;
        }
        Ok(Err(HandshakeError::Failed(error))) => tracing::debug!("no TLS handshake: {error}"),
        Err(_) => tracing::debug!("no TLS handshake within {:?}", HANDSHAKE_TIMEOUT),
    }
    None
}

/// The answer to a request without TLS, as bytes on the wire.
fn not_tls() -> String {
    let body = render_error(400, "this port speaks TLS: use https:// instead");
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The answers to connections that are not admitted, as bytes on the wire.
struct Rejections {
    /// The port speaks TLS: a rejected connection is closed without a handshake, which costs CPU.
    tls: bool,
    address_full: Bytes,
    full: Bytes,
    /// Permits to linger: a client that sends its head and its body in two pieces would lose the
    /// answer to a reset.
    lingering: Arc<Semaphore>,
}

impl Rejections {
    fn new(places: Places, tls: bool) -> Self {
        // No request was read, so there is no id to repeat.
        let answer = |why: String| -> Bytes {
            let [before, after] = answer::on_the_wire(&Problem::definite(Code::Overloaded, why));
            format!("{before}none\r\nconnection: close{after}").into()
        };
        let Places { total, per_address, .. } = places;
        // Each lingering connection takes a file descriptor that is no place.
        let lingering = (total / 8).clamp(1, limits::REJECTED_LINGERING_MAX);
        Self {
            tls,
            address_full: answer(format!(
                "too many connections from this address: at most {per_address}"
            )),
            full: answer(format!("all of this server's {total} connections are in use")),
            lingering: Arc::new(Semaphore::new(lingering)),
        }
    }

    /// Sends the answer and closes the connection: lingering while there is a permit, else at once.
    fn send(&self, stream: TcpStream, why: Rejected, tasks: &TaskTracker) {
        let answer = match why {
            Rejected::AddressFull => &self.address_full,
            Rejected::Full => &self.full,
        };
        if self.tls {
            return net::reject(stream, b"");
        }
        let Ok(permit) = self.lingering.clone().try_acquire_owned() else {
            return net::reject(stream, answer);
        };
        let answer = answer.clone();
        tasks.spawn(async move {
            linger::close(MaybeTlsStream::Plain(stream), &answer).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Kind: an answer that a reset destroys because its client continues to send.
    #[tokio::test]
    async fn a_rejected_connection_gets_its_503_before_its_body_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (rejections, tasks) = (Rejections::new(Places::new(8, 1), false), TaskTracker::new());
        let head = b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\n";
        client.write_all(head).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        rejections.send(stream, Rejected::Full, &tasks);
        let mut first = [0; 12];
        client.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 503");
        // A reset would end the second write with an error.
        for _ in 0..2 {
            client.write_all(b"{").await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("connection: close") && rest.ends_with("in use\"}}"), "{rest}");
        drop(client);
        tasks.close();
        tasks.wait().await;
    }
}
