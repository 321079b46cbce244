//! Room on the disk: how much is left, and what is still done when there is little.
//!
//! A log that meets a full disk can only stop. So a replica looks at what is free before it comes
//! to that, and keeps a *reserve*:
//!
//! ```text
//!   free bytes   ├──────── half ──────── reserve ─────────────────────────────►
//!                 Out: no batch of       Low: it says so. Whoever leads    Roomy
//!                 others is taken        lets no order in that a majority
//!                                        has no room for
//! ```
//!
//! The second half of the reserve is for what was on its way, and for the few small entries that a
//! store writes about itself. A level is left again only a quarter above where it began, so that it
//! does not flutter. When another process takes the reserve as well, the log meets the full disk
//! after all: then the replica stops, and believes nothing that was not written.

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

/// How often it is looked: in that time a replica at full speed writes a tenth of the reserve.
const LOOK: Duration = Duration::from_millis(100);

/// A leader that could not hand over for want of room does not try again before.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// What a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes altogether.
    pub total: u64,
}

/// Asks the disk. Blocking, for a moment.
pub type Gauge = Arc<dyn Fn() -> io::Result<Space> + Send + Sync>;

/// How much room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Level {
    /// Enough.
    #[default]
    Roomy,
    /// The reserve has been begun.
    Low,
    /// Half of the reserve is used.
    Out,
}

impl Level {
    /// The level after another look.
    fn after(self, free: u64, reserve: u64) -> Self {
        let half = reserve / 2;
        let back = |bound: u64| bound.saturating_add(bound / 4);
        match self {
            _ if free < half => Self::Out,
            Self::Out if free < back(half) => Self::Out,
            _ if free < reserve => Self::Low,
            Self::Low | Self::Out if free < back(reserve) => Self::Low,
            _ => Self::Roomy,
        }
    }
}

/// What was seen last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How much room there is.
    pub(crate) level: Level,
    /// Bytes free; `None`: nobody has looked, or can.
    pub(crate) free: Option<u64>,
}

/// The room that one replica has. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    seen: watch::Sender<Seen>,
    /// In bytes; `None`: as the disk is.
    reserve: Option<u64>,
    tried: Arc<Mutex<Option<Instant>>>,
}

impl Room {
    /// Enough of it, until somebody looks.
    pub(crate) fn new(reserve: Option<u64>) -> Self {
        Self { seen: watch::Sender::default(), reserve, tried: Arc::default() }
    }

    /// What was seen last.
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// How much there is.
    pub(crate) fn level(&self) -> Level {
        self.seen().level
    }

    /// To be told of changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Waits until there is enough.
    pub(crate) async fn roomy(&self) {
        let mut seen = self.watch();
        // The sender lives in `self`.
        let _ = seen.wait_for(|seen| seen.level == Level::Roomy).await;
    }

    /// Writes down what a look has found; says so when the level has changed.
    pub(crate) fn note(&self, space: Space, folder: &str) {
        let reserve = self.reserve.unwrap_or_else(|| RESERVE_MAX.min(space.total / 10));
        let before = self.level();
        let level = before.after(space.free, reserve);
        self.seen.send_replace(Seen { level, free: Some(space.free) });
        if level == before {
            return;
        }
        let (free, kept) = (megabytes(space.free), megabytes(reserve));
        match level {
            Level::Roomy => tracing::info!("there is room again on the disk of {folder}: {free}"),
            Level::Low => tracing::warn!(
                "the disk of {folder} is full: {free} are free, {kept} are kept as a reserve; make \
                 room, and it goes on by itself"
            ),
            Level::Out => tracing::warn!(
                "the disk of {folder} is full: {free} are free, less than half of the reserve; \
                 this replica takes no entries until there is room"
            ),
        }
    }

