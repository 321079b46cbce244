//! The watcher's side of a stream, at a catalog and at a frontend.

use ledger::change::Change;
use ledger::terms::Index;
use wire::watch::position::Verdict;
use wire::watch::source_state::{Incarnation, StreamId};

use crate::wires::{Down, Stream, Up, Who};
use crate::world::World;

impl World {
    /// True when the watcher runs, in the incarnation that opened the stream, and this is its
    /// current stream.
    fn watcher_runs(&self, stream: &Stream) -> bool {
        let Who { at, life } = stream.watcher;
        let (up, frozen, now, current) = if stream.to_leader {
            let catalog = &self.catalogs[at];
            (catalog.up, catalog.frozen, catalog.life, catalog.stream)
        } else {
            let frontend = &self.frontends[at];
            (frontend.up, frontend.frozen, frontend.life, frontend.stream)
        };
        up && !frozen && now == life && current == Some(stream.id)
    }

    /// A catalog opens a stream to a replica, or a frontend to a catalog. The watcher's older
    /// stream is closed on this side.
    pub(crate) fn connect(&mut self, to_leader: bool, at: usize, source_at: usize) -> Option<u64> {
        let (source_up, source_life) = if to_leader {
            (self.replicas[source_at].up, self.replicas[source_at].life)
        } else {
            (self.catalogs[source_at].up, self.catalogs[source_at].life)
        };
        if !source_up {
            return None;
        }
        self.disconnect(to_leader, at);
        let id = self.fresh();
        let (life, incarnation, cursor, seen, since) = if to_leader {
            let since = self.catalog_clock(at);
            let catalog = &mut self.catalogs[at];
            catalog.stream = Some(id);
            catalog.reported = Index(0);
            let cursor = catalog.core.watcher().cursor();
            (catalog.life, catalog.incarnation, cursor, catalog.core.seen(), since)
        } else {
            let since = self.frontend_clock(at);
            let frontend = &mut self.frontends[at];
            frontend.stream = Some(id);
            frontend.reported = Index(0);
            let cursor = frontend.cache.watcher().cursor();
            (frontend.life, frontend.incarnation, cursor, cursor, since)
        };
        let mut stream = Stream {
            id,
            to_leader,
            watcher: Who { at, life },
            incarnation,
            source: Who { at: source_at, life: source_life },
            down: std::collections::VecDeque::new(),
            up: std::collections::VecDeque::new(),
            broken: false,
            served: false,
            waits: None,
            sent: Index(0),
            settled: Index(0),
            since,
        };
        let arrives = self.arrival();
        stream.report(arrives, Up::Hello { cursor, seen });
        self.streams.insert(id, stream);
        Some(id)
    }

    /// The watcher closes its stream.
    pub(crate) fn disconnect(&mut self, to_leader: bool, at: usize) {
        let stream = match to_leader {
            true => self.catalogs[at].stream.take(),
            false => self.frontends[at].stream.take(),
        };
        let arrives = self.arrival();
        if let Some(stream) = stream.and_then(|id| self.streams.get_mut(&id)) {
            stream.report(arrives, Up::Close);
            stream.down.clear();
        }
    }

    /// The index that this watcher, and every watcher below it, has seen.
    fn seen(&mut self, to_leader: bool, at: usize) -> Index {
        match to_leader {
            true => self.catalogs[at].core.seen(),
            false => self.frontends[at].cache.watcher().cursor(),
        }
    }

    /// Sends a heartbeat; before its time, only if there is something new to report.
    pub(crate) fn report(&mut self, to_leader: bool, at: usize, only_news: bool) {
        let id = match to_leader {
            true => self.catalogs[at].stream,
            false => self.frontends[at].stream,
        };
        let Some(id) = id.filter(|id| self.streams.contains_key(id)) else { return };
        if !self.watcher_runs(&self.streams[&id]) {
            return;
        }
        let seen = self.seen(to_leader, at);
        let reported = match to_leader {
            true => &mut self.catalogs[at].reported,
            false => &mut self.frontends[at].reported,
        };
        if only_news && seen <= *reported {
            return;
        }
        *reported = seen;
        let local = match to_leader {
            true => self.catalog_clock(at),
            false => self.frontend_clock(at),
        };
        let arrives = self.arrival();
        self.streams.get_mut(&id).unwrap().report(arrives, Up::Heartbeat { local, seen });
    }

    /// A watcher that has had no grant for a lease looks for another source.
    pub(crate) fn forsake(&mut self, to_leader: bool, at: usize) {
        let (id, now, watcher) = match to_leader {
            true => {
                let catalog = &self.catalogs[at];
                (catalog.stream, self.catalog_clock(at), catalog.core.watcher())
            }
            false => {
                let frontend = &self.frontends[at];
                (frontend.stream, self.frontend_clock(at), frontend.cache.watcher())
            }
        };
        let Some(stream) = id.and_then(|id| self.streams.get(&id)) else { return };
        if self.watcher_runs(stream) && watcher.is_abandoned(stream.since, now) {
            self.disconnect(to_leader, at);
        }
    }

