//! Metrics of a replica: the page of all its numbers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ledger::access::{API_KEYS_MAX, PRINCIPALS_MAX};
use ledger::command::CATALOGS_MAX;
use ledger::ledger::{Ledger, WindowCounts};
use ledger::shop::ShopState;
use wire::limits::WATCHERS_MAX;
use wire::metrics::Page;

use crate::batch_queue::{IN_FLIGHT_MAX, WAITING_MAX};
use crate::role::Role;
use crate::status::Status;

/// The unit of a file's blocks on disk, the same on every file system.
const DISK_BLOCK_BYTES: u64 = 512;

/// The kinds of key windows, in the order of the ledger.
const WINDOWS: [&str; 4] = ["accepted", "refused", "frontend_accepted", "frontend_refused"];

impl Status {
    /// Writes the page. It reads the disk, so it belongs on a thread that may block.
    pub(crate) fn write_metrics(&self, page: &mut Page<'_>) {
        page.build_info("order", Some(self.id));
        self.write_leader(page);
        self.write_waits(page);
        self.write_indexes(page);
        self.write_queues(page);
        self.write_disk(page);
        self.write_key_windows(page);
    }

    fn write_leader(&self, page: &mut Page<'_>) {
        // A leader that hears no majority decides nothing, and another may lead by now.
        let (has_leader, is_leader) = match *self.role.borrow() {
            Role::Leading { .. } => {
                let leads = self.peers.hears_majority(self.id, &self.members);
                (leads, leads)
            }
            role => (role.leader(self.id).is_some(), false),
        };
        let help = "1 if this replica hears a leader, or leads and hears a majority";
        page.gauge("oppidum_has_leader", help, u64::from(has_leader));
        let help = "1 if this replica leads and hears a majority";
        page.gauge("oppidum_is_leader", help, u64::from(is_leader));
        let is_voter = self.members.look(|now| now.is_voter(self.id));
        page.gauge("oppidum_is_voter", "1 if this replica votes", u64::from(is_voter));
        let help = "Leaders that this replica has followed, one after the other, or been";
        page.counter("oppidum_leader_changes", help, self.leaders.changes.get());
        let help = "From a noticed loss of a leader to the first applied entry of the next";
        page.histogram("oppidum_failover_duration_seconds", help, &self.leaders.failovers);
        let help = "Watchers that this leader serves: the attached catalogs";
        page.gauge("oppidum_watchers", help, self.settling.watchers().len());
        let help = "Silent watchers that are waited for no longer";
        page.counter("oppidum_watchers_let_go", help, self.settling.fenced_count());
    }

    fn write_waits(&self, page: &mut Page<'_>) {
        let batches = self.settling.batcher().metrics();
        let help = "Waits of a leader's requests: for an entry, for the log, for settling";
        let stages =
            [(["queue"], &batches.queue), (["log"], &batches.log), (["settled"], &batches.settled)];
        page.histograms("oppidum_order_wait_seconds", help, ["stage"], stages);
        let help = "Requests in an entry that this leader proposed";
        page.histogram("oppidum_entry_orders", help, &batches.entry_orders);
        let help = "Bytes of requests in an entry that this leader proposed";
        page.histogram("oppidum_entry_bytes", help, &batches.entry_bytes);
        if let Some(syncs) = self.view.log_syncs() {
            let help = "From the append of entries until they are on this replica's disk";
            page.histogram("oppidum_log_sync_duration_seconds", help, &syncs);
        }
    }

    fn write_indexes(&self, page: &mut Page<'_>) {
        let marks = self.engine.marks();
        let (applied, settled) = (self.view.read(ShopState::applied), self.settling.settled());
        page.gauge("oppidum_applied_index", "The last entry applied here", applied.0);
        let help = "The last entry known here to be committed";
        page.gauge("oppidum_committed_index", help, marks.committed.0);
        let help =
            "The last entry that every attached catalog has seen; of a follower, as the log says";
        page.gauge("oppidum_settled_index", help, settled.0);
        let voters = self.members.now().roster().voters.len();
        page.gauge("oppidum_voters", "Replicas that vote, as this one knows", voters);
        let others = marks.matched.iter().filter(|(peer, _)| **peer != self.id);
        let lags = others.map(|(peer, matched)| {
            let matched = matched.map_or(0, |(_, _, index)| index);
            ([peer.to_string()], marks.last.0.saturating_sub(matched))
        });
        let help = "Entries of this leader's log that a replica is not known to have";
        page.gauges("oppidum_replication_lag_entries", help, ["peer"], lags);
    }

    fn write_queues(&self, page: &mut Page<'_>) {
        let (waiting, entries) = self.settling.batcher().lengths();
        let catalogs = self.view.read(|shop| shop.attached().count());
        let access = self.view.access().borrow().access.clone();
        page.queues(&[
            ("requests_before_log", waiting, WAITING_MAX),
            ("entries_in_flight", entries, IN_FLIGHT_MAX),
            ("watchers", self.settling.watchers().len(), WATCHERS_MAX),
            ("attached_catalogs", catalogs, CATALOGS_MAX),
            ("api_keys", access.keys.len(), API_KEYS_MAX),
            ("principals", access.principal_count(), PRINCIPALS_MAX),
        ]);
    }

    fn write_disk(&self, page: &mut Page<'_>) {
        let seen = self.disk_space.seen();
        if let Some(free) = seen.free {
            page.gauge("oppidum_disk_free_bytes", "Free space of the replica's disk", free);
            let help =
                "Below this free space a leader gives up the lead; below half, no entry is taken";
            page.gauge("oppidum_disk_reserve_bytes", help, seen.reserve);
        }
        let folders = ["log", "history"];
        let sizes = folders.map(|kind| ([kind], folder_bytes(&self.data.join(kind))));
        let help = "Space on disk that the replica's log and history take";
        page.gauges("oppidum_data_bytes", help, ["kind"], sizes);
    }

    fn write_key_windows(&self, page: &mut Page<'_>) {
        let Some(counts) = self.view.read_ledger(Ledger::window_counts) else { return };
        let windows = || WINDOWS.into_iter().zip(counts.iter());
        let keys = windows().map(|(window, counts)| ([window], counts.keys));
        let help = "Idempotency keys that are remembered";
        page.gauges("oppidum_idempotency_keys", help, ["window"], keys);
        let limits = windows().map(|(window, counts)| ([window], counts.keys_max));
        let help = "The most idempotency keys that are remembered";
        page.gauges("oppidum_idempotency_keys_limit", help, ["window"], limits);
        let seconds = |counts: &WindowCounts| counts.memory_ms / 1_000;
        let memory = windows().map(|(window, counts)| ([window], seconds(counts)));
        let help = "How far back every idempotency key is remembered";
        page.gauges("oppidum_idempotency_memory_seconds", help, ["window"], memory);
    }
}

/// The space on disk that the files in a folder take.
fn folder_bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let blocks = files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks());
    blocks.sum::<u64>().saturating_mul(DISK_BLOCK_BYTES)
}
