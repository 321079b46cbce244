//! The operator's commands for the set of replicas: list, add, remove, replace.
//!
//! These commands go to the leader's internal listener, which they find through a frontend. If the
//! leader changes meanwhile, they go to the next leader; a change that is done is not repeated.

use std::time::{Duration, Instant};

use tonic::{Code, Status};
use wire::dial;
use wire::exit::Stop;
use wire::proto::control_client::ControlClient;
use wire::proto::{AddReplica, Adding, RemoveReplica, Removed};

use crate::cli::members::{Member, Replace};
use crate::cli::values::Url;
use crate::inspect;
use crate::internal_plane;
use crate::membership::{self, counted};
use crate::operator::command_key;
use crate::settings::Settings;

/// How long a connection to the leader may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a command looks for a reachable leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

type ControlChannel = ControlClient<tonic::transport::Channel>;

/// `oppidum ctl member`. False: the answer is no.
pub(crate) async fn member(what: Member) -> Result<bool, Stop> {
    let mut settings = Settings::load()?;
    let mut at = |flag: Url| flag.resolve(&mut settings);
    match what {
        Member::List(url) => list(&at(url)?).await,
        Member::Add { id, address, url } => add(&at(url)?, id, &address.0).await,
        Member::Remove { id, url } => remove(&at(url)?, id).await,
    }
}

/// `oppidum ctl replace`. False: the answer is no.
pub(crate) async fn replace(what: Replace) -> Result<bool, Stop> {
    let url = what.url.clone().resolve(&mut Settings::load()?)?;
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
    let known = membership::members(&store);
    let replicas = store.processes.iter().filter(|process| process.role == "order");
    for replica in replicas {
        answer!("{}", membership::row(replica, &store, known));
    }
    answer!("\n{}", membership::summary(&store));
    Ok(store.leader.is_some())
}

async fn add(url: &str, id: u64, address: &str) -> Result<bool, Stop> {
    let mut progress = CatchUpReport::new(id);
    let key = command_key();
    let began = Instant::now();
    loop {
        let (leader, mut client) = leader(url, began).await?;
        let request = AddReplica { id, address: address.to_owned(), key: key.clone() };
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
    let key = command_key();
    loop {
        let (leader, mut client) = leader(url, began).await?;
        let request = RemoveReplica { id, key: key.clone() };
        match client.remove(request).await.map(tonic::Response::into_inner) {
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
            let route = internal_plane::to_replica(leader.id)?;
            match dial::channel(&route, &leader.address, CONNECT_TIMEOUT).await {
                Ok(channel) => return Ok((leader.id.unwrap_or(0), ControlClient::new(channel))),
                Err(error) => why = format!("the leader cannot be asked: {error}"),
            }
        }
        if LEADER_TIMEOUT < began.elapsed() {
            return Err(Stop::Setup(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Interprets the leader's error: `Some` is an answer for the operator, `None` means try again.
fn refused(leader: u64, status: &Status, began: Instant) -> Result<Option<String>, Stop> {
    match status.code() {
        Code::FailedPrecondition => Ok(Some(status.message().to_owned())),
        _ if began.elapsed() < LEADER_TIMEOUT => Ok(None),
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
        let id = self.id;
        let Adding { entries_behind: entries, orders_behind: orders, .. } = *adding;
        let (before, since) = *self.from.get_or_insert((orders, now));
        let done = before.saturating_sub(orders);
        let rate = u128::from(done) * 1_000 / (now - since).as_millis().max(1);
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
        let start = Instant::now();
        let mut progress = CatchUpReport::new(567);
        let adding =
            |orders_behind| Adding { entries_behind: 9, orders_behind, ..Adding::default() };
        let line = progress.note(&adding(10_000), start).unwrap();
        assert_eq!(line, "567 lacks 9 entries, 10000 orders");
        let line = progress.note(&adding(4_000), start + Duration::from_secs(2)).unwrap();
        assert_eq!(
            line,
            "567 lacks 9 entries, 4000 orders; 3000 orders per second, about 1 s left"
        );
        assert_eq!(progress.note(&Adding::default(), start), None);
    }
}
