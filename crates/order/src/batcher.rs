//! The batcher: many requests in, few log entries out.
//!
//! [`BatchQueue`] decides which requests leave together, and when, without a clock or an engine;
//! this is the shell that sends the entries.
//!
//! # Invariants
//!
//! * Each request that was let in is answered exactly once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;
use wire::timer::until;

use crate::batch_metrics::BatchMetrics;
use crate::batch_queue::{BatchQueue, ClosedEntry};
use crate::pending::{Pending, Respond, Responder};
use crate::problems;
use crate::role::Role;

/// An entry that has not landed after this is answered as unknown, and no new request is let in.
pub(crate) const LANDING_MAX: Duration = Duration::from_secs(1);

/// Sends one entry to the log; returns the index where it was decided, and its outcomes.
pub(crate) trait Propose: Send + Sync + 'static {
    /// Resolves when the entry is applied; the problem says that it was not, or is not known to be.
    fn propose(
        &self,
        requests: Vec<Pending>,
    ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>>;
}

/// The only way to the log on this replica; it lets requests in only while the replica leads.
#[derive(Clone)]
pub(crate) struct Batcher {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<BatchQueue<Responder>>,
    wake: Notify,
    stalled: AtomicBool,
    metrics: BatchMetrics,
}

impl std::fmt::Debug for Batcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").finish_non_exhaustive()
    }
}

/// This many requests are decided and not yet answered; dropped with their answer.
#[derive(Debug)]
pub(crate) struct AwaitingReply {
    batcher: Batcher,
    requests: usize,
    since: Instant,
}

impl Drop for AwaitingReply {
    fn drop(&mut self) {
        let shared = &self.batcher.shared;
        let now = Instant::now();
        shared.metrics.settled.observe_many(now.duration_since(self.since), self.requests);
        shared.queue.lock().replied(self.requests, now);
        shared.wake.notify_one();
    }
}

/// An entry in flight, and the responders of its requests.
struct Flight {
    since: Instant,
    requests: usize,
    responders: Vec<Responder>,
}

impl Batcher {
    /// A batcher with an empty, closed queue.
    pub(crate) fn new() -> Self {
        let shared = Shared {
            queue: Mutex::new(BatchQueue::default()),
            wake: Notify::new(),
            stalled: AtomicBool::new(false),
            metrics: BatchMetrics::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes requests. `respond` is called exactly once: when they are decided, when another
    /// replica leads, or when an entry has not landed for [`LANDING_MAX`].
    pub(crate) fn offer(&self, pending: Pending, respond: Respond) {
        let now = Instant::now();
        let responder = Responder::new(pending.count(), now, respond);
        if self.is_stalled() {
            return responder.problem(&problems::no_quorum());
        }
        let offered = self.shared.queue.lock().offer(pending, responder, now);
        match offered {
            Ok(()) => self.shared.wake.notify_one(),
            Err(responder) => responder.problem(&problems::overloaded()),
        }
    }

    /// This many requests have landed and wait for their answers.
    pub(crate) fn awaiting_reply(&self, requests: usize) -> AwaitingReply {
        self.shared.queue.lock().decided(requests);
        AwaitingReply { batcher: self.clone(), requests, since: Instant::now() }
    }

    /// The number of requests that wait, and of entries in flight.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        self.shared.queue.lock().lengths()
    }

    /// What it has observed.
    pub(crate) fn metrics(&self) -> &BatchMetrics {
        &self.shared.metrics
    }

    /// True while an entry is overdue: the replica leads, but a majority does not answer it.
    pub(crate) fn is_stalled(&self) -> bool {
        self.shared.stalled.load(Ordering::Relaxed)
    }

    /// True when no entry is in flight. (Queued requests are answered when another replica leads.)
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.queue.lock().is_idle()
    }

