//! The public listener: connections with limits, one access log line per request, a graceful end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wire::net::{TcpListener, TcpStream};
use wire::telemetry::{self, ACCESS};

use crate::api::Api;
use crate::limits;

/// How long requests at work may take to finish once the process stops.
const GOODBYE: Duration = Duration::from_secs(6);

/// Serves until `stop`, then lets the requests at work finish.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Api,
    access_log: bool,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let (api, watcher) = (api.clone(), graceful.watcher());
                tokio::spawn(async move {
                    connection(stream, from, api, access_log, watcher).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                // Out of descriptors, most likely: give those in use a moment to be closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(GOODBYE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    api: Api,
    access_log: bool,
    watcher: Watcher,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let api = api.clone();
        async move {
            let line = access_log.then(|| request_line(&request));
            let answer = api.answer(request, is_local(from.ip())).await;
            if let Some(line) = line {
                let time = telemetry::access_time(telemetry::since_epoch());
                let (client, status) = (from.ip(), answer.status().as_u16());
                tracing::info!(target: ACCESS, "{client} - - [{time}] \"{line}\" {status} -");
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(8 * limits::HEADER_BYTES_MAX)
        .pipeline_flush(true)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    // A client that vanishes is no news.
    let _ = watcher.watch(connection).await;
}

/// `GET /stocks/GameStart HTTP/1.1`, cut where it could spoil the log.
fn request_line(request: &Request<Incoming>) -> String {
    let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
    let target = target.get(..256).unwrap_or(target);
    format!("{} {target} {:?}", request.method(), request.version())
}

fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
