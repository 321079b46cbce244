//! The other replicas, as this one sees them: which are reachable, and which are known to be dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::log_end::{Acknowledged, PeerLog, Position};
use crate::membership::{Members, Membership};
use crate::readiness::Voting;
use crate::role::{Reach, VoterView};
use crate::starts::MetStart;

/// One of the other replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerView {
    /// The state of the stream held to it.
    pub(crate) reach: Reach,
    /// The peer was reachable before: only then does a refused connect prove its death.
    pub(crate) was_up: bool,
    /// When its stream was last seen broken, or when it was given up as a silent leader.
    pub(crate) lost: Option<Instant>,
    /// How many streams of entries from it are being read.
    pub(crate) reading: u32,
    /// How far its log reached at its last report.
    pub(crate) last_log: Position,
    /// The leader that it knows to be dead.
    pub(crate) knows_dead: Option<u64>,
    /// Its disk has little space left.
    pub(crate) full: bool,
    /// It receives the log and has no vote.
    pub(crate) learner: bool,
    /// The newest formats that it reads; 0: it has not said so.
    pub(crate) formats: u32,
}

impl PeerView {
    /// As a fresh leader sees it, whose log ends at `last` and is known to match this peer's log up
    /// to `matched`. A voter whose disk is full does not get the lead: it counts as dead.
    pub(crate) fn voter_view(&self, id: u64, matched: Position, last: Index) -> VoterView {
        let lag = matched.map(|(_, _, index)| last.0.saturating_sub(index));
        let reach = if self.full { Reach::Refused } else { self.reach };
        VoterView { id, reach, lag, lost: self.is_lost() }
    }

    /// The peer was reachable, and was lost within [`RECENT_LOSS`].
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_some_and(|when| when.elapsed() < RECENT_LOSS)
    }
}

/// The other replicas, by id. Every task reads; the tasks that hold the streams write.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    table: watch::Sender<BTreeMap<u64, PeerView>>,
    /// When each of them last spoke as a leader.
    last_heard: Arc<Mutex<BTreeMap<u64, Instant>>>,
    transfer: Arc<Mutex<TransferState>>,
    /// The greatest number of orders that a peer has reported.
    orders: Arc<AtomicU64>,
    begun: Arc<AtomicBool>,
    /// The peers that have compared this replica's start with what they know of it.
    introduced: Arc<Mutex<BTreeSet<u64>>>,
    /// What each of them is known to have acknowledged.
    acknowledged: Arc<Mutex<BTreeMap<u64, PeerLog>>>,
    /// The peers that are being sent a snapshot.
    installing: Arc<Mutex<BTreeSet<u64>>>,
    /// The health of the voters by the leader of the latest term: its id, and when it reported.
    voting: Arc<Mutex<Option<(u64, Instant, Voting)>>>,
}

/// A snapshot is being sent to a peer until this is dropped.
#[derive(Debug)]
pub(crate) struct Installing {
    peers: Peers,
    id: u64,
}

impl Drop for Installing {
    fn drop(&mut self) {
        self.peers.installing.lock().remove(&self.id);
    }
}

/// A stream of entries that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    peers: Peers,
    id: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.peers.count_reading(self.id, |streams| streams.saturating_sub(1));
    }
}

/// Transfers asked for by operators.
#[derive(Clone, Copy, Debug, Default)]
struct TransferState {
    /// This replica leads, and hands over because the operator asks for it.
    is_requested: bool,
    /// When this replica was asked to lead; cleared by its next election.
    pending: Option<Instant>,
    /// The term that followed.
    term: Option<u64>,
}

/// A peer that was lost within this time counts as lost.
const RECENT_LOSS: Duration = Duration::from_secs(3);

/// An election later than this was not caused by a request to lead.
const ASKED_MAX: Duration = Duration::from_secs(2);

impl Peers {
    /// Starts without peers.
    pub(crate) fn new() -> Self {
        Self {
            table: watch::Sender::new(BTreeMap::new()),
            last_heard: Arc::default(),
            transfer: Arc::default(),
            orders: Arc::default(),
            begun: Arc::default(),
            introduced: Arc::default(),
            acknowledged: Arc::default(),
            installing: Arc::default(),
            voting: Arc::default(),
        }
    }

