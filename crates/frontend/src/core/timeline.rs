//! The cache timeline, for plots: products stored, evicted and changed.
//!
//! Only changes of the contents are kept, not hits, so an idle cache adds nothing and a busy one
//! keeps some minutes. The contents after each event are not stored: on request they are derived
//! backwards from the present contents.

use std::collections::{BTreeSet, VecDeque};

use ledger::terms::{Index, Name};
use serde::Serialize;

/// One change of the cache's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheEvent {
    /// An answer was stored; another product may have been evicted for it.
    Stored {
        /// The stored product.
        name: Name,
        /// Its version.
        version: Index,
        /// The product was cached before, with another value.
        again: bool,
        /// The product evicted for it.
        evicted: Option<Name>,
    },
    /// A cached product changed: the old value is gone, the new one is given once it is settled.
    Invalidated {
        /// The product.
        name: Name,
        /// Its version from now on.
        version: Index,
    },
    /// A value that is known to be too old was dropped.
    Dropped {
        /// The product.
        name: Name,
    },
    /// Everything was dropped: the source's window no longer reaches back to the cursor of this
    /// cache.
    Reset {
        /// The dropped products.
        lost: Vec<Name>,
    },
}

/// The most names of cached products shown after one event.
pub(crate) const CONTENTS_SHOWN_MAX: usize = 100;

/// The JSON of an event without its names, in bytes: its time, its version, its fields.
const ENTRY_BYTES: usize = 100;

/// The JSON around a name, in bytes: quotes and a comma.
const NAME_BYTES: usize = 3;

/// The latest events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    events: VecDeque<(u64, CacheEvent)>,
}

/// One event as the page shows it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TimelineEntry {
    /// Milliseconds since the Unix epoch.
    pub(crate) time_ms: u64,
    /// `stored`, `evicted`, `invalidated`, `dropped`, `reset`.
    pub(crate) event: &'static str,
    /// The product's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) product: Option<String>,
    /// Its version from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    /// The cached products after the event, in name order.
    pub(crate) contents: Vec<String>,
}

impl Timeline {
    /// Adds the events of `time_ms`, and drops all but the last `max`.
    pub(crate) fn push(&mut self, time_ms: u64, happened: Vec<CacheEvent>, max: usize) {
        self.events.extend(happened.into_iter().map(|event| (time_ms, event)));
        while max < self.events.len() {
            self.events.pop_front();
        }
    }

