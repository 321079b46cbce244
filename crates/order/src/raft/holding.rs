//! Keeps a held stream to each of the other members, as they come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::exit::Stop;

use super::failover::Mourning;
use super::hold::Hold;
use crate::identity::Identity;
use crate::introduction::Introduction;
use crate::peers::Peers;
use crate::room::Seen;
use crate::voting::Told;

/// Keeps the streams.
#[derive(Debug)]
pub(crate) struct Holding {
    /// Who we are, and who the members are.
    pub(crate) identity: Arc<Identity>,
    /// Where to write down what the streams say.
    pub(crate) peers: Peers,
    /// Compares this replica with each of them.
    pub(crate) introduction: Introduction,
    /// The leader that is lost, to be reported.
    pub(crate) mourning: watch::Receiver<Mourning>,
    /// How much room this replica has, to be reported.
    pub(crate) room: watch::Receiver<Seen>,
    /// How the voters are, to be reported while this replica leads.
    pub(crate) voting: watch::Receiver<Told>,
    /// Told when the others refuse this replica.
    pub(crate) failures: mpsc::Sender<Stop>,
    /// Where the streams run.
    pub(crate) tasks: TaskTracker,
}

impl Holding {
    /// Holds the streams until `stop`.
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
        let hold = Hold {
            to,
            identity: self.identity.clone(),
            peers: self.peers.clone(),
            introduction: self.introduction.clone(),
            mourning: self.mourning.clone(),
            room: self.room.clone(),
            voting: self.voting.clone(),
        };
        let (failures, until) = (self.failures.clone(), end.clone());
        self.tasks.spawn(async move {
            if let Some(stop) = hold.run(until).await {
                // Full: somebody else has found out already.
                let _ = failures.try_send(stop);
            }
        });
        end
    }
}
