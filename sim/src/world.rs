//! The world of one run: machines, network, disks, customers, chaos and the checker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::chaos::{Act, CALM, Chaos};
use crate::checker::{self, Checker};
use crate::customer::Customer;
use crate::history::History;
use crate::machine::{BEGINNING, Host};
use crate::net::{HostId, MachineState, Net};
use crate::plan::Plan;
use crate::replica::{self, FolderCopy, Replica};
use crate::shopper::Shopper;
use crate::stateless::{self, StatelessProcess};
use crate::trace::{self, RunSummary};
use ground::disk::Crash;

mod older_copies;

use older_copies::Reverted;

/// The machine of the customers.
const CUSTOMERS: HostId = 100;

/// How long healing may take, in steps.
const HEALING: u64 = 20_000;

/// The number of steps between two checks.
const LOOK: u64 = 5;

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Every violation.
    pub wrong: Vec<String>,
    /// The number of orders at the end.
    pub orders: u64,
    /// The number of answered orders.
    pub answered: usize,
    /// The number of faults.
    pub faults: u64,
    /// The duration of the run, in steps.
    pub steps: u64,
    /// The trace.
    pub trace: RunSummary,
}

/// The state of a run.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    net: Net,
    replicas: Vec<Replica>,
    sides: Vec<StatelessProcess>,
    customers: Host,
    history: History,
    judge: Checker,
    wrong: Vec<String>,
    faults: u64,
    /// Folders replaced by older copies, by place: such a replica must be refused.
    reverted: BTreeMap<usize, Reverted>,
    /// Copies of folders, by place.
    copies: BTreeMap<usize, FolderCopy>,
    /// The replicas that were refused, and their reasons.
    refused: Vec<(usize, String)>,
    /// From now on no process may end.
    calm: bool,
    // Last: removed when no process writes into it any more.
    _folder: TempDir,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, aloud: bool) -> Report {
    simulate(plan, aloud, World::chaos)
}

/// Runs a scripted story in a world; then the world heals, and is checked.
fn simulate(plan: &Plan, aloud: bool, story: impl FnOnce(&mut World)) -> Report {
    ground::rng::take_over(plan.seed);
    ground::clock::show(Duration::ZERO, BEGINNING);
    let guard = trace::begin(aloud);
    let mut world = World::new(plan.clone());
    world.begin();
    story(&mut world);
    world.heal();
    let report = world.end();
    drop(guard);
    report
}

impl World {
    /// Runs a scripted story in a world of this plan; then the world heals, and is checked. With
    /// `SIM_TRACE` set, prints the whole trace.
    pub fn simulate(plan: &Plan, story: impl FnOnce(&mut Self)) -> Report {
        simulate(plan, std::env::var_os("SIM_TRACE").is_some(), story)
    }

    /// A world in which no process runs yet.
    pub fn new(plan: Plan) -> Self {
        let net = Net::new(plan.seed, CALM);
        let memory = PathBuf::from("/dev/shm");
        let folder = match memory.is_dir() {
            true => TempDir::new_in(memory),
            false => TempDir::new(),
        };
        let folder = folder.expect("a folder for the identities can be made");
        let replicas = (0..plan.replicas)
            .map(|place| Replica::new(&plan, place, &net, folder.path()))
            .collect();
        let customers = Host::new(CUSTOMERS, "customers", &net);
        let sides = stateless::all(&plan, &net);
        Self {
            plan,
            net,
            replicas,
            sides,
            customers,
            history: History::default(),
            judge: Checker::default(),
            wrong: Vec::new(),
            faults: 0,
            reverted: BTreeMap::new(),
            copies: BTreeMap::new(),
            refused: Vec::new(),
            calm: false,
            _folder: folder,
        }
    }

