//! The simulator: real services and the real engine on a simulated network, disk and clock.
//!
//! One seed, one thread. A [`world`] has machines ([`machine`]), each with a process on a runtime
//! of its own ([`replica`], [`stateless`]); a network between them ([`net`]); a disk for each
//! replica ([`ground::disk`]); customers ([`customer`], [`shopper`]), and their requests and
//! answers ([`history`]). [`chaos`] injects the faults that follow from the seed; then everything
//! heals, and the [`checker`] verifies the result. [`plan`] configures a run, [`trace`] records it,
//! and [`ground::rng`] makes every random choice.

pub mod plan;

pub mod net;

pub mod machine;

pub mod replica;

pub mod stateless;

pub mod customer;

pub mod shopper;

pub mod history;

pub mod chaos;

pub mod checker;

pub mod world;

pub mod trace;