    /// Looks now and then, until `stop`.
    pub(crate) async fn keep(self, gauge: Gauge, folder: String, stop: CancellationToken) {
        loop {
            let look = gauge.clone();
            match tokio::task::spawn_blocking(move || look()).await {
                Ok(Ok(space)) => self.note(space, &folder),
                Ok(Err(error)) => tracing::debug!("cannot ask how full {folder} is: {error}"),
                Err(_) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Whether a majority has room for an order; asked by the replica that leads.
    pub(crate) fn admits(&self, me: u64, peers: &Peers, majority: usize) -> Result<(), Problem> {
        let own = self.level();
        let (taking, mut full) = peers.taking();
        let taking = taking + usize::from(own == Level::Roomy);
        if own != Level::Roomy {
            full.push(me);
        }
        if taking < majority && !full.is_empty() {
            return Err(problems::disk_full(&full));
        }
        match own == Level::Out {
            // The others have room, and one of them is about to be given the lead.
            true => Err(problems::no_leader()),
            false => Ok(()),
        }
    }

    /// True for a leader that has little room, while enough of the others have it; not too often.
    pub(crate) fn wants_successor(&self, peers: &Peers, majority: usize) -> bool {
        if self.level() == Level::Roomy || peers.taking().0 < majority {
            return false;
        }
        let mut tried = self.tried.lock();
        let is_due = tried.is_none_or(|tried| TRY_AGAIN <= tried.elapsed());
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
    use crate::members::Members;
    use crate::role::Reach;
    use wire::problem::Code;

    #[test]
    fn a_level_is_left_only_a_quarter_above_where_it_began() {
        use Level::{Low, Out, Roomy};
        let looks = [
            (1_000, Roomy),
            (999, Low),
            (1_249, Low),
            (1_250, Roomy),
            (500, Low),
            (499, Out),
            (624, Out),
            (625, Low),
            (0, Out),
            (1_249, Low),
            (0, Out),
            (1_250, Roomy),
        ];
        let mut level = Roomy;
        for (free, expected) in looks {
            level = level.after(free, 1_000);
            assert_eq!(level, expected, "{free}");
        }
        assert_eq!(Roomy.after(0, 0), Roomy, "without a reserve nobody minds");
    }

    fn room(free: u64) -> Room {
        let room = Room::new(Some(1_000));
        room.note(Space { free, total: 1 << 40 }, "a test");
        room
    }

    /// The others, each: there, and full.
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
    fn an_order_is_let_in_while_a_majority_has_room_for_it() {
        let admits = |own: u64, peers| room(own).admits(456, &others(peers), 2).is_ok();
        assert!(admits(9_999, [(true, false), (true, false)]));
        assert!(admits(9_999, [(true, false), (true, true)]));
        assert!(!admits(9_999, [(true, true), (true, true)]));
        assert!(!admits(9_999, [(false, false), (true, true)]), "one is gone, one is full");
        assert!(admits(9_999, [(false, false), (false, false)]), "that is no matter of room");
        assert!(admits(999, [(true, false), (true, false)]), "until it has handed over");
        assert!(!admits(499, [(true, false), (true, false)]));
        // The kind: a disk that fills up between two looks, while others have room.
        let code = |peers| room(499).admits(456, &others(peers), 2).unwrap_err().code;
        assert_eq!(code([(true, false), (true, false)]), Code::NoLeader, "orders wait");
        assert_eq!(code([(true, false), (true, true)]), Code::DiskFull, "nobody can take over");
        assert_eq!(code([(true, false), (false, false)]), Code::DiskFull);
        assert!(!admits(999, [(true, false), (true, true)]));
    }

    #[test]
    fn a_refusal_names_who_is_full_and_says_that_nothing_happened() {
        let problem = room(1).admits(456, &others([(true, true), (true, false)]), 2).unwrap_err();
        assert!(problem.definite && problem.retry_after.is_some());
        assert!(problem.message.contains("123") && problem.message.contains("456"), "{problem}");
        assert!(!problem.message.contains("345"), "{problem}");
    }

    #[test]
    fn a_full_leader_looks_for_a_successor_only_where_that_helps_and_not_all_the_time() {
        let leader = room(999);
        assert!(!leader.wants_successor(&others([(true, true), (true, false)]), 2));
        let peers = others([(true, false), (true, false)]);
        assert!(leader.wants_successor(&peers, 2));
        assert!(!leader.wants_successor(&peers, 2), "it has just tried");
        assert!(!room(9_999).wants_successor(&peers, 2));
    }
}
