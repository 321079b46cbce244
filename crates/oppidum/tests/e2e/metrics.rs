//! `GET /metrics` of each process: the table of the reference, and numbers that are true.

use std::collections::{BTreeMap, BTreeSet};

use wire::tls::subject::{CertificateRole, Holder};

use crate::harness::{Connection, IDS, Plan, Store, ask, until};

/// The table of metrics.
const REFERENCE: &str = include_str!("../../../../docs/reference.md");

/// The most series of a process.
const SERIES_MAX: usize = 400;

const BUY: &str = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
const BUY_ALL: &str = r#"{"name":"GameStart","quantity":1000000,"type":"buy"}"#;
const BUY_NOTHING: &str = r#"{"name":"Nothing","quantity":1,"type":"buy"}"#;

/// A row of the reference.
#[derive(Debug)]
struct Row {
    name: &'static str,
    kind: &'static str,
    labels: BTreeSet<&'static str>,
    processes: BTreeSet<&'static str>,
}

fn rows() -> Vec<Row> {
    let section = REFERENCE.split("\n## Metrics\n").nth(1).unwrap();
    let lines = section.split("\n## ").next().unwrap().lines();
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`');
        let kind = cells.next()?;
        let mut words = || {
            let cell = cells.next().unwrap_or_default();
            cell.split(", ").filter(|word| !word.is_empty()).collect()
        };
        Some(Row { name, kind, labels: words(), processes: words() })
    };
    lines.filter_map(row).collect()
}

/// A page of metrics, read.
#[derive(Debug)]
struct Page {
    /// The type of each metric.
    kinds: BTreeMap<String, String>,
    /// The value of each series, by its text.
    series: BTreeMap<String, String>,
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self { kinds: BTreeMap::new(), series: BTreeMap::new() };
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap();
                let before = page.kinds.insert(name.into(), kind.into());
                assert_eq!(before, None, "{name} stands twice on the page");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let before = page.series.insert(series.into(), value.into());
                assert_eq!(before, None, "{series} stands twice on the page");
            }
        }
        page
    }

    /// The whole number of a series; 0 if it is not there yet.
    fn count(&self, series: &str) -> u64 {
        self.series.get(series).map_or(0, |value| value.parse().unwrap())
    }

    /// The sum of a histogram.
    fn sum(&self, series: &str) -> f64 {
        self.series[series].parse().unwrap()
    }

    /// The series of one metric, each with the names of its labels.
    fn labels_of(&self, name: &str) -> Vec<BTreeSet<&str>> {
        let of_metric = self.series.keys().filter_map(|series| {
            let (own, labels) = series.split_once('{').unwrap_or((series, ""));
            let ends = ["", "_bucket", "_sum", "_count"];
            ends.iter().any(|end| own.strip_suffix(end) == Some(name)).then_some(labels)
        });
        let names = of_metric.map(|labels| {
            let pairs = labels.trim_end_matches('}').split("\",");
            let names = pairs.filter_map(|pair| pair.split_once("=\"")).map(|(name, _)| name);
            names.filter(|name| *name != "le").collect()
        });
        names.collect()
    }
}

/// The page of a replica.
fn replica(store: &Store, id: u64) -> Page {
    Page::parse(&store.metrics(Holder::Replica(id), store.order_port(id)))
}

fn frontend(store: &Store) -> Page {
    Page::parse(&store.frontend_metrics(0))
}

fn catalog(store: &Store) -> Page {
    Page::parse(&store.metrics(Holder::Any(CertificateRole::Catalog), store.catalog_port(0)))
}

#[test]
fn each_process_shows_the_metrics_of_the_reference_and_no_other() {
    let store = Store::start(Plan { locked: true, ..Plan::stock() });
    let ended = store.run(&["load", "--clients", "4", "--requests", "25", "-p", "0.9"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let rows = rows();
    assert!(40 < rows.len(), "{rows:?}");
    let pages = [
        (&["all", "replica", "leader"][..], replica(&store, 456)),
        (&["all", "replica"], replica(&store, 123)),
        (&["all", "catalog"], catalog(&store)),
        (&["all", "frontend"], frontend(&store)),
    ];
    for (roles, page) in pages {
        let own = || rows.iter().filter(|row| roles.iter().any(|it| row.processes.contains(it)));
        let expected: BTreeMap<_, _> =
            own().map(|row| (row.name.to_owned(), row.kind.to_owned())).collect();
        assert_eq!(page.kinds, expected, "of {roles:?}");
        for row in own() {
            let found = page.labels_of(row.name);
            assert!(!found.is_empty(), "{} has no series", row.name);
            assert!(found.iter().all(|labels| *labels == row.labels), "{row:?}: {found:?}");
        }
        for secret in ["GameStart", "customers", "anna", "127.0.0.1", "opk_"] {
            let shown = page.series.keys().find(|series| series.contains(secret));
            assert_eq!(shown, None, "{secret}");
        }
        assert!(page.series.len() <= SERIES_MAX, "{} series of {roles:?}", page.series.len());
    }
}

/// An outcome counted twice, or under another name than the client is told.
#[test]
fn orders_are_counted_once_each_by_the_outcome_that_their_clients_are_told() {
    let mut store = Store::start(Plan { locked: true, ..Plan::stock() });
    let before = frontend(&store);
    let with = |key: &str, body: &str| store.post_with_key(key, body).status;
    assert_eq!([with("a", BUY), with("a", BUY), with("a", BUY_ALL)], [200, 200, 422]);
    assert_eq!([with("b", BUY_ALL), with("c", BUY_NOTHING), with("d", "{}")], [409, 404, 400]);
    let batch = format!(
        r#"{{"orders":[{},{},{{}}]}}"#,
        BUY.replace("\"type\"", "\"key\":\"e\",\"type\""),
        BUY_ALL.replace("\"type\"", "\"key\":\"f\",\"type\""),
    );
    assert_eq!(ask(store.port(), "POST", "/v1/orders/batch", &[], &batch).status, 200);
    assert_eq!(store.get("/orders/0").status, 200);
    assert_eq!(store.get("/stocks/GameStart").status, 200);
    let bad = [("Authorization", "Bearer opk_nonsense")];
    assert_eq!(ask(store.port(), "GET", "/stocks/GameStart", &bad, "").status, 401);
    assert_eq!(Connection::open(store.port()).unwrap().raw(b"what?\r\n\r\n").unwrap().status, 400);
    // The connection of a malformed request is logged after its answer.
    let after = until("all requests are counted", || {
        let page = frontend(&store);
        let malformed =
            page.count(r#"oppidum_http_requests_total{route="malformed",status="400"}"#);
        (malformed == 1).then_some(page)
    });
    let rise = |series: &str| after.count(series) - before.count(series);
    for (outcome, count) in [
        ("placed", 2),
        ("replayed", 1),
        ("key_reused", 1),
        ("out_of_stock", 2),
        ("no_such_product", 1),
        ("late", 0),
        ("not_allowed", 0),
        ("other_refusal", 0),
        ("overloaded", 0),
        ("unavailable", 0),
        ("unknown", 0),
    ] {
        let series = format!("oppidum_orders_total{{outcome=\"{outcome}\"}}");
        assert_eq!(rise(&series), count, "{series}");
    }
    for (route, status, count) in [
        ("orders", 200, 2),
        ("orders", 422, 1),
        ("orders", 409, 1),
        ("orders", 404, 1),
        ("orders", 400, 1),
        ("batch", 200, 1),
        ("order", 200, 1),
        ("product", 200, 1),
        ("product", 401, 1),
    ] {
        let labels = format!("route=\"{route}\",status=\"{status}\"");
        let series = format!("oppidum_http_requests_total{{{labels}}}");
        assert_eq!(rise(&series), count, "{series}");
    }
    let orders = "oppidum_http_request_duration_seconds_count{route=\"orders\"}";
    assert_eq!(rise(orders), 6);
    assert_eq!(rise("oppidum_requests_denied_total{reason=\"no_api_key\"}"), 1);
    for id in [345, 456] {
        store.kill(id);
    }
    let unavailable = "oppidum_orders_total{outcome=\"unavailable\"}";
    until("an order is refused for want of a majority", || {
        (ask(store.port(), "POST", "/orders", &[], BUY).status == 503).then_some(())
    });
    assert!(1 <= frontend(&store).count(unavailable));
}

#[test]
fn replicas_count_the_waits_of_orders_and_a_failover() {
    let mut store = Store::start(Plan::stock());
    let ended = store.run(&["load", "--clients", "4", "--requests", "25", "-p", "1"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let placed = frontend(&store).count("oppidum_orders_total{outcome=\"placed\"}");
    assert!(50 < placed, "{placed}");
    let leader = replica(&store, 456);
    for stage in ["queue", "log"] {
        let waits = format!("oppidum_order_wait_seconds_count{{stage=\"{stage}\"}}");
        assert!(placed <= leader.count(&waits), "{waits}");
    }
    // The last answers are counted after they are sent.
    until("the waits for settling are counted", || {
        let settled = "oppidum_order_wait_seconds_count{stage=\"settled\"}";
        (placed <= replica(&store, 456).count(settled)).then_some(())
    });
    assert!(1 <= leader.count("oppidum_entry_orders_count"));
    assert!(50.0 < leader.sum("oppidum_entry_orders_sum"));
    assert!(50.0 * 27.0 < leader.sum("oppidum_entry_bytes_sum"), "27 bytes an order, and its name");
    for id in IDS {
        let page = replica(&store, id);
        let leads = (page.count("oppidum_has_leader"), page.count("oppidum_is_leader"));
        assert_eq!(leads, (1, u64::from(id == 456)));
        assert!(1 <= page.count("oppidum_log_sync_duration_seconds_count"), "{id}");
        assert_eq!(page.count("oppidum_voters"), 3);
        assert!(1 <= page.count("oppidum_data_bytes{kind=\"log\"}"));
        let failovers = page.count("oppidum_failover_duration_seconds_count");
        assert_eq!(failovers, 0, "no leader was lost yet");
    }
    store.kill(456);
    store.await_leader(Some(345));
    for id in [123, 345] {
        let page = until("the failover is counted", || {
            let page = replica(&store, id);
            (page.count("oppidum_failover_duration_seconds_count") == 1).then_some(page)
        });
        assert_eq!(page.count("oppidum_leader_changes_total"), 2);
        let took = page.sum("oppidum_failover_duration_seconds_sum");
        assert!(0.0 < took && took < 30.0, "{took}");
    }
}
