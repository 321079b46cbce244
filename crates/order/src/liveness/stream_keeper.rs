//! The keeper of the liveness streams: one stream to each other member, as membership changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::exit::Stop;

use super::failover::ReportedLoss;
use super::peer_stream::PeerStream;
use crate::disk_space::SpaceReading;
use crate::identity::Identity;
use crate::introduction::Introduction;
use crate::peers::Peers;
use crate::voting::VotingReport;

/// Keeps the liveness streams.
#[derive(Debug)]
pub(crate) struct StreamKeeper {
    /// The identity of this replica, and the members of the store.
    pub(crate) identity: Arc<Identity>,
    /// The table that records what the streams report.
    pub(crate) peers: Peers,
    /// Compares this replica with each peer.
    pub(crate) introduction: Introduction,
    /// The lost leader, to be reported.
    pub(crate) reported_loss: watch::Receiver<ReportedLoss>,
    /// The free disk space of this replica, to be reported.
    pub(crate) disk_space: watch::Receiver<SpaceReading>,
    /// The state of the voters, to be reported while this replica leads.
    pub(crate) voting: watch::Receiver<VotingReport>,
    /// Receives the reason when the other replicas reject this one.
    pub(crate) failures: mpsc::Sender<Stop>,
    /// The tracker that runs the streams.
    pub(crate) tasks: TaskTracker,
}

impl StreamKeeper {
    /// Keeps the streams open until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let me = self.identity.id();
        let mut members = self.identity.members().watch();
        let mut held: BTreeMap<u64, CancellationToken> = BTreeMap::new();
        loop {
            let now = members.borrow_and_update().clone();
            self.peers.sync(me, &now);
            held.retain(|id, end| {
                let stays = now.is_member(*id);
                if !stays {
                    end.cancel();
                }
                stays
            });
            for id in now.addresses.keys().filter(|id| **id != me) {
                held.entry(*id).or_insert_with(|| self.hold(*id, stop.child_token()));
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    fn hold(&self, to: u64, end: CancellationToken) -> CancellationToken {
        let hold = PeerStream {
            to,
            identity: self.identity.clone(),
            peers: self.peers.clone(),
            introduction: self.introduction.clone(),
            reported_loss: self.reported_loss.clone(),
            disk_space: self.disk_space.clone(),
            voting: self.voting.clone(),
        };
        let failures = self.failures.clone();
        let until = end.clone();
        self.tasks.spawn(async move {
            if let Some(stop) = hold.run(until).await {
                // A full channel already holds another stream's reason to stop.
                let _ = failures.try_send(stop);
            }
        });
        end
    }
}
