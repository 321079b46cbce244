//! The watch: what catalogs receive from the leader, and which answers wait for them.
//!
//! # Reading order
//!
//! [`state`] has everything that is kept about catalogs and answers, as plain transitions.
//! [`settling`] owns it: one lock, the role, applied entries and the leader's lease. [`answers`]
//! are what waits until its index is settled. [`attach`] proposes to attach and detach catalogs.
//! [`source`] serves the streams of the catalogs. The two cores are
//! [`leader_term`](crate::leader_term), one leadership, and [`acknowledger`](crate::acknowledger),
//! the answers that wait.

pub(crate) mod answers;
pub(crate) mod attach;
pub(crate) mod settling;
pub(crate) mod source;
pub(crate) mod state;
