//! The frontend's connections to the replicas: one stream each, and the leader that their hints
//! name.
//!
//! Each replica has a task that connects, listens, and reconnects; no request waits for a connect,
//! except through [`Replicas::dial_refused`]. Each replica pushes the membership; the replicas in
//! the settings are only the starting point. Events that an operator needs are logged in the words
//! of the reference systems.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::access::Access;
use parking_lot::{Mutex, RwLock};
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::access::AccessNews;
use wire::dial::StoreRoutes;
use wire::peers::{Directory, Peer};
use wire::stream::Caller;

use crate::authentication::KnownAccess;
use crate::limits::SILENCE_MAX;
use crate::outage::Outage;
use crate::retry::{Reach, ReplicaView};

/// How often the log of outages is checked if no change is reported.
const OUTAGE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The shortest pause before reconnecting; it doubles each time.
const PAUSE: Duration = Duration::from_millis(10);

/// The longest pause, and so the longest delay until a replica that returns is seen.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// The longest that a request waits while the replicas that refused are dialed again.
const DIAL_MAX: Duration = Duration::from_millis(100);

/// The pause before a replica at another one's address is dialed again: the list may be corrected,
/// or the other replica may move.
const MISPLACED_PAUSE: Duration = Duration::from_secs(1);

/// All connections. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Replicas {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    routes: StoreRoutes,
    directory: Directory,
    links: Mutex<Links>,
    /// Counts changes.
    news: watch::Sender<u64>,
    /// Counts requests to dial the replicas that refused.
    wanted: watch::Sender<u64>,
    /// Counts finished connects.
    dialed: watch::Sender<u64>,
    /// The access to the store, as of the latest change that a replica has told. `None`: none has
    /// told it yet.
    access: RwLock<Option<KnownAccess>>,
}

#[derive(Debug, Default)]
struct Links {
    callers: BTreeMap<u64, Caller>,
    refused: BTreeMap<u64, bool>,
    /// Replicas whose listed address answers as another replica.
    misplaced: BTreeMap<u64, u64>,
    /// The number of finished connects to each replica.
    dials: BTreeMap<u64, u64>,
    /// Each replica's hint: the leader that it knows, and the term.
    hints: BTreeMap<u64, (Option<u64>, u64)>,
    /// The leader last logged.
    logged_leader: Option<u64>,
    choosing: bool,
    /// The log time last received, and when.
    log_time: Option<(u64, Instant)>,
    /// The greatest log time that was told: an API key that has ended does not come back because
    /// the next message says less than was estimated.
    log_time_told: u64,
}

impl Links {
    /// The leader by the hint of the highest term; the hints of lost replicas do not count.
    fn leader(&self) -> Option<u64> {
        let connected = self.hints.iter().filter(|(id, _)| self.callers.contains_key(id));
        let leaders = connected.filter_map(|(_, (leader, term))| Some((*term, (*leader)?)));
        leaders.max().map(|(_, leader)| leader)
    }
}

