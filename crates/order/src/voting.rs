//! Voting report: the leader's view of the voters, for itself and the followers; a log that does
//! not move is logged for the operator.
//!
//! Ten times a second the leader looks at its followers. The report goes over the held streams, for
//! [readiness](crate::readiness), and so that the next leader knows what each voter has
//! acknowledged.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::proto;

use crate::disk_space::{DiskSpace, Level};
use crate::identity::Identity;
use crate::log_end::Acknowledged;
use crate::membership::{Members, Membership};
use crate::peers::{PeerView, Peers};
use crate::raft::engine::Engine;
use crate::readiness::{StuckLogs, Voter, Voting};
use crate::role::{Reach, Role};
use crate::starts::MetStart;
use crate::takeover::Takeover;

/// How often the leader looks.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// An unchanged report is repeated after this.
const REPEAT_INTERVAL: Duration = Duration::from_millis(500);

/// A leader's report is believed for this long.
pub(crate) const VOTING_VALID: Duration = Duration::from_millis(1_500);

/// A leader's report, on its way to the followers; `None` while this replica does not lead.
pub(crate) type VotingReport = Option<proto::Voting>;

/// Looks at the followers while this replica leads.
#[derive(Debug)]
pub(crate) struct Watch {
    identity: Arc<Identity>,
    engine: Engine,
    peers: Peers,
    members: Members,
    disk_space: DiskSpace,
    role: watch::Receiver<Role>,
}

impl Watch {
    /// A watch over the followers, with the parts of a leader.
    pub(crate) fn new(
        identity: Arc<Identity>,
        takeover: Takeover,
        role: watch::Receiver<Role>,
    ) -> Self {
        let Takeover { engine, peers, members, disk_space, .. } = takeover;
        Self { identity, engine, peers, members, disk_space, role }
    }

    /// Looks and reports, until `stop`.
    pub(crate) async fn run(self, sender: watch::Sender<VotingReport>, stop: CancellationToken) {
        let mut stuck = StuckLogs::default();
        let mut reported_at = Instant::now();
        let mut table = self.peers.watch();
        loop {
            table.mark_unchanged();
            let now = Instant::now();
            let role = *self.role.borrow();
            let report = match role {
                Role::Leading { term } => Some(self.look(term, &mut stuck, now)),
                _ => {
                    stuck = StuckLogs::default();
                    None
                }
            };
            let is_due = REPEAT_INTERVAL <= now - reported_at;
            let is_sent = sender.send_if_modified(|last| {
                let is_new = *last != report;
                last.clone_from(&report);
                is_new || (is_due && report.is_some())
            });
            reported_at = if is_sent { now } else { reported_at };
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                // What a replica acknowledged before it died is noted, and reported to the others,
                // before it can be back with an older log.
                changed = table.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    fn look(&self, term: u64, stuck: &mut StuckLogs, now: Instant) -> proto::Voting {
        let marks = self.engine.marks();
        let table = self.peers.now();
        let me = self.engine.id();
        let last = marks.last.0;
        let committed = marks.committed.0;
        let voters = self.members.look(Membership::voters);
        stuck.retain(|id| table.contains_key(&id));
        let mut voting = Voting { term, committed, voters: Vec::new() };
        let mut report = proto::Voting { term, committed, voters: Vec::new() };
        for id in voters {
            let matched = marks.matched.get(&id).copied().flatten();
            let at = if id == me { last } else { matched.map_or(0, |(_, _, index)| index) };
            let behind = last.saturating_sub(at);
            let peer = table.get(&id).copied();
            let voter = match peer {
                Some(PeerView { reach, full, .. }) => {
                    Voter { id, up: reach == Reach::Up, full, behind }
                }
                None => {
                    let full = self.disk_space.level() != Level::Normal;
                    Voter { id, up: id == me, full, behind: 0 }
                }
            };
            let may_move = voter.up && !voter.full && !self.peers.is_installing(id);
            if let Some(line) = stuck.look((id, may_move), at, behind, now) {
                tracing::error!("{line}");
            }
            let acknowledged = Acknowledged::to_leader(term, matched, committed);
            let met = self.identity.met(id);
            let is_known = id != me && matched.is_some();
            report.voters.push(proto::Voter {
                id,
                up: voter.up,
                full: voter.full,
                behind,
                acknowledged: is_known.then(|| acknowledged.into()),
                met: met.as_ref().and_then(MetStart::out),
            });
            if is_known {
                self.peers.note_acknowledged(id, met, acknowledged);
            }
            voting.voters.push(voter);
        }
        self.peers.set_voting(me, voting);
        report
    }
}

/// Takes over the report of the leader `from` about the voters.
pub(crate) fn take_over(from: u64, report: &proto::Voting, identity: &Identity, peers: &Peers) {
    let starts = report.voters.iter().filter_map(|voter| Some((voter.id, voter.met?)));
    identity.learn_starts(starts);
    let me = identity.id();
    for voter in report.voters.iter().filter(|voter| voter.id != me) {
        // Acknowledged to this leader, or to an earlier one.
        if let Some(acknowledged) = voter.acknowledged.filter(|known| known.term <= report.term) {
            let start = voter.met.map(Into::into);
            peers.note_acknowledged(voter.id, start, acknowledged.into());
        }
    }
    let decode = |voter: &proto::Voter| {
        let proto::Voter { id, up, full, behind, .. } = *voter;
        Voter { id, up, full, behind }
    };
    let voters = report.voters.iter().map(decode).collect();
    peers.set_voting(from, Voting { term: report.term, committed: report.committed, voters });
}
