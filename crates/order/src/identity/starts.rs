//! The part of an identity that tells one start of a replica from another: its own starts, the last
//! start of each peer that was met, and what was found to be lost.

use std::path::Path;

use wire::exit::Stop;
use wire::proto;

use super::Identity;
use crate::log_end::{Acknowledged, LogEnd, Lost};
use crate::record::{Record, write};
use crate::starts::{Folder, MetStart, StartHistory};
use crate::stranger::Stranger;

impl Identity {
    /// The leader tells of the last start of each voter.
    pub(crate) fn learn_starts(&self, starts: impl Iterator<Item = (u64, proto::MetStart)>) {
        let mut record = self.record.lock();
        let mut next = None;
        for (id, met) in starts.filter(|(id, _)| self.members.look(|now| now.is_member(*id))) {
            let known = record.met.get(&id.to_string());
            if id != record.id && MetStart::from(met).is_after(known) {
                next.get_or_insert_with(|| record.clone()).hear_of(id, Some(met));
            }
        }
        if let Some(next) = next {
            self.keep(&mut record, next);
        }
    }

    /// The starts of this folder, for a peer to compare with those that it has met.
    pub(crate) fn starts(&self) -> proto::StartHistory {
        (&self.record.lock().starts).into()
    }

    /// The last start of replica `id` that was met.
    pub(crate) fn met(&self, id: u64) -> Option<MetStart> {
        self.record.lock().met.get(&id.to_string()).cloned()
    }

    /// True for a replica that was met at its own address.
    pub(crate) fn knows(&self, id: u64) -> bool {
        self.record.lock().peers.contains_key(&id.to_string())
    }

    /// Compares the starts of an admitted peer with the last one that was met. The start that it
    /// has made since, if it has.
    pub(crate) fn judge_starts(
        &self,
        id: u64,
        told: &proto::StartHistory,
    ) -> Result<Option<MetStart>, Stranger> {
        let record = self.record.lock();
        match StartHistory::from(told).compare(record.met.get(&id.to_string())) {
            Folder::Met => Ok(None),
            Folder::OlderCopy => Err(Stranger::OlderCopy { id, by: record.id }),
            Folder::StartedAgain(start) => Ok(Some(start)),
        }
    }

    /// The same, and remembers a later start, on disk. Of a peer that was not met at its own
    /// address nothing is remembered.
    pub(crate) fn compare_starts(
        &self,
        id: u64,
        told: &proto::StartHistory,
    ) -> Result<(), Stranger> {
        let Some(start) = self.judge_starts(id, told)? else { return Ok(()) };
        let mut record = self.record.lock();
        let key = id.to_string();
        if !record.peers.contains_key(&key) {
            return Ok(());
        }
        let mut next = record.clone();
        next.met.insert(key, start);
        write(&self.folder, &next)
            .map_err(|error| Stranger::NotWritten { id, why: error.to_string() })?;
        *record = next;
        Ok(())
    }

    /// A peer has refused this folder as an older copy of itself: it is not used again.
    pub(crate) fn refuse_own(&self, why: &str) {
        let mut record = self.record.lock();
        let next = Record { refused: Some(why.to_owned()), ..record.clone() };
        self.keep(&mut record, next);
    }

    /// This replica was found to lack what it is known to have acknowledged.
    pub(crate) fn note_lost(&self, acknowledged: Acknowledged) {
        let mut record = self.record.lock();
        let known = record.lacks.unwrap_or_default();
        let next = Record { lacks: Some(acknowledged.and(known)), ..record.clone() };
        self.keep(&mut record, next);
    }

    /// Checks the own log against what it was found to lack at an earlier start.
    pub(crate) fn check_log(&self, end: LogEnd) -> Result<(), Stop> {
        let mut record = self.record.lock();
        let Some(lacks) = record.lacks else { return Ok(()) };
        if let Some(lost) = end.lost(&lacks) {
            return Err(lost.stop(record.id, &self.folder, ""));
        }
        let next = Record { lacks: None, ..record.clone() };
        self.keep(&mut record, next);
        Ok(())
    }

    /// The others went another way than this replica: `what` says where. The folder is not used
    /// again before an operator has chosen which of all goes on (`oppidum ctl recover`).
    pub(crate) fn diverged(&self, what: &str) -> Stop {
        let line = diverged(self.id(), &self.folder, what);
        self.refuse_own(&line);
        Stop::Setup(line)
    }

    /// Why a replica stops whose log is not what it acknowledged, and what to do.
    pub(crate) fn lost(&self, lost: &Lost, by: u64) -> Stop {
        lost.stop(self.id(), &self.folder, &format!(", as replica {by} knows"))
    }

    /// As [`Identity::admit`], for a call that counts on the caller's log: only the start that was
    /// met may make it.
    pub(crate) fn admit_met(&self, sender: Option<&proto::Sender>) -> Result<u64, Stranger> {
        let id = self.admit(sender)?;
        let start = sender.map_or(0, |sender| sender.start);
        let record = self.record.lock();
        match record.met.get(&id.to_string()) {
            Some(met) if !met.is(start) => Err(Stranger::NotIntroduced(id)),
            _ => Ok(id),
        }
    }
}

impl Lost {
    fn stop(&self, id: u64, folder: &Path, source: &str) -> Stop {
        Stop::Setup(match self {
            Self::Forgotten(what) => forgotten(id, folder, &format!("{what}{source}")),
            Self::Diverged(what) => diverged(id, folder, &format!("{what}{source}")),
        })
    }
}

fn diverged(id: u64, folder: &Path, what: &str) -> String {
    format!(
        "the other replicas have lost orders that replica {id} has acknowledged or applied: \
         {what}; do not replace replica {id}, it may be the only one that has them: stop all \
         replicas, and look at every data folder (this one is {}) with `oppidum ctl recover \
         --data FOLDER` before one of them goes on",
        folder.display()
    )
}

fn forgotten(id: u64, folder: &Path, lost: &str) -> String {
    format!(
        "replica {id} has forgotten what it acknowledged: {lost}; set its data folder {} aside, \
         keep it for inspection, start a new replica with an empty folder (`oppidum order --id \
         NEW --join`) and type `oppidum ctl replace --id {id} --with NEW --address HOST:PORT`",
        folder.display()
    )
}

impl Record {
    /// Another replica tells of a start of `id`.
    pub(super) fn hear_of(&mut self, id: u64, met: Option<proto::MetStart>) {
        let Some(met) = met.map(MetStart::from) else { return };
        let key = id.to_string();
        if id != self.id && met.is_after(self.met.get(&key)) {
            self.met.insert(key, met);
        }
    }
}
