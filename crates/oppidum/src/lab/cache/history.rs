//! A frontend's cache timeline, read from `/status/cache`: which product was cached from when to
//! when, and why it left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::status::CacheStatus;

/// A frontend's cache: its contents now, and its recent events.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct CacheHistory {
    /// The contents and the counters.
    #[serde(flatten)]
    pub(super) cache: CacheStatus,
    /// The last events, oldest first.
    pub(super) timeline: Vec<Event>,
}

/// A change of the cache's contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    /// Milliseconds: since the epoch when read, since the first event when written.
    #[serde(rename(serialize = "ms", deserialize = "time_ms"))]
    pub(super) at: u64,
    /// `stored`, `evicted`, `invalidated`, `dropped`, `reset`.
    pub(super) event: String,
    /// The product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) product: Option<String>,
    /// Its version from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u64>,
    /// The cached products after the event.
    pub(super) contents: Vec<String>,
}

/// A time span in which a product was cached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct CachedSpan {
    /// The product.
    pub(super) product: String,
    /// The start, in milliseconds since the first event.
    pub(super) from_ms: u64,
    /// The end, likewise.
    pub(super) to_ms: u64,
    /// The reason for its end: `evicted`, `dropped`, `reset`; `end`: it was still cached.
    pub(super) ended: String,
}

/// The events after an earlier reading, with times since the first of them; and whether some may be
/// missing, because a frontend keeps only the last [`frontend::limits::TIMELINE_MAX`].
pub(super) fn since(before: &CacheHistory, after: &CacheHistory) -> (Vec<Event>, bool) {
    let events = &after.timeline;
    let seen = before.timeline.last();
    let place = seen.and_then(|last| events.iter().rposition(|event| event == last));
    let from = place.map_or(0, |place| place + 1);
    // After an empty timeline every event is new; some are missing if the list is full.
    let cut = place.is_none() && (seen.is_some() || full(events));
    let first = events.get(from).map_or(0, |event| event.at);
    let fresh = events[from..].iter().map(|event| {
        let at = event.at.saturating_sub(first);
        Event { at, ..event.clone() }
    });
    (fresh.collect(), cut)
}

/// Whether the frontend may have dropped its oldest events.
fn full(events: &[Event]) -> bool {
    frontend::limits::TIMELINE_MAX <= events.len()
}

/// The spans in which products were cached; `before` are those cached before the first event.
pub(super) fn spans(before: &[String], events: &[Event]) -> Vec<CachedSpan> {
    let mut open: BTreeMap<&str, u64> = before.iter().map(|name| (name.as_str(), 0)).collect();
    let mut spans = Vec::new();
    let mut close = |product: &str, from_ms, to_ms, ended: &str| {
        let product = product.to_owned();
        let ended = ended.to_owned();
        spans.push(CachedSpan { product, from_ms, to_ms, ended });
    };
    for event in events {
        match (event.event.as_str(), &event.product) {
            ("stored", Some(product)) => {
                open.entry(product).or_insert(event.at);
            }
            (ended @ ("evicted" | "dropped"), Some(product)) => {
                if let Some(from) = open.remove(product.as_str()) {
                    close(product, from, event.at, ended);
                }
            }
            ("reset", _) => {
                for (product, from) in std::mem::take(&mut open) {
                    close(product, from, event.at, "reset");
                }
            }
            _ => {}
        }
    }
    let end = events.last().map_or(0, |event| event.at);
    for (product, from) in open {
        close(product, from, end, "end");
    }
    spans.sort_by(|a, b| (&a.product, a.from_ms).cmp(&(&b.product, b.from_ms)));
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, event: &str, product: &str) -> Event {
        let product = (!product.is_empty()).then(|| product.to_owned());
        Event { at, event: event.into(), product, version: None, contents: vec![] }
    }

    #[test]
    fn a_product_is_cached_from_its_store_event_to_its_removal() {
        let events = [
            event(0, "stored", "fox"),
            event(2, "stored", "owl"),
            event(5, "invalidated", "fox"),
            event(7, "evicted", "fox"),
            event(7, "stored", "bear"),
            event(9, "reset", ""),
            event(12, "stored", "owl"),
            event(15, "invalidated", "owl"),
        ];
        let spans = spans(&["hare".to_owned()], &events);
        let drawn: Vec<_> = spans
            .iter()
            .map(|s| (s.product.as_str(), s.from_ms, s.to_ms, s.ended.as_str()))
            .collect();
        let expected = [
            ("bear", 7, 9, "reset"),
            ("fox", 0, 7, "evicted"),
            ("hare", 0, 9, "reset"),
            ("owl", 2, 9, "reset"),
            ("owl", 12, 15, "end"),
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn only_events_after_the_first_reading_are_returned() {
        let story = |timeline| CacheHistory { cache: CacheStatus::default(), timeline };
        let old = vec![event(100, "stored", "fox")];
        let new = vec![
            event(100, "stored", "fox"),
            event(130, "stored", "owl"),
            event(140, "evicted", "fox"),
        ];
        let (events, cut) = since(&story(old.clone()), &story(new.clone()));
        let times: Vec<_> = events.iter().map(|event| event.at).collect();
        assert_eq!((times, cut), (vec![0, 10], false));
        let (events, cut) = since(&story(vec![]), &story(new.clone()));
        assert_eq!((events.len(), cut), (3, false));
        let (_, cut) = since(&story(vec![event(1, "stored", "elk")]), &story(new));
        assert!(cut, "the last known event is gone: others may be missing");
    }
}