    /// Starts every process.
    pub fn begin(&mut self) {
        for place in 0..self.replicas.len() {
            self.act(Act::Start(place));
        }
        for place in 0..self.sides.len() {
            self.act(Act::StartSide(place));
        }
        let (plan, net, history) = (self.plan.clone(), self.net.clone(), self.history.clone());
        self.customers.start(self.plan.seed, move |stop| shopping(plan, net, history, stop));
    }

    /// Runs the chaos of the plan.
    pub fn chaos(&mut self) {
        let mut hosts: Vec<HostId> =
            self.replicas.iter().map(|replica| replica.host.id()).collect();
        hosts.extend(self.sides.iter().map(|process| process.host.id()));
        hosts.push(CUSTOMERS);
        let mut chaos = Chaos::of(&self.plan, &hosts);
        while self.net.now() < chaos.until() && self.is_well() {
            let up: Vec<bool> = self.replicas.iter().map(|r| r.host.is_running()).collect();
            for act in chaos.now(self.net.now(), &up) {
                self.faults += 1;
                self.act(act);
            }
            self.step();
        }
    }

    /// Undoes all faults, and waits until the replicas agree and orders are accepted.
    pub fn heal(&mut self) {
        trace::enter("", self.net.now());
        trace::say("healing");
        self.net.repair();
        self.net.set_delay(CALM);
        for place in 0..self.replicas.len() {
            self.replicas[place].disk.resume();
            self.own_folder(place);
        }
        for process in &mut self.sides {
            process.host.freeze(false);
        }
        self.supervise();
        let began = self.net.now();
        // A process that was about to end may still do so.
        let grace = began + 500;
        while self.is_well() && !(grace < self.net.now() && 0 < self.history.answers_after(grace)) {
            if began + HEALING < self.net.now() {
                return self.is_wrong("liveness: no order was accepted after healing");
            }
            self.supervise();
            self.step();
        }
        self.calm = true;
        self.customers.ask_to_stop();
        while self.is_well() && (self.customers.is_running() || !self.is_whole()) {
            if began + 2 * HEALING < self.net.now() {
                let mut states: Vec<String> = self.replicas.iter().map(state).collect();
                let orders = self.history.orders().into_iter();
                let open = orders.filter(|order| order.answer.is_none());
                states.extend(open.map(|order| format!("{} waits", order.wanted.key)));
                trace::enter("", self.net.now());
                self.net.describe().iter().for_each(|line| trace::say(line));
                let text = states.join("; ");
                return self.is_wrong(&format!("liveness: the store is not whole: {text}"));
            }
            self.supervise();
            self.step();
        }
    }

    /// Checks everything, ends every process, and returns the report.
    pub fn end(mut self) -> Report {
        let orders = match self.is_well() {
            true => self.judge.conclude(&self.replicas, &self.history),
            false => 0,
        };
        let mut wrong = std::mem::take(&mut self.wrong);
        wrong.extend(self.judge.wrong().iter().cloned());
        wrong.extend(self.history.wrong());
        let (seed, faults, steps) = (self.plan.seed, self.faults, self.net.now());
        let answered = self.history.answers_after(0);
        for replica in &mut self.replicas {
            replica.crash(Crash::Kill);
        }
        for process in &mut self.sides {
            process.crash(MachineState::Gone);
        }
        self.customers.end(MachineState::Gone);
        let trace = trace::end();
        wrong.extend(trace.panics.iter().map(|panic| format!("defect: {panic}")));
        wrong.dedup();
        Report { seed, wrong, orders, answered, faults, steps, trace }
    }

