//! Catalogs and frontends on their simulated machines: the real ones. They keep no state, so their
//! machines have no disk.

use std::net::SocketAddr;
use std::time::Duration;

use frontend::classic::Dialect;
use ground::life;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;

use crate::machine::{Ending, Host};
use crate::net::{self, HostId, MachineState, Net};
use crate::plan::Plan;
use crate::replica;

/// The port on which a catalog listens.
const CATALOG_PORT: u16 = 2319;

/// The public port of a frontend.
const PUBLIC_PORT: u16 = 5000;

/// The internal port of a frontend.
const INTERNAL_PORT: u16 = 5001;

/// The number of products that a frontend caches: fewer than there are.
const CACHE: usize = 3;

/// A catalog or a frontend.
#[derive(Debug)]
pub struct StatelessProcess {
    /// The process's machine.
    pub host: Host,
    settings: Settings,
}

#[derive(Clone, Debug)]
enum Settings {
    Catalog(Box<catalog::Settings>),
    Frontend(Box<frontend::Settings>),
}

fn catalog_host(place: usize) -> HostId {
    HostId::try_from(place + 20).unwrap_or(HostId::MAX)
}

fn frontend_host(place: usize) -> HostId {
    HostId::try_from(place + 40).unwrap_or(HostId::MAX)
}

/// The public addresses of the frontends.
pub fn frontends(plan: &Plan) -> Vec<SocketAddr> {
    (0..plan.frontends).map(|place| net::address(frontend_host(place), PUBLIC_PORT)).collect()
}

/// All catalogs and frontends of a plan, not started.
pub fn all(plan: &Plan, net: &Net) -> Vec<StatelessProcess> {
    let catalogs = (0..plan.catalogs).map(|place| {
        let listen = net::address(catalog_host(place), CATALOG_PORT);
        let settings = catalog::Settings {
            listen,
            orders: replica::peers(plan),
            upstream: Vec::new(),
            name: format!("catalog {listen}"),
            credentials: None,
            restock_every: Duration::from_secs(10),
            times: Times::default(),
            rules: Rules::default(),
        };
        let host = Host::new(catalog_host(place), &format!("catalog-{place}"), net);
        StatelessProcess { host, settings: Settings::Catalog(Box::new(settings)) }
    });
    let addresses = (0..plan.catalogs).map(|at| net::address(catalog_host(at), CATALOG_PORT));
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    let frontends = (0..plan.frontends).map(|place| {
        let settings = frontend::Settings {
            listen: net::address(frontend_host(place), PUBLIC_PORT),
            internal: net::address(frontend_host(place), INTERNAL_PORT),
            orders: replica::peers(plan),
            catalogs: addresses.clone(),
            cache: CACHE,
            dialect: Dialect::Stock,
            access_log: false,
            clients: frontend::Clients::default(),
            tls: None,
            credentials: None,
            times: Times::default(),
            rules: Rules::default(),
        };
        let host = Host::new(frontend_host(place), &format!("front-{place}"), net);
        StatelessProcess { host, settings: Settings::Frontend(Box::new(settings)) }
    });
    catalogs.chain(frontends).collect()
}

impl StatelessProcess {
    /// Starts the process.
    pub fn start(&mut self, seed: u64) {
        match self.settings.clone() {
            Settings::Catalog(settings) => {
                self.host.start(seed, move |stop| life::catalog(*settings, stop));
            }
            Settings::Frontend(settings) => {
                self.host.start(seed, move |stop| life::frontend(*settings, stop));
            }
        }
    }

    /// The process dies, or its machine loses power.
    pub fn crash(&mut self, life: MachineState) {
        self.host.end(life);
    }

    /// Runs the process for one step. Returns its result, if it has ended.
    pub fn step(&mut self) -> Option<Ending> {
        self.host.step()
    }
}
