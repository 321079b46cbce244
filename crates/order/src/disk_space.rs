//! Disk space: how much is left, and which work goes on when little is.
//!
//! A log that meets a full disk can only stop. So a replica measures the free space before that
//! happens, and keeps a *reserve*:
//!
//! ```text
//!   free bytes   ├──────── half ──────── reserve ─────────────────────────────►
//!                 Critical: no batch     Low: it warns. A leader        Normal
//!                 of another replica     lets in no order for which
//!                 is taken               a majority has no space
//! ```
//!
//! The second half of the reserve is for entries in flight, and for the few small entries that a
//! store writes about itself. A level is left only a quarter above where it began, so that it does
//! not flutter. When another process uses up the reserve as well, the log meets the full disk after
//! all: then the replica stops, and counts nothing as written that was not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::problem::Problem;

use crate::peers::Peers;
use crate::problems;

/// The reserve unless it is set: 64 MB, or a tenth of a smaller disk.
pub(crate) const RESERVE_MAX: u64 = 64_000_000;

/// How often the disk is asked: in that time a replica at full speed writes a tenth of the reserve.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A leader that could not hand over for lack of space does not try again before.
const HANDOVER_RETRY_PAUSE: Duration = Duration::from_secs(3);

/// The free and the total space of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes altogether.
    pub total: u64,
}

/// Asks the disk. Blocks briefly.
pub type Gauge = Arc<dyn Fn() -> io::Result<Space> + Send + Sync>;

/// How much space there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Level {
    /// Enough.
    #[default]
    Normal,
    /// Less than the reserve is free.
    Low,
    /// Less than half of the reserve is free.
    Critical,
}

impl Level {
    /// The level after another reading.
    fn after(self, free: u64, reserve: u64) -> Self {
        let half = reserve / 2;
        let back = |bound: u64| bound.saturating_add(bound / 4);
        match self {
            _ if free < half => Self::Critical,
            Self::Critical if free < back(half) => Self::Critical,
            _ if free < reserve => Self::Low,
            Self::Low | Self::Critical if free < back(reserve) => Self::Low,
            _ => Self::Normal,
        }
    }
}

/// The last reading of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpaceReading {
    /// How much space there is.
    pub(crate) level: Level,
    /// Bytes free; `None`: not read yet, or not readable.
    pub(crate) free: Option<u64>,
    /// Bytes that are kept free; 0: not read yet.
    pub(crate) reserve: u64,
}

/// The disk space of one replica. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct DiskSpace {
    seen: watch::Sender<SpaceReading>,
    /// In bytes; `None`: as the disk is.
    reserve: Option<u64>,
    tried: Arc<Mutex<Option<Instant>>>,
}

impl DiskSpace {
    /// Starts with enough space, until the first reading.
    pub(crate) fn new(reserve: Option<u64>) -> Self {
        Self { seen: watch::Sender::default(), reserve, tried: Arc::default() }
    }

    /// The last reading.
    pub(crate) fn seen(&self) -> SpaceReading {
        *self.seen.borrow()
    }

    /// The level of the last reading.
    pub(crate) fn level(&self) -> Level {
        self.seen().level
    }

    /// Announces each new reading.
    pub(crate) fn watch(&self) -> watch::Receiver<SpaceReading> {
        self.seen.subscribe()
    }

    /// Waits until there is enough space.
    pub(crate) async fn await_space(&self) {
        let mut seen = self.watch();
        // The sender lives in `self`.
        let _ = seen.wait_for(|seen| seen.level == Level::Normal).await;
    }

    /// Notes a reading; logs when the level has changed.
    pub(crate) fn note(&self, space: Space, folder: &str) {
        let reserve = self.reserve.unwrap_or_else(|| RESERVE_MAX.min(space.total / 10));
        let before = self.level();
        let level = before.after(space.free, reserve);
        self.seen.send_replace(SpaceReading { level, free: Some(space.free), reserve });
        if level == before {
            return;
        }
        let free = megabytes(space.free);
        let kept = megabytes(reserve);
        match level {
            Level::Normal => {
                tracing::info!("there is enough free space again on the disk of {folder}: {free}");
            }
            Level::Low => tracing::warn!(
                "the disk of {folder} is full: {free} are free, {kept} are kept as a reserve; make \
                 room, and it goes on by itself"
            ),
            Level::Critical => tracing::warn!(
                "the disk of {folder} is full: {free} are free, less than half of the reserve; \
                 this replica takes no entries until there is room"
            ),
        }
    }

