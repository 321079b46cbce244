//! The ground of a simulated replica: a disk of three levels, under the real engine and the real
//! store.
//!
//! [`rng`] makes every random choice, [`clock`] replaces the system's clocks, [`disk`] decides what
//! a crash leaves, and [`life`] runs one replica on it. The ground is a crate of its own because
//! the engine is compiled together with its log: a change to the simulated world rebuilds neither.

pub mod rng;

pub mod clock;

pub mod disk;

pub mod life;
