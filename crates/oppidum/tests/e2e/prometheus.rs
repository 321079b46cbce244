//! Prometheus itself: it reads a real store, and its alerts fire and resolve.
//!
//! Debian's package `prometheus` has both programs. Where they are missing these tests say
//! `NOT CHECKED`, and fail with `CI=true`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use serde_json::Value;
use wire::dial::Route;
use wire::tls::subject::{CertificateRole, Holder};

use crate::customers::{await_transactions, finish, load, placed};
use crate::harness::{IDS, Plan, SOON, Store, ports, until};

/// Where Debian and other distributions install them.
const FOLDERS: [&str; 2] = ["/usr/bin", "/usr/local/bin"];

const RULES: &str = include_str!("../../../../deploy/prometheus/oppidum.rules.yml");
const DASHBOARD: &str = include_str!("../../../../deploy/grafana/oppidum.json");

/// The path of a program. `None`: it is missing, and a run that must check everything fails.
fn tool(name: &str) -> Option<PathBuf> {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|it| it.exists());
    if found.is_none() {
        eprintln!("!!! NOT CHECKED: {name} is not installed: `apt-get install prometheus` !!!");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{name} is missing");
    }
    found
}

/// Prometheus; ended when dropped.
struct Prometheus {
    child: Child,
    port: u16,
    runtime: tokio::runtime::Runtime,
}

impl Prometheus {
    /// Reads every process of a locked store each second, with these rules.
    fn start(program: &Path, store: &Store, rules: &str) -> Self {
        let [port, _] = ports();
        let folder = store.folder().join("prometheus");
        std::fs::create_dir_all(&folder).unwrap();
        store.authority().issue(("monitor", "prom"), "oppidum", 3000);
        let tls = store.authority().folder();
        let targets = IDS.map(|id| store.order_port(id)).into_iter();
        let targets = targets.chain([store.catalog_port(0), store.internal_port(0)]);
        let targets: Vec<String> = targets.map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n\
             - job_name: oppidum\n  \
               scheme: https\n  \
               tls_config: {{ca_file: {tls}/ca.pem, cert_file: {tls}/monitor-prom.pem, \
                             key_file: {tls}/monitor-prom.key}}\n  \
               static_configs: [{{targets: [{}]}}]\n",
            targets.join(", ")
        );
        std::fs::write(folder.join("rules.yml"), rules).unwrap();
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let err = std::fs::File::create(folder.join("err")).unwrap();
        let mut command = Command::new(program);
        command.current_dir(&folder).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--log.level=warn",
            &format!("--web.listen-address=127.0.0.1:{port}"),
        ]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err).spawn().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { child, port, runtime }
    }

    /// The `data` of an answer of its API.
    fn ask(&self, path: &str) -> Option<Value> {
        let address = format!("127.0.0.1:{}", self.port);
        let route = Route::plaintext();
        let asking = wire::status::get(&route, &address, path, SOON);
        let answer = self.runtime.block_on(asking).ok()?;
        let answer: Value = serde_json::from_slice(&answer).ok()?;
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        Some(answer["data"].clone())
    }

    /// The samples that an expression has now.
    fn query(&self, expression: &str) -> Vec<Value> {
        let expression = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.ask(&format!("/api/v1/query?query={expression}"));
        data.and_then(|data| data["result"].as_array().cloned()).unwrap_or_default()
    }

    /// The alerts that fire.
    fn firing(&self) -> BTreeSet<String> {
        let alerts = self.ask("/api/v1/alerts").map(|data| data["alerts"].clone());
        let alerts = alerts.as_ref().and_then(Value::as_array).into_iter().flatten();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect()
    }

    /// The names of all metrics that it has samples of.
    fn names(&self) -> BTreeSet<String> {
        let all = "count by (__name__) (last_over_time({__name__=~\"oppidum_.+|process_.+\"}[2m]))";
        let names = self.query(all);
        let names = names.iter().filter_map(|sample| sample["metric"]["__name__"].as_str());
        names.map(str::to_owned).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself; the folder is removed afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The queries of the dashboard, for the span of this test.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.filter_map(|target| target["expr"].as_str());
    queries.map(|query| query.replace("$__rate_interval", "30s")).collect()
}