    /// Sends entries while the replica leads, until `stop`.
    pub(crate) async fn run(
        self,
        log: Arc<dyn Propose>,
        mut role: watch::Receiver<Role>,
        stop: CancellationToken,
    ) {
        let mut landings = FuturesUnordered::new();
        let mut flights: VecDeque<(u64, Flight)> = VecDeque::new();
        let mut number = 0_u64;
        loop {
            self.obey(*role.borrow_and_update());
            while let Some(ClosedEntry { requests, companions: responders, count }) = self.take() {
                number += 1;
                let landing = log.propose(requests);
                landings.push(async move { (number, landing.await) });
                let flight = Flight { since: Instant::now(), requests: count, responders };
                flights.push_back((number, flight));
            }
            let overdue = flights.iter().find(|(_, flight)| !flight.responders.is_empty());
            let overdue = overdue.map(|(_, flight)| flight.since + LANDING_MAX);
            let deadline = overdue.into_iter().chain(self.deadline()).min();
            tokio::select! {
                Some((landed, result)) = landings.next(), if !landings.is_empty() => {
                    self.land(&mut flights, landed, result);
                }
                () = self.shared.wake.notified() => {}
                changed = role.changed() => if changed.is_err() { break },
                () = until(deadline) => {
                    if overdue.is_some_and(|overdue| overdue <= Instant::now()) {
                        self.give_up(&mut flights);
                    }
                }
                () = stop.cancelled() => break,
            }
        }
        self.dismiss(&problems::stopping());
        for (_, flight) in flights {
            respond_all(flight.responders, &problems::unknown());
        }
    }

    fn take(&self) -> Option<ClosedEntry<Responder>> {
        if self.is_stalled() {
            return None;
        }
        let now = Instant::now();
        let closed = self.shared.queue.lock().close(now)?;
        let metrics = &self.shared.metrics;
        for Responder { since, requests, .. } in &closed.companions {
            metrics.queue.observe_many(now.duration_since(*since), *requests);
        }
        metrics.entry_orders.observe_size(closed.count);
        metrics.entry_bytes.observe_size(closed.requests.iter().map(Pending::size).sum());
        Some(closed)
    }

    /// When the queued requests leave without waiting for more.
    fn deadline(&self) -> Option<Instant> {
        if self.is_stalled() {
            return None;
        }
        self.shared.queue.lock().deadline()
    }

    /// Opens or closes the queue, and dismisses the requests that another replica must answer.
    fn obey(&self, role: Role) {
        self.shared.queue.lock().set_open(matches!(role, Role::Leading { .. }));
        match role {
            Role::Leading { .. } | Role::TakingOver { .. } => {}
            Role::Following { leader, .. } => self.dismiss(&problems::not_leader(leader)),
            Role::Leaderless { no_quorum: false, .. } => self.dismiss(&problems::no_leader()),
            Role::Leaderless { no_quorum: true, .. } => self.dismiss(&problems::no_quorum()),
        }
    }

    fn land(
        &self,
        flights: &mut VecDeque<(u64, Flight)>,
        landed: u64,
        result: Result<(Index, Vec<Outcome>), Problem>,
    ) {
        let Some(place) = flights.iter().position(|(number, _)| *number == landed) else { return };
        let Some((_, flight)) = flights.remove(place) else { return };
        self.shared.queue.lock().landed(flight.requests);
        let overdue = flights.iter().any(|(_, flight)| flight.responders.is_empty());
        self.shared.stalled.store(overdue, Ordering::Relaxed);
        match result {
            Ok((index, outcomes)) => {
                self.shared.metrics.log.observe_many(flight.since.elapsed(), flight.requests);
                let mut outcomes = outcomes.into_iter();
                for responder in flight.responders {
                    responder.decided(index, &mut outcomes);
                }
            }
            Err(problem) => respond_all(flight.responders, &problem),
        }
    }

    /// The oldest entry is overdue: its requests are answered as unknown. Queued requests are
    /// answered as not executed. Until all overdue entries have landed, no new request is let in.
    fn give_up(&self, flights: &mut VecDeque<(u64, Flight)>) {
        let now = Instant::now();
        for (_, flight) in flights.iter_mut().filter(|(_, f)| f.since + LANDING_MAX <= now) {
            respond_all(std::mem::take(&mut flight.responders), &problems::unknown());
        }
        self.shared.stalled.store(true, Ordering::Relaxed);
        self.dismiss(&problems::no_quorum());
    }

    fn dismiss(&self, problem: &Problem) {
        let responders = self.shared.queue.lock().drain();
        respond_all(responders, problem);
    }
}

