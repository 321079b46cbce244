//! The dashboard for Grafana: written from the table below into `deploy/grafana/oppidum.json`.
//!
//! Each panel has a title, a unit and its queries, each with the name of its lines. The folder of
//! Prometheus beside it has the alerts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The file, relative to the workspace.
pub(crate) const FILE: &str = "deploy/grafana/oppidum.json";

/// A row: its title, and its panels.
type Row = (&'static str, &'static [Panel]);

/// A panel: its title, Grafana's name of its unit, and its queries.
type Panel = (&'static str, &'static str, &'static [Query]);

/// A query in Prometheus's language, and the name of its lines.
type Query = (&'static str, &'static str);

const ROWS: [Row; 4] = [
    (
        "Clients",
        &[
            (
                "Requests",
                "reqps",
                &[(
                    "sum by (route, status) (rate(oppidum_http_requests_total[$__rate_interval]))",
                    "{{route}} {{status}}",
                )],
            ),
            (
                "Time of orders",
                "s",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(\
                         oppidum_http_request_duration_seconds_bucket{route=\"orders\"}\
                         [$__rate_interval])))",
                        "half",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(\
                         oppidum_http_request_duration_seconds_bucket{route=\"orders\"}\
                         [$__rate_interval])))",
                        "99 of 100",
                    ),
                ],
            ),
            (
                "Orders",
                "ops",
                &[(
                    "sum by (outcome) (rate(oppidum_orders_total[$__rate_interval]))",
                    "{{outcome}}",
                )],
            ),
            (
                "Denied requests, refused connections",
                "ops",
                &[
                    (
                        "sum by (reason) (rate(oppidum_requests_denied_total[$__rate_interval]))",
                        "{{reason}}",
                    ),
                    (
                        "sum by (listener) \
                         (rate(oppidum_connections_refused_total[$__rate_interval]))",
                        "connections, {{listener}}",
                    ),
                ],
            ),
            (
                "Connections",
                "percentunit",
                &[("oppidum_connections / oppidum_connections_limit", "{{instance}} {{listener}}")],
            ),
            (
                "Queues",
                "percentunit",
                &[("oppidum_queue_length / oppidum_queue_limit", "{{instance}} {{queue}}")],
            ),
        ],
    ),
    (
        "Leader",
        &[
            (
                "Leader",
                "short",
                &[
                    ("oppidum_is_leader == 1", "{{instance}} leads"),
                    ("oppidum_has_leader == 0", "{{instance}} has no leader"),
                ],
            ),
            (
                "Waits of orders, 99 of 100",
                "s",
                &[(
                    "histogram_quantile(0.99, sum by (le, stage) \
                     (rate(oppidum_order_wait_seconds_bucket[$__rate_interval])))",
                    "{{stage}}",
                )],
            ),
            (
                "Entries",
                "short",
                &[
                    (
                        "sum(rate(oppidum_entry_orders_sum[$__rate_interval])) / \
                         sum(rate(oppidum_entry_orders_count[$__rate_interval]))",
                        "orders of an entry",
                    ),
                    (
                        "sum(rate(oppidum_entry_bytes_sum[$__rate_interval])) / \
                         sum(rate(oppidum_entry_bytes_count[$__rate_interval]))",
                        "bytes of an entry",
                    ),
                ],
            ),
            (
                "Changes and failovers",
                "short",
                &[
                    ("max(increase(oppidum_leader_changes_total[10m]))", "changes in 10 minutes"),
                    (
                        "sum(increase(oppidum_failover_duration_seconds_sum[10m])) / \
                         sum(increase(oppidum_failover_duration_seconds_count[10m]))",
                        "seconds of a failover",
                    ),
                ],
            ),
        ],
    ),
    (
        "Replicas",
        &[
            ("Lag", "short", &[("oppidum_replication_lag_entries", "{{peer}}")]),
            (
                "Syncs of the log, 99 of 100",
                "s",
                &[(
                    "histogram_quantile(0.99, sum by (le, instance) \
                     (rate(oppidum_log_sync_duration_seconds_bucket[$__rate_interval])))",
                    "{{instance}}",
                )],
            ),
            (
                "Entries per second",
                "ops",
                &[
                    ("deriv(oppidum_applied_index[$__rate_interval])", "{{instance}} applied"),
                    ("deriv(oppidum_settled_index[$__rate_interval])", "{{instance}} settled"),
                ],
            ),
            (
                "Unapplied entries; voters",
                "short",
                &[
                    ("oppidum_committed_index - oppidum_applied_index", "{{instance}}"),
                    ("max(oppidum_voters)", "voters"),
                ],
            ),
            (
                "Disk",
                "bytes",
                &[
                    ("oppidum_disk_free_bytes", "{{instance}} free"),
                    ("oppidum_disk_reserve_bytes", "{{instance}} reserve"),
                    ("oppidum_data_bytes", "{{instance}} {{kind}}"),
                ],
            ),
            (
                "Idempotency keys",
                "percentunit",
                &[(
                    "oppidum_idempotency_keys / oppidum_idempotency_keys_limit",
                    "{{instance}} {{window}}",
                )],
            ),
            (
                "Idempotency memory",
                "s",
                &[("oppidum_idempotency_memory_seconds", "{{instance}} {{window}}")],
            ),
        ],
    ),
    (
        "Caches and processes",
        &[
            (
                "Queries of the cache",
                "ops",
                &[
                    ("sum(rate(oppidum_cache_hits_total[$__rate_interval]))", "hits"),
                    ("sum(rate(oppidum_cache_misses_total[$__rate_interval]))", "misses"),
                    ("sum(rate(oppidum_cache_coalesced_total[$__rate_interval]))", "coalesced"),
                    ("sum(rate(oppidum_cache_lapsed_total[$__rate_interval]))", "without a lease"),
                    ("sum(rate(oppidum_cache_waited_total[$__rate_interval]))", "waited"),
                    ("sum(rate(oppidum_cache_refused_total[$__rate_interval]))", "orders refused"),
                ],
            ),
            (
                "Products of the cache",
                "ops",
                &[
                    ("sum(rate(oppidum_cache_invalidated_total[$__rate_interval]))", "changed"),
                    ("sum(rate(oppidum_cache_evicted_total[$__rate_interval]))", "evicted"),
                    ("sum(rate(oppidum_cache_rejected_total[$__rate_interval]))", "too old"),
                ],
            ),
            (
                "Leases; watchers",
                "short",
                &[
                    ("oppidum_cache_lease_seconds", "{{instance}} lease, seconds"),
                    ("oppidum_watchers", "watchers of {{instance}}"),
                    ("increase(oppidum_watchers_let_go_total[10m])", "let go by {{instance}}"),
                ],
            ),
            (
                "CPU",
                "percentunit",
                &[(
                    "rate(process_cpu_seconds_total[$__rate_interval]) \
                     and on (job, instance) oppidum_build_info",
                    "{{instance}}",
                )],
            ),
            (
                "Memory",
                "bytes",
                &[(
                    "process_resident_memory_bytes and on (job, instance) oppidum_build_info",
                    "{{instance}}",
                )],
            ),
            (
                "Age of processes",
                "s",
                &[(
                    "(time() - process_start_time_seconds) \
                     * on (job, instance) group_left (role, id, version) oppidum_build_info",
                    "{{role}} {{id}} {{version}}",
                )],
            ),
        ],
    ),
];

/// Writes the file.
pub(crate) fn write(root: &Path) -> Result<()> {
    fs::write(root.join(FILE), render()).with_context(|| format!("write {FILE}"))
}

/// The queries of all panels.
#[cfg(test)]
fn queries() -> impl Iterator<Item = &'static str> {
    let panels = ROWS.iter().flat_map(|(_, panels)| panels.iter());
    panels.flat_map(|(_, _, queries)| queries.iter()).map(|(query, _)| *query)
}

/// The text of the file.
pub(crate) fn render() -> String {
    const HEIGHT: u64 = 8;
    let mut panels = Vec::new();
    let mut y = 0;
    for (row, of_row) in ROWS {
        let id = panels.len() + 1;
        let place = json!({ "h": 1, "w": 24, "x": 0, "y": y });
        panels.push(json!({ "id": id, "type": "row", "title": row, "gridPos": place }));
        y += 1;
        for three in of_row.chunks(3) {
            for (x, panel) in (0..).step_by(8).zip(three) {
                let place = json!({ "h": HEIGHT, "w": 8, "x": x, "y": y });
                panels.push(graph(panels.len() + 1, panel, &place));
            }
            y += HEIGHT;
        }
    }
    let source = json!({ "name": "source", "type": "datasource", "query": "prometheus" });
    let dashboard = json!({
        "title": "Oppidum",
        "uid": "oppidum",
        "schemaVersion": 38,
        "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": { "list": [source] },
        "panels": panels,
    });
    serde_json::to_string_pretty(&dashboard).unwrap_or_default() + "\n"
}

/// One panel, as Grafana reads it.
fn graph(id: usize, (title, unit, queries): &Panel, place: &Value) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${source}" });
    let targets = ('A'..).zip(*queries).map(|(letter, (query, legend))| {
        let letter = letter.to_string();
        json!({ "refId": letter, "expr": query, "legendFormat": legend, "datasource": source })
    });
    let targets: Vec<Value> = targets.collect();
    json!({
        "id": id,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "fieldConfig": { "defaults": { "unit": unit, "min": 0 }, "overrides": [] },
        "gridPos": place,
        "targets": targets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_in_the_file_and_panels_do_not_overlap() {
        let dashboard: Value = serde_json::from_str(&render()).expect("it is JSON");
        let panels = dashboard["panels"].as_array().expect("it has panels");
        let of = |panel: &Value, side: &str| panel["gridPos"][side].as_u64().expect("a place");
        for (place, panel) in panels.iter().enumerate() {
            for other in &panels[..place] {
                let apart = |low: &str, size: &str| {
                    of(panel, low) >= of(other, low) + of(other, size)
                        || of(other, low) >= of(panel, low) + of(panel, size)
                };
                assert!(apart("x", "w") || apart("y", "h"), "{panel} {other}");
            }
        }
        let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
        let written: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
        assert_eq!(written, queries().collect::<Vec<_>>());
    }
}
