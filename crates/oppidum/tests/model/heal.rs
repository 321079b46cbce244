//! Healing: every process runs, no link is cut, and every request must be answered.

use crate::replica::PRODUCTS;
use crate::world::{CATALOGS, FRONTENDS, Parcel, Progress, REPLICAS, Wish, World};

/// The time limit for requests at replicas after healing, in microseconds: a grace by a slow clock,
/// an election, and the rounds between.
const ORDERS_WITHIN: u64 = 1_500_000;

/// The time limit for queries: a fill may be parked at a catalog that is dropped meanwhile.
const QUERIES_WITHIN: u64 = 6_000_000;

impl World {
    /// Repairs everything and lets time run until every request is answered. Returns the first that
    /// is not.
    pub(crate) fn heal(&mut self) -> Option<String> {
        self.note(|| "healing".into());
        self.mend();
        let began = self.now;
        let mut beat = 0;
        while self.violation.is_none() {
            let waits =
                |op: &crate::world::Op| !matches!(op.progress, Progress::Done | Progress::Dropped);
            let at_frontend =
                |op: &crate::world::Op| matches!(op.progress, Progress::AtFrontend(_));
            let open = self.ops.iter().position(|op| waits(op) && !at_frontend(op));
            let oldest = self.ops.iter().position(waits);
            oldest?;
            let took = self.now - began;
            if let Some(op) = open.filter(|_| ORDERS_WITHIN < took) {
                return Some(format!("op {op}, {:?}, is not answered", self.ops[op]));
            }
            if let Some(op) = oldest.filter(|_| QUERIES_WITHIN < took) {
                return Some(format!("op {op}, {:?}, is not answered", self.ops[op]));
            }
            self.now += 1_000;
            beat += 1;
            self.tick(beat % 100 == 0);
        }
        None
    }

    fn mend(&mut self) {
        (self.delay, self.stalls) = (1_000, false);
        self.cut = [[false; REPLICAS]; REPLICAS];
        for replica in &mut self.replicas {
            (replica.up, replica.frozen) = (true, false);
        }
        for catalog in &mut self.catalogs {
            (catalog.up, catalog.frozen, catalog.leaving) = (true, false, false);
        }
        for frontend in &mut self.frontends {
            (frontend.up, frontend.frozen) = (true, false);
        }
        // Late messages arrive now.
        let now = self.now;
        for stream in self.streams.values_mut() {
            stream.down.iter_mut().for_each(|(at, _)| *at = (*at).min(now));
            stream.up.iter_mut().for_each(|(at, _)| *at = (*at).min(now));
        }
        for parcel in &mut self.parcels {
            let (Parcel::Ask { at, .. } | Parcel::Answer { at, .. }) = parcel;
            *at = (*at).min(now);
        }
    }

    /// One millisecond in which every process does its pending work.
    pub(crate) fn tick(&mut self, beat: bool) {
        self.lead();
        for catalog in 0..CATALOGS {
            self.catalog_lapse(catalog);
            self.forsake(true, catalog);
            let away = self.stays_away == Some(catalog) || !self.catalogs[catalog].up;
            if !away && self.catalogs[catalog].stream.is_none() {
                let leader = self.replicas.iter().position(|replica| replica.leads).unwrap_or(0);
                self.connect(true, catalog, leader);
            }
            self.report(true, catalog, !beat);
        }
        for frontend in 0..FRONTENDS {
            self.forsake(false, frontend);
            if self.frontends[frontend].up && self.frontends[frontend].stream.is_none() {
                let catalog = self.rng.pick(CATALOGS);
                self.connect(false, frontend, catalog);
            }
            self.report(false, frontend, !beat);
            self.retry_fill(frontend, 600_000);
        }
        self.forget_streams();
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        for id in streams {
            for _ in 0..4 {
                self.hear(id);
                self.receive(id);
            }
            self.feed(id);
            if beat {
                self.beat(id);
            }
        }
        while let Some(place) = self.parcels.iter().position(|parcel| {
            let (Parcel::Ask { at, .. } | Parcel::Answer { at, .. }) = parcel;
            *at <= self.now
        }) {
            self.arrive(place);
        }
    }

    /// The replicas' part of one millisecond.
    fn lead(&mut self) {
        let leaders: Vec<usize> = (0..REPLICAS).filter(|at| self.replicas[*at].leads).collect();
        let term = self.replicas.iter().map(|replica| replica.term).max().unwrap_or(0);
        if !leaders.iter().any(|at| self.replicas[*at].term == term) {
            let best = (0..REPLICAS).max_by_key(|at| (self.replicas[*at].reach(), *at)).unwrap();
            if self.replicas[best].leads {
                self.step_down(best);
            }
            self.elect(best);
        }
        for at in 0..REPLICAS {
            for other in 0..REPLICAS {
                self.replicate(at, other);
            }
            if self.replicas[at].round.is_none() {
                self.begin_round(at);
            }
            for other in 0..REPLICAS {
                self.reply_round(at, other);
            }
            if self.lags != Some(at) {
                self.leader_lapse(at);
            }
            let stalled = self.stall_detaches;
            while self.replicas[at].leads && !self.replicas[at].detaches.is_empty() && !stalled {
                self.propose_detach(at);
            }
        }
        let lags = self.lags;
        for at in (0..REPLICAS).filter(|at| lags != Some(*at)) {
            while self.replicas[at].applied < self.replicas[at].committed {
                self.apply(at);
            }
        }
        let leader = (0..REPLICAS).find(|at| self.replicas[*at].leads);
        let open: Vec<usize> =
            (0..self.ops.len()).filter(|op| self.ops[*op].progress == Progress::Open).collect();
        for op in open {
            if let Some(leader) = leader {
                self.try_at_replica(op, leader);
            }
        }
    }

    /// A warmed-up store: a leader, watchers with leases, one order of every product.
    pub(crate) fn warm_up(&mut self) {
        let (delay, stalls) = (self.delay, self.stalls);
        (self.delay, self.stalls) = (500, false);
        self.elect(REPLICAS - 1);
        self.ask(Wish::Order { products: [true; PRODUCTS], refused: false });
        self.run_for(300);
        self.query_all();
        self.run_for(20);
        (self.delay, self.stalls) = (delay, stalls);
    }

    /// Lets a repaired world run for this many milliseconds: for directed schedules.
    pub(crate) fn run_for(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1_000;
            self.tick((self.now / 1_000).is_multiple_of(100));
        }
    }

    /// Asks every frontend for every product.
    pub(crate) fn query_all(&mut self) {
        for frontend in 0..FRONTENDS {
            for product in 0..PRODUCTS {
                self.query(frontend, product);
            }
        }
    }
}
