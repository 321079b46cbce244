//! What is true in the shop: the rules, and nothing else.
//!
//! Requests come in, in log order; outcomes and changes come out. No I/O, no clock, no randomness,
//! no unordered iteration, so that every replica that applies the same log holds the same shop.
//!
//! # Reading order
//!
//! [`terms`] are the nouns. [`command`] is everything one may ask, [`outcome`] everything one may
//! be told, [`change`] what those who watch are told. [`ledger`] decides, with the help of
//! [`stock`] (how many of what, each [`named`]) and [`replies`] (what was answered under which
//! key). [`block`] is the record of one entry, kept for ever and chained by digest, [`sealed`] the
//! same in its bytes; [`state`] is everything else that is true at an index, and [`rolls`] say
//! which keys are remembered there. [`codec`] fixes the bytes. [`audit`] asks of a whole history:
//! was this the work of one ledger?

pub mod terms;

pub mod command;

pub mod outcome;

pub mod change;

pub mod ledger;

pub mod stock;

pub mod named;

pub mod replies;

pub mod rolls;

pub mod windows;

mod window;

mod places;

mod groups;

mod asked;

pub mod block;

pub mod sealed;

pub mod state;

pub mod codec;

pub mod audit;
