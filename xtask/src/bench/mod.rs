//! Measures the store over HTTP: orders per second, and CPU per order of all its processes.
//!
//! A number alone says more about the machine than about the store, so a bare HTTP handler that
//! only parses the order and answers is measured in the same run, in turns with the store, and the
//! ratio is what lasts. The load is ours: one thread and one kept connection per client, plain
//! sockets.

pub(crate) mod bare;
mod load;
mod machine;
mod processes;
mod report;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use load::{Kind, Load, Tally};
use processes::{Running, Store};
use report::{Pair, Run};

/// What to measure, and for how long.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Options {
    /// Kept connections, each with one order under way.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of each run, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Runs of each kind; the medians count.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Three runs of two seconds, and nothing is written down.
    #[arg(long)]
    quick: bool,
}

/// Builds, starts what is compared, measures in turns, and writes it down.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let (runs, seconds) = match options.quick {
        true => (3, 2),
        false => (options.runs, options.seconds),
    };
    if runs == 0 || seconds == 0 || options.connections == 0 {
        bail!("runs, seconds and connections are at least 1");
    }
    processes::build(root)?;
    let bare = Running::bare(root)?;
    let store = Store::start(root, 1)?;
    let plain = Store::start(root, 0)?;
    let pair = |title, unit, connections, left, right| Pair {
        title,
        unit,
        connections,
        left: (left, Vec::new()),
        right: (right, Vec::new()),
    };
    let whole = |store: &Store| store.cpu();
    let (stores, plains) = (|| whole(&store), || whole(&plain));
    let (frontends, bares) = (|| store.frontend_cpu(), || bare.cpu());
    let many = options.connections;
    let (title, settled) = ("Orders on one hot product", "What settling costs");
    let pairs = vec![
        turns(
            (runs, seconds),
            pair(title, "order", many, "the store", "a bare handler"),
            Kind::Orders,
            &(&store.address, &stores),
            &(&bare.address, &bares),
        )?,
        turns(
            (runs, seconds),
            pair("Queries that hit the cache", "query", many, "the frontend", "a bare handler"),
            Kind::Queries,
            &(&store.address, &frontends),
            &(&bare.address, &bares),
        )?,
        turns(
            (runs, seconds),
            pair(settled, "order", many, "with a catalog and a cache", "without"),
            Kind::Orders,
            &(&store.address, &stores),
            &(&plain.address, &plains),
        )?,
        turns(
            (runs, seconds),
            pair(settled, "order", 1, "with a catalog and a cache", "without"),
            Kind::Orders,
            &(&store.address, &stores),
            &(&plain.address, &plains),
        )?,
    ];
    if options.quick {
        return Ok(());
    }
    let page = root.join("docs/performance.md");
    fs::write(&page, report::page(&pairs, runs, seconds))
        .with_context(|| format!("write {}", page.display()))?;
    println!("written down in docs/performance.md");
    Ok(())
}

/// Measures the two sides of a pair in turns.
fn turns(
    (runs, seconds): (usize, u64),
    mut pair: Pair,
    kind: Kind,
    left: &Side<'_>,
    right: &Side<'_>,
) -> Result<Pair> {
    let load = |address: &str| Load {
        address: address.to_owned(),
        product: "GameStart".to_owned(),
        kind,
        connections: pair.connections,
        warm_up: Duration::from_secs(1),
        length: Duration::from_secs(seconds),
    };
    println!("\n{}, {} connections", pair.title, pair.connections);
    let (left_load, right_load) = (load(left.0), load(right.0));
    for turn in 1..=runs {
        let measured = measure(&left_load, left.1)?;
        println!("run {turn} of {runs}: {:<28} {measured}", pair.left.0);
        pair.left.1.push(measured);
        let measured = measure(&right_load, right.1)?;
        println!("run {turn} of {runs}: {:<28} {measured}", pair.right.0);
        pair.right.1.push(measured);
    }
    println!("\n{}", pair.table());
    Ok(pair)
}

/// Where to ask, and whose CPU counts.
type Side<'a> = (&'a str, &'a dyn Fn() -> Result<Duration>);

/// One run: orders, and the CPU that they cost the server and the load.
fn measure(load: &Load, cpu: &dyn Fn() -> Result<Duration>) -> Result<Run> {
    let mut before = (Duration::ZERO, Duration::ZERO);
    let tally: Tally = load.run(|| {
        before = (cpu()?, machine::own_cpu()?);
        Ok(())
    })?;
    let (server, own) = (cpu()?, machine::own_cpu()?);
    Ok(Run { tally, server: server.saturating_sub(before.0), load: own.saturating_sub(before.1) })
}
