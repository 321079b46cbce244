//! The batcher: many requests in, few log entries out.
//!
//! An entry costs a disk write on a majority of replicas, whatever it carries. So while entries are
//! on their way, requests wait in line; when a slot is free, those in line leave together. Nobody
//! waits for company: an idle store sends a request off alone and at once, a busy one fills its
//! entries. A further entry leaves only when it is at least as full as the one before it, so that
//! a crowd does not fall apart into many small entries, each of which costs as much as a full one.
//!
//! [`Line`] decides and knows neither clock nor engine; [`Batcher`] is the shell that performs.
//!
//! # Invariants
//!
//! * At most [`IN_FLIGHT_MAX`] entries are on their way, at most [`WAITING_MAX`] requests wait.
//! * When nothing is on its way and the way is open, nobody waits.
//! * Whoever was let in is answered exactly once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ledger::command::Request;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;

use crate::load::{Load, Tell, TellMany, TellOne};
use crate::problems;
use crate::role::Role;

/// The most requests in one entry.
pub(crate) const COMMANDS_MAX: usize = 1024;

/// The most bytes of requests in one entry; a single greater request travels alone, and an entry
/// that carries bulks may be greater ([`crate::load`]).
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// The most entries on their way. More add latency and no throughput.
pub(crate) const IN_FLIGHT_MAX: usize = 3;

/// The most requests waiting for an entry: several full entries, well under a second of work.
pub(crate) const WAITING_MAX: usize = 16 * 1024;

/// An entry that has not landed after this is answered as unknown, and nothing new is let in.
pub(crate) const LANDING_MAX: Duration = Duration::from_secs(1);

/// Sends one entry to the log, and says where each of its requests was decided and how.
pub(crate) trait Propose: Send + Sync + 'static {
    /// Resolves when the entry is applied, or to why it was not (or is not known to be).
    fn propose(
        &self,
        loads: Vec<Load>,
    ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>>;
}

/// The pure core: who waits, and when an entry closes. `T` is whatever must be kept with a request.
#[derive(Debug)]
pub(crate) struct Line<T> {
    waiting: VecDeque<(Load, T)>,
    /// How many requests that is.
    requests: usize,
    in_flight: usize,
    /// How many requests the entry had that left last.
    last: usize,
    open: bool,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), requests: 0, in_flight: 0, last: 0, open: false }
    }
}

impl<T> Line<T> {
    /// Takes a place in line, or gives the load's companion back when the line is full.
    pub(crate) fn offer(&mut self, load: Load, companion: T) -> Result<(), T> {
        let requests = self.requests + load.count();
        if WAITING_MAX < requests {
            return Err(companion);
        }
        self.requests = requests;
        self.waiting.push_back((load, companion));
        Ok(())
    }

    /// Opens the way to the log, or closes it; those in line stay.
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// The next entry, if one may leave now. Takes a slot.
    pub(crate) fn close(&mut self) -> Option<(Vec<Load>, Vec<T>)> {
        if !self.open || IN_FLIGHT_MAX <= self.in_flight || self.waiting.is_empty() {
            return None;
        }
        if 0 < self.in_flight && self.requests < self.last {
            return None;
        }
        let (mut loads, mut companions) = (Vec::new(), Vec::new());
        let (mut count, mut bytes) = (0, 0);
        while let Some((load, _)) = self.waiting.front() {
            let (count_max, bytes_max) = load.room((COMMANDS_MAX, BYTES_MAX));
            let (count_now, bytes_now) = (count + load.count(), bytes + load.size());
            let fits = loads.is_empty() || (count_now <= count_max && bytes_now <= bytes_max);
            if !fits {
                break;
            }
            (count, bytes) = (count_now, bytes_now);
            let (load, companion) = self.waiting.pop_front().expect("there is a first");
            loads.push(load);
            companions.push(companion);
        }
        self.requests -= count;
        self.in_flight += 1;
        self.last = count;
        Some((loads, companions))
    }

    /// An entry has landed: its slot is free.
    pub(crate) fn landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Sends everybody in line away.
    pub(crate) fn dismiss(&mut self) -> Vec<T> {
        self.requests = 0;
        self.waiting.drain(..).map(|(_, companion)| companion).collect()
    }

    /// True when nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }
}

/// The one door to the log on this replica; it lets in only while the replica leads.
#[derive(Clone)]
pub(crate) struct Batcher {
    shared: Arc<Shared>,
}

struct Shared {
    line: Mutex<Line<Tell>>,
    wake: Notify,
    stalled: std::sync::atomic::AtomicBool,
}

impl std::fmt::Debug for Batcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").finish_non_exhaustive()
    }
}

/// An entry on its way, and those who wait for it.
struct Flight {
    since: Instant,
    tells: Vec<Tell>,
}

