//! The plan of `up`: its processes, their ports, and their command lines.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::RngExt;
use wire::exit::Stop;

use crate::cli::values::NONE;
use crate::settings::{self, Setting};

/// The settings that `up` passes to each process as flags: they override the environment.
pub(crate) const OVERRIDDEN: [Setting; 15] = [
    settings::ORDERS,
    settings::ROOT_KEY,
    settings::ID,
    settings::LISTEN,
    settings::CATALOG_LISTEN,
    settings::CATALOGS,
    settings::HOST,
    settings::INTERNAL,
    settings::GATEWAYS,
    settings::REQUESTS_PER_ADDRESS,
    settings::CUSTOMER_ADDRESS,
    settings::PUBLIC_STATUS,
    settings::PUBLIC_TLS,
    settings::TLS,
    settings::LOG_FORMAT,
];

/// The replicas' ids, the same as the toy store's.
pub(super) const IDS: [u64; 3] = [123, 345, 456];

/// The range of free ports: below the ephemeral ports of outgoing connections (from 32,768 on),
/// because a port must still be free when its process restarts.
const FREE: Range<u16> = 10_000..32_000;

/// The documented public port.
const PUBLIC: u16 = 1234;

/// How long a store that was just killed may still hold a port: its processes notice, stop in
/// order, and may take a second under load.
const PORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause before a taken port is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The most ports that are tried.
const TRIES: u32 = 1_000;

/// The request for a store, from flags and settings.
#[derive(Clone, Debug)]
pub(crate) struct UpRequest {
    pub(crate) dialect: String,
    pub(crate) shop: String,
    /// The public port of the first frontend; a given port is kept, also with `auto`.
    pub(crate) port: Option<u16>,
    /// Whether to use free ports instead of the documented ones.
    pub(crate) auto: bool,
    pub(crate) data: PathBuf,
    pub(crate) frontends: u16,
    pub(crate) catalogs: u16,
    pub(crate) cache: String,
    pub(crate) log: String,
    pub(crate) access_log: String,
    pub(crate) preempt: bool,
    /// The folder of the certificates of its processes. `None`: they talk in plaintext.
    pub(crate) tls: Option<PathBuf>,
    /// The store's name. None: as in the replicas' settings.
    pub(crate) cluster: Option<String>,
}

impl UpRequest {
    /// The folder of certificates, as a flag.
    fn tls(&self) -> String {
        self.tls.as_ref().map_or_else(|| NONE.to_owned(), |folder| folder.display().to_string())
    }
}

/// The processes to start.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) children: Vec<Child>,
    public_ports: Vec<u16>,
    ports: Vec<(String, u16)>,
    auto: bool,
    /// The ports that the user gave; `auto` keeps them, too.
    given: Vec<u16>,
}

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// `order-456`, `catalog-1`, `frontend-1`
    pub(crate) name: String,
    /// The arguments of this program.
    pub(crate) arguments: Vec<String>,
    /// The address on which it listens.
    pub(crate) address: String,
}

