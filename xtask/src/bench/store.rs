//! A whole store, each process started separately, so that each can be killed and restarted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Advice, fadvise};
use serde::Deserialize;

use crate::bench::machine;
use crate::bench::process::{self, Process, READY_MAX, is_ready};
use crate::bench::shop::{HOT, Shop};

/// The replicas' ids.
pub(crate) const IDS: [u64; 3] = [123, 345, 456];

/// How the processes of a store talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    Plaintext,
    MutualTls,
}

/// Three replicas, a frontend, and a catalog or none.
#[derive(Debug)]
pub(crate) struct Store {
    program: PathBuf,
    shop_file: PathBuf,
    pub(crate) shop: Shop,
    orders: BTreeMap<u64, (u16, Option<Process>)>,
    catalogs: Vec<(u16, Process)>,
    frontend: Option<Process>,
    plane: Plane,
    /// The internal address of the frontend.
    internal: String,
    /// The public address of the frontend.
    pub(crate) address: String,
    // Last, so that the folder is removed after the processes that write into it.
    folder: Folder,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    id: Option<u64>,
    ready: bool,
    leader: Option<u64>,
    next_order_number: Option<u64>,
    applied_index: Option<u64>,
}

/// The state of a whole store, as a frontend shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WholeStatus {
    leader: Option<u64>,
    processes: Vec<Status>,
}

/// More than the greatest age of what a frontend shows on its public port.
const VIEW_AGE: Duration = Duration::from_millis(250);

impl Store {
    /// Starts a store whose data is removed with it. [`process::build`] must have built its
    /// programs.
    pub(crate) fn start(root: &Path, name: &str, shop: Shop, catalogs: u16) -> Result<Self> {
        Self::start_on(root, name, shop, catalogs, Plane::Plaintext)
    }

    /// The same, with or without certificates.
    pub(crate) fn start_on(
        root: &Path,
        name: &str,
        shop: Shop,
        catalogs: u16,
        plane: Plane,
    ) -> Result<Self> {
        let folder = Folder::new(&process::target(root).join("bench").join(name))?;
        let shop_file = shop.write(&folder.0)?;
        let mut ports = free_ports(5 + usize::from(catalogs))?.into_iter();
        let mut port = || ports.next().context("take a port");
        let mut orders = BTreeMap::new();
        for id in IDS {
            orders.insert(id, (port()?, None));
        }
        let (public, internal) = (port()?, port()?);
        let mut store = Self {
            program: process::released(root, "oppidum"),
            shop_file,
            shop,
            orders,
            catalogs: Vec::new(),
            frontend: None,
            plane,
            internal: local(internal),
            address: format!("127.0.0.1:{public}"),
            folder,
        };
        if plane == Plane::MutualTls {
            store.issue_certificates()?;
        }
        for id in IDS {
            store.start_order(id)?;
        }
        for _ in 0..catalogs {
            store.start_catalog(port()?)?;
        }
        store.start_frontend(public, internal)?;
        store.await_ready()?;
        Ok(store)
    }

    /// Makes a certificate authority, and a certificate for each process.
    fn issue_certificates(&self) -> Result<()> {
        let folder = self.folder.path("tls");
        let ca = |arguments: &[&str]| {
            self.tool(&[&["ctl", "ca"], arguments, &["--dir", &folder]].concat()).map(drop)
        };
        ca(&["init"])?;
        for id in IDS {
            ca(&["issue", "order", &id.to_string()])?;
        }
        ca(&["issue", "catalog", "bench"])?;
        ca(&["issue", "frontend", "bench"])
    }

    /// Issues an API key with these scopes.
    pub(crate) fn issue_api_key(&self, scopes: &str) -> Result<String> {
        let url = format!("http://{}", self.internal);
        let key = self.tool(&["ctl", "key", "issue", "bench", "--as", scopes, "--url", &url])?;
        Ok(key.trim().to_owned())
    }

    /// Runs a tool of the program; its answer.
    fn tool(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        let output = command.current_dir(&self.folder.0).args(arguments).output();
        let output = output.with_context(|| format!("run {arguments:?}"))?;
        if !output.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("read the answer of a tool")
    }

    /// Waits until every replica, every catalog and the frontend report that they are ready.
    pub(crate) fn await_ready(&mut self) -> Result<()> {
        if self.plane == Plane::MutualTls {
            return self.await_ready_by_frontend();
        }
        for (port, process) in self.orders.values_mut() {
            let process = process.as_mut().context("wait for a replica that does not run")?;
            process.await_ready(&local(*port))?;
        }
        for (port, process) in &mut self.catalogs {
            process.await_ready(&local(*port))?;
        }
        let frontend = self.frontend.as_mut().context("wait for the frontend")?;
        frontend.await_ready(&self.address)
    }

