//! The random steps of a run: the replicas' own steps, and faults.

use crate::replica::PRODUCTS;
use crate::world::{CATALOGS, FRONTENDS, Parcel, Progress, REPLICAS, Wish, World};

/// The probability of each kind of step in this run.
#[derive(Clone, Debug)]
pub(crate) struct Mood {
    weights: Vec<u64>,
    total: u64,
}

/// The kinds of steps, and their initial weights.
const KINDS: [u64; 26] = [
    60, // a message arrives at a source
    60, // a message arrives at a watcher
    40, // frames go down a stream
    30, // a beat goes down a stream
    30, // a heartbeat goes up
    30, // a report of a new index goes up
    12, // a watcher connects, or moves
    20, // an entry is applied
    30, // a follower copies the leader's log
    14, // a read-index round begins
    24, // a voter replies to it
    12, // an order
    14, // an open request is sent
    10, // a source checks for lapsed watchers
    6,  // a stalled detach is proposed
    60, // a query
    30, // a fill or its answer arrives
    6,  // a fill is sent again
    2,  // an election
    2,  // a process dies, or stops in order
    2,  // a process freezes
    2,  // a link is cut
    3,  // a stream breaks
    2,  // time leaps
    9,  // a process restarts or thaws, or a link is restored
    2,  // a source forgets its frames
];

impl Mood {
    pub(crate) fn new(world: &mut World) -> Self {
        let weights: Vec<u64> = KINDS
            .iter()
            .enumerate()
            .map(|(kind, weight)| {
                let (times, over) = [(1, 1), (1, 1), (3, 1), (1, 3), (0, 1)][world.rng.pick(5)];
                // Some faults do not occur at all in some runs; the ordinary steps always do.
                let times = if times == 0 && kind < 18 { 1 } else { times };
                weight * times / over
            })
            .collect();
        let total = weights.iter().sum();
        Self { weights, total }
    }

    fn pick(&self, luck: u64) -> usize {
        let mut left = luck % self.total.max(1);
        for (kind, weight) in self.weights.iter().enumerate() {
            if left < *weight {
                return kind;
            }
            left -= weight;
        }
        0
    }
}

impl World {
    /// One random step.
    pub(crate) fn step(&mut self, mood: &Mood) {
        self.now += self.rng.below(600);
        let luck = self.rng.next();
        match mood.pick(luck) {
            0 => {
                let id = self.due_stream(|stream| stream.up.front().map(|(at, _)| *at));
                let times = 1 + self.rng.pick(4);
                (0..times).for_each(|_| id.into_iter().for_each(|id| self.hear(id)));
            }
            1 => {
                let id = self.due_stream(|stream| stream.down.front().map(|(at, _)| *at));
                let times = 1 + self.rng.pick(4);
                (0..times).for_each(|_| id.into_iter().for_each(|id| self.receive(id)));
            }
            2 => self.some_stream().into_iter().for_each(|id| self.feed(id)),
            3 => self.some_stream().into_iter().for_each(|id| self.beat(id)),
            4 => self.some_report(false),
            5 => self.some_report(true),
            6 => self.some_connect(),
            7 => {
                let (at, times) = (self.rng.pick(REPLICAS), 1 + self.rng.pick(3));
                (0..times).for_each(|_| self.apply(at));
            }
            8 => {
                let (from, to) = (self.some_leader(), self.rng.pick(REPLICAS));
                self.replicate(from, to);
            }
            9 => {
                let at = self.some_leader();
                self.begin_round(at);
            }
            10 => {
                let (at, voter) = (self.some_leader(), self.rng.pick(REPLICAS));
                self.reply_round(at, voter);
            }
            11 => self.some_wish(),
            12 => self.some_try(),
            13 => self.some_lapse(),
            14 => {
                let at = self.some_leader();
                self.propose_detach(at);
            }
            15 => {
                let (at, product) = (self.rng.pick(FRONTENDS), self.rng.pick(PRODUCTS));
                self.query(at, product);
            }
            16 => self.some_parcel(),
            17 => {
                let at = self.rng.pick(FRONTENDS);
                self.retry_fill(at, 600_000);
            }
            18 => {
                let at = self.rng.pick(REPLICAS);
                self.elect(at);
            }
            19 => self.some_death(),
            20 => self.some_freeze(),
            21 => self.some_cut(),
            22 => self.some_break(),
            23 => self.now += self.rng.below(600_000),
            24 => self.some_return(),
            _ => self.some_forgetting(),
        }
    }

