//! Batches, as an importer or another gateway sends them.

use anyhow::{Result, bail};

use super::orders::side;
use crate::bench::Bench;
use crate::bench::load::script::{BATCH, Script};
use crate::bench::process;
use crate::bench::report::{Aim, Row};
use crate::bench::shop::HOT;
use crate::bench::store::Store;
use crate::bench::turns::{self, ORDER, Side, medians, turns};

/// The number of batches in flight.
pub(super) const CLIENTS: usize = 8;

const TITLE: &str = "Batches of 1,000 orders";

/// Every client sends batches on the hot product.
pub(super) fn measure(bench: &mut Bench) -> Result<Row> {
    let (store, bare, times) = bench.both()?;
    if !is_there(store)? {
        return Ok(Row::skipped(TITLE, "`POST /v1/orders/batch` answers 404 here."));
    }
    let (store_cpu, bare_cpu) = (|| store.cpu(), || bare.cpu());
    let sides = [
        Side {
            script: Script::batches(&store.address, HOT, BATCH),
            ..side("the store", CLIENTS, store, &store_cpu)
        },
        Side {
            name: "a bare handler",
            address: &bare.address,
            script: Script::batches(&bare.address, HOT, BATCH),
            ledger: None,
            ..side("", CLIENTS, store, &bare_cpu)
        },
    ];
    let before = store.cpu_of_each()?;
    let runs = turns(times, &sides)?;
    let after = store.cpu_of_each()?;
    let how = "8 connections, each with a batch of 1,000 orders under way, all on one product, \
               every order with a key of its own. Latencies are those of a batch.";
    let mut row = turns::row(TITLE, how, ORDER, &sides, &runs);
    let (rate, cpu) = (medians(&runs, |run| run.rate), medians(&runs, |run| run.server_us));
    row.notes.push(turns::whose(store, &before, &after, cpu[0]));
    row.aims = vec![
        Aim::at_most("CPU per order", 3.0, " µs", cpu[0]),
        Aim::at_least("orders per second", 300_000.0, "", rate[0]),
    ];
    Ok(row)
}

/// True if the store accepts batches.
pub(super) fn is_there(store: &Store) -> Result<bool> {
    let Script::Batches { run, .. } = Script::batches(&store.address, HOT, 1) else {
        bail!("a script of batches is one");
    };
    let body = format!(
        r#"{{"orders":[{{"name":"{HOT}","quantity":1,"type":"sell","key":"bench-{run}-probe"}}]}}"#
    );
    match process::ask(&store.address, "POST", "/v1/orders/batch", &body)? {
        (200, _) => Ok(true),
        (404, _) => Ok(false),
        (status, body) => bail!("a batch of one order was answered {status}: {body}"),
    }
}
