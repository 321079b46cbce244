//! The public listener: connections with limits, one access log line per request, a graceful end.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::net::TcpListener;

use crate::api::Api;
use crate::connection::{self, House};
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
    let connections = TaskTracker::new();
    let serving = async {
        accept(listener, &api, &connections, access_log, &stop).await;
        connections.close();
        if tokio::time::timeout(GOODBYE, connections.wait()).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
    };
    tokio::select! {
        () = serving => {}
        () = api.turnstile().run() => {}
    }
}

/// Accepts connections until `stop`.
async fn accept(
    listener: TcpListener,
    api: &Api,
    connections: &TaskTracker,
    access_log: bool,
    stop: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let mut accepted_now = 0;
    loop {
        accepted_now += 1;
        if limits::ACCEPTED_MAX <= accepted_now {
            accepted_now = 0;
            tokio::task::yield_now().await;
        }
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let Ok(place) = place else { break };
        let mut accepting = pin!(listener.accept());
        let at_once = futures::poll!(accepting.as_mut());
        api.turnstile().knock(at_once.is_ready());
        let accepted = match at_once {
            Poll::Ready(accepted) => accepted,
            Poll::Pending => tokio::select! {
                accepted = accepting => accepted,
                () = stop.cancelled() => break,
            },
        };
        match accepted {
            Ok((stream, from)) => {
                let (api, stop) = (api.clone(), stop.clone());
                connections.spawn(async move {
                    connection::serve(stream, from, api, access_log, stop).await;
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
}
