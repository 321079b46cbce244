//! A whole store, each process started by hand, so that a test can kill and restart any of them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wire::tls::subject::{CertificateRole, Holder};

use super::disk::{PREFIX, clear_left_behind};
use super::lock::{CUSTOMERS, CUSTOMERS_SCOPES, Lock};
use super::ports::free_ports;
use super::{
    Authority, Connection, Disk, Ended, Process, Reply, SOON, ask, get, run, run_in, until,
};

/// The replicas' ids, lowest first.
pub(crate) const IDS: [u64; 3] = [123, 345, 456];

/// The kind of store that a test needs.
pub(crate) struct Plan {
    pub(crate) dialect: &'static str,
    /// `stock`, `toy`, or a file.
    pub(crate) shop: String,
    pub(crate) frontends: usize,
    pub(crate) catalogs: usize,
    pub(crate) cache: &'static str,
    /// A rule of the watch protocol that every process breaks on purpose.
    pub(crate) rule: Option<&'static str>,
    /// Flags that each replica is started with, each time.
    pub(crate) flags: &'static [&'static str],
    /// Certificates for all processes and tools, and an API key for every client.
    pub(crate) locked: bool,
}

impl Plan {
    /// The stock bazaar.
    pub(crate) fn stock() -> Self {
        Self {
            dialect: "stock",
            shop: "stock".into(),
            frontends: 1,
            catalogs: 1,
            cache: "5",
            rule: None,
            flags: &[],
            locked: false,
        }
    }

    /// The toy store.
    pub(crate) fn toy() -> Self {
        Self { dialect: "toy", shop: "toy".into(), ..Self::stock() }
    }
}

impl Plan {
    fn break_rule(&self, arguments: &mut Vec<String>) {
        let rule = self.rule.into_iter().flat_map(|rule| ["--break-rule", rule]);
        arguments.extend(rule.map(str::to_owned));
    }
}

/// A running store. Every process is killed and every file removed when it is dropped.
pub(crate) struct Store {
    plan: Plan,
    pub(super) orders: Vec<(u64, u16, Option<Process>)>,
    pub(super) catalogs: Vec<(u16, Option<Process>)>,
    pub(super) frontends: Vec<(u16, u16, Option<Process>)>,
    pub(super) lock: Option<Lock>,
    /// Words of defects that processes may log, because a test caused them.
    pub(super) excused: Vec<&'static str>,
    /// The replicas' dedicated disks, if any. Dropped after the processes, so that no process uses
    /// them when they are unmounted.
    disks: Vec<Disk>,
    // Last: removed when no process writes into it any more.
    folder: TempDir,
}

impl Store {
    /// Starts a store and waits until it accepts orders, led by 456.
    pub(crate) fn start(plan: Plan) -> Self {
        let mut store = Self::prepare(plan);
        store.start_all();
        store
    }

    /// Prepares replicas with other ids.
    pub(crate) fn replace_orders(&mut self, ids: &[u64]) {
        let ports = free_ports(ids.len()).into_iter();
        self.orders = ids.iter().zip(ports).map(|(id, port)| (*id, port, None)).collect();
        for id in ids {
            self.certify(*id);
        }
    }

    /// Starts everything that was prepared, and waits until it accepts orders.
    pub(crate) fn start_all(&mut self) {
        for index in 0..self.catalogs.len() {
            self.start_catalog(index);
        }
        for id in self.orders.iter().map(|(id, ..)| *id).collect::<Vec<_>>() {
            self.start_order(id, &[]);
        }
        for index in 0..self.frontends.len() {
            self.start_frontend(index);
        }
        self.await_open();
        self.replace_root_key();
    }

    /// Ports and a folder, before any process is started.
    pub(crate) fn prepare(plan: Plan) -> Self {
        let mut ports = free_ports(3 + plan.catalogs + 2 * plan.frontends).into_iter();
        let mut port = || ports.next().unwrap();
        let folder = folder();
        let store = Self {
            orders: IDS.map(|id| (id, port(), None)).into(),
            catalogs: (0..plan.catalogs).map(|_| (port(), None)).collect(),
            frontends: (0..plan.frontends).map(|_| (port(), port(), None)).collect(),
            lock: plan.locked.then(|| Lock::prepare(folder.path())),
            excused: Vec::new(),
            disks: Vec::new(),
            folder,
            plan,
        };
        for index in 0..store.frontends.len() {
            store.admit_customers(store.port_of(index));
        }
        store
    }

