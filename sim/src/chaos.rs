//! Chaos: what goes wrong, when, and for how long. All of it follows from the seed.

use crate::net::{Delay, HostId};
use crate::plan::{Faults, Plan};
use ground::disk::Crash;
use ground::luck::Luck;

/// How long words take on a good day.
pub const CALM: Delay = Delay { least: 1, most: 2, spikes: 2 };

/// And on a bad one: still below a heartbeat, most of the time.
pub const ROUGH: Delay = Delay { least: 1, most: 9, spikes: 15 };

/// Something that happens to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// These replicas (by place) crash at the same moment.
    Crash(Crash, Vec<usize>),
    /// This one is started again.
    Start(usize),
    /// This catalog or frontend dies; `true`: its machine loses power.
    CrashSide(usize, bool),
    /// It is started again.
    StartSide(usize),
    /// This catalog or frontend stands still; its clocks go on.
    Freeze(usize),
    /// It goes on.
    Thaw(usize),
    /// This one is told to stop, and stops in order.
    Stop(usize),
    /// What the first machine says no longer arrives at the second.
    Cut(HostId, HostId),
    /// Or does again.
    Mend(HostId, HostId),
    /// Its disk does nothing any more.
    Stall(usize),
    /// Its disk goes on.
    Resume(usize),
    /// Its clock on the wall jumps, in milliseconds.
    Jump(usize, i64),
    /// It is stopped where it stands, and its folder is copied.
    Copy(usize),
    /// Its folder is replaced by the copy, which is older, and it is started.
    GoBack(usize),
    /// Its own folder is put back.
    OwnFolder(usize),
    /// It makes a snapshot and purges its log, but for so many entries.
    Purge(usize, u64),
    /// Words take long, or as usual.
    Rough(bool),
}

/// Decides what happens when.
#[derive(Debug)]
pub struct Chaos {
    luck: Luck,
    every: u64,
    until: u64,
    next: u64,
    faults: Faults,
    hosts: Vec<HostId>,
    sides: usize,
    later: Vec<(u64, Act)>,
}

impl Chaos {
    /// The chaos of a plan, beginning a little after the store.
    pub fn of(plan: &Plan, hosts: &[HostId]) -> Self {
        let mut luck = Luck::new(plan.seed, "chaos");
        let next = luck.between(400, 1_200);
        let (every, until, faults) = (plan.every, next + plan.chaos, plan.faults);
        let (hosts, sides) = (hosts.to_vec(), plan.catalogs + plan.frontends);
        Self { luck, every, until, next, faults, hosts, sides, later: Vec::new() }
    }

    /// When it is over.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// What happens now. `up`: which replicas run.
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

    /// One fault, and how it is undone.
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

    /// One line, one machine, or the world in two; in one direction or in both.
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
