//! Places for connections of processes, over loopback.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use super::*;
use crate::status::ProcessStatus;

struct QuietProcess;

impl Facts for QuietProcess {
    fn status(&self) -> ProcessStatus {
        ProcessStatus::default()
    }

    fn ready(&self) -> bool {
        true
    }
}

/// Connects from 127.0.0.`host`: every such address is on this machine's loopback.
async fn connect(host: u8, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, host], 0).into()).unwrap();
    socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
}

/// Requests a page and returns the answer; empty when the connection ends.
async fn ask(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 1_024];
    let asked = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    let read = match asked {
        Ok(()) => stream.read(&mut bytes).await.unwrap_or(0),
        Err(_) => 0,
    };
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// A listener with two places: its port, and its end.
async fn serve_two(stop: &CancellationToken) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving =
        internal_within(listener, Routes::default(), Arc::new(QuietProcess), 2, stop.clone());
    (port, tokio::spawn(serving))
}

#[tokio::test]
async fn a_member_gets_a_place_while_one_address_holds_all_of_them() {
    let stop = CancellationToken::new();
    let (port, serving) = serve_two(&stop).await;
    let mut held = [connect(2, port).await, connect(2, port).await];
    for client in &mut held {
        assert!(ask(client).await.starts_with("HTTP/1.1 200 "));
    }
    let mut third = connect(2, port).await;
    assert_eq!(ask(&mut third).await, "", "its address holds all places");
    let mut member = connect(3, port).await;
    assert!(ask(&mut member).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(held[0].read(&mut [0]).await.unwrap(), 0, "idle longest, so evicted");
    assert!(ask(&mut held[1]).await.starts_with("HTTP/1.1 200 "));
    stop.cancel();
    serving.await.unwrap();
}

/// A client that requests pages over HTTP/2 makes no calls, and holds no place for good.
#[tokio::test]
async fn a_connection_for_pages_over_http2_makes_room_for_a_member() {
    let stop = CancellationToken::new();
    let (port, serving) = serve_two(&stop).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let stream = TokioIo::new(connect(2, port).await);
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let page = Request::get("http://127.0.0.1/livez").body(axum::body::Body::empty());
        let answer = client.send_request(page.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        held.push((client, connection));
    }
    let mut member = connect(3, port).await;
    assert!(ask(&mut member).await.starts_with("HTTP/1.1 200 "));
    let (_client, evicted) = held.swap_remove(0);
    tokio::time::timeout(Duration::from_secs(20), evicted).await.unwrap().unwrap().ok();
    stop.cancel();
    serving.await.unwrap();
}
