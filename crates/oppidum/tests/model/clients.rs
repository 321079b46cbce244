//! Clients: their requests, where they send them, and the check of every answer.

use catalog::core::Answer;
use frontend::cache::QueryAnswer;
use ledger::change::Change;
use ledger::command::{Line, Side};
use ledger::terms::{Index, QUANTITY_MAX, Quantity};
use order::acknowledger::Reveals;

use crate::replica::{Entry, Held, PRODUCTS, What};
use crate::wires::Who;
use crate::world::{FRONTENDS, Op, Parcel, Progress, Query, Wish, World};

impl World {
    /// A client makes a new request.
    pub(crate) fn ask(&mut self, wish: Wish) -> usize {
        let (progress, floor) = (Progress::Open, self.revealed);
        self.ops.push(Op { wish, progress, floor });
        self.ops.len() - 1
    }

    /// Sends an open request to a replica that believes it leads.
    pub(crate) fn try_at_replica(&mut self, op: usize, at: usize) {
        let key = match self.ops[op].wish {
            Wish::Order { .. } => op,
            Wish::Again(key) => key,
            Wish::Lookup(key) => return self.look_up(op, key, at),
            Wish::Read { product } => return self.read(op, product, at),
            Wish::Query { .. } => return,
        };
        let replica = &mut self.replicas[at];
        if !replica.runs() || !replica.leads {
            return;
        }
        let Wish::Order { products, refused } = self.ops[key].wish else { return };
        let what = What::Order { key, products, refused };
        self.append(at, what);
        let replica = &mut self.replicas[at];
        replica.waiters.insert(replica.log.len(), (replica.term, op));
        let who = Who { at, life: replica.life };
        self.ops[op].progress = Progress::AtReplica(who);
        self.note(|| format!("op {op}: order {key} proposed at replica {at}"));
    }

    /// Appends to the leader's own log.
    pub(crate) fn append(&mut self, at: usize, what: What) {
        let replica = &mut self.replicas[at];
        let settled = replica.acknowledger.settled();
        let changed = match &what {
            What::Order { products, refused: false, .. } => *products,
            _ => [false; PRODUCTS],
        };
        replica.log.push(Entry { term: replica.term, settled, what });
        let index = Index(replica.log.len() as u64);
        replica.matched.insert(at, replica.log.len());
        if self.rules.broken(wire::watch::rules::Mutant::UncommittedFrames) {
            let changed = (0..PRODUCTS).filter(|product| changed[*product]);
            let products = changed.map(|product| self.change(product, index)).collect();
            self.replicas[at].window.push(index, products);
        }
    }

    fn look_up(&mut self, op: usize, key: usize, at: usize) {
        let replica = &mut self.replicas[at];
        let Some((index, _)) = replica.state.keys.get(&key).copied() else { return };
        if !replica.runs() || (!replica.leads && replica.acknowledger.settled() < index) {
            return;
        }
        let who = Who { at, life: replica.life };
        let due = replica.acknowledger.hold(Reveals::Reading, index, Held { op, index });
        self.ops[op].progress = Progress::AtReplica(who);
        due.into_iter().for_each(|held| self.answered(held));
    }

    /// A read at the leader, just confirmed by a majority.
    fn read(&mut self, op: usize, product: usize, at: usize) {
        let term = self.replicas[at].term;
        let confirms = |other: &usize| {
            let voter = &self.replicas[*other];
            self.linked(at, *other) && voter.runs() && voter.term <= term
        };
        let majority = 2 <= (0..self.replicas.len()).filter(confirms).count();
        let replica = &mut self.replicas[at];
        let own = replica.first_own <= replica.committed && replica.first_own != 0;
        if !replica.runs() || !replica.leads || !majority || !own {
            return;
        }
        if replica.applied < replica.committed {
            return;
        }
        let index = replica.state.versions[product];
        let who = Who { at, life: replica.life };
        let due = replica.acknowledger.hold(Reveals::Reading, index, Held { op, index });
        self.ops[op].progress = Progress::AtReplica(who);
        due.into_iter().for_each(|held| self.answered(held));
    }