    /// The latest events with the contents after each, given the present contents; oldest first. As
    /// many as fit into about `bytes_max` bytes, each with at most [`CONTENTS_SHOWN_MAX`] names.
    pub(crate) fn show(
        &self,
        now: impl IntoIterator<Item = String>,
        bytes_max: usize,
    ) -> Vec<TimelineEntry> {
        let mut contents: BTreeSet<String> = now.into_iter().collect();
        let mut shown = Vec::new();
        let mut left = Some(bytes_max);
        let mut show = |time_ms, event, name: Option<&Name>, version: Option<Index>, after: &_| {
            let product = name.map(|name| name.as_str().to_owned());
            let after = BTreeSet::iter(after).take(CONTENTS_SHOWN_MAX);
            let contents: Vec<String> = after.cloned().collect();
            let names = contents.iter().chain(&product).map(|name| name.len() + NAME_BYTES);
            left = left.and_then(|left| left.checked_sub(ENTRY_BYTES + names.sum::<usize>()));
            let version = version.map(|version| version.0);
            if left.is_some() {
                shown.push(TimelineEntry { time_ms, event, product, version, contents });
            }
            left.is_some()
        };
        for (time_ms, event) in self.events.iter().rev() {
            let fits = match event {
                CacheEvent::Stored { name, version, again, evicted } => {
                    let fits = show(*time_ms, "stored", Some(name), Some(*version), &contents);
                    if !again {
                        contents.remove(name.as_str());
                    }
                    fits && evicted.as_ref().is_none_or(|evicted| {
                        let fits = show(*time_ms, "evicted", Some(evicted), None, &contents);
                        contents.insert(evicted.as_str().to_owned());
                        fits
                    })
                }
                CacheEvent::Invalidated { name, version } => {
                    show(*time_ms, "invalidated", Some(name), Some(*version), &contents)
                }
                CacheEvent::Dropped { name } => {
                    let fits = show(*time_ms, "dropped", Some(name), None, &contents);
                    contents.insert(name.as_str().to_owned());
                    fits
                }
                CacheEvent::Reset { lost } => {
                    let fits = show(*time_ms, "reset", None, None, &contents);
                    contents = lost.iter().map(|name| name.as_str().to_owned()).collect();
                    fits
                }
            };
            if !fits {
                break;
            }
        }
        shown.reverse();
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = usize::MAX;

    fn name(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    fn stored(what: &str, evicted: Option<&str>) -> CacheEvent {
        let evicted = evicted.map(name);
        CacheEvent::Stored { name: name(what), version: Index(7), again: false, evicted }
    }

    #[test]
    fn the_contents_after_each_event_are_derived_from_the_present_contents() {
        let mut timeline = Timeline::default();
        timeline.push(1, vec![stored("fox", None), stored("owl", None)], 9);
        timeline.push(2, vec![stored("bear", Some("fox"))], 9);
        let invalidated = CacheEvent::Invalidated { name: name("owl"), version: Index(9) };
        timeline.push(3, vec![invalidated, CacheEvent::Dropped { name: name("owl") }], 9);
        let shown = timeline.show(["bear".to_owned()], ALL);
        let rows: Vec<_> = shown
            .iter()
            .map(|row| {
                (row.time_ms, row.event, row.product.as_deref().unwrap(), row.contents.len())
            })
            .collect();
        let expected = [
            (1, "stored", "fox", 1),
            (1, "stored", "owl", 2),
            (2, "evicted", "fox", 1),
            (2, "stored", "bear", 2),
            (3, "invalidated", "owl", 2),
            (3, "dropped", "owl", 1),
        ];
        assert_eq!(rows, expected);
        assert_eq!(shown[3].contents, ["bear", "owl"]);
    }

    #[test]
    fn a_reset_empties_the_contents_and_old_events_are_dropped() {
        let mut timeline = Timeline::default();
        timeline.push(1, vec![stored("fox", None), stored("owl", None)], 2);
        timeline.push(2, vec![CacheEvent::Reset { lost: vec![name("fox"), name("owl")] }], 2);
        let shown = timeline.show([], ALL);
        assert_eq!(shown.len(), 2, "the oldest is forgotten");
        assert_eq!(shown[0].contents, ["fox", "owl"]);
        assert!(shown[1].contents.is_empty());
    }

    #[test]
    fn a_product_stored_again_was_cached_before() {
        let mut timeline = Timeline::default();
        let again =
            CacheEvent::Stored { name: name("fox"), version: Index(8), again: true, evicted: None };
        timeline.push(1, vec![stored("owl", None), again], 9);
        let shown = timeline.show(["fox".to_owned(), "owl".to_owned()], ALL);
        assert_eq!(shown[0].contents, ["fox", "owl"]);
    }

    /// Kind: an answer whose size depends on the requests of clients.
    #[test]
    fn the_timeline_shown_is_bounded_in_bytes_and_in_names() {
        let mut timeline = Timeline::default();
        let long = |number: usize| format!("{number:0>128}");
        for number in 0..1_024 {
            timeline.push(1, vec![stored(&long(number), None)], 1_024);
        }
        for bytes_max in [0, 1_000, 100_000] {
            let shown = timeline.show((0..5_000).map(long), bytes_max);
            let bytes = serde_json::to_vec(&shown).unwrap().len();
            assert!(bytes <= bytes_max + 2, "{bytes} of {bytes_max}");
            assert!(shown.iter().all(|event| event.contents.len() <= CONTENTS_SHOWN_MAX));
            let latest = shown.last().map(|event| event.product.clone());
            assert!(bytes_max < 100_000 || latest == Some(Some(long(1_023))), "the latest first");
        }
    }
}