    /// Performs an event.
    pub fn act(&mut self, act: Act) {
        trace::enter("", self.net.now());
        trace::say(&format!("{act:?}"));
        match act {
            Act::Crash(how, places) => {
                for place in places {
                    self.replicas[place].crash(how);
                }
            }
            Act::Start(place) if !self.replicas[place].host.is_running() => {
                self.replicas[place].start(self.plan.seed);
            }
            Act::StartSide(place) if !self.sides[place].host.is_running() => {
                self.sides[place].start(self.plan.seed);
            }
            Act::Start(_) | Act::StartSide(_) => {}
            Act::Freeze(place) => self.sides[place].host.freeze(true),
            Act::Thaw(place) => self.sides[place].host.freeze(false),
            Act::CrashSide(place, dark) => {
                self.sides[place].crash(if dark { MachineState::Dark } else { MachineState::Gone });
            }
            Act::Stop(place) => self.replicas[place].host.ask_to_stop(),
            Act::Cut(from, to) => self.net.cut(from, to, true),
            Act::Mend(from, to) => self.net.cut(from, to, false),
            Act::Stall(place) => self.replicas[place].disk.stall(),
            Act::Resume(place) => self.replicas[place].disk.resume(),
            Act::Jump(place, by_ms) => self.replicas[place].host.jump(by_ms),
            Act::Copy(place) => {
                self.replicas[place].crash(Crash::Power);
                self.copies.insert(place, self.replicas[place].copy());
            }
            Act::GoBack(place) => self.go_back_if_met(place),
            Act::OwnFolder(place) => {
                if self.reverted.contains_key(&place) {
                    self.own_folder(place);
                    self.act(Act::Start(place));
                }
            }
            Act::Purge(place, kept) => self.replicas[place].purge(kept),
            Act::Rough(rough) => self.net.set_delay(if rough { crate::chaos::ROUGH } else { CALM }),
        }
    }

    /// One millisecond.
    pub fn step(&mut self) {
        self.net.step();
        for (place, replica) in self.replicas.iter_mut().enumerate() {
            let Some(ending) = replica.step() else { continue };
            trace::enter("", self.net.now());
            match ending {
                Ok(()) => trace::say(&format!("{} has stopped", replica.id)),
                Err(stop) => {
                    trace::say(&format!("{} ended: {stop}", replica.id));
                    // A replica may give up while no source of blocks is reachable.
                    let may = !self.calm && stop.to_string().contains("cannot fetch the blocks");
                    if self.reverted.contains_key(&place) && is_refusal(&stop) {
                        self.refused.push((place, stop.to_string()));
                    } else if !may {
                        self.wrong.push(format!("{} ended: {stop}", replica.id));
                    }
                }
            }
        }
        for process in &mut self.sides {
            if let Some(ending) = process.step() {
                let name = process.host.name();
                self.wrong.push(format!("{name} ended: {ending:?}"));
            }
        }
        self.customers.step();
        trace::enter("", self.net.now());
        if self.net.now().is_multiple_of(LOOK) {
            for replica in &self.replicas {
                self.judge.look(replica);
            }
        }
    }

    /// Restarts each process that has ended, as a supervisor would.
    pub fn supervise(&mut self) {
        for place in 0..self.replicas.len() {
            if !self.replicas[place].host.is_running() {
                self.act(Act::Start(place));
            }
        }
        for place in 0..self.sides.len() {
            if !self.sides[place].host.is_running() {
                self.act(Act::StartSide(place));
            }
        }
    }

    /// The replicas.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The place of the leader and its term, if all running replicas agree on it.
    pub fn leader(&self) -> Option<(usize, u64)> {
        let leads = |replica: &Replica| {
            let inside = replica.inside()?;
            let metrics = inside.raft.metrics();
            let metrics = metrics.borrow_watched();
            Some((metrics.current_leader?, metrics.current_term))
        };
        let mut named = self.replicas.iter().map(leads);
        let (id, term) = named.next()??;
        named.all(|other| other == Some((id, term))).then_some(())?;
        let place = self.replicas.iter().position(|replica| replica.id == id)?;
        Some((place, term))
    }

    /// The replicas refused so far, by place, and their reasons.
    pub fn refused(&self) -> &[(usize, String)] {
        &self.refused
    }

    /// The machine of a replica.
    pub fn machine(&self, place: usize) -> HostId {
        self.replicas[place].host.id()
    }

