//! The page `/status/cache`: the contents of this frontend's cache, and its latest events.
//!
//! Any client may request the page, and its size depends on the requests of clients. So its size is
//! bounded, and it is rendered at most 25 times per second: further requests get the last
//! rendering. [`RenderBudget`] decides and has no clock.

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::{CACHE_RENDERED_MAX, VIEW_AGE_MAX};

/// The pure core: decides whether the page is rendered for a request.
#[derive(Debug, Default)]
struct RenderBudget {
    /// The beginning of the span being counted, and the renderings in it.
    since: Option<Instant>,
    rendered: u32,
}

impl RenderBudget {
    /// A request arrives at `now`. True: the page is rendered for it.
    fn spend(&mut self, now: Instant) -> bool {
        let is_over = |since: Instant| VIEW_AGE_MAX <= now.saturating_duration_since(since);
        if self.since.is_none_or(is_over) {
            (self.since, self.rendered) = (Some(now), 0);
        }
        self.rendered += u32::from(self.rendered <= CACHE_RENDERED_MAX);
        self.rendered <= CACHE_RENDERED_MAX
    }
}

/// The shell: keeps the last rendering.
#[derive(Debug, Default)]
pub(crate) struct CacheReport {
    last: Mutex<(RenderBudget, Bytes)>,
}

impl CacheReport {
    /// The page, rendered by `render` unless the budget of this span is spent.
    pub(crate) fn page<E>(&self, render: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Bytes, E> {
        let mut last = self.last.lock();
        if last.0.spend(Instant::now()) {
            last.1 = render()?.into();
        }
        Ok(last.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_clients_share_the_renderings_and_a_single_client_gets_its_own() {
        let (mut budget, start) = (RenderBudget::default(), Instant::now());
        let mut spend = |millis| budget.spend(start + Duration::from_millis(millis));
        assert!((0..5).all(&mut spend), "five in a span");
        assert!((5..200).all(|millis| !spend(millis)));
        let rendered = (200..1_200).filter(|millis| spend(*millis)).count();
        assert_eq!(rendered, 25, "in a second");
        assert!(spend(9_000));
    }

    #[test]
    fn beyond_the_budget_the_last_rendering_is_repeated() {
        let report = CacheReport::default();
        let pages: Vec<Bytes> =
            (0..7).map(|page| report.page(|| Ok::<_, ()>(vec![page])).unwrap()).collect();
        assert_eq!(pages.concat(), [0, 1, 2, 3, 4, 4, 4]);
    }
}
