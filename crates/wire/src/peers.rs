//! Roster: the store's replicas, first as configured at a process's start and then as named by the
//! log.
//!
//! A store's replicas change while it is open, and each replica pushes a change to every connected
//! process. The configured replicas are only hints, but their addresses are preferred over the
//! log's, because different networks may reach one replica at different addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::proto;

/// One replica, by id and address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The replica's id, unique in the store.
    pub id: u64,
    /// The address of its internal listener: `host:port`.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id, self.address)
    }
}

/// The store's replicas, as an entry of the log names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The term and the index of that entry: the later of two rosters is the valid one.
    pub at: (u64, u64),
    /// The replicas that vote, lowest id first.
    pub voters: Vec<Peer>,
    /// The replicas that receive the log and do not vote yet, lowest id first.
    pub learners: Vec<Peer>,
}

impl Roster {
    /// All replicas, voters and learners, lowest id first.
    pub fn replicas(&self) -> Vec<Peer> {
        let mut all = [self.voters.as_slice(), self.learners.as_slice()].concat();
        all.sort();
        all
    }
}

impl From<&Roster> for proto::Replicas {
    fn from(roster: &Roster) -> Self {
        let replica = |peer: &Peer, learner| {
            let address = peer.address.clone();
            proto::Replica { id: peer.id, address, learner }
        };
        let voters = roster.voters.iter().map(|peer| replica(peer, false));
        let learners = roster.learners.iter().map(|peer| replica(peer, true));
        let (term, index) = roster.at;
        Self { term, index, replicas: voters.chain(learners).collect() }
    }
}

impl From<proto::Replicas> for Roster {
    fn from(sent: proto::Replicas) -> Self {
        let mut roster = Self { at: (sent.term, sent.index), ..Self::default() };
        for proto::Replica { id, address, learner } in sent.replicas {
            let list = if learner { &mut roster.learners } else { &mut roster.voters };
            list.push(Peer { id, address });
        }
        roster.voters.sort();
        roster.learners.sort();
        roster
    }
}

/// The store's replicas, as a catalog, a frontend or a client knows them. Clones share it.
#[derive(Clone, Debug)]
pub struct Directory {
    hints: Arc<BTreeMap<u64, String>>,
    known: watch::Sender<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    /// True once a replica has sent a roster; before that the roster holds the configured hints.
    is_received: bool,
    roster: Roster,
}

impl Directory {
    /// A directory that knows the configured replicas.
    pub fn new(mut peers: Vec<Peer>) -> Self {
        peers.sort();
        let hints = peers.iter().map(|peer| (peer.id, peer.address.clone())).collect();
        let roster = Roster { voters: peers, ..Roster::default() };
        Self {
            hints: Arc::new(hints),
            known: watch::Sender::new(Known { is_received: false, roster }),
        }
    }

    /// The voters, as far as known.
    pub fn voters(&self) -> Vec<Peer> {
        self.known.borrow().roster.voters.clone()
    }

    /// All replicas, voters and learners, as far as known.
    pub fn replicas(&self) -> Vec<Peer> {
        self.known.borrow().roster.replicas()
    }

    /// The address of a replica.
    pub fn address(&self, id: u64) -> Option<String> {
        let known = self.known.borrow();
        let mut all = known.roster.voters.iter().chain(&known.roster.learners);
        all.find(|peer| peer.id == id).map(|peer| peer.address.clone())
    }

    /// Takes a roster that a replica has sent, if it is later than the known one. True: the
    /// replicas or their addresses have changed.
    pub fn adopt(&self, sent: &Roster) -> bool {
        if sent.voters.is_empty() {
            return false;
        }
        let mut roster = sent.clone();
        for peer in roster.voters.iter_mut().chain(&mut roster.learners) {
            if let Some(address) = self.hints.get(&peer.id) {
                peer.address.clone_from(address);
            }
        }
        self.known.send_if_modified(|known| {
            if known.is_received && roster.at <= known.roster.at {
                return false;
            }
            let is_changed = (&known.roster.voters, &known.roster.learners)
                != (&roster.voters, &roster.learners);
            *known = Known { is_received: true, roster };
            is_changed
        })
    }

    /// Subscribes to changes of the replicas.
    pub fn changes(&self) -> Changes {
        Changes(self.known.subscribe())
    }
}

/// Subscription to the changes of a [`Directory`].
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<Known>);

impl Changes {
    /// Waits for the next change.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The directory is dropped, so no change will come.
            std::future::pending::<()>().await;
        }
    }
}

/// The leader and the log time, as a process knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader; None: the process knows none.
    pub leader: Option<u64>,
    /// The term of that leader; a hint of a lower term is older.
    pub term: u64,
    /// The log time of the process, in milliseconds since the Unix epoch; 0 from a catalog.
    pub log_time_ms: u64,
    /// The replica that gives the hint; 0: a catalog.
    pub replica: u64,
}

/// The terms of one epoch: a store that is recovered goes on in the next epoch. Elections count the
/// terms within it.
pub const EPOCH_TERMS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u64, address: &str) -> Peer {
        Peer { id, address: address.into() }
    }

    #[test]
    fn the_roster_of_the_later_entry_wins_and_configured_addresses_are_kept() {
        let directory = Directory::new(vec![peer(1, "mine:1"), peer(2, "mine:2")]);
        let first = Roster {
            at: (0, 0),
            voters: vec![peer(1, "log:1"), peer(3, "log:3")],
            learners: vec![peer(4, "log:4")],
        };
        assert!(directory.adopt(&first), "any roster of the log replaces the hints");
        assert_eq!(directory.voters(), [peer(1, "mine:1"), peer(3, "log:3")]);
        assert_eq!(directory.replicas().len(), 3);
        let unordered = Roster { learners: vec![peer(2, "log:2")], ..first.clone() };
        let ids: Vec<_> = unordered.replicas().iter().map(|peer| peer.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        let later =
            Roster { at: (1_000_000_001, 2), voters: vec![peer(3, "log:3")], ..first.clone() };
        assert!(directory.adopt(&later));
        assert!(!directory.adopt(&first), "an older roster");
        assert!(!directory.adopt(&Roster::default()), "no voters");
        assert_eq!(directory.address(3).as_deref(), Some("log:3"));
        assert_eq!(directory.address(1), None);
        let sent: Roster = proto::Replicas::from(&later).into();
        assert_eq!(sent, later);
    }
}
