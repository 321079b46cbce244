//! The simulator: real services and the real engine on a simulated network, disk and clock.
//!
//! One seed, one thread. A [`world`] has machines ([`machine`]), each with a process on a runtime
//! of its own ([`replica`], [`side`]); a network between them ([`net`]); a disk for each replica
//! ([`ground::disk`]); customers ([`customer`], [`shopper`]) and what they were told ([`history`]).
//! [`chaos`] does to it what the seed says; then everything heals, and the [`judge`] reads what is
//! left. [`plan`] is what a run is made of, [`trace`] what happened, [`ground::luck`] where every
//! choice comes from.

pub mod plan;

pub mod net;

pub mod machine;

pub mod replica;

pub mod side;

pub mod customer;

pub mod shopper;

pub mod history;

pub mod chaos;

pub mod judge;

pub mod world;

pub mod trace;
