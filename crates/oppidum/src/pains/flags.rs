//! The command lines of the experiments.

use clap::{Args, Subcommand};

use crate::roles::DialectName;

/// The experiments of one line.
#[derive(Debug, Subcommand)]
pub(crate) enum Pain {
    /// One piece, 200 buyers: is it sold once?
    Oversell(Oversell),
    /// Each request sent three times under one key: is it placed once?
    DoubleSubmit(DoubleSubmit),
    /// A buyer and many readers: is anybody shown a stock that is no longer true?
    Stale(Stale),
}

/// The store that an experiment is made on.
#[derive(Clone, Debug, Args)]
pub(crate) struct Where {
    /// A public address of the store; repeat it for each frontend [default: a store of our own, for
    /// as long as it takes]
    #[arg(long)]
    pub(crate) url: Vec<String>,
    /// The classic API it speaks: stock or toy [default: what the store says; our own: stock]
    #[arg(long)]
    pub(crate) dialect: Option<DialectName>,
    /// What to buy [default: what there is most of]
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
    pub(crate) at: Where,
    /// How many want it at once
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
    pub(crate) at: Where,
    /// How many requests; each is sent three times, under one Idempotency-Key
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
    pub(crate) at: Where,
    /// How many pieces are bought, one after the other
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10000))]
    pub(crate) orders: u16,
    /// How many readers look at the stock meanwhile
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) readers: u16,
}
