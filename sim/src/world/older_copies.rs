//! Older copies of data folders: an operator replaces a replica's folder with an older copy, and
//! later restores the replica's own folder.

use ground::disk::Crash;

use super::World;
use crate::chaos::Act;
use crate::replica::FolderCopy;
use crate::trace;

/// A replica whose folder is replaced by an older copy.
#[derive(Debug)]
pub(super) struct Reverted {
    own: FolderCopy,
    /// The number of entries in the older log.
    entries: usize,
}

impl World {
    /// Replaces a stopped replica's log and history, or its whole data folder, with an older copy.
    pub fn go_back(&mut self, place: usize, older: &FolderCopy, whole: bool) {
        trace::enter("", self.net.now());
        trace::say(&format!("an older copy in the place of {place}, whole: {whole}"));
        let replica = &self.replicas[place];
        let own = replica.copy();
        match whole {
            true => replica.put_back(older),
            false => replica.disk.put_back(&older.disk),
        }
        let entries = replica.disk.holds().1;
        self.reverted.insert(place, Reverted { own, entries });
    }

    /// Restores the replica's own folder. With the older one it must have accepted no entry.
    pub fn own_folder(&mut self, place: usize) {
        let Some(Reverted { own, entries }) = self.reverted.remove(&place) else { return };
        let replica = &mut self.replicas[place];
        if replica.host.is_running() {
            replica.crash(Crash::Kill);
        }
        let (id, after) = (replica.id, replica.disk.holds().1);
        replica.put_back(&own);
        if entries < after {
            self.is_wrong(&format!("{id} took entries with an older folder: {entries}, {after}"));
        }
    }

    /// For the chaos: replaces the folder, if all the others have met a later start.
    pub(super) fn go_back_if_met(&mut self, place: usize) {
        let Some(older) = self.copies.get(&place).cloned() else { return };
        let Some(start) = self.replicas[place].last_start() else { return };
        let later = !older.remembers(&start);
        let others = self.replicas.iter().filter(|other| other.id != self.replicas[place].id);
        if !later || self.reverted.contains_key(&place) || !others.clone().all(|o| o.met(&start)) {
            return;
        }
        if self.replicas[place].host.is_running() {
            self.replicas[place].crash(Crash::Kill);
        }
        self.go_back(place, &older, true);
        self.act(Act::Start(place));
    }
}
