//! Membership: the members of the store by the log, or before there is a log by the list that this
//! replica was started with.
//!
//! The log's membership is the engine's: the voters (two sets of them while a change is under way,
//! and each must agree), and learners, which receive the log and do not vote. Addresses in the list
//! of the start take precedence over those in the log: a store may move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use wire::peers::{Peer, Roster};

use crate::config::Settings;

/// The members at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Taken from the log. False: this replica has no log yet, and these are hints.
    pub(crate) begun: bool,
    /// The term and the index of the entry that set it.
    pub(crate) at: (u64, u64),
    /// The voters: two sets while a change is under way.
    pub(crate) configs: Vec<BTreeSet<u64>>,
    /// All members, and their addresses.
    pub(crate) addresses: BTreeMap<u64, String>,
}

/// True when the replicas for which `is_there` holds are a majority of each set of voters.
pub(crate) fn is_majority(configs: &[BTreeSet<u64>], is_there: impl Fn(u64) -> bool) -> bool {
    configs.iter().all(|config| {
        let there = config.iter().filter(|id| is_there(**id)).count();
        config.len() / 2 < there
    })
}

impl Membership {
    /// Every voter, of either set.
    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        self.configs.iter().flatten().copied().collect()
    }

    /// True for a replica that has a vote.
    pub(crate) fn is_voter(&self, id: u64) -> bool {
        self.configs.iter().any(|config| config.contains(&id))
    }

    /// True for a replica that belongs to the store.
    pub(crate) fn is_member(&self, id: u64) -> bool {
        self.addresses.contains_key(&id)
    }

    /// True when the replicas for which `is_there` holds can decide: a majority of each set.
    pub(crate) fn can_decide(&self, is_there: impl Fn(u64) -> bool) -> bool {
        is_majority(&self.configs, is_there)
    }

    /// How many voters make a majority: of each set, while a change is under way.
    pub(crate) fn majority(&self) -> usize {
        self.configs.iter().map(|config| config.len() / 2 + 1).max().unwrap_or(1)
    }

    /// The same for other processes.
    pub(crate) fn roster(&self) -> Roster {
        let mut roster = Roster { at: self.at, ..Roster::default() };
        if !self.begun {
            return roster;
        }
        for (id, address) in &self.addresses {
            let peer = Peer { id: *id, address: address.clone() };
            let list = if self.is_voter(*id) { &mut roster.voters } else { &mut roster.learners };
            list.push(peer);
        }
        roster
    }
}

/// The members as they change. Clones share them; only the task that follows the engine writes.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    hints: Arc<BTreeMap<u64, String>>,
    now: watch::Sender<Membership>,
    /// The same, as it is sent to other processes.
    roster: watch::Sender<Roster>,
}

impl Members {
    /// The list that this replica is started with.
    pub(crate) fn new(settings: &Settings) -> Self {
        let peers = settings.peers.iter();
        let hints: BTreeMap<u64, String> =
            peers.map(|peer| (peer.id, peer.address.clone())).collect();
        let now = Membership {
            configs: vec![hints.keys().copied().collect()],
            addresses: hints.clone(),
            ..Membership::default()
        };
        let now = watch::Sender::new(now);
        let roster = watch::Sender::default();
        Self { hints: Arc::new(hints), now, roster }
    }

    /// For the folder of a replica that does not run.
    pub(crate) fn none() -> Self {
        Self {
            hints: Arc::default(),
            now: watch::Sender::default(),
            roster: watch::Sender::default(),
        }
    }

    /// Takes over the log's membership, as the engine has it. A membership without a voter is
    /// ignored.
    pub(crate) fn set(&self, mut now: Membership) {
        if now.configs.iter().all(BTreeSet::is_empty) {
            return;
        }
        for (id, address) in &mut now.addresses {
            if let Some(hint) = self.hints.get(id) {
                address.clone_from(hint);
            }
        }
        let roster = now.roster();
        self.now.send_if_modified(|known| {
            let is_news = *known != now;
            *known = now;
            is_news
        });
        self.roster.send_if_modified(|known| {
            let is_news = *known != roster;
            *known = roster;
            is_news
        });
    }

    /// The members as sent to other processes; empty before there is a log.
    pub(crate) fn rosters(&self) -> watch::Receiver<Roster> {
        self.roster.subscribe()
    }

    /// The members, now.
    pub(crate) fn now(&self) -> Membership {
        self.now.borrow().clone()
    }

    /// Looks at the members, without a copy. Keep it short.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Membership) -> T) -> T {
        look(&self.now.borrow())
    }

    /// The members, and every change.
    pub(crate) fn watch(&self) -> watch::Receiver<Membership> {
        self.now.subscribe()
    }

    /// The addresses in the list that this replica was started with.
    pub(crate) fn hinted(&self) -> impl Iterator<Item = &String> {
        self.hints.values()
    }

    /// True for a replica in the list that this one was started with.
    pub(crate) fn hints(&self, id: u64) -> bool {
        self.hints.contains_key(&id)
    }

    /// The address of a member, or its address in the list of the start.
    pub(crate) fn address(&self, id: u64) -> Option<String> {
        let known = self.look(|now| now.addresses.get(&id).cloned());
        known.or_else(|| self.hints.get(&id).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::three;

    fn now(configs: &[&[u64]], learners: &[u64]) -> Membership {
        let configs: Vec<BTreeSet<u64>> =
            configs.iter().map(|ids| ids.iter().copied().collect()).collect();
        let replicas = configs.iter().flatten().chain(learners).copied();
        let addresses = replicas.map(|id| (id, format!("log:{id}"))).collect();
        Membership { begun: true, at: (1, 7), configs, addresses }
    }

    #[test]
    fn both_majorities_decide_while_a_change_is_under_way() {
        let joint = now(&[&[1, 2, 3], &[3, 4, 5]], &[]);
        assert!(joint.can_decide(|id| [2, 3, 4].contains(&id)));
        assert!(!joint.can_decide(|id| [1, 2].contains(&id)), "only the old ones");
        assert!(!joint.can_decide(|id| [3, 4, 5].contains(&id)), "only the new ones");
        let even = now(&[&[1, 2, 3, 4]], &[5]);
        assert!(!even.can_decide(|id| [1, 2, 5].contains(&id)), "half is none, a learner no voter");
        assert!(even.can_decide(|id| id != 4));
    }

    #[test]
    fn the_log_goes_before_the_hints_and_the_own_addresses_before_the_logs() {
        let members = Members::new(&three());
        assert!(members.look(|now| now.is_voter(123) && !now.begun));
        assert!(members.now().roster().voters.is_empty(), "hints are not passed on");
        members.set(Membership::default());
        assert!(members.look(|now| !now.begun), "an engine without a log says nothing");
        members.set(now(&[&[345, 789]], &[890]));
        assert!(members.look(|now| !now.is_member(123) && now.is_member(890)));
        assert_eq!(members.address(345).as_deref(), Some("127.0.0.1:1116"));
        assert_eq!(members.address(789).as_deref(), Some("log:789"));
        let roster = members.now().roster();
        let ids = |peers: &[Peer]| peers.iter().map(|peer| peer.id).collect::<Vec<_>>();
        assert_eq!((ids(&roster.voters), ids(&roster.learners)), (vec![345, 789], vec![890]));
        assert_eq!(roster.at, (1, 7));
    }
}
