//! Membership changes: adds and removes replicas while the store is open; here are the leader's
//! checks and their order.
//!
//! A new replica first receives the log without a vote, so that it delays no commit, and votes once
//! it has caught up. A removal is refused when the remaining replicas could not go on. A leader
//! that is to be removed hands the lead over first. Only one change is made at a time; a change
//! that a dead leader left half done is ended by its successor.

use std::sync::Arc;
use std::time::Duration;

use ledger::operator_action::{OperatorAction, ReplicaAddress};
use ledger::shop::ShopState;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::problem::{Code, Problem};
use wire::proto::Adding;
use wire::status::{self, ProcessStatus};

use crate::announcement::{Announcements, Announcer, MEMBERS_TIMEOUT};
use crate::config::{REPLICA_ID_MAX, REPLICAS_MAX};
use crate::identity::Identity;
use crate::membership::{Members, Membership};
use crate::raft::change_membership::NotChanged;
use crate::raft::engine::Engine;
use crate::role::{Reach, Role, VoterView};
use crate::takeover::Takeover;
use crate::transfer::TransferRequest;

/// How long the new replica may take to report its status.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a fresh leader waits for healthy voters, before it reports that they are not healthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the progress of the new replica is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The operator gets a report after this many looks.
const LOOKS_PER_REPORT: u32 = 5;

/// How often a leader looks for a change that a dead leader left half done.
const INTERRUPTED_LOOK: Duration = Duration::from_millis(500);

/// What changing the members needs.
#[derive(Clone, Debug)]
pub(crate) struct MembershipChange {
    pub(crate) takeover: Takeover,
    pub(crate) identity: Arc<Identity>,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) transfers: mpsc::Sender<TransferRequest>,
    /// Held while a change is under way.
    pub(crate) turn: Arc<Mutex<()>>,
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Not now, or not here: ask again.
    Later(String),
    /// The operator has to do something else first.
    No(String),
}

impl From<String> for Denied {
    fn from(why: String) -> Self {
        Self::No(why)
    }
}

/// A change that could not be announced.
impl From<Problem> for Denied {
    fn from(Problem { code, message, .. }: Problem) -> Self {
        let why = format!("it could not be announced in the log: {message}");
        if code == Code::Malformed { Self::No(why) } else { Self::Later(why) }
    }
}

impl From<NotChanged> for Denied {
    fn from(why: NotChanged) -> Self {
        match why {
            NotChanged::Elsewhere => Self::Later(why.to_string()),
            _ => Self::No(why.to_string()),
        }
    }
}

/// The result of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// The replica is no member any more; this many replicas vote.
    Removed(usize),
    /// The removed replica led, and this one leads now: repeat the request there.
    Ask(u64),
}

impl MembershipChange {
    fn engine(&self) -> &Engine {
        &self.takeover.engine
    }

    pub(crate) fn members(&self) -> &Members {
        &self.takeover.members
    }

    /// Announces what is about to be changed.
    pub(crate) fn announcements(&self) -> Announcements {
        let Self { takeover, identity, role, .. } = self.clone();
        Announcements { takeover, identity, role }
    }

    pub(crate) fn leads(&self) -> Result<(), Denied> {
        let role = *self.role.borrow();
        let me = self.takeover.settings.id;
        match (role, role.leader(me)) {
            (Role::Leading { .. }, _) => Ok(()),
            (_, Some(leader)) => {
                Err(Denied::Later(format!("replica {me} does not lead, {leader} does")))
            }
            (_, None) => Err(Denied::Later("a leader is being chosen".into())),
        }
    }

