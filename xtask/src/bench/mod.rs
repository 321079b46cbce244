//! Measures the store over HTTP: rates, latencies, and CPU per order of all its processes.
//!
//! A number alone says more about the machine than about the store. So every row has a comparison
//! beside it, measured in turns in the same run: a bare HTTP handler, a sync and a round trip, the
//! same store with other products, another store. Only the ratios last.
//!
//! [`rows`] says what is measured, [`load`] is the load, [`report`] is what is printed and written.

pub(crate) mod bare;
mod cores;
mod floor;
mod legs;
pub(crate) mod load;
pub(crate) mod machine;
mod name;
mod peers;
pub(crate) mod process;
mod report;
mod rows;
pub(crate) mod shop;
pub(crate) mod store;
mod turns;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use name::Name;
use process::Bare;
use report::{Book, Row};
use shop::Shop;
use store::{Folder, Store};

/// The page that is written, and the figures that it is written from.
const PAGE: &str = "docs/performance.md";
const FIGURES: &str = "docs/performance.json";

/// What to measure, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Only this row; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<Name>,
    /// Every row there is: growth and return with 10 million orders, twice 200 leaders killed and
    /// 20 frozen, unless --growth, --return and --failover say otherwise. Half an hour at least.
    #[arg(long, conflicts_with_all = ["only", "freeze"])]
    all: bool,
    /// Seconds of each run, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Runs of each side; the medians count.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Three runs of two seconds; docs/performance.md stays as it is.
    #[arg(long)]
    quick: bool,
    /// Measures the store after N orders: this row, and those of --only. 10 million take a while.
    #[arg(long, value_name = "N")]
    growth: Option<u64>,
    /// Measures the store while a replica returns that missed half of N orders: this row, and those
    /// of --only.
    #[arg(long = "return", value_name = "N")]
    returning: Option<u64>,
    /// Kills the leader N times under load: this row, and those of --only.
    #[arg(long, value_name = "N")]
    failover: Option<u32>,
    /// With --failover: freezes the leader instead of killing it.
    #[arg(long, requires = "failover")]
    freeze: bool,
}

/// How often to measure, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) runs: usize,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// The state of a bench.
#[derive(Debug)]
pub(crate) struct Bench {
    root: PathBuf,
    times: Times,
    /// For files of the bench itself.
    folder: Folder,
    bare: Bare,
    /// The store of most rows, once a row needs it.
    store: Option<Store>,
    /// The greatest rate that was measured, in orders per second.
    greatest: Option<f64>,
}

impl Bench {
    /// The store of most rows, and the bare handler.
    fn both(&mut self) -> Result<(&Store, &Bare, &Times)> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::start(&self.root, "store", Shop::of(10), 1)?,
        };
        Ok((self.store.insert(store), &self.bare, &self.times))
    }
}

/// Builds and starts what is compared, measures in turns, and writes the results.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let times = times(options)?;
    process::build(root)?;
    if cfg!(debug_assertions) {
        return process::again_optimized(root);
    }
    machine::open_many_files();
    let folder = Folder::new(&process::target(root).join("bench").join("own"))?;
    let machine = machine::describe(&folder.0);
    println!("{machine}");
    // Read before any process of the bench runs.
    let busy = machine::load_average();
    if 0.5 < busy {
        println!("The machine is busy with other things (load average {busy}): expect noise.");
    }
    let json = match options.quick {
        true => process::target(root).join("bench-quick.json"),
        false => root.join(FIGURES),
    };
    let mut book = Book::open(&json, machine, machine::compiler());
    let bare = Bare::start(root, &folder.0)?;
    let root = root.to_path_buf();
    let mut bench = Bench { root, times, folder, bare, store: None, greatest: None };
    let mut failed = Vec::new();
    for name in names(options) {
        let figures = match rows::measure(&mut bench, name, options) {
            Ok(figures) => figures,
            Err(error) => {
                // The other rows are worth having.
                println!("{} could not be measured: {error:#}", name.text());
                failed.push(name.text());
                continue;
            }
        };
        let row = Row { name, date: machine::date(), command: command(), busy, figures };
        println!("\n{}", row.text());
        book.enter(row);
        book.save(&json)?;
        if !options.quick {
            write_page(&bench.root, &book)?;
        }
    }
    println!("as JSON in {}", json.display());
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("could not be measured: {}", failed.join(", ")),
    }
}

fn write_page(root: &Path, book: &Book) -> Result<()> {
    let page = root.join(PAGE);
    let before = fs::read_to_string(&page).unwrap_or_default();
    fs::write(&page, book.page(&before)).with_context(|| format!("write {}", page.display()))?;
    println!("written down in {PAGE}");
    Ok(())
}

fn times(options: &Options) -> Result<Times> {
    let Options { runs, seconds, quick, .. } = *options;
    if runs == 0 || seconds == 0 {
        bail!("runs and seconds are at least 1");
    }
    let (warm_up, length) = (Duration::from_secs(1), Duration::from_secs(seconds));
    Ok(match quick {
        true => Times { runs: 3, warm_up: warm_up / 2, length: Duration::from_secs(2) },
        false => Times { runs, warm_up, length },
    })
}

fn names(options: &Options) -> Vec<Name> {
    if options.all {
        return Name::every();
    }
    let long = options.growth.map(|_| Name::Growth);
    let long = long.into_iter().chain(options.returning.map(|_| Name::Return));
    let failover = if options.freeze { Name::Freeze } else { Name::Failover };
    let long = long.chain(options.failover.map(|_| failover));
    let mut names: Vec<Name> = options.only.clone();
    names.extend(long.filter(|name| !options.only.contains(name)));
    if names.is_empty() {
        names = Name::usual();
    }
    names
}

/// The number that was given, or the usual one if every row is measured.
pub(crate) fn many<T>(options: &Options, said: Option<T>, usual: T, flag: &str) -> Result<T> {
    said.or(options.all.then_some(usual))
        .with_context(|| format!("this row needs a number: {flag} N"))
}

/// The command as it was typed.
fn command() -> String {
    let typed = std::env::args().skip(1);
    std::iter::once("cargo xtask".to_owned()).chain(typed).collect::<Vec<_>>().join(" ")
}

/// `a / b`, or 0 if `b` is not positive.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "nothing here is counted to 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