    /// These are the members now, replica `me` among them.
    pub(crate) fn sync(&self, me: u64, members: &Membership) {
        self.table.send_if_modified(|table| {
            let before = table.clone();
            table.retain(|id, _| members.is_member(*id));
            for id in members.addresses.keys().filter(|id| **id != me) {
                table.entry(*id).or_default().learner = !members.is_voter(*id);
            }
            *table != before
        });
        self.acknowledged.lock().retain(|id, _| members.is_member(*id));
    }

    /// `id` has compared this replica's start with what it knows of it.
    pub(crate) fn set_introduced(&self, id: u64) {
        self.introduced.lock().insert(id);
    }

    /// True when `id` has compared.
    pub(crate) fn is_introduced(&self, id: u64) -> bool {
        self.introduced.lock().contains(&id)
    }

    /// `id` is known to have acknowledged this, in `start`.
    pub(crate) fn note_acknowledged(
        &self,
        id: u64,
        start: Option<MetStart>,
        acknowledged: Acknowledged,
    ) {
        self.acknowledged.lock().entry(id).or_default().note(start, acknowledged);
    }

    /// What `id` is known to have acknowledged before `start`.
    pub(crate) fn acknowledged_before(&self, id: u64, start: Option<&MetStart>) -> Acknowledged {
        let known = self.acknowledged.lock();
        known.get(&id).map_or_else(Acknowledged::default, |log| log.before(start))
    }

    /// A snapshot is sent to `id` until this is dropped.
    pub(crate) fn install(&self, id: u64) -> Installing {
        self.installing.lock().insert(id);
        Installing { peers: self.clone(), id }
    }

    /// True while a snapshot is sent to `id`.
    pub(crate) fn is_installing(&self, id: u64) -> bool {
        self.installing.lock().contains(&id)
    }

    /// Leader `from` reports the health of the voters.
    pub(crate) fn set_voting(&self, from: u64, voting: Voting) {
        let mut known = self.voting.lock();
        if known.as_ref().is_none_or(|(_, _, known)| known.term <= voting.term) {
            *known = Some((from, Instant::now(), voting));
        }
    }

    /// The health of the voters, if `leader` has reported it within `span`.
    pub(crate) fn voting(&self, leader: u64, span: Duration) -> Option<Voting> {
        let known = self.voting.lock();
        let (from, when, voting) = known.as_ref()?;
        (*from == leader && when.elapsed() < span).then(|| voting.clone())
    }

    /// A peer belongs to a store that has begun.
    pub(crate) fn hear_begun(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// True when a peer was heard to belong to a store that has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// False when too many voters refuse connections for a decision, seen from `me`.
    pub(crate) fn may_decide(&self, me: u64, members: &Members) -> bool {
        let table = self.table.borrow();
        let is_refused = |id| table.get(&id).is_some_and(|peer| peer.reach == Reach::Refused);
        members.look(|now| now.can_decide(|id| id == me || !is_refused(id)))
    }

    /// True when `me` and the voters whose streams are open can decide.
    pub(crate) fn hears_majority(&self, me: u64, members: &Members) -> bool {
        let table = self.table.borrow();
        let is_up = |id| table.get(&id).is_some_and(|peer| peer.reach == Reach::Up);
        members.look(|now| now.can_decide(|id| id == me || is_up(id)))
    }

    /// The table, and every change.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<u64, PeerView>> {
        self.table.subscribe()
    }

    /// The table as it is now.
    pub(crate) fn now(&self) -> BTreeMap<u64, PeerView> {
        self.table.borrow().clone()
    }

    /// The stream to `id` opened, or a connect was refused, or neither.
    pub(crate) fn set_reach(&self, id: u64, reach: Reach) {
        self.table.send_if_modified(|table| {
            let Some(peer) = table.get_mut(&id) else { return false };
            if peer.reach == reach {
                return false;
            }
            if peer.was_up && reach != Reach::Up || peer.reach == Reach::Refused {
                peer.lost = peer.was_up.then(Instant::now);
            }
            peer.reach = reach;
            peer.was_up |= reach == Reach::Up;
            if reach == Reach::Up {
                peer.knows_dead = None;
            } else {
                // It may come back with another program.
                peer.formats = 0;
            }
            true
        });
    }

