//! The operator's commands for the set of replicas: list, add, remove, replace.
//!
//! These commands go to the leader's internal listener, which they find through a frontend. If the
//! leader changes meanwhile, they go to the next leader; a change that is done is not repeated.

use std::time::{Duration, Instant};

use tonic::{Code, Status};
use wire::exit::Stop;
use wire::net;
use wire::proto::control_client::ControlClient;
use wire::proto::{AddReplica, Adding, RemoveReplica, Removed};
use wire::status::{ProcessStatus, StoreStatus};

use crate::cli::members::{Member, Replace};
use crate::inspect;
use crate::settings::{self, Settings};

/// How long a connection to the leader may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a command looks for a reachable leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

type ControlChannel = ControlClient<tonic::transport::Channel>;

/// `oppidum ctl member`. False: the answer is no.
pub(crate) async fn member(what: Member) -> Result<bool, Stop> {
    let mut settings = Settings::load()?;
    let mut at = |flag| settings.want::<String>(settings::URL, flag);
    match what {
        Member::List(url) => list(&at(url.url)?).await,
        Member::Add { id, address, url } => add(&at(url.url)?, id, &address.0).await,
        Member::Remove { id, url } => remove(&at(url.url)?, id).await,
    }
}

/// `oppidum ctl replace`. False: the answer is no.
pub(crate) async fn replace(what: Replace) -> Result<bool, Stop> {
    let url: String = Settings::load()?.want(settings::URL, what.url.url)?;
    if what.id == what.with {
        return Err(Stop::Setup(
            "a replica is replaced by one with another id: an emptied folder must not come back \
             under the old one"
                .into(),
        ));
    }
    Ok(add(&url, what.with, &what.address.0).await? && remove(&url, what.id).await?)
}

async fn list(url: &str) -> Result<bool, Stop> {
    let store = inspect::fetch(url).await?;
    answer!("{:<12} {:<21} {:<8} state", "replica", "address", "votes");
    let known = members(&store);
    let replicas = store.processes.iter().filter(|process| process.role == "order");
    for replica in replicas {
        answer!("{}", row(replica, &store, known));
    }
    answer!("\n{}", summary(&store));
    Ok(store.leader.is_some())
}

