//! The command lines of the pains.

use clap::{Args, Subcommand};

use crate::roles::DialectName;

/// The pains.
#[derive(Debug, Subcommand)]
pub(crate) enum Pain {
    /// Sells one piece to 200 buyers: is it sold once?
    Oversell(Oversell),
    /// Sends each request three times under one key: is it placed once?
    DoubleSubmit(DoubleSubmit),
    /// Buys while many readers query: does any reader see an outdated stock?
    Stale(Stale),
}

/// The store that an experiment tests.
#[derive(Clone, Debug, Args)]
pub(crate) struct StoreChoice {
    /// A public address of the store; repeat it for each frontend [default: a store that the
    /// experiment starts]
    #[arg(long)]
    pub(crate) url: Vec<String>,
    /// The classic API: stock or toy [default: as the store reports; for a store of its own: stock]
    #[arg(long)]
    pub(crate) dialect: Option<DialectName>,
    /// The product to buy [default: the one with the highest stock]
    #[arg(long, value_name = "NAME", requires = "url")]
    pub(crate) product: Option<String>,
}

/// `oppidum lab oversell`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum lab oversell\n  \
    oppidum lab oversell --url http://127.0.0.1:1234 --url http://127.0.0.1:1235\n\n\
    At a --url it first buys a product down to one piece, and in the stock dialect sells it back \
    in the end. Nobody else should be trading meanwhile. Exit codes: 0 it was sold once; 1 not so; \
    2 it could not be measured.")]
pub(crate) struct Oversell {
    /// The store.
    #[command(flatten)]
    pub(crate) at: StoreChoice,
    /// The number of concurrent buyers
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(2..=2000))]
    pub(crate) buyers: u16,
}

/// `oppidum lab double-submit`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum lab double-submit\n  \
    oppidum lab double-submit --url http://127.0.0.1:1234 --url http://127.0.0.1:1235\n\n\
    In a store of our own the leader is killed half-way; at a --url nothing is killed. Exit \
    codes: 0 each request was placed once; 1 not so; 2 it could not be measured.")]
pub(crate) struct DoubleSubmit {
    /// The store.
    #[command(flatten)]
    pub(crate) at: StoreChoice,
    /// The number of requests; each is sent three times, under one Idempotency-Key
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(2..=10000))]
    pub(crate) requests: u16,
}

/// `oppidum lab stale`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum lab stale\n  \
    oppidum lab stale --url http://127.0.0.1:1234 --url http://127.0.0.1:1235 --orders 50\n\n\
    Nobody else should be trading meanwhile. Exit codes: 0 nobody was shown a stock that was no \
    longer true; 1 somebody was; 2 it could not be measured.")]
pub(crate) struct Stale {
    /// The store.
    #[command(flatten)]
    pub(crate) at: StoreChoice,
    /// The number of pieces bought, one after the other
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10000))]
    pub(crate) orders: u16,
    /// The number of readers that query the stock meanwhile
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) readers: u16,
}
