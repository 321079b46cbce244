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

use load::{Load, Tally};
use processes::{Running, Store};
use report::{Report, Run};

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

/// Builds, starts the store and the bare handler, measures them in turns, and writes it down.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let (runs, seconds) = match options.quick {
        true => (3, 2),
        false => (options.runs, options.seconds),
    };
    if runs == 0 || seconds == 0 || options.connections == 0 {
        bail!("runs, seconds and connections are at least 1");
    }
    processes::build(root)?;
    let store = Store::start(root)?;
    let bare = Running::bare(root)?;
    let load = |address: &str| Load {
        address: address.to_owned(),
        product: "GameStart".to_owned(),
        connections: options.connections,
        warm_up: Duration::from_secs(1),
        length: Duration::from_secs(seconds),
    };
    let (store_load, bare_load) = (load(&store.address), load(&bare.address));
    let mut report = Report::new(options.connections, seconds);
    for turn in 1..=runs {
        let measured = measure(&store_load, || store.cpu())?;
        println!("run {turn} of {runs}: store {measured}");
        report.store.push(measured);
        let measured = measure(&bare_load, || bare.cpu())?;
        println!("run {turn} of {runs}: bare  {measured}");
        report.bare.push(measured);
    }
    println!("\n{}", report.table());
    if options.quick {
        return Ok(());
    }
    let page = root.join("docs/performance.md");
    fs::write(&page, report.page()).with_context(|| format!("write {}", page.display()))?;
    println!("written down in docs/performance.md");
    Ok(())
}

/// One run: orders, and the CPU that they cost the server and the load.
fn measure(load: &Load, cpu: impl Fn() -> Result<Duration>) -> Result<Run> {
    let mut before = (Duration::ZERO, Duration::ZERO);
    let tally: Tally = load.run(|| {
        before = (cpu()?, machine::own_cpu()?);
        Ok(())
    })?;
    let (server, own) = (cpu()?, machine::own_cpu()?);
    Ok(Run { tally, server: server.saturating_sub(before.0), load: own.saturating_sub(before.1) })
}
