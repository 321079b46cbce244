//! Settling: the settled index here, and the answers that wait for it; the shell around the two
//! cores.
//!
//! The cores [`LeaderTerm`] and [`Acknowledger`] and the window of recent frames are kept under one
//! lock, held for one call at a time. Applied entries come in through one task, in index order, so
//! a catalog counts exactly from its attach entry on.
//!
//! # Invariants
//!
//! * An answer that reveals an index leaves only when every attached catalog has seen it.
//! * A replica that ceases to lead gives up the answers it holds: the clients ask again, with their
//!   keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::codec::bulk;
use ledger::outcome::Outcome;
use ledger::shop::ShopState;
use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use wire::convert;
use wire::problem::Problem;
use wire::proto::{self, answer::What as Answered};
use wire::stream::Reply;
use wire::watch::clock;
use wire::watch::lease::{Moment, Times};
use wire::watch::reattach_backoff::ReattachBackoff;
use wire::watch::rules::Rules;
use wire::watch::source_state::Incarnation;
use wire::watch::window::Window;

use crate::acknowledger::{Acknowledger, Reveals};
use crate::batcher::{Batcher, Untold};
use crate::history::applied_state::{AppliedEntry, View};
use crate::leader_term::{Detach, LeaderTerm};
use crate::problems;
use crate::raft::engine::Engine;
use crate::read_index::ReadIndex;
use crate::role::Role;

/// The most catalogs remembered as let go in one term: more than a crash loop makes in an hour.
const GONE_MAX: usize = 4_096;

/// How long a read waits until the index that it reveals is settled.
const PATIENCE: Duration = Duration::from_secs(4);

mod catalogs;

/// The shell around the cores. Clones share everything.
#[derive(Clone)]
pub(crate) struct Settling {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) times: Times,
    pub(crate) rules: Rules,
    pub(crate) view: Arc<View>,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) batcher: Batcher,
    pub(crate) books: Mutex<SettlingState>,
    /// Counts up when frames, the settled index or the watchers have changed.
    pub(crate) news: watch::Sender<u64>,
    /// Asks for a lease now.
    pub(crate) urge: Notify,
    stop: CancellationToken,
}

/// A round of questions to the majority that takes longer than this counts as failed: five
/// heartbeats. The followers give a leader up after 350 ms of silence, and by then its catalogs
/// should look for the next.
const MAJORITY_LOST: Duration = Duration::from_millis(250);

/// The cores and their window, under one lock that is held for one call at a time.
pub(crate) struct SettlingState {
    pub(crate) window: Window,
    /// `Some` while this replica leads.
    pub(crate) leadership: Option<LeaderTerm>,
    acknowledger: Acknowledger<Held>,
    pub(crate) returns: ReattachBackoff,
    /// The catalogs to detach, and whether the detach is on its way to the log.
    detaching: BTreeMap<Incarnation, (Detach, bool)>,
    /// Catalogs let go in this term: their detaches may be applied late, so they must come back
    /// under a new incarnation.
    pub(crate) gone: BTreeSet<Incarnation>,
    /// How many were let go since the start.
    pub(crate) let_go: u64,
    /// Closes the streams of this term.
    pub(crate) streams: CancellationToken,
}

/// An answer that waits until its index is settled.
enum Held {
    Answer(Reply, proto::Answer, Untold),
    Read(oneshot::Sender<()>),
}

impl std::fmt::Debug for Settling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settling").finish_non_exhaustive()
    }
}

impl Settling {
    /// Starts with the settled index of the ledger, and without a leadership.
    pub(crate) fn new(
        (times, rules): (Times, Rules),
        view: Arc<View>,
        role: watch::Receiver<Role>,
        batcher: Batcher,
        stop: CancellationToken,
    ) -> Self {
        let settled = view.read(ShopState::settled);
        let books = SettlingState {
            window: Window::default(),
            leadership: None,
            acknowledger: Acknowledger::new(settled, rules),
            returns: ReattachBackoff::default(),
            detaching: BTreeMap::new(),
            gone: BTreeSet::new(),
            let_go: 0,
            streams: stop.child_token(),
        };
        let (books, news, urge) = (Mutex::new(books), watch::Sender::new(0), Notify::new());
        let shared = Shared { times, rules, view, role, batcher, books, news, urge, stop };
        Self { shared: Arc::new(shared) }
    }

    /// Sends the answer to a request once the index that it reveals is settled.
    pub(crate) fn answer(&self, reply: Reply, index: Index, outcome: &Outcome) {
        let (reveals, index) = match outcome {
            Outcome::Accepted(_) => (Reveals::Acceptance, index),
            Outcome::Refused(_) => (Reveals::Refusal, index),
            Outcome::Repeated { index, .. } => (Reveals::Repetition, *index),
        };
        let what = Answered::Outcome(convert::outcome(outcome));
        self.hold(reply, reveals, (index, 1), what);
    }

