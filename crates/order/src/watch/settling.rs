//! Settling: the settled index here, and the answers that wait for it.
//!
//! The shell around [`WatchState`], which is kept under one lock, held for one call at a time.
//! Applied entries come in through one task.
//!
//! # Invariants
//!
//! * An answer that reveals an index leaves only when every attached catalog has seen it.
//! * A replica that ceases to lead gives up the answers it holds: the clients ask again, with their
//!   keys.

use std::sync::Arc;
use std::time::Duration;

use ledger::shop::ShopState;
use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;
use wire::proto;
use wire::stream::Reply;
use wire::watch::clock;
use wire::watch::lease::{Moment, Times};
use wire::watch::rules::Rules;

use crate::acknowledger::Reveals;
use crate::batcher::Batcher;
use crate::history::applied_state::AppliedEntry;
use crate::history::view::View;
use crate::leader_term::LeaderTerm;
use crate::problems;
use crate::raft::engine::Engine;
use crate::read_index::ReadIndex;
use crate::role::Role;
use crate::watch::answers::{DecidedAnswer, Held};
use crate::watch::state::{LedgerReading, WatchState};

/// How long a read waits until the index that it reveals is settled.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(4);

/// A round of questions to the majority that takes longer than this counts as failed: five
/// heartbeats. The followers give a leader up after 350 ms of silence, and by then its catalogs
/// should look for the next.
const QUORUM_ROUND_TIMEOUT: Duration = Duration::from_millis(250);

/// The owner of the watch's state. Clones share it.
#[derive(Clone)]
pub(crate) struct Settling {
    shared: Arc<Shared>,
}