fn respond_all(responders: Vec<Responder>, problem: &Problem) {
    for responder in responders {
        responder.problem(problem);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use ledger::command::{Command, Line as OrderLine, Request, Side};
    use ledger::terms::{Key, Name, Origin, Quantity};

    use super::*;

    fn request() -> Request {
        let (name, quantity) = (Name::new("fox").unwrap(), Quantity::new(1).unwrap());
        let key = Key::new(Origin::Client, "key");
        let command = Command::Place(vec![OrderLine { name, quantity, side: Side::Buy }]);
        Request { key, deadline: None, certificate: None, command }
    }

    /// A log whose entries land when the test permits it.
    struct Slow {
        gate: Arc<tokio::sync::Semaphore>,
    }

    impl Propose for Slow {
        fn propose(
            &self,
            requests: Vec<Pending>,
        ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>> {
            let gate = self.gate.clone();
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                let done = Outcome::Accepted(ledger::outcome::Accepted::Done);
                let count = requests.iter().map(Pending::count).sum();
                Ok((Index(1), vec![done; count]))
            })
        }
    }

    /// The same log, with the number of entries proposed to it.
    struct Counted(Slow, AtomicUsize);

    impl Propose for Counted {
        fn propose(
            &self,
            requests: Vec<Pending>,
        ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.propose(requests)
        }
    }

    #[tokio::test]
    async fn each_request_let_in_is_answered_also_when_another_replica_leads() {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (role, watch_role) = watch::channel(Role::Leading { term: 1 });
        let (batcher, stop) = (Batcher::new(), CancellationToken::new());
        let log = Arc::new(Slow { gate: gate.clone() });
        let running = tokio::spawn(batcher.clone().run(log, watch_role, stop.clone()));
        let (reply, mut answer) = tokio::sync::mpsc::unbounded_channel();
        let ask = |number: usize| {
            let reply = reply.clone();
            batcher.offer(
                Pending::lone(&request()),
                Box::new(move |decision| reply.send((number, decision)).unwrap()),
            );
        };
        ask(0);
        gate.add_permits(1);
        assert!(answer.recv().await.unwrap().1.is_ok());
        role.send_replace(Role::Following { leader: 345, term: 2 });
        ask(1);
        let problem = answer.recv().await.unwrap().1.unwrap_err();
        assert_eq!((problem.definite, problem.leader), (true, Some(345)));
        stop.cancel();
        running.await.unwrap();
        assert!(batcher.is_idle());
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_ever_for_answers_that_are_held() {
        let gate = Arc::new(tokio::sync::Semaphore::new(9));
        let (_role, watch_role) = watch::channel(Role::Leading { term: 1 });
        let (batcher, stop) = (Batcher::new(), CancellationToken::new());
        let running =
            tokio::spawn(batcher.clone().run(Arc::new(Slow { gate }), watch_role, stop.clone()));
        let awaiting = batcher.awaiting_reply(3);
        let (began, (reply, answer)) = (Instant::now(), tokio::sync::oneshot::channel());
        batcher.offer(
            Pending::lone(&request()),
            Box::new(move |decision| reply.send(decision).unwrap()),
        );
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        assert!(answer.expect("it leaves after the batch wait").unwrap().is_ok());
        assert!(crate::batch_queue::BATCH_WAIT_MAX <= began.elapsed(), "but not at once");
        drop(awaiting);
        stop.cancel();
        running.await.unwrap();
    }

    /// [P4] An entry in flight may still be decided; only a queued request surely is not.
    #[tokio::test]
    async fn an_entry_that_does_not_land_is_unknown_and_what_waits_behind_it_has_not_happened() {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (_role, watch_role) = watch::channel(Role::Leading { term: 1 });
        let (batcher, stop) = (Batcher::new(), CancellationToken::new());
        let log = Arc::new(Counted(Slow { gate: gate.clone() }, AtomicUsize::new(0)));
        let running = tokio::spawn(batcher.clone().run(log.clone(), watch_role, stop.clone()));
        let ask = || {
            let (reply, answer) = tokio::sync::oneshot::channel();
            batcher.offer(
                Pending::lone(&request()),
                Box::new(move |decision| reply.send(decision).unwrap()),
            );
            tokio::time::timeout(Duration::from_secs(20), answer)
        };
        let mut left = Vec::new();
        while left.len() < crate::batch_queue::IN_FLIGHT_MAX {
            left.push(ask());
            while log.1.load(Ordering::Relaxed) < left.len() {
                tokio::task::yield_now().await;
            }
        }
        let waits = ask();
        let unknown = left.swap_remove(0).await.expect("it is answered").unwrap().unwrap_err();
        assert!(!unknown.definite, "{unknown:?}");
        assert!(batcher.is_stalled());
        let refused = waits.await.expect("it is answered").unwrap().unwrap_err();
        assert!(refused.definite, "{refused:?}");
        assert!(ask().await.unwrap().unwrap().unwrap_err().definite, "no new request is let in");
        gate.add_permits(99);
        let over = async {
            while batcher.is_stalled() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), over).await.expect("the stall is over");
        assert!(ask().await.unwrap().unwrap().is_ok(), "it has landed after all");
        stop.cancel();
        running.await.unwrap();
    }
}