/// The names of metrics in a text.
fn names_in(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let is_name = |word: &&str| word.starts_with("oppidum_") || word.starts_with("process_");
    words.filter(is_name).map(str::to_owned)
}

#[test]
fn every_alert_and_every_panel_has_samples_and_no_leader_fires_and_resolves() {
    let Some(program) = tool("prometheus") else { return };
    let mut store = Store::start(Plan { locked: true, ..Plan::stock() });
    let rules = RULES.replace("for: 15s", "for: 1s");
    assert_ne!(rules, RULES, "NoLeader waits for 15 s");
    let prometheus = Prometheus::start(&program, &store, &rules);
    until("Prometheus reads all five processes", || {
        (prometheus.query("up == 1").len() == 5).then_some(())
    });
    let mut load = load(&store, &["--clients", "3", "--requests", "100000", "-p", "0.8"]);
    await_transactions(&load, 30);
    store.kill(456);
    await_transactions(&load, placed(&load) + 30);
    store.start_order(456, &[]);
    store.await_all_ready();
    let expressions = RULES.lines().filter(|line| !line.trim_start().starts_with('#'));
    let of_rules = expressions.flat_map(names_in);
    let wanted: BTreeSet<String> = of_rules.chain(names_in(DASHBOARD)).collect();
    assert!(40 < wanted.len(), "{wanted:?}");
    until("every metric has samples", || wanted.is_subset(&prometheus.names()).then_some(()));
    // A comparison has samples only while it holds.
    for query in queries().iter().filter(|query| !query.contains("==")) {
        until(&format!("{query} has samples"), || {
            // A quotient of nothing is a sample, too, of which a panel shows nothing.
            let samples = prometheus.query(query);
            samples.iter().any(|sample| sample["value"][1] != "NaN").then_some(())
        });
    }
    finish(&mut load);
    // On a busy machine the failover may have taken longer than its second.
    until("NoLeader is silent", || (!prometheus.firing().contains("NoLeader")).then_some(()));
    // A leader whose followers are suspended goes on leading none.
    let leader = store.await_leader(None);
    let followers = IDS.into_iter().filter(|id| *id != leader);
    followers.clone().for_each(|id| store.order(id).signal(Signal::STOP));
    until("NoLeader fires", || prometheus.firing().contains("NoLeader").then_some(()));
    followers.for_each(|id| store.order(id).signal(Signal::CONT));
    store.await_leader(None);
    until("NoLeader resolves", || (!prometheus.firing().contains("NoLeader")).then_some(()));
}

#[test]
fn promtool_accepts_each_page_and_the_rules_pass_their_tests() {
    let Some(promtool) = tool("promtool") else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus");
    for arguments in
        [["test", "rules", "oppidum.rules.test.yml"], ["check", "config", "prometheus.yml"]]
    {
        let ended = Command::new(&promtool).current_dir(&folder).args(arguments).output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
    }
    let store = Store::start(Plan::stock());
    store.buy("GameStart", 1);
    let role = |role| Holder::Any(role);
    let processes = [
        (Holder::Replica(456), store.order_port(456)),
        (Holder::Replica(123), store.order_port(123)),
        (role(CertificateRole::Catalog), store.catalog_port(0)),
        (role(CertificateRole::Frontend), store.internal_port(0)),
    ];
    for (process, port) in processes {
        let page = store.metrics(process, port);
        let mut command = Command::new(&promtool);
        command.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut check = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let ended = check.wait_with_output().unwrap();
        assert!(ended.status.success(), "{process}: {ended:?}\n{page}");
    }
}