    /// A source forgets its frames: its window no longer reaches back.
    fn some_forgetting(&mut self) {
        let window = match self.rng.pick(REPLICAS + CATALOGS) {
            at if at < REPLICAS => &mut self.replicas[at].window,
            at => &mut self.catalogs[at - REPLICAS].window,
        };
        *window = wire::watch::window::Window::at(window.end());
    }

    /// A replica that believes it leads; any replica, if there is none.
    fn some_leader(&mut self) -> usize {
        let count = self.replicas.iter().filter(|replica| replica.leads).count();
        let skip = self.rng.pick(count.max(1));
        let leaders = self.replicas.iter().enumerate().filter(|(_, replica)| replica.leads);
        leaders.map(|(at, _)| at).nth(skip).unwrap_or_else(|| self.rng.pick(REPLICAS))
    }

    /// A stream with a message that has arrived.
    fn due_stream(&mut self, next: impl Fn(&crate::wires::Stream) -> Option<u64>) -> Option<u64> {
        let now = self.now;
        let due = |stream: &&crate::wires::Stream| next(stream).is_some_and(|at| at <= now);
        let count = self.streams.values().filter(due).count();
        let skip = self.rng.pick(count.max(1));
        self.streams.values().filter(due).nth(skip).map(|stream| stream.id)
    }

    fn some_stream(&mut self) -> Option<u64> {
        let place = self.rng.pick(self.streams.len().max(1));
        self.streams.keys().nth(place).copied()
    }

    fn some_report(&mut self, only_news: bool) {
        match self.rng.pick(CATALOGS + FRONTENDS) {
            at if at < CATALOGS => self.report(true, at, only_news),
            at => self.report(false, at - CATALOGS, only_news),
        }
    }

    fn some_connect(&mut self) {
        let (to_leader, at) = match self.rng.pick(CATALOGS + FRONTENDS) {
            at if at < CATALOGS => (true, at),
            at => (false, at - CATALOGS),
        };
        self.forsake(to_leader, at);
        let (connected, runs) = match to_leader {
            true => {
                let catalog = &self.catalogs[at];
                (catalog.stream.is_some(), catalog.up && !catalog.frozen && !catalog.leaving)
            }
            false => {
                let frontend = &self.frontends[at];
                (frontend.stream.is_some(), frontend.up && !frontend.frozen)
            }
        };
        // A connected watcher moves only rarely.
        if !runs || (connected && !self.rng.chance(60)) {
            return;
        }
        let source = match (to_leader, self.rng.chance(850)) {
            (true, true) => self.some_leader(),
            (true, false) => self.rng.pick(REPLICAS),
            (false, _) => self.rng.pick(CATALOGS),
        };
        self.connect(to_leader, at, source);
        self.forget_streams();
    }

    /// Forgets streams that neither side holds any more.
    pub(crate) fn forget_streams(&mut self) {
        let catalogs: Vec<_> = self.catalogs.iter().map(|catalog| catalog.stream).collect();
        let frontends: Vec<_> = self.frontends.iter().map(|frontend| frontend.stream).collect();
        self.streams.retain(|id, stream| {
            let held = match stream.to_leader {
                true => catalogs[stream.watcher.at],
                false => frontends[stream.watcher.at],
            };
            held == Some(*id) || stream.served || !stream.up.is_empty()
        });
    }

    fn some_wish(&mut self) {
        let orders = self.ops.iter().filter(|op| matches!(op.wish, Wish::Order { .. })).count();
        let some_order = |world: &mut Self| {
            let skip = world.rng.pick(orders.max(1));
            let orders = world.ops.iter().enumerate();
            let mut orders = orders.filter(|(_, op)| matches!(op.wish, Wish::Order { .. }));
            orders.nth(skip).map(|(op, _)| op)
        };
        let wish = match self.rng.pick(8) {
            0 => some_order(self).map(Wish::Again),
            1 | 2 => some_order(self).map(Wish::Lookup),
            3 => Some(Wish::Read { product: self.rng.pick(PRODUCTS) }),
            _ => {
                let both = [[true, false], [false, true], [true, true]];
                let (products, refused) = (both[self.rng.pick(3)], self.rng.chance(200));
                Some(Wish::Order { products, refused })
            }
        };
        if let Some(wish) = wish {
            let at = match self.rng.chance(800) {
                true => self.some_leader(),
                false => self.rng.pick(REPLICAS),
            };
            let op = self.ask(wish);
            self.try_at_replica(op, at);
        }
    }

    fn some_try(&mut self) {
        let open = |op: &crate::world::Op| op.progress == Progress::Open;
        let count = self.ops.iter().filter(|op| open(op)).count();
        let skip = self.rng.pick(count.max(1));
        let found = self.ops.iter().enumerate().filter(|(_, op)| open(op)).nth(skip);
        if let Some(op) = found.map(|(op, _)| op) {
            let at = self.some_leader();
            self.try_at_replica(op, at);
        }
    }