    /// The next message of a stream arrives at its watcher.
    pub(crate) fn receive(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let due = stream.down.front().is_some_and(|(at, _)| *at <= self.now);
        if !due || !self.watcher_runs(stream) {
            return;
        }
        let stream = self.streams.get_mut(&id).unwrap();
        let (at, to_leader) = (stream.watcher.at, stream.to_leader);
        let Some((_, what)) = stream.down.pop_front() else { return };
        let follows = match to_leader {
            true => self.catalog_hears(at, what),
            false => self.frontend_hears(at, what),
        };
        if !follows {
            self.disconnect(to_leader, at);
        }
    }

    fn catalog_hears(&mut self, at: usize, what: Down) -> bool {
        let now = self.catalog_clock(at);
        let catalog = &mut self.catalogs[at];
        let core = &mut catalog.core;
        let (verdict, settled) = match what {
            Down::Close | Down::Reset(_) | Down::Leaving => return false,
            Down::List(index, products, settled) => {
                let verdict = core.list(index, products);
                if verdict == Verdict::Take {
                    catalog.window = wire::watch::window::Window::at(index);
                }
                (verdict, settled)
            }
            Down::Change(after, index, products, settled) => {
                let verdict = core.change(after, index, &products);
                if verdict == Verdict::Take {
                    catalog.window.push(index, products.into());
                }
                (verdict, settled)
            }
            Down::Beat { sent, settled, grant } => {
                let verdict = core.change(sent, sent, &[] as &[Change]);
                if let Some(grant) = grant.filter(|_| verdict != Verdict::Gap) {
                    core.take(grant, now);
                }
                (verdict, settled)
            }
        };
        let mut answers = core.settle(settled);
        answers.extend(core.unpark(now));
        answers.into_iter().for_each(|answer| self.reply(answer));
        verdict != Verdict::Gap
    }

    fn frontend_hears(&mut self, at: usize, what: Down) -> bool {
        let now = self.frontend_clock(at);
        let cache = &mut self.frontends[at].cache;
        let verdict = match what {
            Down::Close | Down::List(..) => return false,
            Down::Leaving => {
                self.goodbye(false, at);
                return false;
            }
            Down::Reset(index) => cache.reset(index),
            Down::Change(after, index, products, settled) => {
                let verdict = cache.change(after, index, &products);
                cache.settle(settled);
                verdict
            }
            Down::Beat { sent, settled, grant } => {
                let verdict = cache.change(sent, sent, &[]);
                cache.settle(settled);
                if let Some(grant) = grant.filter(|_| verdict != Verdict::Gap) {
                    cache.watcher_mut().take_grant(grant, now);
                }
                verdict
            }
        };
        self.perform(at);
        verdict != Verdict::Gap
    }

    /// The watcher stops answering from memory, and tells its source.
    pub(crate) fn goodbye(&mut self, to_leader: bool, at: usize) {
        let id = match to_leader {
            true => {
                self.catalogs[at].core.renounce();
                self.catalogs[at].stream
            }
            false => {
                self.frontends[at].cache.watcher_mut().renounce();
                self.frontends[at].stream
            }
        };
        let arrives = self.arrival();
        if let Some(stream) = id.and_then(|id| self.streams.get_mut(&id)) {
            stream.report(arrives, Up::Goodbye);
        }
    }

    /// A catalog drops frontends whose grace has passed.
    pub(crate) fn catalog_lapse(&mut self, at: usize) {
        if !self.catalogs[at].up || self.catalogs[at].frozen {
            return;
        }
        let now = self.catalog_clock(at);
        let lapsed = self.catalogs[at].core.lapse(now);
        for (_, stream) in lapsed {
            self.close_lapsed(stream);
        }
    }

    pub(crate) fn close_lapsed(&mut self, stream: Option<StreamId>) {
        let arrives = self.arrival();
        if let Some(stream) = stream.and_then(|id| self.streams.get_mut(&id.0)) {
            stream.served = false;
            stream.send(arrives, Down::Close);
        }
    }

    /// A catalog dies, and returns with a new incarnation.
    pub(crate) fn crash_catalog(&mut self, at: usize) {
        let incarnation = Incarnation(self.fresh());
        let (times, rules) = (self.times, self.rules);
        let catalog = &mut self.catalogs[at];
        self.last_seen.insert(catalog.incarnation, catalog.core.seen());
        catalog.up = false;
        catalog.frozen = false;
        catalog.leaving = false;
        catalog.life += 1;
        catalog.incarnation = incarnation;
        catalog.core = catalog::core::CatalogCore::new(times, rules);
        catalog.window = wire::watch::window::Window::at(Index(0));
        catalog.stream = None;
        self.note(|| format!("catalog {at} dies"));
    }

    /// A frontend dies, and returns empty.
    pub(crate) fn crash_frontend(&mut self, at: usize) {
        let incarnation = Incarnation(self.fresh());
        let capacity = std::num::NonZeroUsize::new(1 + self.rng.pick(2)).unwrap();
        let (times, rules) = (self.times, self.rules);
        let frontend = &mut self.frontends[at];
        frontend.up = false;
        frontend.frozen = false;
        frontend.life += 1;
        frontend.incarnation = incarnation;
        frontend.cache = frontend::cache::Cache::new(capacity, times, rules);
        frontend.stream = None;
        frontend.fills.clear();
        self.forget_dead();
        self.note(|| format!("frontend {at} dies"));
    }
}
