//! The `oppidum` binary: every process of the store, and every command of its operator and clients.

#[macro_use]
mod output;

mod signals;

mod cli;

mod settings;

mod dot_env;

mod price;

mod shop;

mod address;

mod failpoints;

mod roles;

mod up;

mod api_keys;
mod ca;
mod key_file;

mod http;
mod listeners;

mod client;

mod load;

mod inspect;

mod ctl;

mod operator;

mod trail;

mod internal_plane;

mod members;

mod membership;

mod recover;

mod backup;

mod lab;

mod demo;

mod generated;

mod conform;

use std::process::ExitCode;

use clap::Parser;
use order::history::open_error;
use wire::exit::Stop;

use cli::values::Url;
use cli::{Cli, Command, CtlOn};
use settings::Settings;

/// The exit codes: yes, no, and failed.
const YES: u8 = 0;
const NO: u8 = 1;
const FAILED: u8 = 2;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(say_defect));
    wire::descriptors::raise_limit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            output::show(&error);
            return ended(u8::try_from(error.exit_code()).unwrap_or(FAILED));
        }
    };
    let runtime = match runtime(&cli.command) {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Stop::Setup(format!("the runtime cannot start: {error}"))),
    };
    let done = runtime.block_on(run(cli.command));
    // Remaining tasks are cancelled already; a blocked read of stdin must not delay the exit.
    runtime.shutdown_background();
    match done {
        Ok(true) => ended(YES),
        Ok(false) => ended(NO),
        Err(stop) => fail(&stop),
    }
}

/// Ends the process: an answer that could not be written is no success.
fn ended(code: u8) -> ExitCode {
    match output::finish() {
        Some(error) if code == YES => {
            note!("oppidum: the answer could not be written to stdout: {error}");
            ExitCode::from(FAILED)
        }
        _ => ExitCode::from(code),
    }
}

/// The runtime of a command.
///
/// A replica and a catalog run on one thread: their work is sequential, and waking another thread
/// costs more than the work itself (docs/performance.md has the measurements). Separate threads
/// wait for disks. A frontend uses several threads where more than two cores are available.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let one = match command {
        Command::Order(_) | Command::Catalog(_) => true,
        Command::Frontend(_) => cores <= 2,
        _ => false,
    };
    let mut builder = if one {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.enable_all().build()
}

/// Runs the command. False: the answer is no.
async fn run(command: Command) -> Result<bool, Stop> {
    let url = |flag: Url| -> Result<String, Stop> { flag.resolve(&mut Settings::load()?) };
    match command {
        Command::Up(flags) => up::run(flags).await.map(|()| true),
        Command::Init(flags) => api_keys::init(flags),
        Command::Order(flags) => roles::order(flags).await.map(|()| true),
        Command::Catalog(flags) => roles::catalog(flags).await.map(|()| true),
        Command::Frontend(flags) => roles::frontend(flags).await.map(|()| true),
        Command::Client(flags) => {
            let mut settings = Settings::load()?;
            let url = flags.resolve(&mut settings)?;
            client::run(&url, settings.notes()).await.map(|()| true)
        }
        Command::Load(flags) => {
            let url = url(flags.url.clone())?;
            load::run(&url, &flags).await
        }
        Command::Status(flags) => inspect::status(&url(flags.url)?, flags.json).await,
        Command::Verify(flags) => inspect::verify(&url(flags)?).await,
        Command::Dump(flags) => inspect::dump(&url(flags.url)?, flags.id).await.map(|()| true),
        Command::Ctl(flags) => match flags.on {
            CtlOn::Product(product) => ctl::product(product).await,
            CtlOn::Key(what) => api_keys::run(what).await,
            CtlOn::Ca(what) => ca::run(what),
            CtlOn::Repair(flags) => operator::repair(&url(flags.url)?, flags.id).await,
            CtlOn::Member(what) => members::member(what).await,
            CtlOn::Replace(what) => members::replace(what).await,
            CtlOn::Recover(what) => recover::recover(what).await,
            CtlOn::Backup(flags) => backup::backup(flags).await,
            CtlOn::Restore(flags) => backup::restore::restore(flags).await,
            CtlOn::Transfer(flags) => operator::transfer(&url(flags.url)?, flags.to).await,
            CtlOn::Trail(flags) => trail::trail(&url(flags.url.clone())?, &flags).await,
        },
        Command::Lab(flags) => lab::run(flags).await,
        Command::Demo(flags) => demo::run(flags).await,
        Command::Generate(flags) => generated::generate(&flags),
        Command::Conform(flags) => conform::run(&url(flags.url.clone())?, &flags).await,
    }
}

fn fail(stop: &Stop) -> ExitCode {
    note!("oppidum: {stop}");
    ended(match stop {
        Stop::Setup(_) => FAILED,
        Stop::Defect(_) => NO,
    })
}

/// Reports a panic, which is a defect: one line with the reason and the place, then the exit.
fn say_defect(panic: &std::panic::PanicHookInfo<'_>) {
    let what = panic.payload().downcast_ref::<&str>().map(|what| (*what).to_owned());
    let what = what.or_else(|| panic.payload().downcast_ref::<String>().cloned());
    let what = what.unwrap_or_else(|| "something that must not be".to_owned());
    let advice = panic.location().and_then(|place| open_error::advice_on_panic(place.file()));
    let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    if let Some(advice) = advice {
        note!("oppidum: {advice} (found{place}: {what})");
        std::process::exit(i32::from(FAILED));
    }
    note!(
        "oppidum: defect{place}: {what}. The process stops, so that it gives no wrong answer; \
         start it again, and report this line."
    );
    let _ = output::finish();
    std::process::exit(i32::from(NO));
}
