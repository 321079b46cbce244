//! Block serving: sends blocks to a replica that lacks them, paced so that orders go first.
//!
//! A catching-up replica takes blocks as fast as it can, at a cost for orders: the disk here, and
//! the processors of a machine that runs more than one replica. So while orders come in, blocks go
//! out at an even pace, far above the rate of any store and far below the capacity of the machine.
//! When no orders come in, they go out without a pause.

use std::sync::Arc;
use std::time::Duration;

use ledger::terms::Index;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use wire::proto;

use super::view::View;

/// The approximate bytes of blocks in one part: 256 KB, a few milliseconds of work.
const PART_BYTES: usize = 256 << 10;

/// Parts of blocks read ahead of a slow receiver.
pub(crate) const PARTS_AHEAD: usize = 2;

/// The bytes of blocks sent per second while orders come in: 8 MB, some 60,000 orders.
const BUSY_BYTES: u64 = 8 << 20;

/// From this many bytes of applied batches per second on, orders count as coming in: some hundreds
/// of orders.
const IDLE_BYTES_MAX: u64 = 32 << 10;

/// The interval over which applied bytes are counted. With a shorter interval, the gap between two
/// entries would look like idle time.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// The pure core: how long to wait after each part.
#[derive(Clone, Copy, Debug)]
struct ServingPace {
    busy: bool,
    since: Instant,
    applied: u64,
    /// When the next part may go while the store is busy.
    next: Instant,
}

impl ServingPace {
    /// Starts as busy, until an idle interval is measured. `applied` is the bytes applied so far.
    fn new(applied: u64, now: Instant) -> Self {
        Self { busy: true, since: now, applied, next: now }
    }

    /// Records that a part of `bytes` went out. Returns the wait before the next part.
    fn sent(&mut self, bytes: usize, applied: u64, now: Instant) -> Duration {
        let span = now - self.since;
        if COUNT_INTERVAL <= span {
            let rate = u128::from(applied.saturating_sub(self.applied)) * 1_000;
            self.busy = u128::from(IDLE_BYTES_MAX) * span.as_millis() <= rate;
            (self.since, self.applied) = (now, applied);
        }
        if !self.busy {
            self.next = now;
            return Duration::ZERO;
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let share = Duration::from_micros(bytes.saturating_mul(1_000_000) / BUSY_BYTES);
        // Unused time does not accumulate into a burst.
        self.next = self.next.max(now.checked_sub(share).unwrap_or(now)) + share;
        self.next.saturating_duration_since(now)
    }
}

/// How long a request for blocks waits until they are on disk here.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Reads blocks part by part and sends them, until all are sent or the receiver is gone.
pub(crate) async fn send_blocks(
    view: Arc<View>,
    mut after: Index,
    to: Index,
    parts: mpsc::Sender<Result<proto::BlocksPart, Status>>,
) {
    let mut pace = ServingPace::new(view.applied_bytes(), Instant::now());
    if view.durable().index() < to {
        // The requesting replica may have had on disk, and lost, entries that this one is only
        // about to write. If the flush fails, this replica sends what it has.
        let _ = tokio::time::timeout(FLUSH_MAX, view.flush()).await;
    }
    loop {
        // Reading is blocking work.
        let reader = view.clone();
        let read = move || reader.blocks(after, to, PART_BYTES);
        let blocks = match view.shared.hand.aside(read).await {
            Ok(blocks) => blocks,
            Err(error) => {
                // If the receiver is gone, the error has no reader.
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
    fn blocks_are_paced_while_orders_come_in_and_not_paced_when_idle() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = ServingPace::new(0, start);
        let eighth = Duration::from_millis(125);
        assert_eq!(pace.sent(PART, 0, at(0)), eighth, "busy until an interval is measured");
        assert_eq!(pace.sent(PART, 500_000, at(125)), eighth);
        assert_eq!(pace.sent(PART, 500_000, at(260)), Duration::ZERO, "no orders come in");
        assert_eq!(pace.sent(PART, 500_000, at(261)), Duration::ZERO);
        let pause = pace.sent(PART, 600_000, at(361));
        assert_eq!(pause, Duration::from_millis(25), "orders again: the rest of the part's share");
    }

    #[test]
    fn a_slow_receiver_gets_no_burst_afterwards() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = ServingPace::new(0, start);
        pace.sent(PART, 0, at(0));
        assert!(pace.sent(PART, 9_000_000, at(5_000)) <= Duration::from_millis(125));
        let next = pace.sent(PART, 9_000_000, at(5_001));
        assert!(Duration::from_millis(100) < next, "{next:?}");
    }
}