    /// From now on requests to this frontend carry the customers' API key, if the store is locked.
    pub(super) fn admit_customers(&self, port: u16) {
        if let Some(lock) = &self.lock {
            lock.admit(port);
        }
    }

    /// Gives a new replica of a locked store its certificate.
    fn certify(&self, id: u64) {
        if let Some(lock) = &self.lock {
            lock.authority.issue(("order", &id.to_string()), "oppidum", 3000);
        }
    }

    /// The authority of a locked store.
    pub(crate) fn authority(&self) -> &Authority {
        &self.lock.as_ref().expect("the store is locked").authority
    }

    /// Waits until all replicas are ready, 456 leads, and every frontend serves.
    pub(crate) fn await_open(&self) {
        self.await_leader(Some(456));
        self.await_all_ready();
        self.await_frontends();
    }

    /// Waits until every frontend serves customers.
    fn await_frontends(&self) {
        for (port, ..) in &self.frontends {
            until("a frontend lists the shop", || {
                let reply = Connection::open(*port).ok()?.ask("GET", "/products", &[], "").ok()?;
                (reply.status == 200).then_some(())
            });
        }
    }

    /// The customers of a locked store get an API key of their own in place of the root key.
    fn replace_root_key(&mut self) {
        if self.lock.is_none() {
            return;
        }
        let issue = ["ctl", "key", "issue", CUSTOMERS, "--as", CUSTOMERS_SCOPES];
        let issued = self.run(&issue);
        assert_eq!(issued.code, Some(0), "{issued:?}");
        if let Some(lock) = &mut self.lock {
            lock.replace_key(issued.stdout.trim());
        }
        self.await_frontends();
    }

    fn peers(&self) -> String {
        let peers = self.orders.iter().map(|(id, port, _)| format!("{id}=127.0.0.1:{port}"));
        peers.collect::<Vec<_>>().join(",")
    }

    pub(crate) fn start_order(&mut self, id: u64, more: &[&str]) {
        self.start_order_with(id, &[], more);
    }

    /// The same, with environment variables.
    pub(crate) fn start_order_with(&mut self, id: u64, variables: &[(&str, &str)], more: &[&str]) {
        let (id_text, peers) = (id.to_string(), self.peers());
        let (data, shop) = (self.folder.path().join("data"), self.plan.shop.clone());
        let data = data.to_str().unwrap();
        let mut arguments =
            strings(&["order", "--id", &id_text, "--orders", &peers, "--data", data]);
        arguments.extend(strings(&["--shop", &shop]));
        arguments.extend(strings(self.plan.flags));
        arguments.extend(strings(more));
        self.plan.break_rule(&mut arguments);
        let name = format!("order-{id}");
        let process = Process::start_with(&name, self.folder.path(), variables, &arguments);
        *self.order_slot(id) = Some(process);
    }

    pub(crate) fn start_catalog(&mut self, index: usize) {
        let (listen, peers) = (format!("127.0.0.1:{}", self.catalogs[index].0), self.peers());
        let mut arguments = strings(&[
            "catalog",
            "--listen",
            &listen,
            "--orders",
            &peers,
            "--restock-seconds",
            "0.5",
        ]);
        self.plan.break_rule(&mut arguments);
        let process = Process::start(&format!("catalog-{index}"), self.folder.path(), &arguments);
        self.catalogs[index].1 = Some(process);
    }