impl Plan {
    pub(crate) fn make(request: &UpRequest) -> Result<Self, Stop> {
        let mut publics = Vec::new();
        for place in 0..request.frontends {
            publics.push(following(request.port.unwrap_or(PUBLIC), place)?);
        }
        if publics.contains(&0) {
            return Err(Stop::Setup("0 is no port: give another, or --ports auto".into()));
        }
        let given = request.port.map_or_else(Vec::new, |_| publics.clone());
        let mut ports =
            PortAllocator { auto: request.auto, given: given.clone(), held: Vec::new() };
        let mut listed = Vec::<(String, u16)>::new();
        let mut port = |what: String, fixed: u16, given: bool| -> Result<u16, Stop> {
            let port = if given { fixed } else { ports.take(fixed)? };
            if let Some((other, _)) = listed.iter().find(|(_, taken)| *taken == port) {
                return Err(Stop::Setup(format!(
                    "port {port} is of {other} and of {what}: give another --port"
                )));
            }
            listed.push((what, port));
            Ok(port)
        };
        let orders = IDS.into_iter().zip(1115..);
        let orders = orders.map(|(id, fixed)| Ok((id, port(format!("order-{id}"), fixed, false)?)));
        let orders = orders.collect::<Result<Vec<_>, Stop>>()?;
        let list = orders.iter().map(|(id, port)| format!("{id}=127.0.0.1:{port}"));
        let list = list.collect::<Vec<_>>().join(",");
        let mut catalogs = Vec::new();
        for place in 0..request.catalogs {
            catalogs.push(port(format!("catalog-{}", place + 1), following(2319, place)?, false)?);
        }
        let mut frontends = Vec::new();
        for (place, public) in (0..).zip(publics) {
            let name = format!("frontend-{}", place + 1);
            let public = port(name.clone(), public, request.port.is_some())?;
            let internal = port(name, following(6789, place)?, false)?;
            frontends.push(FrontendPorts { public, internal });
        }
        let watched = catalogs.iter().map(|port| format!("127.0.0.1:{port}"));
        let watched = watched.collect::<Vec<_>>().join(",");
        let mut children = Vec::new();
        for (id, port) in &orders {
            children.push(order(*id, *port, &list, request));
        }
        for (place, port) in catalogs.iter().enumerate() {
            children.push(catalog(place, *port, &list, request));
        }
        for (place, ports) in frontends.iter().enumerate() {
            children.push(frontend(place, ports, &list, &watched, request));
        }
        let public_ports = frontends.iter().map(|ports| ports.public).collect();
        Ok(Self { children, public_ports, ports: listed, auto: request.auto, given })
    }

