//! Older copies of data folders: an operator puts one in the place of a replica's folder, and later
//! the replica's own folder back.

use ground::disk::Crash;

use super::World;
use crate::chaos::Act;
use crate::replica::FolderCopy;
use crate::trace;

/// An older copy is in the place of a replica's folder.
#[derive(Debug)]
pub(super) struct Reverted {
    own: FolderCopy,
    /// How many entries the older log has.
    entries: usize,
}

impl World {
    /// An operator puts an older copy in the place of a stopped replica's log and history, or of
    /// its whole data folder.
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

    /// The replica's own folder comes back. With the older one it must have taken nothing.
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

    /// For the chaos: the older copy takes its place, if all the others have met a later start.
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