    pub(crate) fn start_frontend(&mut self, index: usize) {
        let (public, internal, _) = &self.frontends[index];
        let (public, internal) = (public.to_string(), format!("127.0.0.1:{internal}"));
        let catalogs = self.catalogs.iter().map(|(port, _)| format!("127.0.0.1:{port}"));
        let (catalogs, peers) = (catalogs.collect::<Vec<_>>().join(","), self.peers());
        let (cache, dialect) = (self.plan.cache, self.plan.dialect);
        let mut arguments = strings(&[
            "frontend",
            "--host",
            "127.0.0.1",
            "--port",
            &public,
            "--internal",
            &internal,
            "--catalogs",
            &catalogs,
            "--orders",
            &peers,
            "--cache",
            cache,
            "--dialect",
            dialect,
            "--public-status",
            "full",
            "--gateways",
            "loopback",
        ]);
        self.plan.break_rule(&mut arguments);
        let process = Process::start(&format!("frontend-{index}"), self.folder.path(), &arguments);
        self.frontends[index].2 = Some(process);
    }

    /// Starts an additional replica, with an empty folder: it waits to be added.
    pub(crate) fn join_order(&mut self, id: u64, more: &[&str]) {
        self.orders.push((id, free_ports(1)[0], None));
        self.certify(id);
        self.start_order(id, &[more, &["--join"]].concat());
        self.order(id).says("waiting to be added");
    }

    /// Forgets a removed replica: the store no longer waits for it.
    pub(crate) fn drop_order(&mut self, id: u64) {
        self.orders.retain(|(own, ..)| *own != id);
    }

    /// The address of a replica.
    pub(crate) fn order_address(&self, id: u64) -> String {
        let found = self.orders.iter().find(|(own, ..)| *own == id);
        found.map_or_else(|| "127.0.0.1:9".to_owned(), |(_, port, _)| format!("127.0.0.1:{port}"))
    }

    /// The folder that holds the replicas' folders.
    pub(crate) fn all_data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn order_slot(&mut self, id: u64) -> &mut Option<Process> {
        let found = self.orders.iter_mut().find(|(own, ..)| *own == id);
        &mut found.unwrap().2
    }

    /// A replica's process.
    pub(crate) fn order(&self, id: u64) -> &Process {
        let found = self.orders.iter().find(|(own, ..)| *own == id).unwrap();
        found.2.as_ref().unwrap()
    }

    pub(crate) fn catalog(&mut self, index: usize) -> &mut Process {
        self.catalogs[index].1.as_mut().unwrap()
    }

    pub(crate) fn frontend(&mut self, index: usize) -> &mut Process {
        self.frontends[index].2.as_mut().unwrap()
    }

    /// `kill -9` of a replica.
    pub(crate) fn kill(&mut self, id: u64) {
        self.order_slot(id).as_mut().unwrap().kill();
    }

    /// SIGTERM to a replica; its exit code.
    pub(crate) fn stop(&mut self, id: u64) -> Option<i32> {
        let process = self.order_slot(id).as_mut().unwrap();
        process.signal(rustix::process::Signal::TERM);
        process.wait()
    }

    /// Waits for a replica to end by itself; its exit code.
    pub(crate) fn end_of(&mut self, id: u64) -> Option<i32> {
        self.order_slot(id).as_mut().unwrap().wait()
    }

    /// Gives each replica a dedicated disk, before it is started; or returns the reason why not.
    pub(crate) fn mount_disks(&mut self) -> Result<(), String> {
        clear_left_behind();
        for id in IDS {
            let image = self.folder.path().join(format!("order-{id}.img"));
            self.disks.push(Disk::make(&self.data(id), &image)?);
        }
        Ok(())
    }

    /// The disk of a replica.
    pub(crate) fn disk(&self, id: u64) -> &Disk {
        &self.disks[IDS.iter().position(|own| *own == id).unwrap()]
    }

    /// Cuts the power of these replicas at one moment: no process writes any more, unsynced bytes
    /// are lost, and no connection is closed in order. They can be started again.
    pub(crate) fn cut_power(&mut self, ids: &[u64]) {
        for id in ids {
            self.order(*id).signal(rustix::process::Signal::STOP);
        }
        Disk::cut(&ids.iter().map(|id| self.disk(*id)).collect::<Vec<_>>());
        for id in ids {
            self.kill(*id);
            self.disk(*id).again();
        }
    }

    /// True when each replica has a dedicated disk.
    pub(crate) fn has_disks(&self) -> bool {
        self.disks.len() == IDS.len()
    }