    /// The same, by the frontend: the other listeners speak TLS.
    fn await_ready_by_frontend(&mut self) -> Result<()> {
        let frontend = self.frontend.as_mut().context("wait for the frontend")?;
        frontend.await_ready(&self.address)?;
        let began = Instant::now();
        while began.elapsed() < READY_MAX {
            if public_status(&self.address)?.processes.iter().all(|process| process.ready) {
                return Ok(());
            }
            thread::sleep(VIEW_AGE);
        }
        bail!("the store is not ready after {READY_MAX:?}")
    }

    /// `kill -9` of one replica.
    pub(crate) fn kill_order(&mut self, id: u64) {
        if let Some((_, process)) = self.orders.get_mut(&id) {
            *process = None;
        }
    }

    /// Starts one replica, without waiting for it.
    pub(crate) fn start_order(&mut self, id: u64) -> Result<()> {
        let (id_text, orders) = (id.to_string(), self.peers());
        let (data, shop) = (self.folder.path("data"), self.shop_file.display().to_string());
        let flags = ["--id", &id_text, "--orders", &orders, "--data", &data, "--shop", &shop];
        let process = self.run(&format!("order-{id}"), "order", &flags)?;
        let place = self.orders.get_mut(&id).context("find a replica")?;
        place.1 = Some(process);
        Ok(())
    }

    fn start_catalog(&mut self, port: u16) -> Result<()> {
        let (listen, orders) = (local(port), self.peers());
        let flags = ["--listen", &listen, "--orders", &orders];
        let process = self.run(&format!("catalog-{port}"), "catalog", &flags)?;
        self.catalogs.push((port, process));
        Ok(())
    }

    fn start_frontend(&mut self, public: u16, internal: u16) -> Result<()> {
        let (public, internal, orders) = (public.to_string(), local(internal), self.peers());
        let catalogs = self.catalogs.iter().map(|(port, _)| local(*port));
        let catalogs = catalogs.collect::<Vec<_>>().join(",");
        let listen = ["--host", "127.0.0.1", "--port", &public, "--internal", &internal];
        let peers = ["--orders", &orders, "--catalogs", &catalogs, "--access-log", "off"];
        // All clients of the load are on this machine.
        let local = ["--gateways", "loopback", "--public-status", "full"];
        let peers = [&peers[..], &local].concat();
        self.frontend = Some(self.run("frontend", "frontend", &[&listen[..], &peers].concat())?);
        Ok(())
    }

    fn run(&self, name: &str, role: &str, flags: &[&str]) -> Result<Process> {
        let mut command = process::measured(&self.program);
        command.current_dir(&self.folder.0).arg(role).args(flags);
        command.args(["--log", "warn", "--stop-with-stdin"]);
        if self.plane == Plane::MutualTls {
            command.args(["--tls", &self.folder.path("tls")]);
        }
        Process::start(&mut command, PathBuf::from(self.folder.path(&format!("{name}.lines"))))
    }

    fn peers(&self) -> String {
        let peers = self.orders.iter().map(|(id, (port, _))| format!("{id}={}", local(*port)));
        peers.collect::<Vec<_>>().join(",")
    }

    /// The process of a running replica.
    pub(crate) fn order(&mut self, id: u64) -> Result<&mut Process> {
        let (_, process) = self.orders.get_mut(&id).context("find a replica")?;
        process.as_mut().with_context(|| format!("replica {id} does not run"))
    }

    /// The internal address of a replica.
    pub(crate) fn order_address(&self, id: u64) -> Result<String> {
        Ok(local(self.orders.get(&id).context("find a replica")?.0))
    }

