//! Serves blocks to a replica that lacks them, and lets orders go first.
//!
//! Whoever returns takes what it gets as fast as it can, and everybody pays: the disk here, the
//! processors of a machine that runs more than one replica. So while orders come in, blocks go out
//! at an even pace that is far above the rate of any store and far below what the machine can do;
//! when nobody orders, they go as fast as they are taken.

use std::sync::Arc;
use std::time::Duration;

use ledger::terms::Index;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use wire::proto;

use super::view::View;

/// About how many bytes of blocks go into one part: 256 KB, a few milliseconds of anybody's time.
const PART_BYTES: usize = 256 << 10;

/// Parts of blocks read ahead of a slow receiver.
pub(crate) const PARTS_AHEAD: usize = 2;

/// While orders come in, so many bytes of blocks go out per second: 8 MB, some 60,000 orders.
const BUSY_BYTES: u64 = 8 << 20;

/// Orders come in when so many bytes of batches are applied per second: some hundreds of orders.
const QUIET_BYTES: u64 = 32 << 10;

/// For how long it is counted what comes in. Shorter, and the time between two entries would pass
/// for silence.
const COUNT: Duration = Duration::from_millis(100);

/// The pure core: how long to wait after each part.
#[derive(Clone, Copy, Debug)]
struct Pace {
    busy: bool,
    since: Instant,
    applied: u64,
    /// When the next part may go, were the store busy all the time.
    next: Instant,
}

impl Pace {
    /// Busy, until it is known to be quiet. `applied` is what has been applied so far, in bytes.
    fn new(applied: u64, now: Instant) -> Self {
        Self { busy: true, since: now, applied, next: now }
    }

    /// A part of `bytes` went out. How long to wait before the next.
    fn sent(&mut self, bytes: usize, applied: u64, now: Instant) -> Duration {
        let span = now - self.since;
        if COUNT <= span {
            let came = u128::from(applied.saturating_sub(self.applied)) * 1_000;
            self.busy = u128::from(QUIET_BYTES) * span.as_millis() <= came;
            (self.since, self.applied) = (now, applied);
        }
        if !self.busy {
            self.next = now;
            return Duration::ZERO;
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let share = Duration::from_micros(bytes.saturating_mul(1_000_000) / BUSY_BYTES);
        // Time that was not used is not saved up for a rush.
        self.next = self.next.max(now.checked_sub(share).unwrap_or(now)) + share;
        self.next.saturating_duration_since(now)
    }
}

/// So long another replica waits until what it asks for is on disk here.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Reads blocks a part at a time and passes them on, until all are sent or nobody listens.
pub(crate) async fn send_blocks(
    view: Arc<View>,
    mut after: Index,
    to: Index,
    parts: mpsc::Sender<Result<proto::BlocksPart, Status>>,
) {
    let mut pace = Pace::new(view.applied_bytes(), Instant::now());
    if view.durable().index() < to {
        // Another replica may have had on disk, and lost, what this one is only about to write. If
        // it cannot, it sends what it has.
        let _ = tokio::time::timeout(FLUSH_MAX, view.flush()).await;
    }
    loop {
        // Reading is blocking work.
        let reader = view.clone();
        let read = move || reader.blocks(after, to, PART_BYTES);
        let blocks = match view.shared.hand.aside(read).await {
            Ok(blocks) => blocks,
            Err(error) => {
                // Nobody listens any more: nobody needs to know.
                let _ = parts.send(Err(Status::data_loss(error.to_string()))).await;
                return;
            }
        };
        let Some((last, _)) = blocks.last() else { return };
        after = *last;
        let bytes = blocks.iter().map(|(_, block)| block.len()).sum();
        let blocks = blocks.into_iter().map(|(_, block)| block).collect();
        if parts.send(Ok(proto::BlocksPart { blocks })).await.is_err() {
            return;
        }
        let pause = pace.sent(bytes, view.applied_bytes(), Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: usize = 1 << 20;

    #[test]
    fn blocks_go_evenly_while_orders_come_in_and_at_once_when_none_do() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(0, start);
        let eighth = Duration::from_millis(125);
        assert_eq!(pace.sent(PART, 0, at(0)), eighth, "at first nobody knows");
        assert_eq!(pace.sent(PART, 500_000, at(125)), eighth);
        assert_eq!(pace.sent(PART, 500_000, at(260)), Duration::ZERO, "nobody orders");
        assert_eq!(pace.sent(PART, 500_000, at(261)), Duration::ZERO);
        let pause = pace.sent(PART, 600_000, at(361));
        assert_eq!(pause, Duration::from_millis(25), "somebody does again: the rest of its share");
    }

    #[test]
    fn a_receiver_that_was_slow_gets_no_rush_afterwards() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(0, start);
        pace.sent(PART, 0, at(0));
        assert!(pace.sent(PART, 9_000_000, at(5_000)) <= Duration::from_millis(125));
        let next = pace.sent(PART, 9_000_000, at(5_001));
        assert!(Duration::from_millis(100) < next, "{next:?}");
    }
}