struct Shared {
    times: Times,
    rules: Rules,
    view: Arc<View>,
    role: watch::Receiver<Role>,
    batcher: Batcher,
    state: Mutex<WatchState>,
    /// Counts up when frames, the settled index or the watchers have changed.
    news: watch::Sender<u64>,
    /// Asks for a lease now.
    urge: Notify,
    stop: CancellationToken,
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
        let state = Mutex::new(WatchState::new(settled, rules, stop.child_token()));
        let news = watch::Sender::new(0);
        let urge = Notify::new();
        let shared = Shared { times, rules, view, role, batcher, state, news, urge, stop };
        Self { shared: Arc::new(shared) }
    }

    /// Sends the answer to decided requests once the index that it reveals is settled.
    pub(crate) fn answer(&self, reply: Reply, decided: DecidedAnswer) {
        let DecidedAnswer { reveals, index, requests, what } = decided;
        let awaiting = self.shared.batcher.awaiting_reply(requests);
        let answer = proto::Answer { call: 0, as_of: index.0, stale: false, what: Some(what) };
        let leads =
            || matches!(*self.shared.role.borrow(), Role::Leading { .. } | Role::TakingOver { .. });
        let (due, given_up) = self.with(|state| {
            let due = state.hold(reveals, index, Held::Answer(reply, answer, awaiting));
            (due, if leads() { Vec::new() } else { state.release() })
        });
        due.into_iter().for_each(Held::give);
        given_up.into_iter().for_each(Held::give_up);
    }

    /// Waits until the index that a read reveals is settled.
    pub(crate) async fn reading(&self, index: Index) -> Result<(), Problem> {
        let (reply, settled) = oneshot::channel();
        let due = self.with(|state| state.hold(Reveals::Reading, index, Held::Read(reply)));
        if due.is_some() {
            return Ok(());
        }
        match tokio::time::timeout(SETTLE_TIMEOUT, settled).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(problems::no_leader()),
            Err(_) => Err(problems::unsettled()),
        }
    }

    /// Answers up to this index leave at once.
    pub(crate) fn settled(&self) -> Index {
        self.with(|state| state.settled())
    }

    /// The number of answers that wait.
    pub(crate) fn held(&self) -> usize {
        self.with(|state| state.held())
    }

    /// The number of silent catalogs fenced since the start.
    pub(crate) fn fenced_count(&self) -> u64 {
        self.with(|state| state.fenced_count())
    }

    /// The names of the attached catalogs, and the index that each has seen; empty unless this
    /// replica leads.
    pub(crate) fn watchers(&self) -> Vec<(String, Option<Index>)> {
        self.with(|state| state.watchers())
    }

    /// The role of this replica.
    pub(super) fn role(&self) -> Role {
        *self.shared.role.borrow()
    }

    /// The applied state of this replica.
    pub(super) fn view(&self) -> &View {
        &self.shared.view
    }

    /// The only way to the log.
    pub(crate) fn batcher(&self) -> &Batcher {
        &self.shared.batcher
    }

    /// How long leases last, and how often they are renewed.
    pub(super) fn times(&self) -> Times {
        self.shared.times
    }

    /// A receiver that changes with the frames, the settled index and the watchers.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.shared.news.subscribe()
    }

    /// Asks for a lease now, instead of at the next beat.
    pub(super) fn urge(&self) {
        self.shared.urge.notify_one();
    }

    /// Looks at the state, or changes it, under its lock.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut WatchState) -> T) -> T {
        act(&mut self.shared.state.lock())
    }

    /// Changes the state; then sends the answers that are due, and wakes the streams.
    pub(super) fn settle<T>(&self, act: impl FnOnce(&mut WatchState) -> T) -> T {
        let (result, due) = self.with(|state| (act(state), state.due()));
        due.into_iter().for_each(Held::give);
        self.notify();
        result
    }

    /// Sends the answers that are due after a change, and wakes the streams.
    pub(super) fn send_due(&self) {
        self.settle(|_| ());
    }

    fn notify(&self) {
        self.shared.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A token for the streams of a term.
    fn streams(&self) -> CancellationToken {
        self.shared.stop.child_token()
    }

    /// Takes in applied entries and changes of the role, until `stop`.
    pub(crate) async fn follow(self) {
        let mut role = self.shared.role.clone();
        let (start, mut feed) = self.shared.view.watch(ShopState::applied);
        self.restart(start);
        loop {
            let now = *role.borrow_and_update();
            self.obey(now);
            let entry = tokio::select! {
                entry = feed.recv() => entry,
                changed = role.changed() => if changed.is_ok() { continue } else { return },
                () = self.shared.stop.cancelled() => return,
            };
            match entry {
                Ok(entry) if entry.changes.is_some() => self.take(&entry),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    let (start, fresh) = self.shared.view.watch(ShopState::applied);
                    feed = fresh;
                    self.restart(start);
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Renews the leader's lease while a catalog is attached, and fences silent catalogs.
    pub(crate) async fn keep_lease(self, engine: Engine, reader: ReadIndex) {
        let beat = self.shared.times.beat;
        let mut beats = tokio::time::interval(beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lapses = tokio::time::interval(beat / 4);
        lapses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                () = self.shared.urge.notified() => {}
                _ = lapses.tick() => {
                    self.lapse();
                    continue;
                }
                () = self.shared.stop.cancelled() => return,
            }
            let Some(term) = self.with(|state| state.watched_term()) else { continue };
            // The leadership must be of this very term from the start of the round to its end.
            let leads =
                || engine.leader().leader == Some(engine.id()) && engine.leader().term == term;
            let asked = clock::now();
            if !leads() {
                continue;
            }
            let round = tokio::time::timeout(QUORUM_ROUND_TIMEOUT, reader.confirm());
            match round.await {
                Ok(Ok(_)) if leads() => self.confirmed(term, asked),
                _ => self.lost_majority(term),
            }
        }
    }

    /// Begins or ends a leadership, as the role says.
    fn obey(&self, role: Role) {
        let given_up = match role {
            Role::Leading { term } | Role::TakingOver { term }
                if self.with(|state| state.leads_in()) == Some(term) =>
            {
                return;
            }
            Role::Leading { term } => {
                let Shared { times, rules, view, .. } = &*self.shared;
                let reading = view.read(LedgerReading::of);
                self.settle(|state| {
                    let given_up = state.end_term(self.streams());
                    state.begin(LeaderTerm::new(term, clock::now(), *times, *rules), &reading);
                    given_up
                })
            }
            // A replica that was elected may soon settle the answers that came after its last term.
            Role::TakingOver { .. } => self.with(|state| state.end_term(self.streams())),
            Role::Following { .. } | Role::Leaderless { .. } => {
                let given_up = self.with(|state| {
                    let mut given_up = state.end_term(self.streams());
                    given_up.extend(state.release());
                    given_up
                });
                self.notify();
                given_up
            }
        };
        given_up.into_iter().for_each(Held::give_up);
    }

    /// Frames are missing: starts over from the applied state.
    fn restart(&self, start: Index) {
        let reading = self.shared.view.read(LedgerReading::of);
        self.settle(|state| state.restart(start, &reading, clock::now()));
    }

    fn take(&self, entry: &AppliedEntry) {
        self.settle(|state| state.take(entry, clock::now()));
    }

    fn confirmed(&self, term: u64, asked: Moment) {
        if self.with(|state| state.confirmed(term, asked, clock::now())) {
            self.notify();
        }
    }

    /// A round of questions has failed, or takes too long: grants nothing until the next round that
    /// succeeds.
    fn lost_majority(&self, term: u64) {
        if self.with(|state| state.lost_majority(term, self.streams())) {
            tracing::warn!(
                term,
                "no majority confirms this leader: it lets its catalogs look for another"
            );
            self.notify();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
