//! Schedules for wrong rules that luck rarely finds.

use wire::watch::rules::Mutant;

/// The wrong rules that have a schedule here.
pub(crate) const SCHEDULED: [Mutant; 0] = [];
