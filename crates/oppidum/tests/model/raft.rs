//! The replicas' own steps: elections and replication by the rules of Raft, and the work of the
//! shells when an entry is applied or a leadership ends.

use ledger::terms::Index;
use order::acknowledger::Reveals;
use order::leader_term::LeaderTerm;
use wire::watch::rules::Mutant;

use crate::replica::{Applied, Entry, Held, PRODUCTS, Round, What};
use crate::wires::Stream;
use crate::world::{REPLICAS, World};

impl World {
    /// Stands for election, and wins if it reaches a majority whose logs are not more up to date.
    pub(crate) fn elect(&mut self, at: usize) -> bool {
        if !self.replicas[at].runs() || self.replicas[at].leads {
            return false;
        }
        let reach = self.replicas[at].reach();
        let votes: Vec<usize> = (0..REPLICAS)
            .filter(|voter| self.linked(at, *voter) && self.replicas[*voter].runs())
            .filter(|voter| self.replicas[*voter].reach() <= reach)
            .collect();
        if votes.len() < 2 {
            return false;
        }
        let term = votes.iter().map(|voter| self.replicas[*voter].term).max().unwrap() + 1;
        for voter in &votes {
            self.replicas[*voter].term = term;
            if *voter != at && self.replicas[*voter].leads {
                self.step_down(*voter);
            }
        }
        let now = self.replica_clock(at);
        let (times, rules) = (self.times, self.rules);
        let replica = &mut self.replicas[at];
        replica.leads = true;
        replica.matched.clear();
        replica.round = None;
        let mut leadership = LeaderTerm::new(term, now, times, rules);
        if rules.broken(Mutant::AcceptBeforeFirstEntry) {
            let applied = Index(replica.applied as u64);
            leadership.begin(applied, replica.state.settled, &replica.state.attached_catalogs());
        }
        match replica.leadership.is_some() && rules.broken(Mutant::StreamsOutliveLeadership) {
            true => {}
            false => replica.leadership = Some(leadership),
        }
        replica.first_own = replica.log.len() + 1;
        self.append(at, What::Blank);
        self.note(|| format!("replica {at} leads in term {term}"));
        true
    }

    /// The replica stops leading: waiting answers are given up, and streams are closed.
    pub(crate) fn step_down(&mut self, at: usize) {
        let outlives = self.rules.broken(Mutant::StreamsOutliveLeadership);
        let replica = &mut self.replicas[at];
        replica.leads = false;
        replica.round = None;
        let held = replica.acknowledger.release();
        let waiters = std::mem::take(&mut replica.waiters);
        if !outlives {
            replica.leadership = None;
        }
        self.given_up(held);
        let index = Index(0);
        self.given_up(waiters.into_values().map(|(_, op)| Held { op, index }));
        self.note(|| format!("replica {at} steps down"));
        if outlives {
            return;
        }
        let theirs = |stream: &&Stream| stream.to_leader && stream.source.at == at;
        let streams: Vec<u64> = self.streams.values().filter(theirs).map(|s| s.id).collect();
        streams.into_iter().for_each(|id| self.close_at_source(id));
    }

    pub(crate) fn crash_replica(&mut self, at: usize) {
        let rules = self.rules;
        self.replicas[at].crash(rules);
        self.note(|| format!("replica {at} dies"));
        self.forget_dead();
    }

    /// A follower copies the leader's log; the leader learns the index that a majority has.
    pub(crate) fn replicate(&mut self, from: usize, to: usize) {
        if from == to || !self.linked(from, to) {
            return;
        }
        if !self.replicas[from].runs() || !self.replicas[to].runs() || !self.replicas[from].leads {
            return;
        }
        if self.replicas[from].term < self.replicas[to].term {
            self.replicas[from].term = self.replicas[to].term;
            return self.step_down(from);
        }
        if self.replicas[to].leads {
            self.step_down(to);
        }
        let (term, known) = (self.replicas[from].term, self.replicas[from].committed);
        let log = std::mem::take(&mut self.replicas[from].log);
        let follower = &mut self.replicas[to];
        follower.term = term;
        follower.copy(&log);
        follower.committed = follower.committed.max(known.min(log.len()));
        let leader = &mut self.replicas[from];
        leader.matched.insert(to, log.len());
        leader.matched.insert(from, log.len());
        let mut matched: Vec<usize> = (0..REPLICAS)
            .map(|replica| leader.matched.get(&replica).copied().unwrap_or(0))
            .collect();
        matched.sort_unstable();
        let majority = matched[1];
        let own = majority != 0 && log[majority - 1].term == term;
        if own && leader.committed < majority {
            leader.committed = majority;
            self.commit(&log[..majority]);
        }
        self.replicas[from].log = log;
    }

