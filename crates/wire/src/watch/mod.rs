//! The protocol that keeps caches true: one bidirectional stream, used twice.
//!
//! ```text
//!    order leader ══ frames, settled, grants ══► catalog ══ the same ══► frontend
//!                 ◄═══ heartbeats, seen ════════         ◄═════════════
//! ```
//!
//! A *source* sends frames down: what changed, up to which index. A *watcher* drops whatever is
//! older and then reports it as seen. Once every attached catalog, and so every frontend behind it,
//! has seen an index, it is *settled*, and only then is anybody told an answer that reveals it. A
//! *lease*, which starts from the leader's quorum and is relayed and never invented, says how long
//! a watcher may answer by itself, and so how long a source must wait for one that has gone silent.
//!
//! The cores are plain structs without I/O, clock or luck: [`lease`], [`watchers`] (the source's
//! side) and [`follower`] (the watcher's side), [`window`] (the frames a source keeps), [`returns`]
//! (back-off by address). The shells around them are [`source`] and [`watcher`]. The seventeen
//! rules are in `docs/watch.md`; [`rules`] names the wrong ones by which the checkers are proved.

pub mod rules;

pub mod lease;

pub mod clock;

pub mod watchers;

pub mod follower;

pub mod window;

pub mod returns;

pub mod source;

pub mod watcher;
