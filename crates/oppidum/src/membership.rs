//! The members of a store as its status shows them: the voters, the learners, and how many voters
//! may be down.

use wire::status::{ProcessStatus, StoreStatus};

/// One replica as a row of `oppidum ctl member list`.
pub(crate) fn row(
    replica: &ProcessStatus,
    store: &StoreStatus,
    known: Option<&ProcessStatus>,
) -> String {
    let id = replica.id.unwrap_or(0);
    let name = if store.leader == Some(id) { format!("{id} *") } else { id.to_string() };
    let has = |ids: Option<&Vec<u64>>| ids.is_some_and(|ids| ids.contains(&id));
    let votes = match known {
        Some(known) if has(known.voters.as_ref()) => "yes",
        Some(known) if has(known.learners.as_ref()) => "not yet",
        Some(_) => "no",
        None => "?",
    };
    let newest = store.processes.iter().filter_map(|process| process.applied_index).max();
    let state = match (&replica.error, replica.applied_index.zip(newest)) {
        (Some(error), _) => error.clone(),
        (None, _) if store.leader == Some(id) => "leads".into(),
        (None, Some((own, newest))) => match newest.saturating_sub(own) {
            // Without a leader a replica that is down may hold acknowledged orders missing here.
            0 if store.leader.is_none() => format!("has entry {own}, the newest that is reached"),
            0 => "has everything".into(),
            behind => format!("{behind} entries behind"),
        },
        (None, None) => "does not say".into(),
    };
    format!("{name:<12} {:<21} {votes:<8} {state}", replica.address)
}

/// The replica whose view of the members counts: the leader, or the one with the newest entry.
pub(crate) fn members(store: &StoreStatus) -> Option<&ProcessStatus> {
    let says = |process: &&ProcessStatus| process.voters.as_ref().is_some_and(|v| !v.is_empty());
    let all = || store.processes.iter().filter(says);
    let leader = all().find(|process| process.id == store.leader);
    leader.or_else(|| all().max_by_key(|process| (process.term, process.applied_index)))
}

/// A line about the number of voters and how many may be down.
pub(crate) fn summary(store: &StoreStatus) -> String {
    let Some(known) = members(store) else { return "no replica says who they are".into() };
    let voters = known.voters.as_ref().map_or(0, Vec::len);
    let learners = known.learners.as_deref().unwrap_or_default();
    let learners = learners.iter().map(|id| format!("{id} receives the log and does not vote yet"));
    let lacking = lacking(store, known.voters.as_deref().unwrap_or_default());
    [counted(voters)].into_iter().chain(lacking).chain(learners).collect::<Vec<_>>().join("; ")
}

/// Under load every follower is a few entries behind; beyond this lag a replica counts as lagging.
const LAG_MAX: u64 = 64;

/// The voters that are unreachable or lag, and how many more may be down.
fn lacking(store: &StoreStatus, voters: &[u64]) -> Option<String> {
    let newest = store.processes.iter().filter_map(|process| process.applied_index).max()?;
    let trouble = |id: &u64| {
        let replica = store.processes.iter().find(|process| process.id == Some(*id));
        match replica.map(|replica| (&replica.error, replica.applied_index)) {
            Some((None, Some(own))) => {
                let behind = newest.saturating_sub(own);
                (LAG_MAX < behind).then(|| format!("{id} is {behind} entries behind"))
            }
            _ => Some(format!("{id} cannot be asked")),
        }
    };
    let troubles: Vec<String> = voters.iter().filter_map(trouble).collect();
    let spare = voters.len() - (voters.len() / 2 + 1).min(voters.len());
    let more = match spare.checked_sub(troubles.len()) {
        Some(0) => "no other may be down now".into(),
        Some(more) => format!("{more} more may be down now"),
        None => "too many for a majority".into(),
    };
    (!troubles.is_empty()).then(|| format!("{}: {more}", troubles.join(", ")))
}

/// The voters by the leader's view.
pub(crate) fn voters(store: &StoreStatus) -> Vec<u64> {
    members(store).and_then(|known| known.voters.clone()).unwrap_or_default()
}

/// How many replicas vote, are needed, and may be down.
pub(crate) fn counted(voters: usize) -> String {
    let needed = voters / 2 + 1;
    let spare = voters - needed.min(voters);
    match voters {
        1 => "1 replica votes: none may be down".into(),
        even if even.is_multiple_of(2) => format!(
            "{even} replicas vote, an even number: {needed} are needed and {spare} may be down, as \
             with {}",
            even - 1
        ),
        odd => format!("{odd} replicas vote: {needed} are needed and {spare} may be down"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_or_lagging_voter_is_named() {
        let replica = |id, applied| ProcessStatus {
            role: "order".into(),
            id: Some(id),
            applied_index: Some(applied),
            voters: Some(vec![1, 2, 3]),
            ..ProcessStatus::default()
        };
        let away = |id| ProcessStatus {
            id: Some(id),
            error: Some("no process listens".into()),
            ..ProcessStatus::default()
        };
        let summary =
            |processes: Vec<ProcessStatus>| summary(&StoreStatus { leader: Some(1), processes });
        let well = summary(vec![replica(1, 100), replica(2, 100), replica(3, 36)]);
        assert_eq!(well, "3 replicas vote: 2 are needed and 1 may be down");
        let lags = summary(vec![replica(1, 100), replica(2, 100), replica(3, 35)]);
        assert!(lags.ends_with("; 3 is 65 entries behind: no other may be down now"), "{lags}");
        let two = summary(vec![replica(1, 100), away(2), replica(3, 35)]);
        assert!(
            two.ends_with("2 cannot be asked, 3 is 65 entries behind: too many for a majority")
        );
    }

    /// Kind: a replica that may lack acknowledged orders and is shown as complete.
    #[test]
    fn without_a_leader_no_replica_is_shown_as_complete() {
        let replica = ProcessStatus {
            id: Some(3),
            applied_index: Some(7),
            voters: Some(vec![1, 2, 3]),
            ..ProcessStatus::default()
        };
        let state = |leader| {
            let store = StoreStatus { leader, processes: vec![replica.clone()] };
            row(&replica, &store, members(&store))
        };
        assert!(state(Some(1)).ends_with("has everything"));
        assert!(state(None).ends_with("has entry 7, the newest that is reached"));
    }

    #[test]
    fn an_even_number_of_voters_is_pointed_out() {
        assert!(counted(3).contains("2 are needed and 1 may be down"));
        let four = counted(4);
        assert!(four.contains("even number") && four.ends_with("as with 3"), "{four}");
        assert!(counted(2).contains("0 may be down, as with 1"));
        assert!(counted(1).contains("none"));
    }
}