    /// Fails when a port is taken for longer than a killed store needs to stop.
    pub(crate) async fn check_ports(&self) -> Result<(), Stop> {
        let until = Instant::now() + PORT_TIMEOUT;
        for (name, port) in &self.ports {
            while !is_free(*port) {
                if Instant::now() < until {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                return Err(Stop::Setup(self.taken(name, *port)));
            }
        }
        Ok(())
    }

    /// The error about a taken port, with advice.
    fn taken(&self, name: &str, port: u16) -> String {
        let advice = match (self.given.contains(&port), self.auto) {
            (true, _) => "or give another --port",
            (false, true) => "or start again, with other ports",
            (false, false) => "or give --ports auto",
        };
        format!("port {port} for {name} is taken: stop the process that listens there, {advice}")
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.public_ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    /// Prints the processes and examples of requests.
    pub(crate) fn tell(&self, pids: &BTreeMap<String, u32>, request: &UpRequest) {
        let Some(url) = self.urls().into_iter().next() else { return };
        let program = std::env::args().next().unwrap_or_else(|| "oppidum".into());
        answer!("\nThe store is open: {}\n", self.urls().join("  "));
        answer!("{:<12} {:>8}  {:<16} started by hand with", "process", "pid", "address");
        for child in &self.children {
            let pid = pids.get(&child.name).map_or_else(|| "-".into(), ToString::to_string);
            let command = child.arguments.join(" ");
            answer!("{:<12} {pid:>8}  {:<16} {program} {command}", child.name, child.address);
        }
        let (path, product, more) = match request.dialect.as_str() {
            "toy" => ("products", "whale", ""),
            _ => ("stocks", "GameStart", ",\"type\":\"buy\""),
        };
        answer!("\nTry:");
        answer!("  curl {url}/{path}/{product}");
        answer!("  curl --json '{{\"name\":\"{product}\",\"quantity\":2{more}}}' {url}/orders");
        answer!("  curl {url}/orders/0");
        let flag = if url.ends_with(":1234") { String::new() } else { format!(" --url {url}") };
        answer!("  {program} load --clients 5{flag}");
        answer!("  {program} status{flag}");
        answer!("  {program} verify{flag}");
        answer!(
            "\nKill any of the pids with `kill -9` and go on ordering. Ctrl-C ends everything.\n"
        );
    }
}

fn order(id: u64, port: u16, list: &str, request: &UpRequest) -> Child {
    let data = request.data.display().to_string();
    let flags = [
        ("--id", id.to_string()),
        ("--orders", list.to_owned()),
        ("--listen", format!("127.0.0.1:{port}")),
        ("--data", data),
        ("--shop", request.shop.clone()),
        ("--tls", request.tls()),
        ("--log", request.log.clone()),
    ];
    let cluster = request.cluster.iter().map(|name| ("--cluster", name.clone()));
    let flags: Vec<_> = flags.into_iter().chain(cluster).collect();
    let mut arguments = arguments("order", &flags);
    // A store of `up` is for this machine, and needs no root key of the environment.
    arguments.push("--open".to_owned());
    arguments.extend(request.preempt.then(|| "--preempt".to_owned()));
    Child { name: format!("order-{id}"), arguments, address: format!("127.0.0.1:{port}") }
}

fn catalog(place: usize, port: u16, list: &str, request: &UpRequest) -> Child {
    let address = format!("127.0.0.1:{port}");
    let flags = [
        ("--listen", address.clone()),
        ("--orders", list.to_owned()),
        ("--tls", request.tls()),
        ("--log", request.log.clone()),
    ];
    let name = format!("catalog-{}", place + 1);
    Child { name, arguments: arguments("catalog", &flags), address }
}

/// The ports of one frontend.
struct FrontendPorts {
    public: u16,
    internal: u16,
}

fn frontend(
    place: usize,
    ports: &FrontendPorts,
    orders: &str,
    catalogs: &str,
    request: &UpRequest,
) -> Child {
    let flags = [
        ("--host", "127.0.0.1".to_owned()),
        ("--port", ports.public.to_string()),
        ("--internal", format!("127.0.0.1:{}", ports.internal)),
        ("--orders", orders.to_owned()),
        ("--catalogs", if catalogs.is_empty() { NONE } else { catalogs }.to_owned()),
        ("--cache", request.cache.clone()),
        ("--dialect", request.dialect.clone()),
        ("--access-log", request.access_log.clone()),
        // It listens only on loopback: local users see the full status, and loopback has no limit.
        ("--public-status", "full".to_owned()),
        ("--gateways", "loopback".to_owned()),
        ("--requests-per-address", "0".to_owned()),
        ("--customer-address", "unknown".to_owned()),
        ("--public-tls", NONE.to_owned()),
        ("--tls", request.tls()),
        ("--log", request.log.clone()),
    ];
    let name = format!("frontend-{}", place + 1);
    let address = format!("127.0.0.1:{}", ports.public);
    Child { name, arguments: arguments("frontend", &flags), address }
}

fn arguments(command: &str, flags: &[(&str, String)]) -> Vec<String> {
    let mut arguments = vec![command.to_owned()];
    for (flag, value) in flags {
        arguments.extend([(*flag).to_owned(), value.clone()]);
    }
    arguments
}

fn following(first: u16, place: u16) -> Result<u16, Stop> {
    first
        .checked_add(place)
        .ok_or_else(|| Stop::Setup(format!("there is no port {first} + {place}")))
}

/// True when no process listens on this port of loopback.
fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Allocates fixed or free ports; holds free ones until all are chosen, so that none repeats.
struct PortAllocator {
    auto: bool,
    /// Ports that are not drawn for another process.
    given: Vec<u16>,
    held: Vec<TcpListener>,
}

impl PortAllocator {
    fn take(&mut self, fixed: u16) -> Result<u16, Stop> {
        if !self.auto {
            return Ok(fixed);
        }
        for _ in 0..TRIES {
            let port = rand::rng().random_range(FREE);
            if !self.given.contains(&port)
                && let Ok(listener) = TcpListener::bind(("127.0.0.1", port))
            {
                self.held.push(listener);
                return Ok(port);
            }
        }
        Err(Stop::Setup(format!("no free port between {} and {}", FREE.start, FREE.end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> UpRequest {
        UpRequest {
            dialect: "toy".into(),
            shop: "toy".into(),
            port: None,
            auto: false,
            data: "./oppidum-data".into(),
            frontends: 2,
            catalogs: 2,
            cache: "5".into(),
            log: "info".into(),
            access_log: "on".into(),
            preempt: false,
            tls: None,
            cluster: None,
        }
    }

    #[test]
    fn fixed_ports_are_the_documented_ones() {
        let plan = Plan::make(&request()).unwrap();
        let names: Vec<_> = plan.children.iter().map(|child| child.name.as_str()).collect();
        let expected = [
            "order-123",
            "order-345",
            "order-456",
            "catalog-1",
            "catalog-2",
            "frontend-1",
            "frontend-2",
        ];
        assert_eq!(names, expected);
        let addresses: Vec<_> = plan.children.iter().map(|child| child.address.as_str()).collect();
        assert_eq!(
            addresses[2..],
            [
                "127.0.0.1:1117",
                "127.0.0.1:2319",
                "127.0.0.1:2320",
                "127.0.0.1:1234",
                "127.0.0.1:1235",
            ]
        );
        assert_eq!(plan.urls(), ["http://127.0.0.1:1234", "http://127.0.0.1:1235"]);
    }

    #[test]
    fn a_given_port_is_kept_and_the_other_ports_are_drawn() {
        for given in [18_401, 1115, 65_000] {
            let request = UpRequest { auto: true, port: Some(given), ..request() };
            let plan = Plan::make(&request).unwrap();
            let expected = [given, given + 1].map(|port| format!("http://127.0.0.1:{port}"));
            assert_eq!(plan.urls(), expected);
            let others = plan.ports.iter().filter(|(_, port)| FREE.contains(port)).count();
            assert!(7 <= others, "{:?}", plan.ports);
            let ports: std::collections::BTreeSet<_> =
                plan.ports.iter().map(|(_, port)| port).collect();
            assert_eq!(ports.len(), plan.ports.len());
        }
        for odd in [0, u16::MAX, 1115, 2318] {
            assert!(Plan::make(&UpRequest { port: Some(odd), ..request() }).is_err(), "{odd}");
        }
    }

    /// Kind: advice that the user has followed already, and that changes nothing.
    #[test]
    fn the_advice_about_a_taken_port_depends_on_its_source() {
        let taken = |auto, port, of: u16| {
            let plan = Plan::make(&UpRequest { port, auto, ..request() }).unwrap();
            plan.taken("x", of)
        };
        for auto in [false, true] {
            let line = taken(auto, Some(18_401), 18_402);
            assert!(line.contains("another --port") && !line.contains("auto"), "{line}");
        }
        assert!(taken(false, None, 1234).contains("--ports auto"));
        assert!(taken(false, Some(18_401), 1115).contains("--ports auto"));
        assert!(!taken(true, Some(18_401), 12_000).contains("--ports auto"));
    }

    /// Kind: a setting for one process that reaches all of them.
    #[test]
    fn every_process_gets_its_listening_address_by_a_flag() {
        let plan = Plan::make(&request()).unwrap();
        for child in &plan.children {
            let mut pairs = child.arguments.windows(2);
            let is_given = if child.name.starts_with("frontend") {
                pairs.any(|pair| pair == ["--host", "127.0.0.1"])
            } else {
                pairs.any(|pair| pair == ["--listen", &*child.address])
            };
            assert!(is_given, "{child:?}");
        }
    }

    #[test]
    fn free_ports_are_all_different() {
        let plan = Plan::make(&UpRequest { auto: true, ..request() }).unwrap();
        let ports: std::collections::BTreeSet<_> =
            plan.ports.iter().map(|(_, port)| port).collect();
        assert_eq!(ports.len(), plan.ports.len());
    }
}
