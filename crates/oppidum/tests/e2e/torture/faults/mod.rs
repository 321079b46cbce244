//! The faults of torture: each disturbs a running store, and repairs what it broke.

mod all_replicas_die;
mod all_replicas_lose_power;
mod catalog_dies;
mod catalog_freezes;
mod catalog_stops;
mod clock_jumps;
mod disk_fills;
mod disks_fill;
mod follower_dies;
mod follower_disk_stalls;
mod follower_freezes;
mod follower_is_damaged;
mod frontend_dies;
mod frontend_freezes;
mod hostile_clients;
mod leader_dies;
mod leader_disk_stalls;
mod leader_freezes;
mod leader_stops;
mod older_copy;
mod power_cut;
mod power_cut_after_freeze;
mod power_cut_after_kill;
mod stalled_leader_dies;
mod two_replicas_die;

use crate::torture::Torture;

/// Injects the fault, waits until orders go on, and repairs.
pub(crate) type Strike = fn(&mut Torture);

/// The requirement of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The processes suffice.
    Nothing,
    /// Each replica has a disk of its own.
    Disks,
}

/// All faults, by name.
pub(crate) const FAULTS: [(&str, Needs, Strike); 25] = [
    ("leader-dies", Needs::Nothing, leader_dies::strike),
    ("leader-stops", Needs::Nothing, leader_stops::strike),
    ("leader-freezes", Needs::Nothing, leader_freezes::strike),
    ("follower-dies", Needs::Nothing, follower_dies::strike),
    ("follower-freezes", Needs::Nothing, follower_freezes::strike),
    ("two-replicas-die", Needs::Nothing, two_replicas_die::strike),
    ("all-replicas-die", Needs::Nothing, all_replicas_die::strike),
    ("catalog-dies", Needs::Nothing, catalog_dies::strike),
    ("catalog-stops", Needs::Nothing, catalog_stops::strike),
    ("catalog-freezes", Needs::Nothing, catalog_freezes::strike),
    ("frontend-dies", Needs::Nothing, frontend_dies::strike),
    ("frontend-freezes", Needs::Nothing, frontend_freezes::strike),
    ("hostile-clients", Needs::Nothing, hostile_clients::strike),
    ("follower-disk-stalls", Needs::Nothing, follower_disk_stalls::strike),
    ("leader-disk-stalls", Needs::Nothing, leader_disk_stalls::strike),
    ("stalled-leader-dies", Needs::Nothing, stalled_leader_dies::strike),
    ("clock-jumps", Needs::Nothing, clock_jumps::strike),
    ("follower-is-damaged", Needs::Nothing, follower_is_damaged::strike),
    ("older-copy", Needs::Nothing, older_copy::strike),
    ("power-cut", Needs::Disks, power_cut::strike),
    ("all-replicas-lose-power", Needs::Disks, all_replicas_lose_power::strike),
    ("power-cut-after-freeze", Needs::Disks, power_cut_after_freeze::strike),
    ("power-cut-after-kill", Needs::Disks, power_cut_after_kill::strike),
    ("disk-fills", Needs::Disks, disk_fills::strike),
    ("disks-fill", Needs::Disks, disks_fill::strike),
];
