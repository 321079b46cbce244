//! The same job on other stores, where they are installed. An order on one hot product takes a
//! piece from its stock, gets the next number without a gap and is remembered under a key. Before
//! the answer, the order is on the disks of two of three processes, or at least known to two of
//! them.

mod cluster;
mod postgres;
mod redis;

use anyhow::Result;

use crate::bench::Bench;
use crate::bench::report::Figures;
use cluster::Programs;

/// Measures `PostgreSQL`, if it is installed.
pub(crate) fn postgresql(bench: &mut Bench) -> Result<Figures> {
    match Programs::find() {
        Some(programs) => postgres::measure(bench, programs),
        None => Ok(Figures::Skipped(
            "`postgres`, `initdb`, `pg_basebackup`, `pgbench` and `psql` are not all here.".into(),
        )),
    }
}

/// Measures Redis, if it is installed.
pub(crate) fn redis(bench: &mut Bench) -> Result<Figures> {
    match redis::find() {
        Some(program) => redis::measure(bench, &program),
        None => Ok(Figures::Skipped("`redis-server` is not here.".into())),
    }
}
