//! The source's side of a stream, at a leader and at a catalog: the work of the shells, without
//! shells.

use ledger::change::Change;
use ledger::terms::Index;
use order::leader_term::AttachVerdict;
use wire::watch::source_state::{Heartbeat, Hello, HelloVerdict, StreamId};
use wire::watch::window::Frame;

use crate::replica::{PRODUCTS, What};
use crate::wires::{Down, Stream, Up};
use crate::world::World;

impl World {
    /// True when the source runs, in the incarnation in which the stream was opened.
    fn source_runs(&self, stream: &Stream) -> bool {
        let at = stream.source.at;
        if stream.to_leader {
            let replica = &self.replicas[at];
            replica.runs() && replica.life == stream.source.life
        } else {
            let catalog = &self.catalogs[at];
            catalog.up && !catalog.frozen && catalog.life == stream.source.life
        }
    }

    /// The source closes a stream, and its core learns of it.
    pub(crate) fn close_at_source(&mut self, id: u64) {
        let at = self.arrival();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.send(at, Down::Close);
        stream.served = false;
        stream.waits = None;
        let (to_leader, who, source) = (stream.to_leader, stream.incarnation, stream.source.at);
        if to_leader {
            if let Some(leadership) = &mut self.replicas[source].leadership {
                leadership.broke(who, StreamId(id));
            }
        } else {
            self.catalogs[source].core.broke(who, StreamId(id));
        }
    }

    /// The next message of a stream arrives at its source.
    pub(crate) fn hear(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let due = stream.up.front().is_some_and(|(at, _)| *at <= self.now);
        if !due || !self.source_runs(stream) {
            return;
        }
        let stream = self.streams.get_mut(&id).unwrap();
        let (who, served) = (stream.incarnation, stream.served);
        let (at, to_leader) = (stream.source.at, stream.to_leader);
        let Some((_, what)) = stream.up.pop_front() else { return };
        match what {
            Up::Hello { cursor, seen } => self.greet(id, cursor, seen),
            Up::Heartbeat { local, seen } if served && to_leader => {
                let now = self.replica_clock(at);
                if let Some(leadership) = &mut self.replicas[at].leadership {
                    leadership.heartbeat(who, StreamId(id), Heartbeat { local, seen, now });
                }
                self.settle(at);
            }
            Up::Heartbeat { local, seen } if served => {
                let now = self.catalog_clock(at);
                let beat = Heartbeat { local, seen, now };
                self.catalogs[at].core.heartbeat(who, StreamId(id), beat);
            }
            Up::Heartbeat { .. } => {}
            Up::Goodbye if to_leader => {
                let replica = &mut self.replicas[at];
                let goodbye =
                    replica.leadership.as_mut().and_then(|l| l.goodbye(who, StreamId(id)));
                replica.detaches.extend(goodbye);
                self.close_at_source(id);
            }
            Up::Goodbye => {
                self.catalogs[at].core.goodbye(who, StreamId(id));
                self.close_at_source(id);
            }
            Up::Close => self.close_at_source(id),
        }
    }

    /// A hello arrives, or one that has waited for its attach goes on.
    pub(crate) fn greet(&mut self, id: u64, cursor: Index, seen: Index) {
        let stream = &self.streams[&id];
        let (at, who, to_leader) = (stream.source.at, stream.incarnation, stream.to_leader);
        let watcher = stream.watcher;
        let seen = seen.min(cursor);
        let welcome = if to_leader {
            let now = self.replica_clock(at);
            let replica = &mut self.replicas[at];
            let leads = replica.leads;
            match replica.leadership.as_mut().filter(|_| leads) {
                None => AttachVerdict::NotYet,
                Some(leadership) => {
                    let source_cursor = leadership.applied_index();
                    leadership.hello(who, StreamId(id), Hello { cursor, seen, source_cursor, now })
                }
            }
        } else {
            let now = self.catalog_clock(at);
            let catalog = &mut self.catalogs[at];
            let source_cursor = catalog.core.watcher().cursor();
            // A catalog that has met no leader yet, or is about to stop, accepts no watcher.
            if source_cursor == Index(0) || catalog.leaving {
                AttachVerdict::NotYet
            } else {
                let hello = Hello { cursor, seen, source_cursor, now };
                match catalog.core.hello(who, StreamId(id), hello) {
                    HelloVerdict::Served { replaced } => AttachVerdict::Served { replaced },
                    HelloVerdict::Fenced => AttachVerdict::Fenced,
                }
            }
        };
        self.note(|| format!("stream {id}: {who:?} says hello at {cursor}: {welcome:?}"));
        match welcome {
            AttachVerdict::NotYet | AttachVerdict::Fenced => self.close_at_source(id),
            AttachVerdict::Attach => {
                let has_asked = self.streams[&id].waits.is_some();
                if !has_asked && self.replicas[at].leads {
                    self.append(at, What::Attach(who, format!("catalog {}", watcher.at)));
                }
                self.streams.get_mut(&id).unwrap().waits = Some((cursor, seen));
            }
            AttachVerdict::Served { replaced } => {
                let stream = self.streams.get_mut(&id).unwrap();
                stream.served = true;
                stream.waits = None;
                stream.sent = cursor;
                if let Some(replaced) = replaced.filter(|old| old.0 != id) {
                    let arrives = self.arrival();
                    if let Some(old) = self.streams.get_mut(&replaced.0) {
                        old.served = false;
                        old.send(arrives, Down::Close);
                    }
                }
                if to_leader {
                    self.settle(at);
                }
            }
        }
    }

