//! Handover: passes leadership on without an election timeout: when the operator asks, or to a
//! higher replica that is back.
//!
//! First no new entry leaves for the log; requests wait in the queue. Then the entries in flight
//! land, and the successor receives every entry. Only then does the engine ask the successor to
//! stand: an engine that has asked takes no writes and sends no heartbeats until another replica
//! leads (openraft's `proposer/leader.rs`). Therefore a replica that is unreachable or lags is
//! never asked. The queued requests are sent to the successor, with their keys.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::batcher::Batcher;
use crate::role::{Reach, Role, VoterView};
use crate::takeover::Takeover;
use crate::transfer::Pause;

/// Within this the entries in flight must have landed, and the successor must have them; else
/// nothing changes.
const LANDING_TIMEOUT: Duration = Duration::from_millis(500);

/// The successor leads within this, or the ordinary timeouts choose a leader.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the landing is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

impl Takeover {
    /// Hands over to `to`. The error says why it did not, for the operator; then this replica leads
    /// on.
    pub(crate) async fn hand_over(
        &self,
        to: u64,
        role: &watch::Sender<Role>,
        batcher: &Batcher,
    ) -> Result<Pause, String> {
        let me = self.settings.id;
        let now = *role.borrow();
        let Role::Leading { term } = now else {
            return Err(match now.leader(me) {
                Some(leader) => format!("replica {me} does not lead, {leader} does"),
                None => "a leader is being chosen: ask again in a moment".into(),
            });
        };
        if to == me {
            return Ok(Pause(Duration::ZERO));
        }
        self.check(to)?;
        let began = Instant::now();
        role.send_replace(Role::TakingOver { term });
        while !(batcher.is_idle() && self.voter_views().iter().any(|r| r.id == to && r.caught_up()))
        {
            if LANDING_TIMEOUT < began.elapsed() {
                role.send_replace(now);
                return Err(format!("replica {to} did not catch up within {LANDING_TIMEOUT:?}"));
            }
            if self.engine.leader().leader != Some(me) {
                return Err("another leader was chosen meanwhile: ask again".into());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        tracing::info!(peer = to, "handing over to {to}");
        self.engine.hand_over(to).await;
        self.engine.await_other_leader(me, TAKEOVER_TIMEOUT).await;
        match self.engine.leader().leader {
            Some(leader) if leader == to => Ok(Pause(began.elapsed())),
            Some(leader) if leader != me => Err(format!("replica {leader} leads, not {to}")),
            _ => Err(format!(
                "replica {to} did not take over within {TAKEOVER_TIMEOUT:?}; the replicas choose \
                 by themselves: see `oppidum status`"
            )),
        }
    }

    /// Says why `to` cannot lead, if it cannot.
    pub(crate) fn check(&self, to: u64) -> Result<(), String> {
        let voter_views = self.voter_views();
        let Some(voter) = voter_views.iter().find(|voter| voter.id == to) else {
            if self.members.look(|now| now.is_member(to) && !now.is_voter(to)) {
                return Err(format!("replica {to} has no vote yet: let `ctl member add` end"));
            }
            let ids = self.members.look(crate::membership::Membership::voters);
            let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
            return Err(format!("there is no replica {to}: there are {}", ids.join(", ")));
        };
        if self.peers.now().get(&to).is_some_and(|peer| peer.full) {
            return Err(format!("the disk of replica {to} is full: free some space first"));
        }
        if voter.reach != Reach::Up {
            return Err(format!("replica {to} is not reachable: start it first"));
        }
        match voter.lag {
            Some(lag) if lag <= VoterView::LAG_MAX => Ok(()),
            Some(lag) => Err(format!("replica {to} is {lag} entries behind: ask again later")),
            None => Err(format!("replica {to} has not caught up yet: ask again later")),
        }
    }
}