    /// The replica that reports itself as the leader, once there is one; `not` is not asked.
    pub(crate) fn await_leader(&self, not: Option<u64>) -> Result<u64> {
        let began = Instant::now();
        while began.elapsed() < READY_MAX {
            for (id, (port, process)) in &self.orders {
                let asked = process.is_some() && not != Some(*id);
                if asked && status(&local(*port)).is_ok_and(|status| status.leader == Some(*id)) {
                    return Ok(*id);
                }
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("there is no leader after {READY_MAX:?}")
    }

    /// Waits until a replica is ready, and has applied what the leader had applied at this call.
    pub(crate) fn await_caught_up(&mut self, id: u64) -> Result<()> {
        let leader = self.await_leader(None)?;
        let wanted = status(&self.order_address(leader)?)?.applied_index;
        let (address, began) = (self.order_address(id)?, Instant::now());
        self.order(id)?.await_ready(&address)?;
        while began.elapsed() < READY_MAX {
            if status(&address).is_ok_and(|status| wanted <= status.applied_index) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("replica {id} has not caught up after {READY_MAX:?}")
    }

    /// The number of the next order, as the leader reports it.
    pub(crate) fn next_order_number(&self) -> Result<u64> {
        if self.plane == Plane::MutualTls {
            // What the public port shows is younger then.
            thread::sleep(VIEW_AGE);
            let status = public_status(&self.address)?;
            let leads = |process: &&Status| process.id.is_some() && process.id == status.leader;
            let leader = status.processes.iter().find(leads).context("find the leader")?;
            return leader.next_order_number.context("ask for the next order's number");
        }
        let leader = self.order_address(self.await_leader(None)?)?;
        status(&leader)?.next_order_number.context("ask for the next order's number")
    }

    /// The number of orders that a replica reports, if it answers.
    pub(crate) fn orders_of(&self, id: u64) -> Option<u64> {
        status(&self.order_address(id).ok()?).ok()?.next_order_number
    }

    /// The CPU time that all processes have used together.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.processes().map(|(_, process)| process.cpu()).sum()
    }

    /// The CPU time that each process has used, by name.
    pub(crate) fn cpu_of_each(&self) -> Result<Vec<(String, Duration)>> {
        self.processes().map(|(name, process)| Ok((name, process.cpu()?))).collect()
    }

    /// The ids of all processes.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes().map(|(_, process)| process.pid())
    }

    /// The memory of each process, by name, in MB.
    pub(crate) fn memory(&self) -> Result<Vec<(String, f64)>> {
        let each =
            |(name, process): (String, &Process)| Ok((name, machine::memory(process.pid())?));
        self.processes().map(each).collect()
    }

    /// The running processes, by name: replicas first.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (String, &Process)> {
        let orders = self.orders.iter();
        let orders = orders.filter_map(|(id, (_, it))| Some((format!("order {id}"), it.as_ref()?)));
        let catalogs = self.catalogs.iter().map(|(_, process)| ("catalog".to_owned(), process));
        let frontend = self.frontend.iter().map(|process| ("frontend".to_owned(), process));
        orders.chain(catalogs).chain(frontend)
    }

    /// `kill -9` of all replicas. Then the kernel's pages of their files are written and dropped,
    /// so that the next start reads from the disk.
    pub(crate) fn kill_orders_cold(&mut self) -> Result<()> {
        for (_, process) in self.orders.values_mut() {
            *process = None;
        }
        forget(Path::new(&self.folder.path("data")))
    }

    /// True if all replicas are ready at this moment.
    pub(crate) fn orders_are_ready(&self) -> bool {
        self.orders.values().all(|(port, _)| is_ready(&local(*port)))
    }

    /// True if the store accepts an order at this moment.
    pub(crate) fn takes_an_order(&self) -> bool {
        let order = format!(r#"{{"name":"{HOT}","quantity":1,"type":"sell"}}"#);
        let answer = process::ask(&self.address, "POST", "/orders", &order);
        answer.is_ok_and(|(status, _)| status == 200)
    }

    /// The disk space of all replicas, in MB.
    pub(crate) fn disk(&self) -> Result<f64> {
        let mut bytes = 0;
        each_file(Path::new(&self.folder.path("data")), &mut |path| {
            bytes += fs::metadata(path).context("ask for a length")?.len();
            Ok(())
        })?;
        Ok(crate::bench::float(bytes) / f64::from(1 << 20))
    }
}

fn status(address: &str) -> Result<Status> {
    let (_, body) = process::ask(address, "GET", "/status", "")?;
    serde_json::from_str(&body).context("understand /status")
}

fn public_status(address: &str) -> Result<WholeStatus> {
    let (_, body) = process::ask(address, "GET", "/status", "")?;
    serde_json::from_str(&body).context("understand the public /status")
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Ports that are free at this moment: the system assigned them, and they are released together.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let open = |_| TcpListener::bind(("127.0.0.1", 0)).context("take a free port");
    let listeners = (0..count).map(open).collect::<Result<Vec<_>>>()?;
    let port = |it: &TcpListener| Ok(it.local_addr().context("ask for a port")?.port());
    listeners.iter().map(port).collect()
}

fn forget(folder: &Path) -> Result<()> {
    each_file(folder, &mut |path| {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        file.sync_all().with_context(|| format!("sync {}", path.display()))?;
        fadvise(&file, 0, None, Advice::DontNeed).context("let go of cached pages")
    })
}

fn each_file(folder: &Path, act: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        match path.is_dir() {
            true => each_file(&path, act)?,
            false => act(&path)?,
        }
    }
    Ok(())
}

/// A folder in cargo's target folder, so on a real disk; removed when this value is dropped. (A
/// folder for temporary files may be in memory, where a sync costs nothing.)
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        // Removes what a killed bench has left.
        let _ = fs::remove_dir_all(path);
        fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is removed by the next bench.
        let _ = fs::remove_dir_all(&self.0);
    }
}
