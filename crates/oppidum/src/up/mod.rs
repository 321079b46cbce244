//! `oppidum up`: a whole store on this machine, each role a process of its own.

pub(crate) mod plan;

pub(crate) mod supervisor;

mod restart;

mod certificates;

pub(crate) mod archive;

use std::path::PathBuf;
use std::time::Duration;

use wire::exit::Stop;

use crate::cli::values::{Capacity, Checked, DialectName, Filter, FreeText, OnOff};
use crate::cli::{self, Restart};
use crate::http::Client;
use crate::output;
use crate::roles;
use crate::settings::{self, Setting, Settings};
use crate::shop;
use crate::signals::Interrupt;
use plan::{OVERRIDDEN, Plan, UpRequest};
use supervisor::{AfterExit, Lines, Supervisor};

/// How long the store may take to open before a line says that it is slow.
const SLOW_OPEN_AFTER: Duration = Duration::from_secs(15);

/// The line about settings that are set and have no effect under `up`.
fn ignored(settings: &Settings, ephemeral: bool) -> Option<String> {
    let given = settings.set_among(&OVERRIDDEN);
    let given = (!given.is_empty())
        .then(|| format!("{}: `up` gives each process its own", given.join(", ")));
    let data = ephemeral && !settings.set_among(&[settings::DATA]).is_empty();
    let data = data.then(|| "OPPIDUM_DATA: --ephemeral keeps nothing".to_owned());
    let ignored: Vec<String> = given.into_iter().chain(data).collect();
    (!ignored.is_empty()).then(|| format!("ignored here: {}", ignored.join("; ")))
}

/// Starts the processes, prints how to use the store, supervises it, and stops it.
pub(crate) async fn run(flags: cli::Up) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let dialect: DialectName = settings.want(settings::DIALECT, flags.dialect)?;
    let shop = match flags.shop {
        Some(shop) => shop,
        None => {
            let set: Option<String> =
                settings.take(Setting { default: "", ..settings::SHOP }, None)?;
            set.unwrap_or_else(|| dialect.0.name().to_owned())
        }
    };
    let port = Setting { default: "", ..settings::PORT };
    let port: Option<u16> = settings.take(port, flags.port.map(|port| port.to_string()))?;
    let cache: Checked<Capacity> = settings.want(settings::CACHE, flags.cache)?;
    let log: Checked<Filter> = settings.want(settings::LOG, flags.log)?;
    let access_log: Checked<OnOff> = settings.want(settings::ACCESS_LOG, flags.access_log)?;
    let interrupt = Interrupt::listen()?;
    output::queue_lines();
    if let Some(line) = ignored(&settings, flags.ephemeral) {
        note!("oppidum: {line}");
    }
    let scratch = flags.ephemeral.then(temporary_folder).transpose()?;
    let data: PathBuf = match &scratch {
        Some(folder) => folder.path().to_owned(),
        None => settings.want::<FreeText>(settings::DATA, flags.data)?.0.into(),
    };
    // Reports a bad shop once, not once per replica.
    shop::load(&shop, shop::Age::of_store(&data))?;
    let store = match flags.open_internal {
        false => Some(certificates::store_name(&mut settings)?),
        true => {
            note!("oppidum: --open-internal: any program of this machine can pass for a replica");
            None
        }
    };
    let request = UpRequest {
        dialect: dialect.0.name().to_owned(),
        shop,
        port,
        auto: flags.ports == cli::PortChoice::Auto,
        tls: store.as_ref().map(|_| certificates::folder(&data)),
        data,
        frontends: flags.frontends,
        catalogs: flags.catalogs,
        cache: cache.text,
        log: log.text,
        access_log: access_log.text,
        preempt: flags.preempt,
        cluster: None,
    };
    let plan = Plan::make(&request)?;
    plan.check_ports().await?;
    if let (Some(store), Some(folder)) = (&store, &request.tls) {
        certificates::complete(folder, store)?;
    }
    // A closed stdin stops the store, too, and does not count as the first of two signals.
    let interrupt = Interrupt { stop: interrupt.stop.child_token(), ..interrupt };
    if flags.stop_with_stdin {
        tokio::spawn(roles::stdin_closed(interrupt.stop.clone()));
    }
    let ended = supervise(&plan, flags.restart, &request, &interrupt).await;
    if let Some(Err(error)) = scratch.map(tempfile::TempDir::close) {
        note!("oppidum: the temporary folder stays behind: {error}");
    }
    if interrupt.hurry.is_cancelled() {
        let _ = output::finish();
        std::process::exit(130);
    }
    ended
}

fn temporary_folder() -> Result<tempfile::TempDir, Stop> {
    let made = tempfile::Builder::new().prefix("oppidum-").tempdir();
    made.map_err(|error| Stop::Setup(format!("no temporary folder: {error}")))
}

/// Runs until the first signal, which stops the store in order; the second stops it at once.
async fn supervise(
    plan: &Plan,
    restart: Restart,
    request: &UpRequest,
    Interrupt { stop, hurry }: &Interrupt,
) -> Result<(), Stop> {
    let afterwards = match restart {
        Restart::Always => AfterExit::Again,
        Restart::Never => AfterExit::Never,
    };
    let supervisor = Supervisor::start(plan, afterwards, &Lines::Shown, stop)?;
    let ended = tokio::select! {
        () = opened(plan) => {
            plan.tell(&supervisor.pids(), request);
            // Once the store was open, only a signal stops it.
            stop.cancelled().await;
            Ok(())
        }
        () = stop.cancelled() => Ok(()),
        why = supervisor.cannot_open() => Err(why),
    };
    note!("oppidum: closing the store");
    supervisor.end(hurry).await;
    if ended.is_ok() {
        note!("oppidum: closed");
    }
    ended
}

/// Waits until every frontend answers and knows a leader.
async fn opened(plan: &Plan) {
    let began = std::time::Instant::now();
    let mut is_noted = false;
    for url in plan.urls() {
        loop {
            if let Ok(mut client) = Client::new(&url)
                && client.get("/readyz").await.is_ok_and(|reply| reply.status == 200)
            {
                break;
            }
            if SLOW_OPEN_AFTER < began.elapsed() && !is_noted {
                note!("oppidum: the store takes long to open; the lines above say why");
                is_noted = true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_effect_under_up_are_named_in_one_line() {
        let set = |names: &[&str]| {
            let texts = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
            Settings::new(texts, None).unwrap()
        };
        let line = |names: &[&str], ephemeral| ignored(&set(names), ephemeral).unwrap_or_default();
        assert_eq!(line(&["OPPIDUM_PORT", "OPPIDUM_DATA", "OPPIDUM_CACHE"], false), "");
        assert_eq!(line(&["OPPIDUM_PORT"], true), "");
        assert_eq!(
            line(&["OPPIDUM_LISTEN", "OPPIDUM_ORDERS", "OPPIDUM_DATA"], true),
            "ignored here: OPPIDUM_ORDERS, OPPIDUM_LISTEN: `up` gives each process its own; \
             OPPIDUM_DATA: --ephemeral keeps nothing"
        );
    }
}
