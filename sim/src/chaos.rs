//! Chaos: which faults happen, when, and for how long. All of it follows from the seed.

use crate::net::{Delay, HostId};
use crate::plan::{Faults, Plan};
use ground::disk::Crash;
use ground::rng::Rng;

/// The ordinary delay of the network.
pub const CALM: Delay = Delay { least: 1, most: 2, spikes: 2 };

/// The delay of a slow network: still below a heartbeat, most of the time.
pub const ROUGH: Delay = Delay { least: 1, most: 9, spikes: 15 };

/// An event in the simulated world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// These replicas (by place) crash at the same moment.
    Crash(Crash, Vec<usize>),
    /// This replica is started again.
    Start(usize),
    /// This catalog or frontend dies; `true`: its machine loses power.
    CrashSide(usize, bool),
    /// That catalog or frontend is started again.
    StartSide(usize),
    /// This catalog or frontend freezes; its clocks go on.
    Freeze(usize),
    /// That catalog or frontend thaws.
    Thaw(usize),
    /// This replica is asked to stop, and stops in order.
    Stop(usize),
    /// Messages from the first machine no longer reach the second.
    Cut(HostId, HostId),
    /// Messages from the first machine reach the second again.
    Mend(HostId, HostId),
    /// This replica's disk stalls.
    Stall(usize),
    /// This replica's disk resumes.
    Resume(usize),
    /// This replica's wall clock jumps, by this many milliseconds.
    Jump(usize, i64),
    /// This replica loses power, and its folder is copied.
    Copy(usize),
    /// This replica's folder is replaced by its older copy, and the replica is started.
    GoBack(usize),
    /// This replica's own folder is put back.
    OwnFolder(usize),
    /// This replica makes a snapshot and purges its log, except for this many entries.
    Purge(usize, u64),
    /// Delays become long, or ordinary again.
    Rough(bool),
}

/// Decides which events happen when.
#[derive(Debug)]
pub struct Chaos {
    luck: Rng,
    every: u64,
    until: u64,
    next: u64,
    faults: Faults,
    hosts: Vec<HostId>,
    sides: usize,
    later: Vec<(u64, Act)>,
}

impl Chaos {
    /// The chaos of a plan; it begins a little after the store.
    pub fn of(plan: &Plan, hosts: &[HostId]) -> Self {
        let mut luck = Rng::new(plan.seed, "chaos");
        let next = luck.between(400, 1_200);
        let (every, until, faults) = (plan.every, next + plan.chaos, plan.faults);
        let (hosts, sides) = (hosts.to_vec(), plan.catalogs + plan.frontends);
        Self { luck, every, until, next, faults, hosts, sides, later: Vec::new() }
    }

    /// The step at which the chaos ends.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// The events of this step. `up`: which replicas run.
    pub fn now(&mut self, now: u64, up: &[bool]) -> Vec<Act> {
        let due = |(at, _): &(u64, Act)| *at <= now;
        let mut acts: Vec<Act> =
            self.later.iter().filter(|l| due(l)).map(|l| l.1.clone()).collect();
        self.later.retain(|later| !due(later));
        if self.next <= now && now < self.until {
            self.next = now + self.luck.between(1, 2 * self.every);
            let (act, undo) = self.one(up);
            for undo in undo {
                let span = match self.luck.below(3) {
                    0 => self.luck.between(1, 60),
                    1 => self.luck.between(60, 600),
                    _ => self.luck.between(600, 2_000),
                };
                self.later.push((now + span, undo));
            }
            acts.extend(act);
        }
        acts
    }

    /// One fault, and the events that undo it.
    fn one(&mut self, up: &[bool]) -> (Vec<Act>, Vec<Act>) {
        let place = self.luck.place(up.len());
        let Faults { kills, power, cuts, stalls, jumps, purges, older_copies } = self.faults;
        match self.luck.below(16) {
            0 | 1 if kills => Self::crash(Crash::Kill, vec![place], up),
            2 if kills && self.luck.percent(50) => {
                (vec![Act::Stop(place)], vec![Act::Start(place)])
            }
            2..=4 if power => {
                let mut some: Vec<usize> =
                    (0..up.len()).filter(|_| self.luck.percent(50)).collect();
                if some.is_empty() {
                    some.push(place);
                }
                if self.luck.percent(15) {
                    some = (0..up.len()).collect();
                }
                Self::crash(Crash::Power, some, up)
            }
            5 | 6 if cuts => self.cut(),
            7 if stalls => (vec![Act::Stall(place)], vec![Act::Resume(place)]),
            8 if jumps => {
                let by = self.luck.one(&[-3_600_000, 3_600_000, -50, 50, 90_000]);
                (vec![Act::Jump(place, by)], Vec::new())
            }
            9 | 10 if purges => (vec![Act::Purge(place, self.luck.below(12))], Vec::new()),
            11 if cuts => (vec![Act::Rough(true)], vec![Act::Rough(false)]),
            12 | 13 if kills && 0 < self.sides => {
                let side = self.luck.place(self.sides);
                let dark = power && self.luck.percent(50);
                (vec![Act::CrashSide(side, dark)], vec![Act::StartSide(side)])
            }
            14 if older_copies && up[place] => (vec![Act::Copy(place)], vec![Act::Start(place)]),
            14 | 15 if older_copies => (vec![Act::GoBack(place)], vec![Act::OwnFolder(place)]),
            _ => (Vec::new(), Vec::new()),
        }
    }

    fn crash(how: Crash, places: Vec<usize>, up: &[bool]) -> (Vec<Act>, Vec<Act>) {
        let places: Vec<usize> = places.into_iter().filter(|place| up[*place]).collect();
        if places.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let again = places.iter().map(|place| Act::Start(*place)).collect();
        (vec![Act::Crash(how, places)], again)
    }

    /// Cuts one link, one machine, or the world into two parts; in one direction or in both.
    fn cut(&mut self) -> (Vec<Act>, Vec<Act>) {
        let (one, other) = (self.luck.one(&self.hosts), self.luck.one(&self.hosts));
        let side: Vec<HostId> =
            self.hosts.clone().into_iter().filter(|_| self.luck.percent(50)).collect();
        let shape = self.luck.below(3);
        let apart = |a: HostId, b: HostId| match shape {
            0 => (a, b) == (one, other),
            1 => a == one && b != one,
            _ => side.contains(&a) && !side.contains(&b),
        };
        let both = self.luck.percent(60);
        let (mut cuts, mut mends) = (Vec::new(), Vec::new());
        for a in &self.hosts {
            for b in &self.hosts {
                if a != b && (apart(*a, *b) || (both && apart(*b, *a))) {
                    cuts.push(Act::Cut(*a, *b));
                    mends.push(Act::Mend(*a, *b));
                }
            }
        }
        (cuts, mends)
    }
}
