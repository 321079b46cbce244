//! Orders, one per request: on one hot product, on many products, and with or without settling.

use anyhow::Result;

use crate::bench::Bench;
use crate::bench::load::script::{Expect, Script};
use crate::bench::report::Figures;
use crate::bench::shop::{HOT, Shop};
use crate::bench::store::Store;
use crate::bench::turns::{Side, closed_loop, cpu_shares, turns};

/// Every client orders the same product.
pub(super) fn hot(bench: &mut Bench, clients: usize) -> Result<Figures> {
    let (store, bare, times) = bench.both()?;
    let (store_cpu, bare_cpu) = (|| store.cpu(), || bare.cpu());
    let sides = [
        side("the store", clients, store, &store_cpu),
        Side {
            name: "a bare handler",
            address: &bare.address,
            script: Script::hot(&bare.address, HOT),
            ledger: None,
            ..side("", clients, store, &bare_cpu)
        },
    ];
    let before = store.cpu_of_each()?;
    let runs = turns(times, &sides)?;
    let after = store.cpu_of_each()?;
    let mut figures = closed_loop(&runs);
    let store_side = figures.sides[0];
    figures.cpu_shares = Some(cpu_shares(store, &before, &after, store_side.cpu_us)?);
    if clients == 256 {
        bench.greatest = Some(store_side.rate);
    }
    Ok(Figures::ClosedLoop(figures))
}

/// A side that orders the hot product of a store.
pub(crate) fn side<'a>(
    name: &'a str,
    clients: usize,
    store: &'a Store,
    cpu: &'a dyn Fn() -> Result<std::time::Duration>,
) -> Side<'a> {
    Side {
        name,
        address: &store.address,
        script: Script::hot(&store.address, HOT),
        expect: Expect::Done,
        clients,
        cpu,
        ledger: Some(store),
    }
}

/// The same store and the same load, with one, 10 and 10,000 products ordered.
pub(super) fn products(bench: &mut Bench) -> Result<Figures> {
    let store = Store::start(&bench.root, "wide", Shop::of(10_000), 1)?;
    let cpu = || store.cpu();
    let kinds = [("one product", 1), ("10 products", 10), ("10,000 products", 10_000)];
    let sides = kinds.map(|(name, count)| Side {
        script: Script::spread(&store.address, &store.shop.products[..count]),
        ..side(name, 64, &store, &cpu)
    });
    let runs = turns(&bench.times, &sides)?;
    Ok(Figures::ClosedLoop(closed_loop(&runs)))
}

/// Compares a store whose catalog and cache must drop old values before an order is answered with a
/// store that has neither.
pub(super) fn settling(bench: &mut Bench, clients: usize) -> Result<Figures> {
    let plain = Store::start(&bench.root, "plain", Shop::of(10), 0)?;
    let (store, _, times) = bench.both()?;
    let (store_cpu, plain_cpu) = (|| store.cpu(), || plain.cpu());
    let sides = [
        side("with a catalog and a cache", clients, store, &store_cpu),
        side("without", clients, &plain, &plain_cpu),
    ];
    let runs = turns(times, &sides)?;
    Ok(Figures::ClosedLoop(closed_loop(&runs)))
}
