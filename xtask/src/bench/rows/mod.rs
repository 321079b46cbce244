//! The rows: everything that is measured, by name.

mod alone;
mod batch;
mod failover;
mod growth;
mod open;
mod orders;
mod queries;
mod returning;

pub(crate) use orders::side;

use anyhow::Result;
use clap::ValueEnum;

use crate::bench::report::Row;
use crate::bench::{Bench, Options, many, peers};

/// The rows, in the order of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Orders on one hot product, 64 connections.
    #[value(name = "hot-64")]
    Hot64,
    /// Orders on one hot product, 256 connections: the greatest rate.
    #[value(name = "hot-256")]
    Hot256,
    /// One hot product against 10 and 10,000.
    Products,
    /// One client by itself, against a sync and two round trips.
    Alone,
    /// Product queries that hit the cache.
    Query,
    /// Orders of a sold-out product.
    SoldOut,
    /// Batches of 1,000 orders.
    Batch,
    /// Latency at half of the greatest rate, open loop.
    Latency,
    /// Twice the greatest rate, open loop.
    Overload,
    /// Twice the greatest rate, with a core of its own for the load.
    OverloadApart,
    /// What catalogs and caches cost, 64 connections.
    #[value(name = "settling-64")]
    Settling64,
    /// What catalogs and caches cost, one client.
    #[value(name = "settling-1")]
    Settling1,
    /// The same job by `PostgreSQL`, if it is installed.
    #[value(name = "postgresql")]
    PostgreSql,
    /// The same job by Redis, if it is installed.
    Redis,
    /// The store after many orders; needs --growth N.
    Growth,
    /// A replica returns after missing many orders; needs --return N.
    Return,
    /// The leader is killed; needs --failover N.
    Failover,
    /// The leader is frozen; needs --failover N --freeze.
    Freeze,
}

impl Name {
    /// The name for `--only`.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Hot64 => "hot-64",
            Self::Hot256 => "hot-256",
            Self::Products => "products",
            Self::Alone => "alone",
            Self::Query => "query",
            Self::SoldOut => "sold-out",
            Self::Batch => "batch",
            Self::Latency => "latency",
            Self::Overload => "overload",
            Self::OverloadApart => "overload-apart",
            Self::Settling64 => "settling-64",
            Self::Settling1 => "settling-1",
            Self::PostgreSql => "postgresql",
            Self::Redis => "redis",
            Self::Growth => "growth",
            Self::Return => "return",
            Self::Failover => "failover",
            Self::Freeze => "freeze",
        }
    }

    /// The rows that are measured by default.
    pub(crate) fn usual() -> Vec<Self> {
        let rare = [Self::Growth, Self::Return, Self::Failover, Self::Freeze];
        Self::every().into_iter().filter(|name| !rare.contains(name)).collect()
    }

    /// All rows.
    pub(crate) fn every() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The place on the page of a row with this name.
    pub(crate) fn place(text: &str) -> usize {
        let names = Self::value_variants();
        names.iter().position(|name| name.text() == text).unwrap_or(names.len())
    }
}

/// The number of orders by default, for rows with many orders.
const MANY: u64 = 10_000_000;

/// Measures one row.
pub(crate) fn measure(bench: &mut Bench, name: Name, options: &Options) -> Result<Row> {
    println!("\n{}", name.text());
    match name {
        Name::Hot64 => orders::hot(bench, 64),
        Name::Hot256 => orders::hot(bench, 256),
        Name::Products => orders::products(bench),
        Name::Alone => alone::measure(bench),
        Name::Query => queries::cached(bench),
        Name::SoldOut => queries::sold_out(bench),
        Name::Batch => batch::measure(bench),
        Name::Latency => open::latency(bench),
        Name::Overload => open::overload(bench, false),
        Name::OverloadApart => open::overload(bench, true),
        Name::Settling64 => orders::settling(bench, 64),
        Name::Settling1 => orders::settling(bench, 1),
        Name::PostgreSql => peers::postgresql(bench),
        Name::Redis => peers::redis(bench),
        Name::Growth => growth::measure(bench, many(options, options.growth, MANY, "--growth")?),
        Name::Return => {
            returning::measure(bench, many(options, options.returning, MANY, "--return")?)
        }
        Name::Failover => {
            failover::measure(bench, many(options, options.failover, 200, "--failover")?, false)
        }
        Name::Freeze => {
            failover::measure(bench, many(options, options.failover, 20, "--failover")?, true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_same_name_on_the_command_line_and_on_the_page() {
        for (place, name) in Name::value_variants().iter().enumerate() {
            let value = name.to_possible_value().expect("every row can be asked for");
            assert_eq!(value.get_name(), name.text());
            assert_eq!(Name::place(name.text()), place);
        }
        assert!(!Name::usual().contains(&Name::Growth));
    }
}