    /// Applies the next committed entry.
    pub(crate) fn apply(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        if !replica.runs() || replica.committed <= replica.applied {
            return;
        }
        let entry: Entry = replica.log[replica.applied].clone();
        replica.applied += 1;
        let index = Index(replica.applied as u64);
        let Applied { changed, attached, decided } = replica.state.apply(index, &entry);
        let changed = (0..PRODUCTS).filter(|product| changed[*product]);
        let products = changed.map(|product| self.change(product, index)).collect();
        self.replicas[at].window.push(index, products);
        self.lead_on(at, index, attached);
        self.decided(at, index, &entry, decided);
        self.settle(at);
    }

    fn lead_on(&mut self, at: usize, index: Index, has_attached: bool) {
        let now = self.replica_clock(at);
        let replica = &mut self.replicas[at];
        let attached = replica.state.attached_catalogs();
        let settled = replica.state.settled.max(replica.acknowledger.settled());
        let Some(leadership) = &mut replica.leadership else { return };
        let mut detached = Vec::new();
        if !leadership.is_open() && replica.first_own <= replica.applied && replica.leads {
            leadership.begin(index, settled, &attached);
        } else if has_attached && leadership.is_open() {
            detached = leadership.align(&attached, now);
        }
        if leadership.is_open() {
            leadership.applied(index);
        }
        detached.into_iter().for_each(|(_, stream)| self.close_lapsed(stream));
    }

    /// Requests that wait for this entry are answered once it is settled.
    fn decided(
        &mut self,
        at: usize,
        index: Index,
        entry: &Entry,
        decided: Option<(usize, Index, bool, bool)>,
    ) {
        let replica = &mut self.replicas[at];
        let waiter = replica.waiters.remove(&usize::try_from(index.0).unwrap());
        let (Some((term, op)), Some((_, first, refused, fresh))) = (waiter, decided) else {
            return;
        };
        if term != entry.term {
            self.given_up([Held { op, index }]);
            return;
        }
        let reveals = match (fresh, refused) {
            (false, _) => Reveals::Repetition,
            (true, true) => Reveals::Refusal,
            (true, false) => Reveals::Acceptance,
        };
        let due = replica.acknowledger.hold(reveals, first, Held { op, index: first });
        due.into_iter().for_each(|held| self.answered(held));
    }

    /// The leader begins a round that confirms its leadership.
    pub(crate) fn begin_round(&mut self, at: usize) {
        let started = self.replica_clock(at);
        let replica = &mut self.replicas[at];
        if replica.runs() && replica.leads {
            replica.round = Some(Round { started, term: replica.term, replied: vec![at] });
        }
    }

    /// A voter replies.
    pub(crate) fn reply_round(&mut self, at: usize, voter: usize) {
        let Some(mut round) = self.replicas[at].round.clone() else { return };
        let linked = self.linked(at, voter) && self.replicas[voter].runs();
        if !self.replicas[at].runs() || !linked || round.replied.contains(&voter) {
            return;
        }
        if round.term < self.replicas[voter].term {
            self.replicas[at].term = self.replicas[voter].term;
            return self.step_down(at);
        }
        self.replicas[voter].term = round.term;
        if self.replicas[voter].leads {
            self.step_down(voter);
        }
        round.replied.push(voter);
        let replica = &mut self.replicas[at];
        let succeeded = 2 <= round.replied.len();
        if succeeded && let Some(leadership) = &mut replica.leadership {
            leadership.quorum_round(round.started);
        }
        replica.round = (!succeeded).then_some(round);
    }

    /// The leader detaches silent catalogs.
    pub(crate) fn leader_lapse(&mut self, at: usize) {
        if !self.replicas[at].runs() {
            return;
        }
        let now = self.replica_clock(at);
        let replica = &mut self.replicas[at];
        let Some(leadership) = &mut replica.leadership else { return };
        let lapsed = leadership.lapse(now);
        replica.detaches.extend(lapsed.iter().copied());
        for detach in lapsed {
            self.note(|| format!("replica {at} detaches {:?}", detach.who));
            self.close_lapsed(detach.stream);
        }
        self.settle(at);
    }

    /// A decided and stalled detach reaches the log.
    pub(crate) fn propose_detach(&mut self, at: usize) {
        let count = self.replicas[at].detaches.len();
        if !self.replicas[at].runs() || !self.replicas[at].leads || count == 0 {
            return;
        }
        let place = self.rng.pick(count);
        let replica = &mut self.replicas[at];
        let Some(leadership) = &replica.leadership else { return };
        let detach = leadership.stamp(replica.detaches.swap_remove(place));
        self.note(|| format!("replica {at} proposes {detach:?}"));
        self.append(at, What::Detach(detach.who, detach.term));
    }
}