    /// Adds a replica, and reports its progress; returns when it votes.
    pub(crate) async fn add(
        &self,
        (id, address): (u64, &str),
        by: &Announcer,
        progress: &mpsc::Sender<Adding>,
    ) -> Result<(), Denied> {
        self.leads()?;
        let _turn = self.turn.try_lock().map_err(|_| NotChanged::Busy)?;
        let now = self.members().now();
        may_add(&now, &self.identity.removals().borrow(), id, address)?;
        if !now.is_voter(id) {
            let known = now.is_member(id);
            let found = self.probe(id, address).await.map_err(|why| {
                let begin = "start it first, with an empty folder";
                format!("{why}; {begin}: `oppidum order --id {id} --orders LIST --join`")
            })?;
            may_join(&found, known, id, address)?;
            let action = adding(id, address)?;
            self.announcements().announce(action, by, MEMBERS_TIMEOUT).await?;
            if !known {
                self.engine().add_learner(id, address).await?;
                tracing::info!(peer = id, "replica {id} at {address} is added, without a vote");
            }
            self.catch_up(id, address, progress).await?;
            self.engine().promote(id).await?;
            tracing::info!(peer = id, "replica {id} votes");
        }
        let voters =
            u32::try_from(self.members().look(Membership::voters).len()).unwrap_or(u32::MAX);
        // An operator that has hung up sees it in the status.
        let _ = progress.send(Adding { done: true, voters, ..Adding::default() }).await;
        Ok(())
    }

