//! Batches, as an importer or another gateway sends them.

use anyhow::{Result, bail};

use super::orders::side;
use crate::bench::Bench;
use crate::bench::load::script::{BATCH, Script};
use crate::bench::process;
use crate::bench::report::Figures;
use crate::bench::shop::HOT;
use crate::bench::store::Store;
use crate::bench::turns::{Side, closed_loop, cpu_shares, turns};

/// The number of batches in flight.
pub(super) const CLIENTS: usize = 8;

/// Every client sends batches on the hot product.
pub(super) fn measure(bench: &mut Bench) -> Result<Figures> {
    let (store, bare, times) = bench.both()?;
    if !is_there(store)? {
        return Ok(Figures::Skipped("`POST /v1/orders/batch` answers 404 here.".into()));
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
    let mut figures = closed_loop(&runs);
    let each = figures.sides[0].cpu_us;
    figures.cpu_shares = Some(cpu_shares(store, &before, &after, each)?);
    Ok(Figures::ClosedLoop(figures))
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
