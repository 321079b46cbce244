//! What the cache did lately, for plotting: what came in, what made room, what changed.
//!
//! Only what changes the contents is kept, not every hit, so an idle event costs nothing and a busy
//! cache keeps some minutes. The contents after each event are not stored with it: they are
//! reckoned backwards from the present ones when somebody asks.

use std::collections::{BTreeSet, VecDeque};

use ledger::terms::{Index, Name};
use serde::Serialize;

/// Something that happened to the contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// An answer was stored; another product may have made room for it.
    Stored {
        /// What came in.
        name: Name,
        /// Its version.
        version: Index,
        /// It was there before, with another value.
        again: bool,
        /// What made room.
        evicted: Option<Name>,
    },
    /// A cached product changed: its old value is gone, the new one is told once it is settled.
    Invalidated {
        /// Which.
        name: Name,
        /// Its version from now on.
        version: Index,
    },
    /// A value that is known to be too old was dropped.
    Dropped {
        /// Which.
        name: Name,
    },
    /// Everything was forgotten: the source no longer reaches back to where this cache stood.
    Reset {
        /// What was there.
        lost: Vec<Name>,
    },
}

/// The most names of what is cached after one event that are shown.
pub(crate) const CONTENTS_SHOWN_MAX: usize = 100;

/// What an event takes as JSON besides its names, in bytes: its time, its version, its fields.
const ENTRY_BYTES: usize = 100;

/// What a name takes besides its letters: quotes and a comma.
const NAME_BYTES: usize = 3;

/// The last events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    events: VecDeque<(u64, Happened)>,
}

/// One event as it is shown.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// Milliseconds since the Unix epoch.
    pub(crate) time_ms: u64,
    /// `stored`, `evicted`, `invalidated`, `dropped`, `reset`.
    pub(crate) event: &'static str,
    /// Which product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) product: Option<String>,
    /// Its version from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    /// What is cached after it, in name order.
    pub(crate) contents: Vec<String>,
}

impl Timeline {
    /// Adds what happened at `time_ms`, and forgets what is older than the last `max`.
    pub(crate) fn push(&mut self, time_ms: u64, happened: Vec<Happened>, max: usize) {
        self.events.extend(happened.into_iter().map(|event| (time_ms, event)));
        while max < self.events.len() {
            self.events.pop_front();
        }
    }

    /// The latest events with the contents after each, given what is cached now; oldest first. As
    /// many as take about `bytes_max` bytes, each with at most [`CONTENTS_SHOWN_MAX`] names.
    pub(crate) fn show(
        &self,
        now: impl IntoIterator<Item = String>,
        bytes_max: usize,
    ) -> Vec<Shown> {
        let mut contents: BTreeSet<String> = now.into_iter().collect();
        let (mut shown, mut left) = (Vec::new(), Some(bytes_max));
        let mut show = |time_ms, event, name: Option<&Name>, version: Option<Index>, after: &_| {
            let product = name.map(|name| name.as_str().to_owned());
            let after = BTreeSet::iter(after).take(CONTENTS_SHOWN_MAX);
            let contents: Vec<String> = after.cloned().collect();
            let names = contents.iter().chain(&product).map(|name| name.len() + NAME_BYTES);
            left = left.and_then(|left| left.checked_sub(ENTRY_BYTES + names.sum::<usize>()));
            let version = version.map(|version| version.0);
            if left.is_some() {
                shown.push(Shown { time_ms, event, product, version, contents });
            }
            left.is_some()
        };
        for (time_ms, event) in self.events.iter().rev() {
            let fits = match event {
                Happened::Stored { name, version, again, evicted } => {
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
                Happened::Invalidated { name, version } => {
                    show(*time_ms, "invalidated", Some(name), Some(*version), &contents)
                }
                Happened::Dropped { name } => {
                    let fits = show(*time_ms, "dropped", Some(name), None, &contents);
                    contents.insert(name.as_str().to_owned());
                    fits
                }
                Happened::Reset { lost } => {
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

    fn stored(what: &str, evicted: Option<&str>) -> Happened {
        let evicted = evicted.map(name);
        Happened::Stored { name: name(what), version: Index(7), again: false, evicted }
    }

    #[test]
    fn the_contents_after_each_event_are_reckoned_from_the_present() {
        let mut timeline = Timeline::default();
        timeline.push(1, vec![stored("fox", None), stored("owl", None)], 9);
        timeline.push(2, vec![stored("bear", Some("fox"))], 9);
        let invalidated = Happened::Invalidated { name: name("owl"), version: Index(9) };
        timeline.push(3, vec![invalidated, Happened::Dropped { name: name("owl") }], 9);
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
    fn a_reset_and_a_bound() {
        let mut timeline = Timeline::default();
        timeline.push(1, vec![stored("fox", None), stored("owl", None)], 2);
        timeline.push(2, vec![Happened::Reset { lost: vec![name("fox"), name("owl")] }], 2);
        let shown = timeline.show([], ALL);
        assert_eq!(shown.len(), 2, "the oldest is forgotten");
        assert_eq!(shown[0].contents, ["fox", "owl"]);
        assert!(shown[1].contents.is_empty());
    }

    #[test]
    fn what_is_stored_again_was_there_before() {
        let mut timeline = Timeline::default();
        let again =
            Happened::Stored { name: name("fox"), version: Index(8), again: true, evicted: None };
        timeline.push(1, vec![stored("owl", None), again], 9);
        let shown = timeline.show(["fox".to_owned(), "owl".to_owned()], ALL);
        assert_eq!(shown[0].contents, ["fox", "owl"]);
    }

    /// Kind: an answer whose size follows from what clients ask for.
    #[test]
    fn what_is_shown_is_bounded_in_bytes_and_in_names() {
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
