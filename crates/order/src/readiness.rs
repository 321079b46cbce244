//! Readiness: whether a replica takes its share now, and whether one more of the others may be
//! stopped.
//!
//! The leader sends each follower the health of the voters: which are reachable, and how far each
//! log is behind. A replica is ready when it knows the leader, has applied what the leader reported
//! as committed, is healthy by the leader's report, and at least one voter more than a majority is
//! healthy. So a script that restarts replica after replica, and waits for each to be ready, never
//! takes the majority away.
//!
//! The cores here are pure: [`readiness`] decides, [`StuckLogs`] finds a log that does not move.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::role::VoterView;

/// A voter as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Voter {
    pub(crate) id: u64,
    /// The stream held to it is open.
    pub(crate) up: bool,
    /// Its disk is full.
    pub(crate) full: bool,
    /// How many entries its log is behind the leader's.
    pub(crate) behind: u64,
}

/// The health of the voters, by their leader's report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Voting {
    /// The leader's term.
    pub(crate) term: u64,
    /// The last entry that is committed.
    pub(crate) committed: u64,
    pub(crate) voters: Vec<Voter>,
}

/// The facts that readiness depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    /// This replica.
    pub(crate) id: u64,
    /// The leader, if one is known.
    pub(crate) leader: Option<u64>,
    /// The last entry that is applied here.
    pub(crate) applied: u64,
    /// The voters: two sets while they change.
    pub(crate) configs: &'a [BTreeSet<u64>],
    /// The latest report of this leader.
    pub(crate) voting: Option<&'a Voting>,
}

impl Voter {
    /// Why it does not count as healthy.
    fn trouble(&self) -> Option<String> {
        let Self { id, up, full, behind } = *self;
        match () {
            () if !up => Some(format!("{id} is away")),
            () if full => Some(format!("the disk of {id} is full")),
            () if VoterView::LAG_MAX < behind => Some(format!("{id} is {behind} entries behind")),
            () => None,
        }
    }
}

/// Whether the replica is ready; the error says in one line why not.
pub(crate) fn readiness(now: &Situation<'_>) -> Result<(), String> {
    let Situation { id, leader, applied, configs, voting } = *now;
    let Some(leader) = leader else { return Err("no leader is known".into()) };
    let Some(voting) = voting else {
        return Err(format!("the leader, {leader}, has not reported the replicas' health yet"));
    };
    if applied < voting.committed {
        let committed = voting.committed;
        return Err(format!("this replica has applied {applied} of {committed} entries"));
    }
    let troubles: BTreeMap<u64, String> =
        voting.voters.iter().filter_map(|voter| Some((voter.id, voter.trouble()?))).collect();
    if let Some(own) = troubles.get(&id) {
        return Err(format!("{own}, says the leader, {leader}"));
    }
    let is_well =
        |id: &u64| voting.voters.iter().any(|v| v.id == *id) && !troubles.contains_key(id);
    for config in configs {
        let needed = (config.len() / 2 + 2).min(config.len());
        if config.iter().filter(|id| is_well(id)).count() < needed {
            let unknown = |id: &u64| format!("{id} is not known to the leader");
            let missing = config.iter().filter(|id| !is_well(id));
            let missing =
                missing.map(|id| troubles.get(id).cloned().unwrap_or_else(|| unknown(id)));
            let missing = missing.collect::<Vec<_>>().join(", ");
            return Err(format!("{missing}: stop no other replica"));
        }
    }
    Ok(())
}

/// A log that is behind and has not moved for this long does not move by itself.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Finds followers that are reachable, are behind, and do not catch up.
#[derive(Debug, Default)]
pub(crate) struct StuckLogs {
    positions: BTreeMap<u64, LogPosition>,
}

#[derive(Debug)]
struct LogPosition {
    at: u64,
    since: Instant,
    is_logged: bool,
}

impl StuckLogs {
    /// Follower `id` has acknowledged up to `at`. `may_move`: it is reachable, its disk has space,
    /// and it is not being sent a snapshot. Returns a log line, once, when it is found not to move.
    pub(crate) fn look(
        &mut self,
        (id, may_move): (u64, bool),
        at: u64,
        behind: u64,
        now: Instant,
    ) -> Option<String> {
        if !may_move || behind == 0 {
            self.positions.remove(&id);
            return None;
        }
        let position =
            self.positions.entry(id).or_insert(LogPosition { at, since: now, is_logged: false });
        if position.at != at {
            *position = LogPosition { at, since: now, is_logged: false };
        }
        let stuck = STUCK_AFTER <= now.saturating_duration_since(position.since);
        if !stuck || std::mem::replace(&mut position.is_logged, true) {
            return None;
        }
        Some(format!(
            "replica {id} does not catch up: its log has stood at entry {at} for {STUCK_AFTER:?}, \
             {behind} entries behind; read its last lines and start it again; if that does not \
             help, replace it (`oppidum ctl replace`)"
        ))
    }

