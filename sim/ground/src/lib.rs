//! The ground of a simulated replica: a disk of three levels, under the real engine and the real
//! store.
//!
//! [`luck`] is where every choice comes from, [`clock`] what the system's clocks show, [`disk`]
//! what a crash leaves, [`life`] one life of a replica on it. A crate of its own, because the
//! engine is built with the log that it writes to: a change of what happens in the world builds
//! neither again.

pub mod luck;

pub mod clock;

pub mod disk;

pub mod life;