    /// A replica answers.
    pub(crate) fn answered(&mut self, held: Held) {
        let Held { op, index } = held;
        if self.ops[op].progress == Progress::Done {
            return;
        }
        self.note(|| format!("op {op}: answered, reveals {index}"));
        if let Wish::Read { product } = self.ops[op].wish {
            return self.shown(op, product, index);
        }
        if self.committed.len() < usize::try_from(index.0).unwrap() {
            self.fail(format!("op {op} reveals {index}, which is not committed"));
        }
        self.pass_on(op, index);
        self.finish(op, index);
    }

    /// Most answers pass through a frontend, which learns that the index is settled. (Nothing more
    /// of the frontend is modelled here: it would only hide broken rules of other processes.)
    fn pass_on(&mut self, op: usize, index: Index) {
        let at = op % FRONTENDS;
        let frontend = &mut self.frontends[at];
        if frontend.up && !frontend.frozen {
            frontend.cache.settle(index);
            self.perform(at);
        }
    }

    fn finish(&mut self, op: usize, index: Index) {
        self.revealed = self.revealed.max(index);
        self.ops[op].progress = Progress::Done;
        self.answered += 1;
    }

    /// A client was shown a product: is that version committed, and no older than every index that
    /// any client knew when the query was sent?
    fn shown(&mut self, op: usize, product: usize, version: Index) {
        let Op { floor, .. } = self.ops[op];
        self.check_shown(&format!("op {op}"), floor, product, version);
        self.finish(op, version);
    }

    fn check_shown(&mut self, what: &str, floor: Index, product: usize, version: Index) {
        let changes = &self.changes[product];
        let known = version == Index(0) || changes.binary_search(&version).is_ok();
        if !known {
            self.fail(format!("{what} shows version {version}, which was never committed"));
        }
        let changes = &self.changes[product];
        let at_floor = changes[..changes.partition_point(|index| *index <= floor)].last().copied();
        if version < at_floor.unwrap_or_default() {
            self.fail(format!(
                "{what} shows product {product} of {version}; an earlier answer had revealed {}",
                at_floor.unwrap_or_default()
            ));
        }
    }

    /// A replica gave up these answers: the clients ask again.
    pub(crate) fn given_up(&mut self, held: impl IntoIterator<Item = Held>) {
        for Held { op, .. } in held {
            if self.ops[op].progress != Progress::Done {
                self.ops[op].progress = Progress::Open;
            }
        }
    }

    /// Requests that wait at an earlier incarnation of a replica or frontend wait no more.
    pub(crate) fn forget_dead(&mut self) {
        for op in &mut self.ops {
            match op.progress {
                Progress::AtReplica(who) if self.replicas[who.at].life != who.life => {
                    op.progress = Progress::Open;
                }
                Progress::AtFrontend(who) if self.frontends[who.at].life != who.life => {
                    op.progress = Progress::Dropped;
                }
                _ => {}
            }
        }
    }

    /// A client asks a frontend for a product.
    pub(crate) fn query(&mut self, at: usize, product: usize) {
        if !self.frontends[at].up || self.frontends[at].frozen {
            return;
        }
        let op = self.ask(Wish::Query { product });
        let (now, name) = (self.frontend_clock(at), self.names[product].clone());
        let life = self.frontends[at].life;
        self.ops[op].progress = Progress::AtFrontend(Who { at, life });
        self.note(|| format!("op {op}: frontend {at} is asked for product {product}"));
        let frontend = &mut self.frontends[at];
        if let Some(answer) = frontend.cache.hit(name.as_str(), now) {
            self.check_answer(op, &answer);
            return self.order_too_much(at, product);
        }
        frontend.cache.query(op, &name, now);
        self.perform(at);
        self.order_too_much(at, product);
    }

    fn check_answer(&mut self, op: usize, answer: &QueryAnswer) {
        let Wish::Query { product } = self.ops[op].wish else { return };
        let version = answer.product.as_ref().map(|change| change.version).unwrap_or_default();
        self.note(|| format!("op {op}: shown version {version}, hit {}", answer.hit));
        self.shown(op, product, version);
    }