    /// `id` has opened a stream to this replica: its process lives, even if the last connect to it
    /// was refused.
    pub(crate) fn hear_alive(&self, id: u64) {
        let refused = self.table.borrow().get(&id).is_some_and(|p| p.reach == Reach::Refused);
        if refused {
            self.set_reach(id, Reach::Unknown);
        }
    }

    /// `id` led, and was silent for too long.
    pub(crate) fn set_lost(&self, id: u64) {
        self.table.send_if_modified(|table| {
            let Some(peer) = table.get_mut(&id) else { return false };
            peer.lost = Some(Instant::now());
            true
        });
    }

    /// `id` reports its last entry, and a leader that it knows to be dead.
    pub(crate) fn set_report(&self, id: u64, last_log: Position, knows_dead: Option<u64>) {
        self.table.send_if_modified(|table| {
            let Some(peer) = table.get_mut(&id) else { return false };
            let is_news = peer.last_log != last_log || peer.knows_dead != knows_dead;
            (peer.last_log, peer.knows_dead) = (last_log, knows_dead);
            is_news
        });
    }

    /// A stream of entries from `id` is read until this is dropped.
    pub(crate) fn read_from(&self, id: u64) -> Reading {
        self.count_reading(id, |streams| streams.saturating_add(1));
        Reading { peers: self.clone(), id }
    }

    fn count_reading(&self, id: u64, count: fn(u32) -> u32) {
        self.table.send_if_modified(|table| {
            let Some(peer) = table.get_mut(&id) else { return false };
            peer.reading = count(peer.reading);
            true
        });
    }

    /// Notes whether `id` has too little disk space.
    pub(crate) fn set_full(&self, id: u64, full: bool) {
        self.table.send_if_modified(|table| {
            let Some(peer) = table.get_mut(&id) else { return false };
            std::mem::replace(&mut peer.full, full) != full
        });
    }

    /// Notes which formats `id` reads.
    pub(crate) fn set_formats(&self, id: u64, formats: u32) {
        self.table.send_if_modified(|table| {
            let Some(peer) = table.get_mut(&id) else { return false };
            std::mem::replace(&mut peer.formats, formats) != formats
        });
    }

    /// The other replicas that are not known to read these formats now.
    pub(crate) fn not_reading(&self, formats: u32) -> Vec<u64> {
        let table = self.table.borrow();
        let reads = |peer: &PeerView| formats <= peer.formats && peer.reach == Reach::Up;
        table.iter().filter(|(_, peer)| !reads(peer)).map(|(id, _)| *id).collect()
    }

    /// The number of other voters that may take an entry, being not known to be dead and having
    /// space; and the voters with a full disk.
    pub(crate) fn taking(&self) -> (usize, Vec<u64>) {
        let table = self.table.borrow();
        let there = |peer: &PeerView| peer.reach != Reach::Refused && !peer.learner;
        let taking = table.values().filter(|peer| there(peer) && !peer.full).count();
        let full = table.iter().filter(|(_, peer)| there(peer) && peer.full);
        (taking, full.map(|(id, _)| *id).collect())
    }

    /// `id` has spoken as a leader, just now.
    pub(crate) fn note_leader_message(&self, id: u64) {
        self.last_heard.lock().insert(id, Instant::now());
    }

    /// A peer has reported this many orders.
    pub(crate) fn hear_orders(&self, orders: u64) {
        self.orders.fetch_max(orders, Ordering::Relaxed);
    }

    /// The greatest number of orders that a peer has reported.
    pub(crate) fn orders(&self) -> u64 {
        self.orders.load(Ordering::Relaxed)
    }

    /// This replica leads, and from now on hands over at the operator's wish, or by itself.
    pub(crate) fn set_transfer_requested(&self, is_requested: bool) {
        self.transfer.lock().is_requested = is_requested;
    }

    /// Whether the operator asked for a transfer by this replica.
    pub(crate) fn is_transfer_requested(&self) -> bool {
        self.transfer.lock().is_requested
    }

    /// The leader asks this replica to lead instead, because the operator asks for it, not because
    /// it is the best.
    pub(crate) fn ask_to_lead(&self) {
        self.transfer.lock().pending = Some(Instant::now());
    }

