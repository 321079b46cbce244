//! The rows: how each is measured.

mod alone;
mod batch;
mod failover;
mod growth;
mod open;
mod orders;
mod queries;
mod returning;
mod security;

pub(crate) use orders::side;

use anyhow::Result;

use crate::bench::name::Name;
use crate::bench::report::Figures;
use crate::bench::store::Plane;
use crate::bench::{Bench, Options, many, peers};

/// The number of orders by default, for rows with many orders.
const MANY: u64 = 10_000_000;

/// Measures one row.
pub(crate) fn measure(bench: &mut Bench, name: Name, options: &Options) -> Result<Figures> {
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
        Name::ApiKeys => security::api_keys(bench),
        Name::Certificates => security::certificates(bench),
        Name::PostgreSql => peers::postgresql(bench),
        Name::Redis => peers::redis(bench),
        Name::Growth => growth::measure(bench, many(options, options.growth, MANY, "--growth")?),
        Name::Return => {
            returning::measure(bench, many(options, options.returning, MANY, "--return")?)
        }
        Name::Failover | Name::FailoverCertificates => {
            let plane = match name {
                Name::FailoverCertificates => Plane::MutualTls,
                _ => Plane::Plaintext,
            };
            let kills = many(options, options.failover, 200, "--failover")?;
            failover::measure(bench, plane, kills, false)
        }
        Name::Freeze => {
            let freezes = many(options, options.failover, 20, "--failover")?;
            failover::measure(bench, Plane::Plaintext, freezes, true)
        }
    }
}
