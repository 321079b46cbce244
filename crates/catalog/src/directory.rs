//! The directory of replicas, kept current: a stream to one replica, which pushes the membership
//! whenever it changes.

use std::time::Duration;

use rand::RngExt;
use tokio_util::sync::CancellationToken;
use wire::dial::Route;
use wire::peers::Directory;
use wire::stream::Caller;

/// The pause between two attempts to reach any replica.
const PAUSE: Duration = Duration::from_millis(500);

/// A replica that is silent for this long is abandoned for another: a healthy replica sends
/// something twice a second.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Keeps the directory current until `stop`.
pub(crate) async fn keep(directory: &Directory, route: &Route, stop: &CancellationToken) {
    tokio::select! {
        () = follow(directory, route) => {}
        () = stop.cancelled() => {}
    }
}

async fn follow(directory: &Directory, route: &Route) {
    loop {
        for peer in directory.replicas().iter().rev() {
            if let Ok(caller) = Caller::connect(route, &peer.address).await {
                listen(directory, &caller).await;
            }
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(PAUSE.mul_f64(jitter)).await;
    }
}

/// Listens to one replica until it disconnects, falls silent, or is no longer a member.
async fn listen(directory: &Directory, caller: &Caller) {
    let mut rosters = caller.roster();
    loop {
        if directory.adopt(&rosters.borrow_and_update()) {
            let ids: Vec<_> = directory.voters().iter().map(|peer| peer.id.to_string()).collect();
            let ids = ids.join(", ");
            tracing::info!(replicas = %ids, "the replicas are {ids} now");
        }
        tokio::select! {
            changed = rosters.changed() => if changed.is_err() { return },
            () = caller.closed() => return,
            () = tokio::time::sleep(SILENCE_MAX) => {
                if SILENCE_MAX <= caller.silence() {
                    return;
                }
            }
        }
    }
}