    /// True when this replica, just elected in `term`, was asked to lead.
    pub(crate) fn was_asked_to_lead(&self, term: u64) -> bool {
        let mut transfer = self.transfer.lock();
        if transfer.pending.take().is_some_and(|since| since.elapsed() < ASKED_MAX) {
            transfer.term = Some(term);
        }
        transfer.term == Some(term)
    }

    /// The last term in which this replica leads because it was asked to.
    pub(crate) fn asked_term(&self) -> Option<u64> {
        self.transfer.lock().term
    }

    /// True when `id` does not refuse connections, and has spoken as a leader within `span`.
    pub(crate) fn is_leading(&self, id: u64, span: Duration) -> bool {
        let refuses = self.table.borrow().get(&id).is_some_and(|p| p.reach == Reach::Refused);
        !refuses && self.last_heard(id).is_some_and(|last_heard| last_heard.elapsed() < span)
    }

    /// When `id` last spoke as a leader.
    pub(crate) fn last_heard(&self, id: u64) -> Option<Instant> {
        self.last_heard.lock().get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::three;
    use crate::role::{Choice, choose};

    #[test]
    fn a_voter_whose_disk_is_full_is_not_given_the_lead() {
        let view = PeerView { reach: Reach::Up, ..PeerView::default() };
        let voter_view = |reach, lag| VoterView { id: 456, reach, lag, lost: false };
        let seen = |view: &PeerView, index| view.voter_view(456, Some((2, 123, index)), Index(9));
        assert_eq!(seen(&view, 7), voter_view(Reach::Up, Some(2)));
        let full = PeerView { full: true, ..view };
        assert_eq!(seen(&full, 7), voter_view(Reach::Refused, Some(2)));
        assert_eq!(choose(345, &[seen(&full, 9)], Duration::ZERO), Choice::Lead);
        assert_eq!(choose(345, &[seen(&view, 9)], Duration::ZERO), Choice::HandOver(456));
    }

    /// Kind: a leader whose followers are suspended, and which shows that all is well.
    #[test]
    fn a_leader_hears_a_majority_while_the_streams_to_one_are_open() {
        let members = Members::new(&three());
        let peers = Peers::new();
        peers.sync(456, &members.now());
        assert!(!peers.hears_majority(456, &members), "none has answered yet");
        peers.set_reach(123, Reach::Up);
        assert!(peers.hears_majority(456, &members));
        peers.set_reach(123, Reach::Unknown);
        assert!(!peers.hears_majority(456, &members), "both are silent, and refuse nothing");
        peers.set_reach(345, Reach::Up);
        assert!(peers.hears_majority(456, &members));
    }

    #[test]
    fn only_a_change_wakes_the_watchers_of_the_table() {
        let members = Members::new(&three());
        let peers = Peers::new();
        peers.sync(456, &members.now());
        let mut watch = peers.watch();
        peers.set_reach(123, Reach::Unknown);
        peers.set_reach(7, Reach::Up);
        assert!(!watch.has_changed().unwrap());
        peers.set_reach(123, Reach::Up);
        peers.set_reach(123, Reach::Refused);
        assert!(watch.has_changed().unwrap());
        let seen = watch.borrow_and_update()[&123];
        assert!(seen.was_up && seen.reach == Reach::Refused);
        assert!(peers.may_decide(456, &members), "one of three is gone");
        peers.set_reach(345, Reach::Refused);
        assert!(!peers.may_decide(456, &members), "two of three are gone");
        assert!(watch.has_changed().unwrap());
        peers.hear_alive(345);
        assert!(peers.may_decide(456, &members), "one is back, before it is dialed");
        peers.set_reach(345, Reach::Refused);
        peers.set_report(345, Some((1, 456, 7)), Some(456));
        assert_eq!(watch.borrow_and_update()[&345].last_log, Some((1, 456, 7)));
        peers.set_report(345, Some((1, 456, 7)), Some(456));
        assert!(!watch.has_changed().unwrap());
        let streams = [peers.read_from(345), peers.read_from(345)];
        assert_eq!(watch.borrow_and_update()[&345].reading, 2);
        drop(streams);
        assert_eq!(watch.borrow_and_update()[&345].reading, 0);
    }
}
