//! Starts in an identity: the starts of its own folder, the last met start of each peer, and the
//! acknowledged entries that its log was found to lack.

use std::path::Path;

use wire::exit::Stop;
use wire::proto;

use super::Identity;
use crate::handshake_error::HandshakeError;
use crate::identity_file::{IdentityFile, write};
use crate::log_end::{Acknowledged, LogEnd, Lost};
use crate::starts::{Folder, MetStart, StartHistory};

impl Identity {
    /// Takes over the last start of each voter from the leader.
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

    /// Compares the starts of an admitted peer with its last met start. Returns the new start, if
    /// the peer has started since.
    pub(crate) fn judge_starts(
        &self,
        id: u64,
        reported: &proto::StartHistory,
    ) -> Result<Option<MetStart>, HandshakeError> {
        let record = self.record.lock();
        match StartHistory::from(reported).compare(record.met.get(&id.to_string())) {
            Folder::Met => Ok(None),
            Folder::OlderCopy => Err(HandshakeError::OlderCopy { id, by: record.id }),
            Folder::StartedAgain(start) => Ok(Some(start)),
        }
    }

    /// As [`Identity::judge_starts`], and remembers a later start, on disk. Nothing is remembered
    /// of a peer that was not met at its own address.
    pub(crate) fn compare_starts(
        &self,
        id: u64,
        reported: &proto::StartHistory,
    ) -> Result<(), HandshakeError> {
        let Some(start) = self.judge_starts(id, reported)? else { return Ok(()) };
        let mut record = self.record.lock();
        let key = id.to_string();
        if !record.peers.contains_key(&key) {
            return Ok(());
        }
        let mut next = record.clone();
        next.met.insert(key, start);
        write(&self.folder, &next)
            .map_err(|error| HandshakeError::NotWritten { id, why: error.to_string() })?;
        *record = next;
        Ok(())
    }

    /// A peer has refused this folder as an older copy of itself: the folder is not used again.
    pub(crate) fn refuse_own(&self, why: &str) {
        let mut record = self.record.lock();
        let next = IdentityFile { refused: Some(why.to_owned()), ..record.clone() };
        self.keep(&mut record, next);
    }

    /// This replica's log lacks entries that it is known to have acknowledged.
    pub(crate) fn note_lost(&self, acknowledged: Acknowledged) {
        let mut record = self.record.lock();
        let known = record.lacks.unwrap_or_default();
        let next = IdentityFile { lacks: Some(acknowledged.and(known)), ..record.clone() };
        self.keep(&mut record, next);
    }

    /// Checks the own log against the acknowledged entries that an earlier start found missing.
    pub(crate) fn check_log(&self, end: LogEnd) -> Result<(), Stop> {
        let mut record = self.record.lock();
        let Some(lacks) = record.lacks else { return Ok(()) };
        if let Some(lost) = end.lost(&lacks) {
            return Err(lost.stop(record.id, &self.folder, ""));
        }
        let next = IdentityFile { lacks: None, ..record.clone() };
        self.keep(&mut record, next);
        Ok(())
    }

    /// The other replicas have diverged from this one: `what` says where. The folder is not used
    /// again before an operator has chosen which replica goes on (`oppidum ctl recover`).
    pub(crate) fn diverged(&self, what: &str) -> Stop {
        let line = diverged(self.id(), &self.folder, what);
        self.refuse_own(&line);
        Stop::Setup(line)
    }

    /// Why a replica stops whose log lacks acknowledged entries, and how to go on.
    pub(crate) fn lost(&self, lost: &Lost, by: u64) -> Stop {
        lost.stop(self.id(), &self.folder, &format!(", as replica {by} knows"))
    }

    /// As [`Identity::admit`], for a call that relies on the caller's log: only the start that was
    /// met may make it.
    pub(crate) fn admit_met(&self, sender: Option<&proto::Sender>) -> Result<u64, HandshakeError> {
        let id = self.admit(sender)?;
        let start = sender.map_or(0, |sender| sender.start);
        let record = self.record.lock();
        match record.met.get(&id.to_string()) {
            Some(met) if !met.is(start) => Err(HandshakeError::NotIntroduced(id)),
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

impl IdentityFile {
    /// Another replica reports a start of `id`.
    pub(super) fn hear_of(&mut self, id: u64, met: Option<proto::MetStart>) {
        let Some(met) = met.map(MetStart::from) else { return };
        let key = id.to_string();
        if id != self.id && met.is_after(self.met.get(&key)) {
            self.met.insert(key, met);
        }
    }
}