    /// Waits until a learner lags by at most [`VoterView::LAG_MAX`] entries.
    async fn catch_up(
        &self,
        id: u64,
        address: &str,
        progress: &mpsc::Sender<Adding>,
    ) -> Result<(), Denied> {
        let mut look = 0_u32;
        loop {
            self.leads()?;
            let marks = self.engine().marks();
            let matched = marks.matched.get(&id).copied().flatten();
            let has = matched.map_or(0, |(_, _, index)| index);
            let behind = marks.last.0.saturating_sub(has);
            if matched.is_some() && behind <= VoterView::LAG_MAX {
                return Ok(());
            }
            if look.is_multiple_of(LOOKS_PER_REPORT) {
                let theirs =
                    self.probe(id, address).await.ok().and_then(|found| found.next_order_number);
                let ours = self.takeover.view.read(ShopState::next_order_number).0;
                let orders_behind = ours.saturating_sub(theirs.unwrap_or(0));
                let entries_behind = behind;
                let adding = Adding { entries_behind, orders_behind, ..Adding::default() };
                if progress.send(adding).await.is_err() {
                    // The operator has gone: the replica stays a learner until it is added again.
                    return Err(Denied::Later("the operator's connection has closed".into()));
                }
            }
            look += 1;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Removes a replica, or hands over if it is this one.
    pub(crate) async fn remove(&self, id: u64, by: &Announcer) -> Result<Removal, Denied> {
        self.leads()?;
        let _turn = self.turn.try_lock().map_err(|_| NotChanged::Busy)?;
        let now = self.members().now();
        let votes = now.is_voter(id);
        if !now.is_member(id) {
            if self.identity.removals().borrow().contains(&id) {
                return Ok(Removal::Removed(now.voters().len()));
            }
            let all = list(&now);
            return Err(Denied::No(format!("there is no replica {id}: there are {all}")));
        }
        let me = self.takeover.settings.id;
        if votes {
            self.await_health(&now, id).await?;
        }
        let action = OperatorAction::RemoveReplica { id };
        self.announcements().announce(action, by, MEMBERS_TIMEOUT).await?;
        if id == me {
            let voter_views = self.takeover.voter_views();
            let healthy =
                voter_views.iter().filter(|voter| is_healthy(voter)).map(|voter| voter.id);
            let Some(to) = healthy.max() else {
                let why = "no other replica could lead: see `oppidum status`";
                return Err(Denied::No(why.into()));
            };
            return self.hand_over(to).await.map(|()| Removal::Ask(to));
        }
        self.engine().dismiss(id, votes).await?;
        tracing::info!(peer = id, "replica {id} is removed");
        Ok(Removal::Removed(self.members().look(Membership::voters).len()))
    }

    /// Waits until a voter can be removed; says why not after [`HEALTH_TIMEOUT`], for a fresh
    /// leader has not heard from every voter yet.
    async fn await_health(&self, now: &Membership, id: u64) -> Result<(), Denied> {
        let me = self.takeover.settings.id;
        let began = Instant::now();
        loop {
            self.leads()?;
            match may_remove(now, me, id, &self.takeover.voter_views()) {
                Err(why) if HEALTH_TIMEOUT <= began.elapsed() => return Err(Denied::No(why)),
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn hand_over(&self, to: u64) -> Result<(), Denied> {
        let (reply, answer) = oneshot::channel();
        let no_longer_leads = || Denied::Later("the lead is changing".into());
        self.transfers.send(TransferRequest { to, reply }).await.map_err(|_| no_longer_leads())?;
        answer.await.map_err(|_| no_longer_leads())??;
        Ok(())
    }

    /// Asks the new replica for its status.
    async fn probe(&self, id: u64, address: &str) -> Result<ProcessStatus, String> {
        status::fetch(&self.identity.route(id), address, PROBE_TIMEOUT).await
    }

    /// Ends a change that a dead leader left half done, while this replica leads, until `stop`.
    pub(crate) async fn end_interrupted(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERRUPTED_LOOK) => {}
                () = stop.cancelled() => return,
            }
            let is_joint = self.members().look(|now| 1 < now.configs.len());
            if !is_joint || self.leads().is_err() {
                continue;
            }
            let Ok(_turn) = self.turn.try_lock() else { continue };
            if let Err(why) = self.engine().end_change().await {
                tracing::debug!("the change of the members is not ended yet: {why}");
            }
        }
    }
}

/// The action of adding a replica.
fn adding(id: u64, address: &str) -> Result<OperatorAction, String> {
    let odd = || format!("{address} is no address of a replica");
    let address = ReplicaAddress::new(address).ok_or_else(odd)?;
    Ok(OperatorAction::AddReplica { id, address })
}

/// Checks the members; says why a replica cannot be added.
fn may_add(
    now: &Membership,
    removed: &std::collections::BTreeSet<u64>,
    id: u64,
    address: &str,
) -> Result<(), String> {
    if id == 0 {
        return Err("0 is no replica id: ids start at 1".into());
    }
    if REPLICA_ID_MAX < id {
        return Err(format!("{id} is no replica id: give a smaller number"));
    }
    if removed.contains(&id) {
        return Err(format!(
            "replica {id} belonged to this store before, and an id is never used again: choose \
             another"
        ));
    }
    if let Some(at) = now.addresses.get(&id).filter(|at| **at != address) {
        return Err(format!(
            "replica {id} is a member already, at {at}: give that address, or choose another id \
             for another replica"
        ));
    }
    let there = now.addresses.iter().find(|(other, at)| **other != id && *at == address);
    if let Some((other, _)) = there {
        return Err(format!("replica {other} is at {address} already"));
    }
    if !now.is_voter(id) && REPLICAS_MAX <= now.voters().len() {
        return Err(format!("a store has at most {REPLICAS_MAX} replicas: remove one first"));
    }
    Ok(())
}

/// Checks a process's status; says why it is not the new replica.
fn may_join(found: &ProcessStatus, known: bool, id: u64, address: &str) -> Result<(), String> {
    if found.role != "order" || found.id != Some(id) {
        let what = match (&*found.role, found.id) {
            ("order", Some(other)) => format!("replica {other}"),
            (role, _) => format!("a process of another kind ({role})"),
        };
        return Err(format!("at {address} is {what}, not replica {id}: check the address"));
    }
    if !known && found.voters.as_ref().is_some_and(|voters| !voters.is_empty()) {
        return Err(format!(
            "replica {id} at {address} has a log of another store: stop it, empty its data \
             folder, and start it with --join"
        ));
    }
    Ok(())
}

/// Says why a voter cannot be removed: the remaining voters must be able to decide.
fn may_remove(now: &Membership, me: u64, id: u64, views: &[VoterView]) -> Result<(), String> {
    let mut left = now.voters();
    left.remove(&id);
    let healthy = |other: u64| {
        other == me || views.iter().any(|voter| voter.id == other && is_healthy(voter))
    };
    let sick: Vec<String> =
        left.iter().filter(|other| !healthy(**other)).map(u64::to_string).collect();
    let well = left.len() - sick.len();
    let needed = left.len() / 2 + 1;
    if left.is_empty() {
        return Err(format!("replica {id} is the only one: a store needs one"));
    }
    if well < needed {
        return Err(format!(
            "without {id} the store would have {} replicas and need {needed} of them, but {} not \
             healthy: bring {} back first, or add another",
            left.len(),
            match &*sick {
                [one] => format!("{one} is"),
                many => format!("{} are", many.join(", ")),
            },
            if sick.len() == 1 { "it" } else { "them" },
        ));
    }
    Ok(())
}

fn is_healthy(voter: &VoterView) -> bool {
    voter.reach == Reach::Up && voter.lag.is_some_and(|lag| lag <= VoterView::LAG_MAX)
}

fn list(now: &Membership) -> String {
    now.addresses.keys().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn now(voters: &[u64]) -> Membership {
        let addresses = voters.iter().map(|id| (*id, format!("host:{id}"))).collect();
        Membership {
            begun: true,
            at: (1, 1),
            configs: vec![voters.iter().copied().collect()],
            addresses,
        }
    }

    fn voter(id: u64, reach: Reach) -> VoterView {
        VoterView { id, reach, lag: Some(0), lost: false }
    }

    #[test]
    fn a_replica_that_cannot_be_added_gets_the_reason() {
        let three = now(&[1, 2, 3]);
        let removed = BTreeSet::from([9]);
        let refused = |id, address| may_add(&three, &removed, id, address).unwrap_err();
        assert!(may_add(&three, &removed, 4, "host:4").is_ok());
        assert!(may_add(&three, &removed, 3, "host:3").is_ok(), "asked again");
        assert!(refused(9, "host:9").contains("never used again"));
        assert!(refused(4, "host:3").contains("replica 3 is at"));
        assert!(refused(3, "host:4").contains("replica 3 is a member already, at host:3"));
        assert!(refused(3, "host:2").contains("at host:3"));
        assert!(refused(0, "host:0").contains("start at 1"));
        let seven = now(&[1, 2, 3, 4, 5, 6, 7]);
        assert!(may_add(&seven, &removed, 8, "host:8").unwrap_err().contains("at most 7"));
        assert!(may_add(&seven, &removed, 3, "host:3").is_ok(), "asked again of a full store");
        let found = ProcessStatus { role: "order".into(), id: Some(4), ..ProcessStatus::default() };
        assert!(may_join(&found, false, 4, "a").is_ok());
        assert!(may_join(&found, false, 5, "a").unwrap_err().contains("is replica 4"));
        let begun = ProcessStatus { voters: Some(vec![4]), ..found };
        assert!(may_join(&begun, false, 4, "a").unwrap_err().contains("another store"));
        assert!(may_join(&begun, true, 4, "a").is_ok(), "asked again");
    }

    #[test]
    fn a_replica_that_the_quorum_needs_cannot_be_removed() {
        use Reach::{Refused, Up};
        let cases = [
            // All are healthy: one of three may be removed, and one of two as well.
            (vec![1, 2, 3], vec![voter(1, Up), voter(2, Up)], 1, None),
            (vec![2, 3], vec![voter(2, Up)], 2, None),
            (vec![3], vec![], 3, Some("the only one")),
            // The sick replica may be removed, a healthy one not before.
            (vec![1, 2, 3], vec![voter(1, Refused), voter(2, Up)], 1, None),
            (vec![1, 2, 3], vec![voter(1, Refused), voter(2, Up)], 2, Some("1 is not healthy")),
            (
                vec![1, 2, 3, 4, 5],
                vec![voter(1, Refused), voter(2, Refused), voter(4, Up), voter(5, Up)],
                4,
                Some("1, 2 are not healthy"),
            ),
        ];
        for (voters, views, id, why) in cases {
            let answer = may_remove(&now(&voters), 3.min(voters[voters.len() - 1]), id, &views);
            match why {
                None => assert_eq!(answer, Ok(()), "{voters:?} without {id}"),
                Some(why) => {
                    let reason = answer.unwrap_err();
                    assert!(reason.contains(why), "{reason}");
                }
            }
        }
    }
}
