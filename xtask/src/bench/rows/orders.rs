//! Orders, one per request: on one hot product, on many products, and with or without settling.

use anyhow::Result;

use crate::bench::load::script::{Expect, Script};
use crate::bench::report::{Aim, Row};
use crate::bench::shop::{HOT, Shop};
use crate::bench::store::Store;
use crate::bench::turns::{self, ORDER, Side, medians, turns};
use crate::bench::{Bench, ratio};

/// Every client orders the same product.
pub(super) fn hot(bench: &mut Bench, clients: usize) -> Result<Row> {
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
    let title = format!("Orders on one hot product, {clients} connections");
    let how = format!("{clients} kept connections, each with one order under way.");
    let mut row = turns::row(&title, &how, ORDER, &sides, &runs);
    let cpu = medians(&runs, |run| run.server_us);
    let rate = medians(&runs, |run| run.rate);
    row.notes.push(turns::whose(store, &before, &after, cpu[0]));
    row.aims = match clients {
        64 => vec![
            Aim::at_most("CPU per order", 25.0, " µs", cpu[0]),
            Aim::at_most("CPU per order against a bare handler", 3.5, " ×", ratio(cpu[0], cpu[1])),
        ],
        _ => vec![
            Aim::at_most("CPU per order", 18.0, " µs", cpu[0]),
            Aim::at_least("orders per second", 40_000.0, "", rate[0]),
        ],
    };
    if clients == 256 {
        bench.greatest = Some(rate[0]);
    }
    Ok(row)
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
pub(super) fn products(bench: &mut Bench) -> Result<Row> {
    let store = Store::start(&bench.root, "wide", Shop::of(10_000), 1)?;
    let cpu = || store.cpu();
    let kinds = [("one product", 1), ("10 products", 10), ("10,000 products", 10_000)];
    let sides = kinds.map(|(name, count)| Side {
        script: Script::spread(&store.address, &store.shop.products[..count]),
        ..side(name, 64, &store, &cpu)
    });
    let runs = turns(&bench.times, &sides)?;
    let how = "64 connections on a store of 10,000 products; what differs is how many of them are \
               ordered, drawn at random.";
    let mut row = turns::row("Hot and cold products", how, ORDER, &sides, &runs);
    let (rate, cpu) = (medians(&runs, |run| run.rate), medians(&runs, |run| run.server_us));
    row.aims = vec![
        Aim::at_most("orders per second, the most against the least", 10.0, " %", apart(&rate)),
        Aim::at_most("CPU per order, the dearest against the cheapest", 10.0, " %", apart(&cpu)),
    ];
    Ok(row)
}

/// By how many per cent the greatest value exceeds the least.
fn apart(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    100.0 * (ratio(most, least) - 1.0)
}

/// Compares a store whose catalog and cache must drop old values before an order is answered with a
/// store that has neither.
pub(super) fn settling(bench: &mut Bench, clients: usize) -> Result<Row> {
    let plain = Store::start(&bench.root, "plain", Shop::of(10), 0)?;
    let (store, _, times) = bench.both()?;
    let (store_cpu, plain_cpu) = (|| store.cpu(), || plain.cpu());
    let sides = [
        side("with a catalog and a cache", clients, store, &store_cpu),
        side("without", clients, &plain, &plain_cpu),
    ];
    let runs = turns(times, &sides)?;
    let (title, how) = match clients {
        1 => ("What settling costs one client", "One connection, one product."),
        _ => ("What settling costs, 64 connections", "64 connections, one hot product."),
    };
    Ok(turns::row(title, how, ORDER, &sides, &runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apart_is_the_excess_of_the_greatest_over_the_least() {
        assert!((apart(&[100.0, 110.0, 105.0]) - 10.0).abs() < 1e-9);
        assert!(apart(&[7.0, 7.0]).abs() < f64::EPSILON);
    }
}
