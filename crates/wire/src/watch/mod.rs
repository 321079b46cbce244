//! The watch protocol, which keeps caches true: one bidirectional stream, used twice.
//!
//! ```text
//!    order leader ══ frames, settled, grants ══► catalog ══ the same ══► frontend
//!                 ◄═══ heartbeats, seen ════════         ◄═════════════
//! ```
//!
//! A *source* sends frames down: the products that changed, up to an index. A *watcher* drops all
//! older values and then reports the index as *seen*. An index is *settled* once every attached
//! catalog, and so every frontend behind it, has seen it; an answer that reveals an index is sent
//! only after that. A *lease* says how long a watcher may answer by itself, and so how long a
//! source must wait for a silent watcher. It starts at the leader's quorum and is relayed, never
//! invented.
//!
//! The cores are plain structs without I/O, clock or randomness: [`lease`], [`source_state`] (one
//! source), [`position`] (one watcher), [`window`] (the recent frames of a source) and
//! [`reattach_backoff`] (back-off by address). [`source`] and [`watcher`] are the shells around
//! them. `docs/watch.md` has the seventeen rules; [`rules`] names the mutants that test the
//! checkers.

mod core;

pub mod clock;

pub mod source;

pub mod watcher;

pub use self::core::{lease, position, reattach_backoff, rules, source_state, window};