fn row(replica: &ProcessStatus, store: &StoreStatus, known: Option<&ProcessStatus>) -> String {
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
fn members(store: &StoreStatus) -> Option<&ProcessStatus> {
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
fn counted(voters: usize) -> String {
    let (needed, spare) = (voters / 2 + 1, voters - (voters / 2 + 1).min(voters));
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

async fn add(url: &str, id: u64, address: &str) -> Result<bool, Stop> {
    let mut progress = CatchUpReport::new(id);
    let began = Instant::now();
    loop {
        let (leader, mut client) = leader(url, began).await?;
        let request = AddReplica { id, address: address.to_owned() };
        let ended = match client.add(request).await {
            Ok(told) => follow(told.into_inner(), &mut progress).await,
            Err(status) => Err(status),
        };
        match ended {
            Ok(voters) => {
                answer!("{id} votes; {}", counted(voters));
                return Ok(true);
            }
            Err(status) => {
                if let Some(no) = refused(leader, &status, began)? {
                    answer!("{no}");
                    return Ok(false);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Follows the new replica's progress to its end; returns the number of voters then.
async fn follow(
    mut told: tonic::Streaming<Adding>,
    progress: &mut CatchUpReport,
) -> Result<usize, Status> {
    while let Some(adding) = told.message().await? {
        if adding.done {
            return Ok(usize::try_from(adding.voters).unwrap_or(0));
        }
        if let Some(line) = progress.note(&adding, Instant::now()) {
            answer!("{line}");
        }
    }
    Err(Status::unavailable("the leader broke off: ask again"))
}

async fn remove(url: &str, id: u64) -> Result<bool, Stop> {
    let began = Instant::now();
    loop {
        let (leader, mut client) = leader(url, began).await?;
        match client.remove(RemoveReplica { id }).await.map(tonic::Response::into_inner) {
            Ok(Removed { leader: 0, voters }) => {
                let voters = usize::try_from(voters).unwrap_or(0);
                answer!("{id} is removed; {}", counted(voters));
                return Ok(true);
            }
            Ok(Removed { leader, .. }) => answer!("{id} led, {leader} leads now"),
            Err(status) => {
                if let Some(no) = refused(leader, &status, began)? {
                    answer!("{no}");
                    return Ok(false);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Finds the leader, and opens a channel to it.
async fn leader(url: &str, began: Instant) -> Result<(u64, ControlChannel), Stop> {
    loop {
        let store = inspect::fetch(url).await?;
        let mut why = "no replica leads just now: see `oppidum status`".to_owned();
        if let Some(leader) = store.leading() {
            match net::channel(&leader.address, CONNECT).await {
                Ok(channel) => return Ok((leader.id.unwrap_or(0), ControlClient::new(channel))),
                Err(error) => why = format!("the leader cannot be asked: {error}"),
            }
        }
        if PATIENCE < began.elapsed() {
            return Err(Stop::Setup(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Interprets the leader's error: `Some` is an answer for the operator, `None` means try again.
fn refused(leader: u64, status: &Status, began: Instant) -> Result<Option<String>, Stop> {
    match status.code() {
        Code::FailedPrecondition => Ok(Some(status.message().to_owned())),
        _ if began.elapsed() < PATIENCE => Ok(None),
        _ => Err(Stop::Setup(format!("replica {leader} cannot be asked: {}", status.message()))),
    }
}

/// The progress report while a new replica catches up: the pure core.
#[derive(Debug)]
struct CatchUpReport {
    id: u64,
    /// The orders lacking at the first report, and its time.
    from: Option<(u64, Instant)>,
}

impl CatchUpReport {
    fn new(id: u64) -> Self {
        Self { id, from: None }
    }

    fn note(&mut self, adding: &Adding, now: Instant) -> Option<String> {
        let Self { id, .. } = *self;
        let (entries, orders) = (adding.entries_behind, adding.orders_behind);
        let (before, since) = *self.from.get_or_insert((orders, now));
        let (done, span) = (before.saturating_sub(orders), now - since);
        let rate = u128::from(done) * 1_000 / span.as_millis().max(1);
        let seconds = u128::from(orders).checked_div(rate).filter(|_| 0 < done);
        (0 < entries).then(|| match seconds {
            None => format!("{id} lacks {entries} entries, {orders} orders"),
            Some(seconds) => format!(
                "{id} lacks {entries} entries, {orders} orders; {rate} orders per second, about \
                 {seconds} s left"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_shows_the_rate_and_the_time_left() {
        let (start, mut progress) = (Instant::now(), CatchUpReport::new(567));
        let adding =
            |orders_behind| Adding { entries_behind: 9, orders_behind, ..Adding::default() };
        let said = progress.note(&adding(10_000), start).unwrap();
        assert_eq!(said, "567 lacks 9 entries, 10000 orders");
        let said = progress.note(&adding(4_000), start + Duration::from_secs(2)).unwrap();
        assert_eq!(
            said,
            "567 lacks 9 entries, 4000 orders; 3000 orders per second, about 1 s left"
        );
        assert_eq!(progress.note(&Adding::default(), start), None);
    }

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
        let said =
            |processes: Vec<ProcessStatus>| summary(&StoreStatus { leader: Some(1), processes });
        let well = said(vec![replica(1, 100), replica(2, 100), replica(3, 36)]);
        assert_eq!(well, "3 replicas vote: 2 are needed and 1 may be down");
        let lags = said(vec![replica(1, 100), replica(2, 100), replica(3, 35)]);
        assert!(lags.ends_with("; 3 is 65 entries behind: no other may be down now"), "{lags}");
        let two = said(vec![replica(1, 100), away(2), replica(3, 35)]);
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
