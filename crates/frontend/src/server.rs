//! The public listener: admission of connections, and a graceful end.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::connections::{Connections, Places, Rejected};
use wire::net::{self, TcpListener};
use wire::problem::{Code, Problem};

use crate::answer;
use crate::api::Api;
use crate::connection::{self, Client, House};
use crate::limits;

/// How long requests at work may take to finish once the process stops.
const GOODBYE: Duration = Duration::from_secs(6);

/// Serves until `stop`, then lets the requests at work finish.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Api,
    places: Places,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let serving = async {
        accept(listener, &api, &connections, places, &stop).await;
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
    tasks: &TaskTracker,
    places: Places,
    stop: &CancellationToken,
) {
    let (open, rejections) = (Connections::new(places), Rejections::new(places));
    let mut accepted_now = 0;
    loop {
        accepted_now += 1;
        if limits::ACCEPTED_MAX <= accepted_now {
            accepted_now = 0;
            tokio::task::yield_now().await;
        }
        let mut accepting = pin!(listener.accept());
        let at_once = futures::poll!(accepting.as_mut());
        api.turnstile().knock(at_once.is_ready());
        let accepted = match at_once {
            _ if stop.is_cancelled() => break,
            Poll::Ready(accepted) => accepted,
            Poll::Pending => tokio::select! {
                accepted = accepting => accepted,
                () = stop.cancelled() => break,
            },
        };
        match accepted {
            Ok((stream, from)) => match open.open(from.ip(), api.is_gateway(from.ip()), stop) {
                Ok(place) => {
                    let client = Client { address: from.ip(), place };
                    tasks.spawn(connection::serve(stream, client, api.clone()));
                }
                Err(why) => net::reject(stream, rejections.answer(why)),
            },
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                // Out of descriptors, most likely: give those in use a moment to be closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The answers to connections that are not admitted, as they go over the wire.
struct Rejections {
    address_full: Vec<u8>,
    full: Vec<u8>,
}

impl Rejections {
    fn new(places: Places) -> Self {
        // No request was read, so there is no id to give back.
        let answer = |why: String| {
            let [before, after] = answer::on_the_wire(&Problem::definite(Code::Overloaded, why));
            format!("{before}none\r\nconnection: close{after}").into_bytes()
        };
        let Places { total, per_address, .. } = places;
        Self {
            address_full: answer(format!(
                "too many connections from this address: at most {per_address}"
            )),
            full: answer(format!("all of this server's {total} connections are in use")),
        }
    }

    fn answer(&self, why: Rejected) -> &[u8] {
        match why {
            Rejected::AddressFull => &self.address_full,
            Rejected::Full => &self.full,
        }
    }
}