    /// Sends frames and the settled index down a stream.
    pub(crate) fn feed(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        if !self.source_runs(stream) {
            return;
        }
        if let Some((cursor, seen)) = stream.waits {
            return self.greet(id, cursor, seen);
        }
        if !stream.served {
            return;
        }
        let (at, who, to_leader) = (stream.source.at, stream.incarnation, stream.to_leader);
        let sent = stream.sent;
        if !self.is_current(id) {
            return self.close_at_source(id);
        }
        let frames = match to_leader {
            true => self.replicas[at].window.after(sent, 64),
            false => self.catalogs[at].window.after(sent, 64),
        };
        let settled = match to_leader {
            true => self.replicas[at].acknowledger.settled(),
            false => self.catalogs[at].core.watcher().settled(),
        };
        let arrives = self.arrival();
        let everything = if frames.is_none() { Some(self.everything(to_leader, at)) } else { None };
        let stream = self.streams.get_mut(&id).unwrap();
        let reached = match (frames, everything) {
            (None, Some((index, products))) => {
                let what = match to_leader {
                    true => Down::List(index, products, settled),
                    false => Down::Reset(index),
                };
                stream.send(arrives, what);
                Some(index)
            }
            (frames, _) => {
                let frames = frames.unwrap_or_default();
                for frame in &frames {
                    let Frame { after, index, products } = &**frame;
                    stream.send(arrives, Down::Change(*after, *index, products.to_vec(), settled));
                    stream.settled = settled;
                }
                frames.last().map(|frame| frame.index)
            }
        };
        if let Some(index) = reached {
            stream.sent = index;
            match to_leader {
                true => {
                    if let Some(leadership) = &mut self.replicas[at].leadership {
                        leadership.sent(who, StreamId(id), index);
                    }
                }
                false => self.catalogs[at].core.sent(who, StreamId(id), index),
            }
        }
        let stream = self.streams.get_mut(&id).unwrap();
        if stream.settled < settled {
            stream.settled = settled;
            let sent = stream.sent;
            stream.send(arrives, Down::Beat { sent, settled, grant: None });
        }
    }

    /// Sends a beat, with a grant if the core gives one.
    pub(crate) fn beat(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        if !self.source_runs(stream) || !stream.served {
            return;
        }
        let (at, who, to_leader) = (stream.source.at, stream.incarnation, stream.to_leader);
        let arrives = self.arrival();
        let grant = if to_leader {
            let now = self.replica_clock(at);
            let leadership = self.replicas[at].leadership.as_mut();
            leadership.and_then(|leadership| leadership.grant(who, StreamId(id), now))
        } else if self.catalogs[at].leaving {
            self.streams.get_mut(&id).unwrap().send(arrives, Down::Leaving);
            return;
        } else {
            let now = self.catalog_clock(at);
            self.catalogs[at].core.grant(who, StreamId(id), now)
        };
        self.note(|| format!("stream {id}: beat for {who:?}, {grant:?}"));
        let stream = self.streams.get_mut(&id).unwrap();
        let (sent, settled) = (stream.sent, stream.settled);
        stream.send(arrives, Down::Beat { sent, settled, grant });
    }

    fn is_current(&self, id: u64) -> bool {
        let stream = &self.streams[&id];
        let (at, who) = (stream.source.at, stream.incarnation);
        match stream.to_leader {
            true => {
                let leadership = self.replicas[at].leadership.as_ref();
                leadership.is_some_and(|l| l.watchers().is_current(who, StreamId(id)))
            }
            false => self.catalogs[at].core.watchers().is_current(who, StreamId(id)),
        }
    }

    fn everything(&self, to_leader: bool, at: usize) -> (Index, Vec<Change>) {
        if to_leader {
            let replica = &self.replicas[at];
            let version = |product: usize| self.change(product, replica.state.versions[product]);
            (Index(replica.applied as u64), (0..PRODUCTS).map(version).collect())
        } else {
            (self.catalogs[at].core.watcher().cursor(), Vec::new())
        }
    }

    /// Checks that every attached catalog has seen every index settled since its attach.
    fn check_settled(&mut self, at: usize) {
        let replica = &self.replicas[at];
        let Some(leadership) = &replica.leadership else { return };
        let settled = leadership.settled();
        let attached: Vec<_> =
            replica.state.attached.iter().map(|(who, (_, since))| (*who, *since)).collect();
        for (who, since) in attached {
            let living = self.catalogs.iter_mut().find(|catalog| catalog.incarnation == who);
            let seen = match living {
                Some(catalog) => catalog.core.seen(),
                None => self.last_seen.get(&who).copied().unwrap_or_default(),
            };
            if since <= settled && seen < settled {
                self.fail(format!(
                    "replica {at} settles {settled}; {who:?}, attached at {since}, saw {seen}"
                ));
            }
        }
    }

    /// Releases the answers at a replica that are now settled.
    pub(crate) fn settle(&mut self, at: usize) {
        self.check_settled(at);
        let replica = &mut self.replicas[at];
        let counted = replica.leadership.as_ref().map(order::leader_term::LeaderTerm::settled);
        let settled = replica.state.settled.max(counted.unwrap_or_default());
        let due = replica.acknowledger.settle(settled);
        due.into_iter().for_each(|held| self.answered(held));
    }
}
