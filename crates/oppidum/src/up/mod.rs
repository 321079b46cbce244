//! `oppidum up`: a whole store on this machine, each process a real one.

pub(crate) mod plan;

pub(crate) mod supervisor;

pub(crate) mod archive;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::cli::{self, Restart};
use crate::http::Client;
use crate::roles::{self, DialectName};
use crate::settings::{self, Settings};
use crate::shop;
use plan::{Plan, Wishes};
use supervisor::{Afterwards, Lines, Supervisor};

/// How long the store may take to open before people are told that it takes long.
const OPENING: Duration = Duration::from_secs(15);

/// Starts everything, tells how to use it, keeps it running, and ends it.
pub(crate) async fn run(flags: cli::Up) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let dialect: DialectName = settings.want(settings::DIALECT, flags.dialect.clone())?;
    let shop_source: Option<String> = match (&flags.shop, dialect.0.name()) {
        (Some(shop), _) => Some(shop.clone()),
        (None, dialect) => settings
            .take::<String>(settings::Setting { default: "", ..settings::SHOP }, None)?
            .or_else(|| Some(dialect.to_owned())),
    };
    let shop = shop_source.unwrap_or_else(|| "stock".to_owned());
    // Said here, once, and not by three replicas one after the other.
    shop::load(&shop)?;
    let port: u16 = settings.want(settings::PORT, flags.port.map(|port| port.to_string()))?;
    let cache: String = settings.want(settings::CACHE, flags.cache.clone())?;
    let log: String = settings.want(settings::LOG, flags.log.clone())?;
    let access_log: String = settings.want(settings::ACCESS_LOG, flags.access_log.clone())?;
    let scratch = if flags.ephemeral {
        let made = tempfile::Builder::new().prefix("oppidum-").tempdir();
        Some(made.map_err(|error| Stop::Setup(format!("no temporary folder: {error}")))?)
    } else {
        None
    };
    let data: PathBuf = match &scratch {
        Some(folder) => folder.path().to_owned(),
        None => settings.want(settings::DATA, flags.data.clone())?,
    };
    let wishes = Wishes {
        dialect: dialect.0.name().to_owned(),
        shop,
        port,
        auto: flags.ports == cli::Ports::Auto,
        data,
        frontends: flags.frontends,
        catalogs: flags.catalogs,
        cache,
        log,
        access_log,
        preempt: flags.preempt,
        cluster: None,
    };
    let plan = Plan::make(&wishes)?;
    plan.check_ports()?;
    let stop = CancellationToken::new();
    if flags.stop_with_stdin {
        tokio::spawn(roles::stdin_closed(stop.clone()));
    }
    supervise(&plan, flags.restart, &wishes, stop).await
}

async fn supervise(
    plan: &Plan,
    restart: Restart,
    wishes: &Wishes,
    stop: CancellationToken,
) -> Result<(), Stop> {
    let afterwards = match restart {
        Restart::Always => Afterwards::Again,
        Restart::Never => Afterwards::Never,
    };
    let supervisor = Supervisor::start(plan, afterwards, &Lines::Shown, &stop)?;
    tokio::spawn(signals(stop.clone()));
    let opened = tokio::select! {
        () = opened(plan) => true,
        () = stop.cancelled() => false,
        stop = supervisor.failed() => {
            supervisor.end().await;
            return Err(stop);
        }
    };
    if opened {
        plan.tell(&supervisor.pids(), wishes);
    }
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        stop = supervisor.failed() => Err(stop),
    };
    eprintln!("oppidum: closing the store");
    supervisor.end().await;
    if ended.is_ok() {
        eprintln!("oppidum: closed");
    }
    ended
}

/// Waits until every frontend answers and knows a leader.
async fn opened(plan: &Plan) {
    let began = std::time::Instant::now();
    let mut said = false;
    for url in plan.urls() {
        loop {
            if let Ok(mut client) = Client::new(&url)
                && client.get("/readyz").await.is_ok_and(|reply| reply.status == 200)
            {
                break;
            }
            if OPENING < began.elapsed() && !said {
                eprintln!("oppidum: the store takes long to open; the lines above say why");
                said = true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The first signal ends the store in order, the second at once.
async fn signals(stop: CancellationToken) {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(kinds[0]), signal(kinds[1]), signal(kinds[2]))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if stop.is_cancelled() {
            std::process::exit(130);
        }
        stop.cancel();
    }
}

/// True when nobody listens on a port of loopback.
fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
