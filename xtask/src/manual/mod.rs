//! Follows the manual: every procedure of the operators' pages is run word for word.
//!
//! `cargo xtask manual` types the blocks of `docs/operating.md` and `docs/deploy.md` on machines
//! made for that purpose, and compares the output with that on the pages. A scenario names each
//! block that it runs, and brings about what happens around it (a replica is killed, a disk fills,
//! customers order). A block that no scenario runs, and that is not named as not run, fails the
//! chore: no page can promise an untested procedure.
//!
//! ```text
//! page.rs ──── blocks ───► scenarios/ ── commands ──► sandbox.rs: machines of their own
//!    ▲                         │                           │  systemd.rs: a stand-in
//!    └── compare.rs ◄──────────┴────── what was printed ◄──┘
//! ```
//!
//! The chore needs root, for namespaces and overlays; nothing outside them is touched.

mod compare;
mod notify;
pub(crate) mod page;
mod process;
mod sandbox;
mod scenarios;
mod stage;
pub(crate) mod systemd;
mod unit;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::manual::page::Book;
use crate::manual::scenarios::{SCENARIOS, Scenario};
use crate::manual::stage::Stage;

/// The pages; every block of them must be accounted for.
const PAGES: [&str; 2] = ["operating.md", "deploy.md"];

/// The number of scenarios at once: they mostly wait, but a store is five processes.
const AT_ONCE: usize = 2;

/// Which scenarios to run.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Only these scenarios; by default all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Uses the debug build of oppidum that is there: builds nothing
    #[arg(long)]
    built: bool,
    /// Runs inside the namespaces already
    #[arg(long, hide = true)]
    inside: bool,
}

impl Options {
    /// All scenarios, with the debug build that is there.
    pub(crate) fn built() -> Self {
        Self { built: true, ..Self::default() }
    }
}

/// The namespaces in which everything happens.
const UNSHARE: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Why the pages cannot be followed on this machine, if there is a reason.
pub(crate) fn obstacle() -> Option<String> {
    if std::fs::metadata("/proc/self").map_or(1, |process| process.uid()) != 0 {
        return Some("it needs root".to_owned());
    }
    let tried = "PATH=$PATH:/usr/sbin:/sbin
        mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir upper scratch tree
        mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=scratch tree
        mount -t tmpfs tmpfs /run; ip netns add probe; ip link add probe-1 type bridge
        ip link add probe-2 type veth peer name probe-3 netns probe
        for tool in curl setpriv chrt nsenter runuser cc; do $tool --version; done
        nginx -v; haproxy -v";
    let probe = Command::new("unshare").args(UNSHARE).args(["sh", "-e", "-c", tried]).output();
    match probe {
        Err(error) => Some(format!("unshare: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
    }
}

/// Follows the pages. A scenario fails at its first block that differs from the page.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if options.inside {
        return follow(root, &options.only);
    }
    if let Some(why) = obstacle() {
        bail!("the pages cannot be followed here: {why}");
    }
    if !options.built {
        // With the features of the whole workspace, as its tests have them, nothing that the tests
        // built is built again.
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(root).args(["build", "--workspace", "--bin", "oppidum"]);
        if !build.status().context("start cargo build")?.success() {
            bail!("oppidum cannot be built");
        }
    }
    let mut inside = Command::new("unshare");
    // The first process of a namespace inherits orphans; a shell reaps them.
    inside.args(UNSHARE).args(["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; \"$@\"; exit $?", "sh"]);
    inside.arg(std::env::current_exe()?).args(["manual", "--inside"]);
    if !options.only.is_empty() {
        inside.args(["--only", &options.only.join(",")]);
    }
    match inside.status().context("start unshare")?.success() {
        true => Ok(()),
        false => bail!("the store does not do what its pages say, or the pages say too much"),
    }
}

fn follow(root: &Path, only: &[String]) -> Result<()> {
    let began = Instant::now();
    let book = Book::read(&root.join("docs"), &PAGES)?;
    for name in only {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            bail!("there is no scenario {name}");
        }
    }
    let chosen: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name))
        .collect();
    sandbox::prepare(&root.join("target/debug/oppidum"))?;
    let mut failures = play(&|ending| Stage::new(&book, root, ending), &chosen);
    scenarios::name_those_not_run(&Stage::new(&book, root, ""))?;
    if only.is_empty() && failures.is_empty() {
        let left = book.left();
        failures.extend(left.iter().map(|block| format!("{block}: no scenario runs it")));
    }
    let (run, not_run) = book.done();
    for (block, why) in not_run {
        println!("not run: {block}: {why}");
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{} scenarios followed {run} blocks in {seconds:.0} s", chosen.len());
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("not as the pages say: {}", failures.join("; ")),
    }
}

/// Plays all scenarios, some at once; returns those that failed.
///
/// The pages show a machine that does not stall: if another program takes the cores for a second,
/// another replica may lead than on the page. A scenario that differs from its page is reported,
/// and played once more on other machines; only a second failure counts.
fn play<'a>(stage: &(dyn Fn(&'static str) -> Stage<'a> + Sync), all: &[&Scenario]) -> Vec<String> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(scenario) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !["", "-again"].into_iter().any(|ending| is_played(scenario, &stage(ending))) {
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(scenario.name.to_owned());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Plays one scenario and reports the result; true if all was as the pages say.
fn is_played(scenario: &Scenario, stage: &Stage<'_>) -> bool {
    let (name, began) = (scenario.name, Instant::now());
    let played = (scenario.play)(stage);
    let seconds = began.elapsed().as_secs_f64();
    match &played {
        Ok(()) => println!("{name}: as the pages say, {seconds:.1} s"),
        Err(error) => println!("{name}: NOT as the pages say, {seconds:.1} s: {error:#}"),
    }
    played.is_ok()
}