    /// These are the followers now.
    pub(crate) fn retain(&mut self, is_follower: impl Fn(u64) -> bool) {
        self.positions.retain(|id, _| is_follower(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(id: u64) -> Voter {
        Voter { id, up: true, full: false, behind: 0 }
    }

    fn readiness_of(voters: Vec<Voter>, config: &[u64], id: u64) -> Result<(), String> {
        let voting = Voting { term: 1, committed: 10, voters };
        let configs = [config.iter().copied().collect()];
        let (leader, voting) = (Some(456), Some(&voting));
        readiness(&Situation { id, leader, applied: 10, configs: &configs, voting })
    }

    #[test]
    fn three_replicas_are_ready_only_together() {
        let ids = [123, 345, 456];
        let all = ids.map(voter);
        assert_eq!(readiness_of(all.to_vec(), &ids, 123), Ok(()));
        let with = |other: Voter| ids.map(|id| if id == other.id { other } else { voter(id) });
        let cases = [
            (Voter { up: false, ..voter(345) }, "345 is away: stop no other replica"),
            (Voter { full: true, ..voter(345) }, "the disk of 345 is full: stop no other replica"),
            (Voter { behind: 65, ..voter(345) }, "345 is 65 entries behind: stop no other replica"),
        ];
        for (other, why) in cases {
            assert_eq!(readiness_of(with(other).to_vec(), &ids, 123), Err(why.into()));
        }
        assert_eq!(
            readiness_of(with(Voter { behind: 64, ..voter(345) }).to_vec(), &ids, 123),
            Ok(())
        );
        let unknown = readiness_of(vec![voter(123), voter(456)], &ids, 123);
        assert_eq!(unknown, Err("345 is not known to the leader: stop no other replica".into()));
    }

    #[test]
    fn of_five_replicas_one_may_be_away_and_one_more_may_be_stopped() {
        let ids = [1, 2, 3, 4, 5];
        let away = |count: usize| {
            let up = |(place, id)| Voter { up: count <= place, ..voter(id) };
            ids.into_iter().enumerate().map(up).collect::<Vec<_>>()
        };
        assert_eq!(readiness_of(away(1), &ids, 5), Ok(()));
        let two = readiness_of(away(2), &ids, 5);
        assert_eq!(two, Err("1 is away, 2 is away: stop no other replica".into()));
        let own = readiness_of(vec![voter(1), voter(2), voter(3), voter(4)], &ids, 5);
        assert_eq!(own, Ok(()), "four of five");
        let mut behind = ids.map(voter);
        behind[4].behind = 70;
        let why = readiness_of(behind.to_vec(), &ids, 5);
        assert_eq!(why, Err("5 is 70 entries behind, says the leader, 456".into()));
    }

    #[test]
    fn stores_of_one_or_two_replicas_are_ready_only_with_all_of_them() {
        assert_eq!(readiness_of(vec![voter(1)], &[1], 1), Ok(()));
        assert_eq!(readiness_of(vec![voter(1), voter(2)], &[1, 2], 1), Ok(()));
        assert!(readiness_of(vec![voter(1)], &[1, 2], 1).is_err());
    }

    #[test]
    fn a_replica_without_a_leader_or_with_less_than_is_committed_is_not_ready() {
        let voting = Voting { term: 1, committed: 10, voters: vec![voter(1)] };
        let configs = [BTreeSet::from([1])];
        let now = Situation {
            id: 1,
            leader: Some(1),
            applied: 10,
            configs: &configs,
            voting: Some(&voting),
        };
        assert_eq!(readiness(&now), Ok(()));
        assert!(readiness(&Situation { leader: None, ..now }).is_err());
        assert!(readiness(&Situation { voting: None, ..now }).is_err());
        let why = readiness(&Situation { applied: 9, ..now });
        assert_eq!(why, Err("this replica has applied 9 of 10 entries".into()));
    }

    #[test]
    fn a_log_that_stands_still_behind_the_leaders_is_reported_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stuck = StuckLogs::default();
        let here = (123, true);
        assert_eq!(stuck.look(here, 50, 1, at(0)), None);
        assert_eq!(stuck.look(here, 51, 10, at(9)), None, "it moves");
        assert_eq!(stuck.look(here, 51, 20, at(18)), None);
        let line = stuck.look(here, 51, 30, at(19)).unwrap();
        assert!(line.contains("at entry 51") && line.contains("30 entries behind"), "{line}");
        assert_eq!(stuck.look(here, 51, 40, at(60)), None, "once");
        assert_eq!(stuck.look((123, false), 51, 40, at(61)), None, "it is away");
        assert_eq!(stuck.look(here, 51, 40, at(70)), None);
        assert!(stuck.look(here, 51, 40, at(80)).is_some(), "and again after a change");
    }
}
