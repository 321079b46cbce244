//! Leadership confirmation: asks a majority, by calls of its own, whether this replica still leads.
//!
//! The engine confirms a read by the time of the followers' last answers. It matches an answer to a
//! request by how far the answer's log reaches. A request without entries, such as a commit notice,
//! reaches no further than the request before it. So the answer to the earlier request, which may
//! have waited in a socket while another replica was elected, passes for an answer to the notice
//! (`InflightAppendQueue::drain_acked`, 0.10.0-alpha.37). Leases rest on this confirmation. Here
//! each question has its own answer (Ongaro, "Consensus: Bridging Theory and Practice", 2014,
//! section 6.4).

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::RaftNetworkV2;
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::state_machine::Raft;
use super::transport::{Link, Transport};
use super::types::Vote;
use crate::membership::is_majority;

/// A read that a majority does not confirm within this is given up.
pub(super) const CONFIRM_MAX: Duration = Duration::from_millis(800);

/// The state on which a replica's claim to lead rests.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    vote: Vote,
    /// The voters: two sets during a membership change.
    configs: Vec<BTreeSet<u64>>,
}

impl Claim {
    /// The claim of replica `id`, if it leads.
    async fn of(raft: &Raft, id: u64) -> Option<Self> {
        let claim = raft.with_raft_state(|state| Self {
            vote: *state.vote_ref(),
            configs: state.membership_state.effective().get_joint_config().clone(),
        });
        let claim = claim.await.ok()?;
        (claim.vote.committed && claim.vote.leader_id.node_id == id).then_some(claim)
    }

    /// True when `agreed` is a majority of each set.
    fn is_upheld_by(&self, agreed: &BTreeSet<u64>) -> bool {
        is_majority(&self.configs, |id| agreed.contains(&id))
    }
}

/// True when a majority, asked after the call began, has not turned to another leader than replica
/// `id`, whose engine `raft` is.
pub(super) async fn is_upheld(raft: &Raft, id: u64, transport: &Transport) -> bool {
    let Some(claim) = Claim::of(raft, id).await else { return false };
    let voters: BTreeSet<u64> = claim.configs.iter().flatten().copied().collect();
    let others = voters.into_iter().filter(|voter| *voter != id);
    let asked = others.filter_map(|voter| Some((voter, transport.beats(voter)?)));
    let mut answers: FuturesUnordered<_> =
        asked.map(|(voter, link)| follows(voter, link, claim.vote)).collect();
    let mut agreed = BTreeSet::from([id]);
    while !claim.is_upheld_by(&agreed) {
        match answers.next().await {
            Some(Some(voter)) => drop(agreed.insert(voter)),
            Some(None) => {}
            None => return false,
        }
    }
    // The own vote counts unless this replica has turned to another leader meanwhile.
    Claim::of(raft, id).await.is_some_and(|now| now.vote == claim.vote)
}

/// The voter's id, if it answers that it follows the leader with this vote.
async fn follows(voter: u64, mut link: Link, vote: Vote) -> Option<u64> {
    let question =
        AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
    let answer = link.append_entries(question, RPCOption::new(CONFIRM_MAX)).await;
    matches!(answer, Ok(AppendEntriesResponse::Success)).then_some(voter)
}

#[cfg(test)]
mod tests {
    use super::super::types::LeaderId;
    use super::*;

    #[test]
    fn a_claim_needs_a_majority_of_each_set() {
        let claim = |configs: &[&[u64]]| Claim {
            vote: Vote { leader_id: LeaderId { term: 1, node_id: 3 }, committed: true },
            configs: configs.iter().map(|ids| ids.iter().copied().collect()).collect(),
        };
        let agreed = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let three = claim(&[&[1, 2, 3]]);
        assert!(!three.is_upheld_by(&agreed(&[3])));
        assert!(!three.is_upheld_by(&agreed(&[3, 4])), "a replica without a vote does not count");
        assert!(three.is_upheld_by(&agreed(&[1, 3])));
        let changing = claim(&[&[1, 2, 3], &[3, 4, 5, 6]]);
        assert!(!changing.is_upheld_by(&agreed(&[1, 2, 3])));
        assert!(!changing.is_upheld_by(&agreed(&[1, 3, 4])), "half is no majority");
        assert!(changing.is_upheld_by(&agreed(&[1, 3, 4, 5])));
        assert!(claim(&[&[3]]).is_upheld_by(&agreed(&[3])), "a single replica is its own majority");
    }
}