    /// Reads the disk every [`POLL_INTERVAL`], until `stop`.
    pub(crate) async fn keep(self, gauge: Gauge, folder: String, stop: CancellationToken) {
        loop {
            let look = gauge.clone();
            match tokio::task::spawn_blocking(move || look()).await {
                Ok(Ok(space)) => self.note(space, &folder),
                Ok(Err(error)) => tracing::debug!("cannot ask how full {folder} is: {error}"),
                Err(_) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Checks that a majority has space for an order; asked by the replica that leads.
    pub(crate) fn admits(&self, me: u64, peers: &Peers, majority: usize) -> Result<(), Problem> {
        let own = self.level();
        let (taking, mut full) = peers.taking();
        let taking = taking + usize::from(own == Level::Normal);
        if own != Level::Normal {
            full.push(me);
        }
        if taking < majority && !full.is_empty() {
            return Err(problems::disk_full(&full));
        }
        match own == Level::Critical {
            // The other replicas have space, and one of them is about to be given the lead.
            true => Err(problems::no_leader()),
            false => Ok(()),
        }
    }

    /// True for a leader that is short of space, while a majority of others has it; at most once
    /// per [`HANDOVER_RETRY_PAUSE`].
    pub(crate) fn wants_successor(&self, peers: &Peers, majority: usize) -> bool {
        if self.level() == Level::Normal || peers.taking().0 < majority {
            return false;
        }
        let mut tried = self.tried.lock();
        let is_due = tried.is_none_or(|tried| HANDOVER_RETRY_PAUSE <= tried.elapsed());
        if is_due {
            *tried = Some(Instant::now());
        }
        is_due
    }
}

/// Bytes for people.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::three;
    use crate::membership::Members;
    use crate::role::Reach;
    use wire::problem::Code;

    #[test]
    fn a_level_is_left_only_a_quarter_above_where_it_began() {
        use Level::{Critical, Low, Normal};
        let looks = [
            (1_000, Normal),
            (999, Low),
            (1_249, Low),
            (1_250, Normal),
            (500, Low),
            (499, Critical),
            (624, Critical),
            (625, Low),
            (0, Critical),
            (1_249, Low),
            (0, Critical),
            (1_250, Normal),
        ];
        let mut level = Normal;
        for (free, expected) in looks {
            level = level.after(free, 1_000);
            assert_eq!(level, expected, "{free}");
        }
        assert_eq!(Normal.after(0, 0), Normal, "without a reserve the level is normal");
    }

    fn disk_space(free: u64) -> DiskSpace {
        let disk_space = DiskSpace::new(Some(1_000));
        disk_space.note(Space { free, total: 1 << 40 }, "a test");
        disk_space
    }

    /// The other two replicas, as (reachable, full).
    fn others(peers: [(bool, bool); 2]) -> Peers {
        let table = Peers::new();
        table.sync(456, &Members::new(&three()).now());
        for (id, (there, full)) in [123, 345].into_iter().zip(peers) {
            table.set_reach(id, if there { Reach::Up } else { Reach::Refused });
            table.set_report(id, None, None);
            table.set_full(id, full);
        }
        table
    }

    #[test]
    fn an_order_is_let_in_while_a_majority_has_space_for_it() {
        let admits = |own: u64, peers| disk_space(own).admits(456, &others(peers), 2).is_ok();
        assert!(admits(9_999, [(true, false), (true, false)]));
        assert!(admits(9_999, [(true, false), (true, true)]));
        assert!(!admits(9_999, [(true, true), (true, true)]));
        assert!(!admits(9_999, [(false, false), (true, true)]), "one is gone, one is full");
        assert!(admits(9_999, [(false, false), (false, false)]), "no disk is full");
        assert!(admits(999, [(true, false), (true, false)]), "until it has handed over");
        assert!(!admits(499, [(true, false), (true, false)]));
        // A disk that fills up between two readings, while the others have space.
        let code = |peers| disk_space(499).admits(456, &others(peers), 2).unwrap_err().code;
        assert_eq!(code([(true, false), (true, false)]), Code::NoLeader, "orders wait");
        assert_eq!(code([(true, false), (true, true)]), Code::DiskFull, "no replica can take over");
        assert_eq!(code([(true, false), (false, false)]), Code::DiskFull);
        assert!(!admits(999, [(true, false), (true, true)]));
    }

    #[test]
    fn a_full_disk_problem_is_definite_and_names_the_full_replicas() {
        let problem =
            disk_space(1).admits(456, &others([(true, true), (true, false)]), 2).unwrap_err();
        assert!(problem.definite && problem.retry_after.is_some());
        assert!(problem.message.contains("123") && problem.message.contains("456"), "{problem}");
        assert!(!problem.message.contains("345"), "{problem}");
    }

    #[test]
    fn a_full_leader_looks_for_a_successor_only_where_that_helps_and_not_all_the_time() {
        let leader = disk_space(999);
        assert!(!leader.wants_successor(&others([(true, true), (true, false)]), 2));
        let peers = others([(true, false), (true, false)]);
        assert!(leader.wants_successor(&peers, 2));
        assert!(!leader.wants_successor(&peers, 2), "it has just tried");
        assert!(!disk_space(9_999).wants_successor(&peers, 2));
    }
}