    /// Runs `count` milliseconds, or until the first violation.
    pub fn steps(&mut self, count: u64) {
        let end = self.net.now() + count;
        while self.net.now() < end && self.is_well() {
            self.step();
        }
    }

    /// Runs until `is_so` holds, at most `most` milliseconds. False: it does not hold.
    pub fn until(&mut self, most: u64, is_so: impl Fn(&Self) -> bool) -> bool {
        let end = self.net.now() + most;
        while self.net.now() < end && self.is_well() {
            if is_so(self) {
                return true;
            }
            self.step();
        }
        is_so(self)
    }

    /// A new customer asks this frontend for every product.
    pub fn visit(&mut self, frontend: usize) {
        let at = stateless::frontends(&self.plan)[frontend];
        let name = format!("v{}", self.net.now());
        let luck = (self.plan.seed, 0);
        let visitor = Shopper::new(&name, vec![at], luck, &self.net, &self.history);
        self.customers.spawn(visitor.visit());
    }

    /// The answers that the customers got.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The time, in steps.
    pub fn now(&self) -> u64 {
        self.net.now()
    }

    /// Records a violation.
    pub fn is_wrong(&mut self, what: &str) {
        self.wrong.push(what.to_owned());
    }

    /// True while there is no violation.
    pub fn is_well(&self) -> bool {
        let replicas = self.wrong.is_empty() && self.judge.wrong().is_empty();
        replicas && self.history.wrong().is_empty() && trace::panics().is_empty()
    }

    /// True when all replicas run, are at the same index, and have written it.
    fn is_whole(&self) -> bool {
        let insides: Vec<_> = self.replicas.iter().filter_map(Replica::inside).collect();
        let index = |inside: &ground::life::ReplicaProbe| {
            inside.view.read(ledger::shop::ShopState::applied)
        };
        let first = insides.first().map(index);
        insides.len() == self.replicas.len()
            && insides
                .iter()
                .all(|inside| Some(index(inside)) == first && checker::is_written(&inside.view))
    }
}

/// All customers order until they are stopped; then each repeats all its orders.
async fn shopping(
    plan: Plan,
    net: Net,
    history: History,
    stop: CancellationToken,
) -> Result<(), Stop> {
    let (peers, frontends) = (replica::peers(&plan), stateless::frontends(&plan));
    let mut asking = JoinSet::new();
    for number in 0..plan.customers {
        let name = format!("c{number}");
        let customer = Customer::new(&name, peers.clone(), plan.seed, &net, &history);
        let stop = stop.clone();
        asking.spawn(async move { customer.shop(stop).await.ask_again().await });
    }
    for number in 0..2 * plan.frontends {
        let name = format!("s{number}");
        let luck = (plan.seed, plan.keyless);
        let shopper = Shopper::new(&name, frontends.clone(), luck, &net, &history);
        let stop = stop.clone();
        asking.spawn(async move { shopper.shop(stop).await.ask_again().await });
    }
    // A panic is in the trace already.
    while asking.join_next().await.is_some() {}
    Ok(())
}

/// True for a replica that stops because its data went back, and names the command to type.
fn is_refusal(stop: &Stop) -> bool {
    let text = stop.to_string();
    let why = text.contains("older copy") || text.contains("has forgotten what it acknowledged");
    matches!(stop, Stop::Setup(_)) && why && text.contains("oppidum ctl replace")
}

fn state(replica: &Replica) -> String {
    match replica.inside() {
        None => format!("{} is down", replica.id),
        Some(inside) => {
            let applied = inside.view.read(ledger::shop::ShopState::applied);
            let durable = inside.view.durable().index();
            let metrics = inside.raft.metrics();
            let metrics = metrics.borrow_watched();
            let (leader, last) = (metrics.current_leader, metrics.last_log_index);
            let id = replica.id;
            format!("{id}: applied {applied}, durable {durable}, last {last:?}, leader {leader:?}")
        }
    }
}