impl Replicas {
    /// Starts to connect to all peers, until `stop`.
    pub(crate) fn start(peers: Vec<Peer>, routes: StoreRoutes, stop: &CancellationToken) -> Self {
        let shared = Shared {
            routes,
            directory: Directory::new(peers),
            links: Mutex::default(),
            news: watch::Sender::new(0),
            wanted: watch::Sender::new(0),
            dialed: watch::Sender::new(0),
            access: RwLock::default(),
        };
        let replicas = Self { shared: Arc::new(shared) };
        let keeping = replicas.clone();
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = keeping.keep(&stop) => {}
                () = keeping.log_outages() => {}
                () = stop.cancelled() => {}
            }
        });
        replicas
    }

    /// Logs when orders begin to be refused for want of a leader, and when that ends. Forever.
    async fn log_outages(&self) {
        let mut outage = Outage::default();
        let mut news = self.news();
        loop {
            if let Some(line) = outage.note(&self.view(), Instant::now()) {
                line.log();
            }
            tokio::select! {
                _ = news.changed() => {}
                () = tokio::time::sleep(OUTAGE_POLL_INTERVAL) => {}
            }
        }
    }

    /// Keeps a connection to each voter as the membership changes. Forever.
    async fn keep(&self, stop: &CancellationToken) {
        let mut changes = self.shared.directory.changes();
        let mut held: BTreeMap<u64, CancellationToken> = BTreeMap::new();
        loop {
            let voters = self.shared.directory.voters();
            held.retain(|id, end| {
                let stays = voters.iter().any(|peer| peer.id == *id);
                if !stays {
                    end.cancel();
                    self.forget(*id);
                }
                stays
            });
            for peer in voters {
                if held.contains_key(&peer.id) {
                    continue;
                }
                let replicas = self.clone();
                let end = stop.child_token();
                held.insert(peer.id, end.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = replicas.hold(&peer) => {}
                        () = end.cancelled() => {}
                    }
                });
            }
            changes.next().await;
        }
    }

    /// Drops the hints of a replica that is no longer a member.
    fn forget(&self, id: u64) {
        let mut links = self.shared.links.lock();
        links.callers.remove(&id);
        links.hints.remove(&id);
        links.refused.remove(&id);
        links.misplaced.remove(&id);
        links.dials.remove(&id);
        drop(links);
        tracing::info!(peer = id, "{id} is no replica any more");
        self.changed();
    }

    /// How this frontend reaches the other processes.
    pub(crate) fn routes(&self) -> &StoreRoutes {
        &self.shared.routes
    }

    /// The view of the replicas now.
    pub(crate) fn view(&self) -> ReplicaView {
        let links = self.shared.links.lock();
        let reach = |id: u64| match links.callers.get(&id) {
            Some(caller) if caller.silence() < SILENCE_MAX => Reach::Up,
            None if links.refused.get(&id) == Some(&true) => Reach::Refused,
            Some(_) | None => Reach::Silent,
        };
        let voters = self.shared.directory.voters();
        let replicas = voters.iter().map(|peer| (peer.id, reach(peer.id))).collect();
        let misplaced = links.misplaced.iter().next().map(|(listed, found)| (*listed, *found));
        ReplicaView { leader: links.leader(), replicas, misplaced }
    }

    /// The stream to one replica, if there is one.
    pub(crate) fn caller(&self, id: u64) -> Option<Caller> {
        self.shared.links.lock().callers.get(&id).cloned()
    }

    /// Streams to all replicas that can be asked: the leader's first.
    pub(crate) fn callers(&self) -> Vec<(u64, Caller)> {
        let links = self.shared.links.lock();
        let leader = links.leader();
        let mut callers: Vec<_> = links.callers.iter().map(|(id, c)| (*id, c.clone())).collect();
        callers.sort_by_key(|(id, _)| (Some(*id) != leader, std::cmp::Reverse(*id)));
        callers
    }

    /// Dials each replica that refused once more, and waits for the results, at most [`DIAL_MAX`].
    /// Concurrent requests share one connect.
    pub(crate) async fn dial_refused(&self) {
        let mut dialed = self.shared.dialed.subscribe();
        let before = {
            let links = self.shared.links.lock();
            let refusing = links.refused.iter().filter(|(_, refused)| **refused);
            let count = |id: &u64| links.dials.get(id).copied().unwrap_or(0);
            refusing.map(|(id, _)| (*id, count(id))).collect::<Vec<_>>()
        };
        self.shared.wanted.send_modify(|count| *count += 1);
        let all = dialed.wait_for(|_| {
            let links = self.shared.links.lock();
            let ended = |id: &u64, count: u64| links.dials.get(id).is_none_or(|now| count < *now);
            before.iter().all(|(id, count)| ended(id, *count))
        });
        let _ = tokio::time::timeout(DIAL_MAX, all).await;
    }

    /// The access to the store, once a replica has told it.
    pub(crate) fn access(&self) -> Option<Arc<Access>> {
        self.shared.access.read().as_ref().map(|known| known.access.clone())
    }

    /// True if a replica whose API keys can be read was heard within [`SILENCE_MAX`]: what it
    /// revokes is known here.
    pub(crate) fn hear_any(&self) -> bool {
        let links = self.shared.links.lock();
        let tells = |caller: &Caller| !matches!(*caller.access().borrow(), AccessNews::Unknown);
        links.callers.values().any(|caller| caller.silence() < SILENCE_MAX && tells(caller))
    }

    fn note_access(&self, id: u64, told: KnownAccess) {
        let leads = self.shared.links.lock().leader() == Some(id);
        let mut known = self.shared.access.write();
        if told.replaces(known.as_ref(), leads) {
            *known = Some(told);
        }
    }

    /// A receiver that is notified of every change.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.shared.news.subscribe()
    }

    /// All replicas, those without a vote as well.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.shared.directory.replicas()
    }

    /// The current log time, if known, in milliseconds since the Unix epoch.
    pub(crate) fn log_time_ms(&self) -> Option<u64> {
        let mut links = self.shared.links.lock();
        let (log_time, at) = links.log_time?;
        let estimated = log_time + u64::try_from(at.elapsed().as_millis()).unwrap_or(0);
        links.log_time_told = links.log_time_told.max(estimated);
        Some(links.log_time_told)
    }

    /// Keeps one connection, forever.
    async fn hold(&self, peer: &Peer) {
        let mut pause = PAUSE;
        let mut wanted = self.shared.wanted.subscribe();
        loop {
            wanted.mark_unchanged();
            match Caller::connect(&self.shared.routes.replicas, &peer.address).await {
                Ok(caller) => {
                    pause = PAUSE;
                    self.connected(peer, caller.clone());
                    if let Some(found) = self.listen(peer, &caller).await {
                        self.broke(peer);
                        self.misplaced(peer, found);
                        tokio::time::sleep(MISPLACED_PAUSE).await;
                        continue;
                    }
                    self.broke(peer);
                }
                Err(error) => self.not_connected(peer, error.is_refused()),
            }
            let jitter = rand::rng().random_range(0.5..1.0);
            // The shortest pause holds in any case: many requests must not dial without one.
            tokio::time::sleep(PAUSE.mul_f64(jitter)).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(PAUSE).mul_f64(jitter)) => {}
                _ = wanted.changed() => {}
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// Listens until the connection breaks. `Some`: another replica answers at this address.
    async fn listen(&self, peer: &Peer, caller: &Caller) -> Option<u64> {
        let mut hints = caller.leader();
        let mut rosters = caller.roster();
        let mut accesses = caller.access();
        loop {
            let hint = *hints.borrow_and_update();
            if hint.replica != 0 && hint.replica != peer.id {
                return Some(hint.replica);
            }
            if hint.replica == peer.id {
                self.shared.links.lock().misplaced.remove(&peer.id);
            }
            if self.shared.directory.adopt(&rosters.borrow_and_update()) {
                self.changed();
            }
            self.hinted(peer.id, hint.leader, hint.term, caller.log_time_ms());
            let told = KnownAccess::told(&accesses.borrow_and_update(), hint.term);
            if let Some(told) = told.filter(|_| hint.replica == peer.id) {
                self.note_access(peer.id, told);
            }
            tokio::select! {
                changed = hints.changed() => if changed.is_err() { return None },
                changed = rosters.changed() => if changed.is_err() { return None },
                changed = accesses.changed() => if changed.is_err() { return None },
                () = caller.closed() => return None,
                // Log time advances even if nothing else changes.
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    /// Replica `found` answers at the address of `peer`.
    fn misplaced(&self, peer: &Peer, found: u64) {
        let mut links = self.shared.links.lock();
        links.hints.remove(&peer.id);
        let before = links.misplaced.insert(peer.id, found);
        drop(links);
        if before != Some(found) {
            let Peer { id, address } = peer;
            tracing::warn!(
                peer = id,
                "the list of replicas is wrong: {address} is replica {found}, not {id}; orders are \
                 refused while {id} leads: start this frontend with the right --orders"
            );
            self.changed();
        }
    }

    fn connected(&self, peer: &Peer, caller: Caller) {
        let mut links = self.shared.links.lock();
        links.callers.insert(peer.id, caller);
        links.refused.insert(peer.id, false);
        *links.dials.entry(peer.id).or_default() += 1;
        drop(links);
        self.shared.dialed.send_modify(|count| *count += 1);
        self.changed();
    }

    fn not_connected(&self, peer: &Peer, refused: bool) {
        let mut links = self.shared.links.lock();
        let before = links.refused.insert(peer.id, refused);
        *links.dials.entry(peer.id).or_default() += 1;
        drop(links);
        self.shared.dialed.send_modify(|count| *count += 1);
        if before != Some(refused) {
            if refused {
                tracing::info!(peer = peer.id, "{} is down", peer.id);
            } else {
                tracing::info!(peer = peer.id, "{} does not answer", peer.id);
            }
            self.changed();
        }
    }

    fn broke(&self, peer: &Peer) {
        let mut links = self.shared.links.lock();
        links.callers.remove(&peer.id);
        let led = links.logged_leader == Some(peer.id);
        if led {
            links.logged_leader = None;
            links.choosing = true;
        }
        drop(links);
        if led {
            tracing::info!(leader = peer.id, "lost the connection to the leader, {}", peer.id);
            tracing::info!("choosing leader");
        }
        self.changed();
    }

    fn hinted(&self, id: u64, leader: Option<u64>, term: u64, log_time_ms: u64) {
        let mut links = self.shared.links.lock();
        let before = links.leader();
        links.hints.insert(id, (leader, term));
        if links.log_time.is_none_or(|(known, _)| known < log_time_ms) && log_time_ms != 0 {
            links.log_time = Some((log_time_ms, Instant::now()));
        }
        let now = links.leader();
        // The others name a dead leader until the election ends: only a leader that answers is
        // healthy.
        let answers = |leader: &u64| links.callers.contains_key(leader);
        let found = now.filter(|leader| links.logged_leader != Some(*leader)).filter(answers);
        if found.is_some() {
            links.logged_leader = found;
            links.choosing = false;
        }
        drop(links);
        if let Some(leader) = found {
            self.log_leader(leader);
        }
        if before != now {
            self.changed();
        }
    }

    /// Logs the leader, as the reference systems do.
    fn log_leader(&self, leader: u64) {
        tracing::info!(peer = leader, "{leader} is healthy!");
        tracing::info!(leader, "New leader id: {leader}");
        if let Some(address) = self.shared.directory.address(leader) {
            tracing::info!(leader, "Found leader! Order Service {leader} at {address}");
        }
    }

    fn changed(&self) {
        self.shared.news.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests;