impl Batcher {
    /// A batcher with nobody in line, and its way to the log closed.
    pub(crate) fn new() -> Self {
        let shared = Shared {
            line: Mutex::new(Line::default()),
            wake: Notify::new(),
            stalled: std::sync::atomic::AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a request. `tell` is called exactly once, at the latest after [`LANDING_MAX`] twice.
    pub(crate) fn offer(&self, request: Request, tell: TellOne) {
        self.offer_load(Load::One(request), Tell::One(tell));
    }

    /// Takes so many orders, which were checked; otherwise as [`offer`](Self::offer).
    pub(crate) fn offer_many(&self, (count, orders): (usize, Bytes), tell: TellMany) {
        self.offer_load(Load::Many(count, orders), Tell::Many(count, tell));
    }

    fn offer_load(&self, load: Load, tell: Tell) {
        if self.is_stalled() {
            return tell.problem(&problems::no_quorum());
        }
        let offered = self.shared.line.lock().offer(load, tell);
        match offered {
            Ok(()) => self.shared.wake.notify_one(),
            Err(tell) => tell.problem(&problems::overloaded()),
        }
    }

    /// True while an entry is overdue: the replica leads, but a majority does not answer it.
    pub(crate) fn is_stalled(&self) -> bool {
        self.shared.stalled.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// True when nothing is on its way. Those in line are sent elsewhere when somebody else leads.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.line.lock().is_idle()
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
            while let Some((loads, tells)) = self.take() {
                number += 1;
                let landing = log.propose(loads);
                landings.push(async move { (number, landing.await) });
                flights.push_back((number, Flight { since: Instant::now(), tells }));
            }
            let overdue = flights.iter().find(|(_, flight)| !flight.tells.is_empty());
            let deadline = overdue.map(|(_, flight)| flight.since + LANDING_MAX);
            tokio::select! {
                Some((landed, result)) = landings.next(), if !landings.is_empty() => {
                    self.land(&mut flights, landed, result);
                }
                () = self.shared.wake.notified() => {}
                changed = role.changed() => if changed.is_err() { break },
                () = sleep_until(deadline), if deadline.is_some() => self.give_up(&mut flights),
                () = stop.cancelled() => break,
            }
        }
        self.dismiss(&problems::stopping());
        for (_, flight) in flights {
            tell_all(flight.tells, &problems::unknown());
        }
    }

    fn take(&self) -> Option<(Vec<Load>, Vec<Tell>)> {
        if self.is_stalled() {
            return None;
        }
        self.shared.line.lock().close()
    }

    /// Opens or closes the way to the log, and sends away whom another replica must answer.
    fn obey(&self, role: Role) {
        self.shared.line.lock().set_open(matches!(role, Role::Leading { .. }));
        match role {
            Role::Leading { .. } | Role::Choosing { .. } => {}
            Role::Following { leader, .. } => self.dismiss(&problems::not_leader(leader)),
            Role::Alone { forsaken: false, .. } => self.dismiss(&problems::no_leader()),
            Role::Alone { forsaken: true, .. } => self.dismiss(&problems::no_quorum()),
        }
    }

    fn land(
        &self,
        flights: &mut VecDeque<(u64, Flight)>,
        landed: u64,
        result: Result<(Index, Vec<Outcome>), Problem>,
    ) {
        self.shared.line.lock().landed();
        let Some(place) = flights.iter().position(|(number, _)| *number == landed) else { return };
        let Some((_, flight)) = flights.remove(place) else { return };
        let overdue = flights.iter().any(|(_, flight)| flight.tells.is_empty());
        self.shared.stalled.store(overdue, std::sync::atomic::Ordering::Relaxed);
        match result {
            Ok((index, outcomes)) => {
                let mut outcomes = outcomes.into_iter();
                for tell in flight.tells {
                    tell.decided(index, &mut outcomes);
                }
            }
            Err(problem) => tell_all(flight.tells, &problem),
        }
    }

    /// The oldest entry is overdue. Its senders are told that nobody knows; those in line, that
    /// nothing happened. Until all overdue entries have landed nothing new is let in.
    fn give_up(&self, flights: &mut VecDeque<(u64, Flight)>) {
        let now = Instant::now();
        for (_, flight) in flights.iter_mut().filter(|(_, f)| f.since + LANDING_MAX <= now) {
            tell_all(std::mem::take(&mut flight.tells), &problems::unknown());
        }
        self.shared.stalled.store(true, std::sync::atomic::Ordering::Relaxed);
        self.dismiss(&problems::no_quorum());
    }

    fn dismiss(&self, problem: &Problem) {
        let tells = self.shared.line.lock().dismiss();
        tell_all(tells, problem);
    }
}

fn tell_all(tells: Vec<Tell>, problem: &Problem) {
    for tell in tells {
        tell.problem(problem);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use ledger::command::{Command, Line as OrderLine, Side};
    use ledger::terms::{Name, Quantity};

    use super::*;
    use crate::load::size;

    fn request(lines: usize) -> Request {
        let (name, quantity) = (Name::new("fox").unwrap(), Quantity::new(1).unwrap());
        let line = OrderLine { name, quantity, side: Side::Buy };
        Request { key: None, deadline: None, command: Command::Place(vec![line; lines]) }
    }

    fn offer(line: &mut Line<u64>, count: u64) {
        for number in 0..count {
            assert_eq!(line.offer(Load::One(request(1)), number), Ok(()));
        }
    }

    #[test]
    fn a_lone_request_leaves_at_once_and_a_crowd_leaves_together() {
        let mut line = Line::default();
        offer(&mut line, 1);
        assert!(line.close().is_none(), "the way to the log is closed");
        line.set_open(true);
        assert_eq!(line.close().unwrap().1, [0]);
        offer(&mut line, 1);
        assert_eq!(line.close().unwrap().1, [0]);
        offer(&mut line, 1);
        assert_eq!(line.close().unwrap().1, [0]);
        offer(&mut line, 5);
        assert!(line.close().is_none(), "three entries are on their way");
        line.landed();
        assert_eq!(line.close().unwrap().1, [0, 1, 2, 3, 4]);
        assert!(line.close().is_none());
        assert!(!line.is_idle());
    }

    #[test]
    fn a_crowd_does_not_fall_apart_into_small_entries_and_nobody_waits_for_nothing() {
        let mut line = Line::default();
        line.set_open(true);
        offer(&mut line, 4);
        assert_eq!(line.close().unwrap().1.len(), 4);
        offer(&mut line, 3);
        assert!(line.close().is_none(), "fewer than left before, which are still on their way");
        offer(&mut line, 1);
        assert_eq!(line.close().unwrap().1.len(), 4);
        offer(&mut line, 1);
        line.landed();
        assert!(line.close().is_none());
        line.landed();
        assert_eq!(line.close().unwrap().1, [0], "nothing else is on its way");
    }

    #[test]
    fn an_entry_is_bounded_in_commands_and_in_bytes() {
        let mut line = Line::default();
        line.set_open(true);
        offer(&mut line, 1_500);
        let mut close = || {
            let entry = line.close().unwrap().0.len();
            line.landed();
            entry
        };
        let sizes = [close(), close()];
        let each = size(&request(1));
        assert_eq!(sizes[0], COMMANDS_MAX.min(BYTES_MAX / each));
        assert_eq!(sizes.iter().sum::<usize>(), 1_500.min(2 * sizes[0]));
        let mut line = Line::default();
        line.set_open(true);
        for number in 0..3 {
            line.offer(Load::One(request(4_000)), number).unwrap();
        }
        assert_eq!(line.close().unwrap().1, [0], "too great for company, it travels alone");
    }

    #[test]
    fn the_line_is_bounded_and_can_be_sent_away() {
        let mut line = Line::default();
        offer(&mut line, WAITING_MAX as u64);
        assert_eq!(line.offer(Load::One(request(1)), 7), Err(7));
        assert_eq!(line.dismiss().len(), WAITING_MAX);
        assert!(line.is_idle());
    }

    /// A log whose entries land when the test says so.
    struct Slow {
        gate: Arc<tokio::sync::Semaphore>,
    }

    impl Propose for Slow {
        fn propose(
            &self,
            loads: Vec<Load>,
        ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>> {
            let gate = self.gate.clone();
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                let done = Outcome::Accepted(ledger::outcome::Accepted::Done);
                let count = loads.iter().map(Load::count).sum();
                Ok((Index(1), vec![done; count]))
            })
        }
    }

    #[tokio::test]
    async fn whoever_was_let_in_is_answered_also_when_another_replica_leads() {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (role, watch_role) = watch::channel(Role::Leading { term: 1 });
        let (batcher, stop) = (Batcher::new(), CancellationToken::new());
        let log = Arc::new(Slow { gate: gate.clone() });
        let running = tokio::spawn(batcher.clone().run(log, watch_role, stop.clone()));
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let ask = |number: usize| {
            let tell = tell.clone();
            batcher.offer(
                request(1),
                Box::new(move |decision| tell.send((number, decision)).unwrap()),
            );
        };
        ask(0);
        gate.add_permits(1);
        assert!(told.recv().await.unwrap().1.is_ok());
        role.send_replace(Role::Following { leader: 345, term: 2 });
        ask(1);
        let problem = told.recv().await.unwrap().1.unwrap_err();
        assert_eq!((problem.definite, problem.leader), (true, Some(345)));
        stop.cancel();
        running.await.unwrap();
        assert!(batcher.is_idle());
    }
}
