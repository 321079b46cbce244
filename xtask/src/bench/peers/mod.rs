//! The same job by other stores, where they are installed: an order on one hot product takes one
//! from its stock, gets the next number without a gap, is remembered under a key, and is on the
//! disks of two of three processes before it is answered, or at least known to two of them.

mod cluster;
mod postgres;
mod redis;

use anyhow::Result;

use crate::bench::Bench;
use crate::bench::report::Row;
use cluster::Programs;

/// Measures `PostgreSQL`, if it is there.
pub(crate) fn postgresql(bench: &mut Bench) -> Result<Row> {
    let title = "The same job by PostgreSQL";
    match Programs::find() {
        Some(programs) => postgres::measure(bench, title, programs),
        None => Ok(Row::skipped(
            title,
            "`postgres`, `initdb`, `pg_basebackup`, `pgbench` and `psql` are not all here.",
        )),
    }
}

/// Measures Redis, if it is there.
pub(crate) fn redis(bench: &mut Bench) -> Result<Row> {
    let title = "The same job by Redis";
    match redis::find() {
        Some(program) => redis::measure(bench, title, &program),
        None => Ok(Row::skipped(title, "`redis-server` is not here.")),
    }
}
