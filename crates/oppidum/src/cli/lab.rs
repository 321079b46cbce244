//! The command lines of the lab, with its pains, and of the demonstration.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::values::{DialectName, probability, span};

/// `oppidum lab`
#[derive(Debug, Args)]
pub(crate) struct Lab {
    /// The experiment.
    #[command(subcommand)]
    pub(crate) on: LabOn,
}

/// The experiments.
#[derive(Debug, Subcommand)]
pub(crate) enum LabOn {
    /// Latency against the share of orders, with and without a cache
    Sweep(Sweep),
    /// Shows which products a cache holds over time, and which evicts which
    Cache(Cache),
    /// Kills processes under load: do clients notice, and do all replicas stay identical
    Failover(Failover),
    /// The pains, on a store that the experiment starts or on any other.
    #[command(flatten)]
    Pain(Pain),
}

/// The simulated customers of an experiment.
#[derive(Clone, Debug, Args)]
pub(crate) struct Crowd {
    /// How many clients there are at once
    #[arg(long, default_value_t = 5, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) clients: u16,
    /// The seed of the clients' choices
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// The folder for the results; created if missing
    #[arg(long, value_name = "DIR", default_value = "oppidum-lab")]
    pub(crate) out: PathBuf,
}

/// `oppidum lab sweep`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum lab sweep --out sweep\n  \
    oppidum lab sweep --requests 1000 -p 0,0.5,1\n  \
    oppidum lab sweep --url http://127.0.0.1:1234\n\n\
    Without --url each point is measured on a store of its own, made for it and removed.\n\
    It writes sweep.csv and sweep.svg, and says what the cache was worth.\n\n\
    Exit codes: 0 measured; 1 nothing was measured, or a request failed; \
    2 it could not be done, or was stopped.")]
pub(crate) struct Sweep {
    /// How many requests each client makes at each point
    #[arg(long, default_value_t = 200, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: u64,
    /// The probabilities that a query is followed by a trade
    #[arg(short = 'p', long = "trades", value_delimiter = ',', value_name = "P,…",
        default_values_t = [0.0, 0.2, 0.4, 0.6, 0.8], value_parser = probability)]
    pub(crate) p: Vec<f64>,
    /// How many products the cache holds in the runs with a cache
    #[arg(long, default_value_t = 5, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) cache: u64,
    /// Measure this running store, with the cache that it has, instead of stores of its own
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// The classic API of --url, when the store does not report it: stock or toy
    #[arg(long, requires = "url")]
    pub(crate) dialect: Option<String>,
    /// The customers.
    #[command(flatten)]
    pub(crate) crowd: Crowd,
}

/// `oppidum lab cache`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum lab cache\n  \
    oppidum lab cache --capacity 3 --requests 50 -p 0.5\n  \
    oppidum lab cache --url http://127.0.0.1:1234\n\n\
    It writes cache.svg, a timeline, and cache.json, the events behind it.\n\n\
    Exit codes: 0 shown; 1 nothing was cached, or a request failed; \
    2 it could not be done, or was stopped.")]
pub(crate) struct Cache {
    /// How many products the cache holds: fewer than the shop has, or nothing is evicted
    #[arg(long, default_value_t = 5, value_name = "N", conflicts_with = "url",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) capacity: u64,
    /// How many requests each client makes
    #[arg(long, default_value_t = 20, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: u64,
    /// The probability that a query is followed by a trade
    #[arg(short = 'p', long = "trades", default_value_t = 0.2, value_name = "P",
        value_parser = probability)]
    pub(crate) p: f64,
    /// How long each client pauses after a request
    #[arg(long, default_value = "20ms", value_name = "TIME", value_parser = span)]
    pub(crate) pause: Duration,
    /// Watch the cache of this running frontend instead of starting a store
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// The customers.
    #[command(flatten)]
    pub(crate) crowd: Crowd,
}

/// `oppidum lab failover`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum lab failover --kill leader\n  \
    oppidum lab failover --kill leader --freeze --repeat 3\n  \
    oppidum lab failover --kill random --repeat 20 --restart-after 1s --seed 7\n\n\
    A store of its own: three replicas, two catalogs, two frontends, all real processes.\n\
    It writes failover.svg, latency over time, and failover.csv, every request.\n\n\
    Exit codes: 0 no client noticed, every order is there once, and all replicas are equal; \
    1 not so; 2 it could not be done, or was stopped.")]
pub(crate) struct Failover {
    /// The process to kill, with `kill -9`
    #[arg(long, value_enum, default_value = "leader", value_name = "WHOM")]
    pub(crate) kill: Victim,
    /// Freeze the process (SIGSTOP) instead, and resume it later (SIGCONT)
    #[arg(long)]
    pub(crate) freeze: bool,
    /// The number of faults
    #[arg(long, default_value_t = 5, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) repeat: u16,
    /// How long the process stays away: 3s, 500ms
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = span)]
    pub(crate) restart_after: Duration,
    /// The most that a fault may add to the latency of requests (the 99th percentile without a
    /// fault) [default: the promise, P6: 100ms for a replica's death, 1s for a frozen replica,
    /// 555ms for a catalog or a frontend]
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) within: Option<Duration>,
    /// The probability that a query is followed by a trade
    #[arg(short = 'p', long = "trades", default_value_t = 0.5, value_name = "P",
        value_parser = probability)]
    pub(crate) p: f64,
    /// How long each client pauses after a request
    #[arg(long, default_value = "5ms", value_name = "TIME", value_parser = span)]
    pub(crate) pause: Duration,
    /// The customers.
    #[command(flatten)]
    pub(crate) crowd: Crowd,
}

/// The process that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Victim {
    /// The replica that leads at that moment
    Leader,
    /// A replica that follows
    Follower,
    /// Any process
    Random,
    /// A frontend
    Frontend,
    /// A catalog
    Catalog,
}

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
    in the end. No other client should trade meanwhile. Exit codes: 0 it was sold once; 1 not so; \
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
    No other client should trade meanwhile. Exit codes: 0 no answer showed a stock that was no \
    longer true; 1 an answer did; 2 it could not be measured.")]
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

/// `oppidum demo`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum demo\n  \
    printf 'kill leader\\nbuy whale 2\\nverify\\nquit\\n' | oppidum demo --prompt\n\n\
    Everything is made for it and removed at the end. At a terminal it then takes commands: \
    `help` lists them.\n\n\
    Exit codes: 0 every order is there once and everywhere the same; 1 not so; \
    2 it could not be done, or was stopped.")]
pub(crate) struct Demo {
    /// Read commands after the demo although stdin is not a terminal
    #[arg(long, conflicts_with = "no_prompt")]
    pub(crate) prompt: bool,
    /// End after the demo although stdin is a terminal
    #[arg(long)]
    pub(crate) no_prompt: bool,
    /// How long the orders are counted in each part of the demo
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = span)]
    pub(crate) part: Duration,
    /// The seed of the customers' choices
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
}
