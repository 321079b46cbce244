//! What a frontend answers by itself: queries that hit its cache, and orders of a sold-out product.

use anyhow::Result;

use super::orders::side;
use crate::bench::load::script::{Expect, Script};
use crate::bench::report::{Aim, Row};
use crate::bench::shop::{GONE, HOT};
use crate::bench::turns::{self, Side, medians, turns};
use crate::bench::{Bench, ratio};

/// Every client queries the same product.
pub(super) fn cached(bench: &mut Bench) -> Result<Row> {
    let (store, bare, times) = bench.both()?;
    let (store_cpu, bare_cpu) = (|| store.cpu(), || bare.cpu());
    let sides = [
        Side {
            script: Script::query(&store.address, HOT),
            ledger: None,
            ..side("the store", 64, store, &store_cpu)
        },
        Side {
            name: "a bare handler",
            address: &bare.address,
            script: Script::query(&bare.address, HOT),
            ledger: None,
            ..side("", 64, store, &bare_cpu)
        },
    ];
    let runs = turns(times, &sides)?;
    let how = "64 connections; the frontend answers from its cache, the bare handler with the same \
               bytes.";
    let unit = ("query", "queries");
    let mut row = turns::row("Queries that hit the cache", how, unit, &sides, &runs);
    let cpu = medians(&runs, |run| run.server_us);
    row.aims = vec![Aim::at_most(
        "CPU per query against a bare handler",
        1.5,
        " ×",
        ratio(cpu[0], cpu[1]),
    )];
    Ok(row)
}

/// Every client orders the sold-out product, without a key.
pub(super) fn sold_out(bench: &mut Bench) -> Result<Row> {
    let (store, bare, times) = bench.both()?;
    let (store_cpu, bare_cpu) = (|| store.cpu(), || bare.cpu());
    let sides = [
        Side {
            script: Script::buy(&store.address, GONE),
            expect: Expect::Refused,
            ledger: None,
            ..side("the store", 64, store, &store_cpu)
        },
        Side {
            name: "a bare handler",
            address: &bare.address,
            script: Script::buy(&bare.address, GONE),
            ledger: None,
            ..side("", 64, store, &bare_cpu)
        },
    ];
    // A refusal takes no number, so the ledger must not grow.
    let before = store.next_order_number()?;
    let runs = turns(times, &sides)?;
    turns::check_growth(store, before, (0, 0))?;
    let how = "64 connections order, without a key, a product of which there is none. The bare \
               handler takes the same orders.";
    let unit = ("refusal", "refusals");
    let mut row = turns::row("Refusals of what is sold out", how, unit, &sides, &runs);
    let rate = medians(&runs, |run| run.rate);
    let limit = rate[1].min(100_000.0);
    let what = "refusals per second (100,000, or the bare handler's rate where that is less)";
    row.aims = vec![Aim::at_least(what, limit, "", rate[0])];
    Ok(row)
}
