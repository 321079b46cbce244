//! The drill: a store that takes orders is backed up and lost, and its backup is verified, restored
//! on another root and orders go on there. It prints how long each step takes.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::bench::process::{Process, ask, is_ready, target};
use crate::bench::store::{Folder, free_ports};

/// How long a store may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// The orders of one batch request.
const BATCH: u64 = 1_000;

/// How many orders the store takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The number of orders before the first backup, in thousands.
    #[arg(long, default_value_t = 50)]
    thousands: u64,
}

/// Plays the drill with the debug build.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let built = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--quiet", "-p", "oppidum"])
        .status();
    ensure!(built.context("start cargo")?.success(), "the program cannot be built");
    let drill = Drill {
        program: target(root).join("debug/oppidum").display().to_string(),
        folder: Folder::new(&target(root).join("drill"))?,
    };
    drill.play(options.thousands)
}

struct Drill {
    program: String,
    folder: Folder,
}

impl Drill {
    fn play(&self, thousands: u64) -> Result<()> {
        let backup = self.folder.path("backup");
        let public = free_ports(1)?[0];
        let url = format!("http://127.0.0.1:{public}");
        let address = format!("127.0.0.1:{public}");
        let (data, port) = (self.folder.path("first"), public.to_string());
        let up = ["up", "--ports", "auto", "--port", &port, "--access-log", "off", "--data", &data];
        let mut store = self.start("up", &up)?;
        await_ready(&address)?;
        timed(&format!("{thousands},000 orders"), || {
            (0..thousands).try_for_each(|n| order(&address, n))
        })?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let orders = scope.spawn(|| {
                let mut batches = thousands..;
                while !stop.load(Ordering::Relaxed) {
                    order(&address, batches.next().unwrap_or(0))?;
                }
                anyhow::Ok(())
            });
            let to = ["ctl", "backup", "--to", &backup, "--url", &url];
            let done = timed("backup, while orders come in", || self.oppidum(&to))
                .and_then(|()| timed("backup of what came meanwhile", || self.oppidum(&to)));
            stop.store(true, Ordering::Relaxed);
            let ordered = orders.join().unwrap_or_else(|_| anyhow::bail!("the orders ended"));
            done.and(ordered)
        })?;
        store.kill();
        timed("verification", || self.oppidum(&["ctl", "backup", "verify", "--from", &backup]))?;
        let again = self.folder.path("second");
        std::fs::create_dir(&again)?;
        let restore = ["ctl", "restore", "--from", &backup, "--data", &again];
        let restore = [&restore[..], &["--id", "123", "--yes", "oppidum"]].concat();
        timed("restore", || self.oppidum(&restore))?;
        self.reopen(&again)
    }

    /// Starts the restored replica with a frontend, and orders.
    fn reopen(&self, data: &str) -> Result<()> {
        let ports = free_ports(3)?;
        let orders = format!("123=127.0.0.1:{}", ports[0]);
        let (public, internal) = (ports[1].to_string(), format!("127.0.0.1:{}", ports[2]));
        let address = format!("127.0.0.1:{public}");
        let replica = ["order", "--id", "123", "--orders", &orders, "--data", data];
        let frontend = ["frontend", "--orders", &orders, "--catalogs", "none"];
        let listen = ["--host", "127.0.0.1", "--port", &public, "--internal", &internal];
        timed("until the restored store takes orders", || {
            let replica = self.start("order", &replica)?;
            let frontend = self.start("frontend", &[&frontend[..], &listen].concat())?;
            await_ready(&address)?;
            order(&address, u64::MAX)?;
            Ok((replica, frontend))
        })?;
        Ok(())
    }

    fn start(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder.0).args(arguments);
        Process::start(&mut command, self.folder.path(&format!("{name}.log")).into())
    }

    /// Runs a command of the operator; prints what it answers.
    fn oppidum(&self, arguments: &[&str]) -> Result<()> {
        let done =
            Command::new(&self.program).current_dir(&self.folder.0).args(arguments).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        ensure!(
            done.status.success(),
            "{arguments:?}: {}{}",
            text(&done.stdout),
            text(&done.stderr)
        );
        println!("  {}", text(&done.stdout).replace('\n', "\n  "));
        Ok(())
    }
}

/// Does a step, and prints how long it took.
fn timed<T>(step: &str, does: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = does().with_context(|| step.to_owned())?;
    println!("{step}: {:.1} s", began.elapsed().as_secs_f64());
    Ok(done)
}

fn await_ready(address: &str) -> Result<()> {
    let began = Instant::now();
    while !is_ready(address) {
        ensure!(began.elapsed() < READY_TIMEOUT, "the store at {address} is not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Sends one batch of orders, under keys of its own.
fn order(address: &str, number: u64) -> Result<()> {
    let one = |place| {
        format!(r#"{{"name":"GameStart","quantity":1,"type":"sell","key":"{number}-{place}"}}"#)
    };
    let orders: Vec<String> = (0..BATCH).map(one).collect();
    let body = format!(r#"{{"orders":[{}]}}"#, orders.join(","));
    let (status, answer) = ask(address, "POST", "/v1/orders/batch", &body)?;
    ensure!(status == 200, "a batch got {status}: {answer}");
    Ok(())
}