    /// Sends the answer to a bulk once the entry that decided it is settled: earlier indexes that
    /// it reveals are settled by then, too.
    pub(crate) fn answer_many(&self, reply: Reply, index: Index, outcomes: &[Outcome]) {
        let count = outcomes.len();
        let outcomes = bulk::write_outcomes(outcomes).into();
        let what = Answered::Outcomes(proto::Outcomes { outcomes });
        self.hold(reply, Reveals::Acceptance, (index, count), what);
    }

    /// Keeps the answer to `count` requests until `index` is settled.
    fn hold(&self, reply: Reply, reveals: Reveals, (index, count): (Index, usize), what: Answered) {
        let untold = self.shared.batcher.untold(count);
        let answer = proto::Answer { call: 0, as_of: index.0, stale: false, what: Some(what) };
        let mut books = self.shared.books.lock();
        let due = books.acknowledger.hold(reveals, index, Held::Answer(reply, answer, untold));
        let leads =
            matches!(*self.shared.role.borrow(), Role::Leading { .. } | Role::TakingOver { .. });
        let given_up = if leads { Vec::new() } else { books.acknowledger.release() };
        drop(books);
        due.into_iter().for_each(Held::give);
        given_up.into_iter().for_each(Held::give_up);
    }

    /// Waits until the index that a read reveals is settled.
    pub(crate) async fn reading(&self, index: Index) -> Result<(), Problem> {
        let (tell, told) = oneshot::channel();
        let due =
            self.shared.books.lock().acknowledger.hold(Reveals::Reading, index, Held::Read(tell));
        if due.is_some() {
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(problems::no_leader()),
            Err(_) => Err(problems::unsettled()),
        }
    }

    /// Answers up to this index leave at once.
    pub(crate) fn settled(&self) -> Index {
        self.shared.books.lock().acknowledger.settled()
    }

    /// The number of answers that wait.
    pub(crate) fn held(&self) -> usize {
        self.shared.books.lock().acknowledger.held()
    }

    /// How many silent catalogs were let go since the start.
    pub(crate) fn let_go(&self) -> u64 {
        self.shared.books.lock().let_go
    }

    /// The names of the attached catalogs, and the index that each has seen; empty unless this
    /// replica leads.
    pub(crate) fn watchers(&self) -> Vec<(String, Option<Index>)> {
        let books = self.shared.books.lock();
        let everybody = books.leadership.iter().flat_map(LeaderTerm::everybody);
        everybody.map(|(name, seen)| (name.to_owned(), seen)).collect()
    }