    fn some_lapse(&mut self) {
        match self.rng.pick(REPLICAS + CATALOGS) {
            at if at < REPLICAS => self.leader_lapse(at),
            at => {
                let at = at - REPLICAS;
                if self.catalogs[at].up && !self.catalogs[at].frozen {
                    self.catalog_lapse(at);
                    self.leave(at);
                }
            }
        }
    }

    fn some_parcel(&mut self) {
        let now = self.now;
        let due = |parcel: &Parcel| match parcel {
            Parcel::Ask { at, .. } | Parcel::Answer { at, .. } => *at <= now,
        };
        let count = self.parcels.iter().filter(|parcel| due(parcel)).count();
        let skip = self.rng.pick(count.max(1));
        let place = self.parcels.iter().enumerate().filter(|(_, parcel)| due(parcel)).nth(skip);
        if let Some(place) = place.map(|(place, _)| place) {
            let frozen = match &self.parcels[place] {
                Parcel::Ask { catalog, .. } => self.catalogs[catalog.at].frozen,
                Parcel::Answer { query, .. } => self.frontends[query.frontend.at].frozen,
            };
            if !frozen {
                self.arrive(place);
            }
        }
    }

    fn some_death(&mut self) {
        match self.rng.pick(REPLICAS + CATALOGS + FRONTENDS) {
            at if at < REPLICAS => self.crash_replica(at),
            at if at < REPLICAS + CATALOGS => {
                let at = at - REPLICAS;
                match self.rng.chance(300) {
                    true => self.catalogs[at].leaving = true,
                    false => self.crash_catalog(at),
                }
            }
            at => {
                let at = at - REPLICAS - CATALOGS;
                match self.rng.chance(300) {
                    true => {
                        self.goodbye(false, at);
                        self.disconnect(false, at);
                    }
                    false => self.crash_frontend(at),
                }
            }
        }
    }

    fn some_freeze(&mut self) {
        let frozen = match self.rng.pick(REPLICAS + CATALOGS + FRONTENDS) {
            at if at < REPLICAS => &mut self.replicas[at].frozen,
            at if at < REPLICAS + CATALOGS => &mut self.catalogs[at - REPLICAS].frozen,
            at => &mut self.frontends[at - REPLICAS - CATALOGS].frozen,
        };
        *frozen = true;
    }

    fn some_return(&mut self) {
        match self.rng.pick(REPLICAS + CATALOGS + FRONTENDS) {
            at if at < REPLICAS => {
                (self.replicas[at].up, self.replicas[at].frozen) = (true, false);
                let other = self.rng.pick(REPLICAS);
                (self.cut[at][other], self.cut[other][at]) = (false, false);
            }
            at if at < REPLICAS + CATALOGS => {
                let catalog = &mut self.catalogs[at - REPLICAS];
                (catalog.up, catalog.frozen) = (true, false);
            }
            at => {
                let frontend = &mut self.frontends[at - REPLICAS - CATALOGS];
                (frontend.up, frontend.frozen) = (true, false);
            }
        }
    }

    fn some_cut(&mut self) {
        let (a, b) = (self.rng.pick(REPLICAS), self.rng.pick(REPLICAS));
        let cut = a != b;
        // Sometimes all links of a replica.
        let others = if self.rng.chance(400) { vec![0, 1, 2] } else { vec![b] };
        for other in others.into_iter().filter(|other| *other != a) {
            (self.cut[a][other], self.cut[other][a]) = (cut, cut);
        }
    }

    fn some_break(&mut self) {
        let Some(id) = self.some_stream() else { return };
        let stream = self.streams.get_mut(&id).unwrap();
        stream.cut();
        let (to_leader, at) = (stream.to_leader, stream.watcher.at);
        // Either side may notice at once, or not for a long time.
        if self.rng.chance(500) {
            self.close_at_source(id);
        }
        if self.rng.chance(500) {
            self.disconnect(to_leader, at);
        }
    }

    /// A catalog that is about to stop does so once it has no watchers.
    pub(crate) fn leave(&mut self, at: usize) {
        let catalog = &mut self.catalogs[at];
        if catalog.leaving && catalog.core.watchers().watchers().next().is_none() {
            self.goodbye(true, at);
            let stream = self.catalogs[at].stream;
            self.crash_catalog(at);
            // Messages that it has sent still arrive.
            if let Some(stream) = stream.and_then(|id| self.streams.get_mut(&id)) {
                stream.down.clear();
            }
        }
    }
}