    /// A client orders more than the stock, without a key. A refusal by the frontend reveals a
    /// version, as if it had shown the product; otherwise the order goes to the leader.
    fn order_too_much(&mut self, at: usize, product: usize) {
        let (now, name) = (self.frontend_clock(at), self.names[product].clone());
        let quantity = Quantity::new(QUANTITY_MAX).unwrap();
        let line = Line { name, quantity, side: Side::Buy };
        let floor = self.revealed;
        if let Some(short) = self.frontends[at].cache.reject_from_cache(&line, now) {
            let version = short.version;
            self.note(|| format!("frontend {at} refuses product {product} by version {version}"));
            self.check_shown("an order that is refused", floor, product, version);
            self.revealed = self.revealed.max(version);
            self.refused += 1;
        }
    }

    /// Executes the pending effects of a frontend's core.
    pub(crate) fn perform(&mut self, at: usize) {
        let effects = self.frontends[at].cache.effects();
        for (op, answer) in effects.answers {
            self.check_answer(op, &answer);
        }
        for ask in effects.asks {
            let life = self.frontends[at].life;
            let product = self.product(&ask.name);
            let query = Query {
                frontend: Who { at, life },
                fill: ask.fill,
                product,
                floor: ask.floor,
                attempt: 0,
            };
            self.send_fill(query);
        }
    }

    /// Sends a fill to a catalog, usually to the one that the frontend watches.
    pub(crate) fn send_fill(&mut self, query: Query) {
        let watched = self.frontends[query.frontend.at].stream.and_then(|id| self.streams.get(&id));
        let watched = watched.map(|stream| stream.source.at);
        let any = self.rng.pick(self.catalogs.len());
        let at = watched.filter(|_| self.rng.chance(700)).unwrap_or(any);
        let catalog = Who { at, life: self.catalogs[at].life };
        let arrives = self.arrival();
        let sent = self.now;
        let frontend = &mut self.frontends[query.frontend.at];
        frontend.fills.insert(query.fill, (query, catalog, sent));
        self.parcels.push(Parcel::Ask { at: arrives, catalog, query });
    }

    /// Repeats a fill whose catalog is gone or does not answer.
    pub(crate) fn retry_fill(&mut self, at: usize, patience: u64) {
        let stuck = self.frontends[at].fills.values().find(|(_, catalog, sent)| {
            let process = &self.catalogs[catalog.at];
            process.life != catalog.life || !process.up || sent + patience < self.now
        });
        if let Some((query, ..)) = stuck.copied() {
            self.send_fill(Query { attempt: query.attempt + 1, ..query });
        }
    }

    /// One fill, or its answer, arrives.
    pub(crate) fn arrive(&mut self, place: usize) {
        match self.parcels.swap_remove(place) {
            Parcel::Ask { catalog, query, .. } => self.receive_query(catalog, query),
            Parcel::Answer { query, product, as_of, .. } => self.filled(query, product, as_of),
        }
    }

    fn receive_query(&mut self, catalog: Who, query: Query) {
        let process = &self.catalogs[catalog.at];
        if !process.up || process.life != catalog.life {
            return;
        }
        let now = self.catalog_clock(catalog.at);
        let (name, floor) = (self.names[query.product].clone(), query.floor);
        let lookup = catalog::core::CatalogQuery::Product { name, floor };
        let answer = self.catalogs[catalog.at].core.ask(query, lookup, now);
        answer.into_iter().for_each(|answer| self.reply(answer));
    }

    /// A catalog's answer is sent.
    pub(crate) fn reply(&mut self, answer: Answer<Query>) {
        let Answer { query, products, as_of, .. } = answer;
        let product = products.into_iter().next();
        let at = self.arrival();
        self.note(|| {
            let version = product.as_ref().map(|change: &Change| change.version);
            format!("fill {:?} of {:?}: {version:?} as of {as_of}", query.fill, query.frontend)
        });
        self.parcels.push(Parcel::Answer { at, query, product, as_of });
    }

    fn filled(&mut self, query: Query, product: Option<Change>, as_of: Index) {
        let at = query.frontend.at;
        let now = self.frontend_clock(at);
        let frontend = &mut self.frontends[at];
        let waits = frontend.fills.get(&query.fill).is_some_and(|(kept, ..)| *kept == query);
        if !frontend.up || frontend.life != query.frontend.life || !waits {
            return;
        }
        frontend.fills.remove(&query.fill);
        let name = self.names[query.product].clone();
        let filled = frontend::cache::CatalogAnswer { product, as_of, stale: false };
        self.frontends[at].cache.filled(query.fill, &name, &filled, now);
        self.perform(at);
    }
}
