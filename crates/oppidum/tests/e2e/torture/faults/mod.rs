//! The faults: each strikes a running store, and mends what it broke.

mod catalog_dies;
mod catalog_freezes;
mod catalog_stops;
mod everybody_dies;
mod follower_dies;
mod follower_freezes;
mod frontend_dies;
mod frontend_freezes;
mod leader_dies;
mod leader_freezes;
mod leader_stops;
mod two_replicas_die;

use crate::torture::Torture;

/// Strikes, waits until orders go on, and mends.
pub(crate) type Strike = fn(&mut Torture);

/// All of them, by name.
pub(crate) const FAULTS: [(&str, Strike); 12] = [
    ("leader-dies", leader_dies::strike),
    ("leader-stops", leader_stops::strike),
    ("leader-freezes", leader_freezes::strike),
    ("follower-dies", follower_dies::strike),
    ("follower-freezes", follower_freezes::strike),
    ("two-replicas-die", two_replicas_die::strike),
    ("everybody-dies", everybody_dies::strike),
    ("catalog-dies", catalog_dies::strike),
    ("catalog-stops", catalog_stops::strike),
    ("catalog-freezes", catalog_freezes::strike),
    ("frontend-dies", frontend_dies::strike),
    ("frontend-freezes", frontend_freezes::strike),
];
