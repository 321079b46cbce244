//! Profiles the CPU of one process under load: a table, and a flame graph.
//!
//! A store of its own takes the load of the bench, while `perf` samples the stacks of one of its
//! processes. The results go into cargo's target folder, or where `--into` says.

mod flame;
mod stacks;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::bench::load::closed::Closed;
use crate::bench::load::script::{BATCH, Expect, Script};
use crate::bench::shop::{GONE, HOT, Shop};
use crate::bench::store::Store;
use crate::bench::{float, machine, process, ratio};
use stacks::Stacks;

/// Samples of a running thread per second: not a round number, so that no periodic work runs in
/// step with the samples.
const SAMPLES: &str = "997";

/// The bytes of a stack that are kept: enough for about a hundred frames.
const STACK: &str = "dwarf,16384";

/// Shares below this percentage are combined.
const SMALLEST: f64 = 1.0;

/// What to profile.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The process.
    role: Role,
    /// What the clients do.
    #[arg(long, default_value = "orders")]
    load: Work,
    /// Kept connections, each with one request in flight.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// The length in seconds, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The folder for picture and table [default: profile/ in cargo's target folder].
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// The replica that leads.
    Leader,
    /// A replica that does not lead.
    Follower,
    Catalog,
    Frontend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Orders on one hot product.
    Orders,
    /// Queries that hit the cache.
    Queries,
    /// Orders of a sold-out product.
    SoldOut,
    /// Batches of 1,000 orders; eight connections are already many.
    Batches,
}

/// Builds a store, starts and loads it, samples one of its processes, and writes the results.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if !Command::new("perf")
        .arg("version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
    {
        println!("there is no `perf` here, so nothing can be profiled");
        return Ok(());
    }
    process::build(root)?;
    if cfg!(debug_assertions) {
        return process::again_optimized(root);
    }
    machine::open_many_files();
    let folder = options.into.clone().unwrap_or_else(|| process::target(root).join("profile"));
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let store = Store::start(root, "profile", Shop::of(10), 1)?;
    let samples = folder.join("perf.samples");
    let (rate, cpu) = sample(&store, options, &samples)?;
    drop(store);
    println!("reading the samples, which takes a while");
    let stacks = read(&samples)?;
    fs::remove_file(&samples).context("remove the samples")?;
    let (role, load) = (value(&options.role), value(&options.load));
    let title = format!(
        "{role}, {load}, {} connections: {rate:.0} per second, {cpu:.1} µs of its CPU each",
        options.connections
    );
    let name = format!("{role}-{load}");
    let picture = folder.join(format!("{name}.svg"));
    fs::write(&picture, stacks.flame(&title)).context("write the picture")?;
    let table = table(&title, &stacks, cpu);
    let text = folder.join(format!("{name}.md"));
    fs::write(&text, &table).context("write the table")?;
    println!("\n{table}\nthe picture is {}, the table {}", picture.display(), text.display());
    Ok(())
}

/// Loads the store and samples one of its processes. Returns requests per second, and the CPU of
/// that process per request in µs.
fn sample(store: &Store, options: &Options, samples: &Path) -> Result<(f64, f64)> {
    let pid = pid(store, options.role)?;
    let (script, expect) = match options.load {
        Work::Orders => (Script::hot(&store.address, HOT), Expect::Done),
        Work::Queries => (Script::query(&store.address, HOT), Expect::Done),
        Work::SoldOut => (Script::buy(&store.address, GONE), Expect::Refused),
        Work::Batches => (Script::batches(&store.address, HOT, BATCH), Expect::Done),
    };
    let closed = Closed {
        address: &store.address,
        script: &script,
        expect,
        clients: options.connections,
        warm_up: Duration::from_secs(1),
        length: Duration::from_secs(options.seconds.max(1)),
    };
    // `perf` starts at the first look, and ends after its time.
    let perf: RefCell<Option<Child>> = RefCell::new(None);
    let counted = closed.run(|| {
        let cpu = machine::cpu(pid)?;
        if perf.borrow().is_none() {
            *perf.borrow_mut() = Some(record(pid, options.seconds.max(1), samples)?);
        }
        Ok(cpu)
    })?;
    let Some(perf) = perf.into_inner() else { bail!("nothing was sampled") };
    let ended = perf.wait_with_output().context("wait for perf")?;
    if !ended.status.success() {
        bail!("perf has failed: {}", String::from_utf8_lossy(&ended.stderr).trim());
    }
    let [before, after] = counted.seen;
    let micros = after.saturating_sub(before).as_secs_f64() * 1e6;
    let count = float(counted.count);
    Ok((ratio(count, counted.seconds), ratio(micros, count)))
}

fn record(pid: u32, seconds: u64, samples: &Path) -> Result<Child> {
    let mut command = Command::new("perf");
    // This event needs no hardware counters, so every machine has it.
    command.args(["record", "-q", "-e", "cpu-clock", "-F", SAMPLES, "--call-graph", STACK]);
    command.args(["-p", &pid.to_string(), "-o"]).arg(samples);
    command.args(["--", "sleep", &seconds.to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("start perf")
}

fn pid(store: &Store, role: Role) -> Result<u32> {
    let leader = format!("order {}", store.await_leader(None)?);
    let wanted = |name: &str| match role {
        Role::Leader => name == leader,
        Role::Follower => name.starts_with("order") && name != leader,
        Role::Catalog => name == "catalog",
        Role::Frontend => name == "frontend",
    };
    let found = store.processes().find(|(name, _)| wanted(name));
    Ok(found.context("find the process")?.1.pid())
}

fn read(samples: &Path) -> Result<Stacks> {
    let mut command = Command::new("perf");
    command.args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(samples);
    let output = command.output().context("start perf")?;
    let stacks = Stacks::parse(&String::from_utf8_lossy(&output.stdout));
    if stacks.total() == 0 {
        bail!("no samples: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(stacks)
}

/// The shares of the samples, in per cent and in µs of one request.
fn table(title: &str, stacks: &Stacks, cpu: f64) -> String {
    let mut text = format!("{title}.\n\n| where | share | µs per request |\n|---|---:|---:|\n");
    let total = float(stacks.total());
    let mut rest = 0.0;
    for (what, count) in stacks.shares() {
        let share = 100.0 * ratio(float(count), total);
        if share < SMALLEST {
            rest += share;
            continue;
        }
        // Writing into a string cannot fail, here and below.
        let _ = writeln!(text, "| {what} | {share:.1} % | {:.2} |", share * cpu / 100.0);
    }
    let _ = writeln!(text, "| everything else | {rest:.1} % | {:.2} |", rest * cpu / 100.0);
    text
}

fn value(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_where_the_microseconds_went() {
        let mut stacks = Stacks::default();
        for (function, count) in [("hyper::serve", 75), ("serde_json::to_vec", 24), ("a::b", 1)] {
            stacks.counts.insert(vec!["thread".into(), function.into()], count * 10);
        }
        stacks.counts.insert(vec!["thread".into(), "rare::one".into()], 1);
        let table = table("frontend, orders", &stacks, 20.0);
        assert!(table.contains("| hyper | 74.9 % | 14.99 |"), "{table}");
        assert!(table.contains("| everything else | 1.1 % | 0.22 |"), "{table}");
    }
}
