//! The same job by other stores, where they are installed: an order on one hot product takes one
//! from its stock, gets the next number without a gap, is remembered under a key, and is on the
//! disks of two of three processes before it is answered.

mod cluster;
mod postgres;

use anyhow::Result;

use crate::bench::Bench;
use crate::bench::report::Row;
use cluster::Programs;

const TITLE: &str = "The same job by PostgreSQL";

/// Measures what is there.
pub(crate) fn measure(bench: &mut Bench) -> Result<Row> {
    match Programs::find() {
        Some(programs) => postgres::measure(bench, TITLE, programs),
        None => Ok(Row::skipped(
            TITLE,
            "`postgres`, `initdb`, `pg_basebackup`, `pgbench` and `psql` are not all here.",
        )),
    }
}