    /// Takes in applied entries and changes of the role, until `stop`.
    pub(crate) async fn follow(self) {
        let shared = self.shared;
        let mut role = shared.role.clone();
        let (start, mut feed) = shared.view.watch(ShopState::applied);
        shared.restart(start);
        loop {
            let now = *role.borrow_and_update();
            shared.obey(now);
            let entry = tokio::select! {
                entry = feed.recv() => entry,
                changed = role.changed() => if changed.is_ok() { continue } else { return },
                () = shared.stop.cancelled() => return,
            };
            match entry {
                Ok(entry) if entry.changes.is_some() => shared.take(&entry),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    let (start, fresh) = shared.view.watch(ShopState::applied);
                    feed = fresh;
                    shared.restart(start);
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Renews the leader's lease while a catalog is attached, and lets silent catalogs go.
    pub(crate) async fn keep_lease(self, engine: Engine, reader: ReadIndex) {
        let shared = self.shared;
        let mut beats = tokio::time::interval(shared.times.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lapses = tokio::time::interval(shared.times.beat / 4);
        lapses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                () = shared.urge.notified() => {}
                _ = lapses.tick() => {
                    shared.lapse();
                    continue;
                }
                () = shared.stop.cancelled() => return,
            }
            let Some(term) = shared.watched_term() else { continue };
            // The leadership must be of this very term from the start of the round to its end.
            let leads =
                || engine.leader().leader == Some(engine.id()) && engine.leader().term == term;
            let asked = clock::now();
            if !leads() {
                continue;
            }
            let round = tokio::time::timeout(MAJORITY_LOST, reader.confirm());
            match round.await {
                Ok(Ok(_)) if leads() => shared.confirmed(term, asked),
                _ => shared.lost_majority(term),
            }
        }
    }
}

impl Held {
    fn give(self) {
        match self {
            Self::Answer(reply, answer, untold) => {
                reply.send(answer);
                drop(untold);
            }
            // A read that has gone away needs no answer.
            Self::Read(tell) => drop(tell.send(())),
        }
    }

    /// Decided, but this replica must not answer: the client asks the new leader, with its key.
    fn give_up(self) {
        match self {
            Self::Answer(reply, ..) => reply.problem(&problems::lost()),
            Self::Read(tell) => drop(tell),
        }
    }
}

impl SettlingState {
    /// Takes the answers whose index is settled by now.
    fn due(&mut self, known: Index) -> Vec<Held> {
        let counted = self.leadership.as_ref().map(LeaderTerm::settled).unwrap_or_default();
        self.acknowledger.settle(known.max(counted))
    }
}

impl Shared {
    /// After a change: sends the answers that are due, and wakes the streams.
    pub(crate) fn settle(&self, mut books: parking_lot::MutexGuard<'_, SettlingState>) {
        let due = books.due(Index(0));
        drop(books);
        due.into_iter().for_each(Held::give);
        self.tell();
    }

    pub(crate) fn tell(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Begins or ends a leadership, as the role says.
    fn obey(&self, role: Role) {
        let mut books = self.books.lock();
        let term = books.leadership.as_ref().map(LeaderTerm::term);
        match role {
            Role::Leading { term: now } if term == Some(now) => {}
            Role::TakingOver { term: now } if term == Some(now) => {}
            Role::Leading { term } => {
                let mut leadership = LeaderTerm::new(term, clock::now(), self.times, self.rules);
                let (applied, settled, attached) = self.view.read(standing);
                let settled = settled.max(books.acknowledger.settled());
                leadership.begin(applied, settled, &attached);
                let given_up = self.end_term(&mut books);
                books.leadership = Some(leadership);
                self.settle(books);
                given_up.into_iter().for_each(Held::give_up);
            }
            Role::TakingOver { .. } | Role::Following { .. } | Role::Leaderless { .. } => {
                let given_up = self.end_term(&mut books);
                // A replica that was elected may soon settle the answers that wait here.
                if !matches!(role, Role::TakingOver { .. }) {
                    let rest = books.acknowledger.release();
                    drop(books);
                    rest.into_iter().for_each(Held::give_up);
                    self.tell();
                }
                given_up.into_iter().for_each(Held::give_up);
            }
        }
    }

    fn end_term(&self, books: &mut SettlingState) -> Vec<Held> {
        if books.leadership.take().is_none() {
            return Vec::new();
        }
        books.streams.cancel();
        books.streams = self.stop.child_token();
        books.detaching.clear();
        books.returns.clear();
        books.gone.clear();
        books.acknowledger.release()
    }

    /// Frames are missing: starts over from the applied state.
    fn restart(&self, start: Index) {
        let (applied, settled, attached) = self.view.read(standing);
        let mut books = self.books.lock();
        books.window = Window::at(start);
        let SettlingState { leadership, detaching, .. } = &mut *books;
        if let Some(leadership) = leadership {
            for (who, _) in leadership.align(&attached, clock::now()) {
                detaching.remove(&who);
            }
            leadership.applied(applied);
        }
        let due = books.due(settled);
        drop(books);
        due.into_iter().for_each(Held::give);
        self.tell();
    }

    fn take(&self, entry: &AppliedEntry) {
        let mut books = self.books.lock();
        books.window.push(entry.index, entry.changes.clone().unwrap_or_else(|| [].into()));
        let SettlingState { leadership, detaching, .. } = &mut *books;
        if let Some(leadership) = leadership
            && leadership.applied_index() < entry.index
        {
            if let Some(attached) = &entry.attached {
                let attached: Vec<_> = attached
                    .iter()
                    .map(|(who, name)| (Incarnation(*who), name.to_string()))
                    .collect();
                for (who, _) in leadership.align(&attached, clock::now()) {
                    detaching.remove(&who);
                }
            }
            leadership.applied(entry.index);
        }
        let due = books.due(entry.settled);
        drop(books);
        due.into_iter().for_each(Held::give);
        self.tell();
    }

    fn watched_term(&self) -> Option<u64> {
        let books = self.books.lock();
        let leadership = books.leadership.as_ref()?;
        leadership.everybody().next()?;
        Some(leadership.term())
    }

    fn confirmed(&self, term: u64, asked: Moment) {
        let mut books = self.books.lock();
        let Some(leadership) = &mut books.leadership else { return };
        if leadership.term() != term {
            return;
        }
        let now = clock::now();
        let lived = leadership.quorum().live(now);
        leadership.quorum_round(asked);
        if !lived {
            leadership.resume(now);
        }
        drop(books);
        if !lived {
            self.tell();
        }
    }

    /// A round of questions has failed, or takes too long: grants nothing until the next round that
    /// succeeds, and closes the streams, so that catalogs look for the leader that the majority may
    /// be about to elect.
    fn lost_majority(&self, term: u64) {
        let mut books = self.books.lock();
        let Some(leadership) = &mut books.leadership else { return };
        if leadership.term() != term || !leadership.lose_majority() {
            return;
        }
        books.streams.cancel();
        books.streams = self.stop.child_token();
        drop(books);
        tracing::warn!("no majority confirms this leader: it lets its catalogs look for another");
        self.tell();
    }
}

/// The state that a leadership begins with: the applied index, the settled index, the attached
/// catalogs.
fn standing(shop: &ShopState) -> (Index, Index, Vec<(Incarnation, String)>) {
    let attached = shop.attached().map(|(who, name)| (Incarnation(who), name.to_string()));
    (shop.applied(), shop.settled(), attached.collect())
}

#[cfg(test)]
pub(crate) mod tests;