    /// The data folder of a replica.
    pub(crate) fn data(&self, id: u64) -> PathBuf {
        self.all_data().join(format!("order-{id}"))
    }

    /// Switches these faults on in a replica that has `--fault switches`, and all others off.
    pub(crate) fn switch(&self, id: u64, faults: &str) {
        let file = self.data(id).with_extension("faults");
        let new = file.with_extension("new");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&new, faults).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// From now on processes may log defects with these words.
    pub(crate) fn excuse(&mut self, words: &'static str) {
        self.excused.push(words);
    }

    /// True when a replica has ended, by itself or not.
    pub(crate) fn has_ended(&mut self, id: u64) -> bool {
        self.order_slot(id).as_mut().unwrap().has_ended()
    }

    /// The number of catalogs.
    pub(crate) fn catalogs(&self) -> usize {
        self.catalogs.len()
    }

    /// The public port of the first frontend.
    pub(crate) fn port(&self) -> u16 {
        self.frontends[0].0
    }

    /// The public port of a frontend.
    pub(crate) fn port_of(&self, index: usize) -> u16 {
        self.frontends[index].0
    }

    /// The internal port of a replica.
    pub(crate) fn order_port(&self, id: u64) -> u16 {
        self.orders.iter().find(|(own, ..)| *own == id).unwrap().1
    }

    /// The port of a catalog.
    pub(crate) fn catalog_port(&self, index: usize) -> u16 {
        self.catalogs[index].0
    }

    /// The URL of the first frontend.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The folder that holds everything of this store.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a client command against the store.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let url = self.url();
        let arguments = [arguments, &["--url", &url]].concat();
        // Tools of a locked store find the operator's certificate and their API key there.
        if self.lock.is_some() { run_in(self.folder(), &[], &arguments) } else { run(&arguments) }
    }

    /// Buys on the first frontend, and expects success; returns the order number.
    pub(crate) fn buy(&self, name: &str, quantity: u64) -> u64 {
        let body = format!(r#"{{"name":"{name}","quantity":{quantity},"type":"buy"}}"#);
        let reply = ask(self.port(), "POST", "/orders", &[], &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.number()
    }

    /// Sends an order with an idempotency key to the first frontend.
    pub(crate) fn post_with_key(&self, key: &str, body: &str) -> Reply {
        ask(self.port(), "POST", "/orders", &[("Idempotency-Key", key)], body)
    }

    /// Sends a GET to the first frontend.
    pub(crate) fn get(&self, path: &str) -> Reply {
        get(self.port(), path)
    }

    /// The internal port of a frontend.
    pub(crate) fn internal_port(&self, index: usize) -> u16 {
        self.frontends[index].1
    }

    /// The Prometheus metrics of a frontend.
    pub(crate) fn frontend_metrics(&self, index: usize) -> String {
        self.metrics(Holder::Any(CertificateRole::Frontend), self.internal_port(index))
    }

    /// The Prometheus metrics of a process, by its internal port.
    pub(crate) fn metrics(&self, of: Holder, port: u16) -> String {
        let Some(lock) = &self.lock else { return get(port, "/metrics").body };
        lock.page(of, port, "/metrics").unwrap()
    }

    /// A product's stock, from the first frontend.
    pub(crate) fn stock(&self, name: &str) -> u64 {
        let reply = self.get(&format!("/products/{name}"));
        reply.json()["data"]["quantity"].as_u64().unwrap_or_else(|| panic!("{reply:?}"))
    }
}

impl Drop for Store {
    /// A process cannot die while its disk is frozen.
    fn drop(&mut self) {
        for disk in &self.disks {
            disk.thaw_if_frozen();
        }
    }
}

/// A folder named after this process, so that a later run can remove what was left behind.
fn folder() -> TempDir {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().unwrap()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A little less than a frontend's timeout of five seconds: an earlier rejection is a decision, not
/// a timeout. No test checks how fast it is.
pub(crate) const REFUSED_WITHIN: std::time::Duration = std::time::Duration::from_secs(4);

const _: () = assert!(REFUSED_WITHIN.as_millis() < SOON.as_millis());
