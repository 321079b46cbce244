//! What a frontend answers by itself: queries that hit its cache, and orders of a sold-out product.

use anyhow::Result;

use super::orders::side;
use crate::bench::Bench;
use crate::bench::load::script::{Expect, Script};
use crate::bench::report::Figures;
use crate::bench::shop::{GONE, HOT};
use crate::bench::turns::{self, Side, closed_loop, turns};

/// Every client queries the same product.
pub(super) fn cached(bench: &mut Bench) -> Result<Figures> {
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
    Ok(Figures::ClosedLoop(closed_loop(&runs)))
}

/// Every client orders the sold-out product, without a key.
pub(super) fn sold_out(bench: &mut Bench) -> Result<Figures> {
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
    Ok(Figures::ClosedLoop(closed_loop(&runs)))
}
