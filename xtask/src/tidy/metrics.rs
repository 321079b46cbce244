//! Checks what Prometheus and Grafana are given: metrics that exist, alerts that say what to do.
//!
//! The reference lists every metric; a test of real processes compares that list with their pages.
//! Here the list is compared with the names in the code, and the names in the alerts and in the
//! dashboard with the list.

use std::collections::BTreeSet;

use crate::dashboard;
use crate::tidy::links::anchors;
use crate::tidy::{Complaint, Source};

const PAGE: &str = "docs/reference.md";
const RULES: &str = "deploy/prometheus/oppidum.rules.yml";
const RULES_TEST: &str = "deploy/prometheus/oppidum.rules.test.yml";

/// The beginnings of a metric's name.
const PREFIXES: [&str; 2] = ["oppidum_", "process_"];

/// Every complaint about metrics, alerts and the dashboard.
pub(crate) fn check(sources: &[Source]) -> Vec<Complaint> {
    let find = |path: &str| sources.iter().find(|source| source.path == path);
    let text = |path: &str| find(path).map_or("", |source| source.text.as_str());
    let listed = listed(text(PAGE));
    let mut complaints = Vec::new();
    for name in listed.iter().filter(|name| !is_in_code(name, sources)) {
        let what = format!("no program writes the metric `{name}`");
        complaints.push(Complaint::whole(PAGE, what));
    }
    for path in [RULES, RULES_TEST, dashboard::FILE] {
        for (line, name) in names(text(path)).filter(|(_, name)| !is_listed(name, &listed)) {
            let what = format!("the metric `{name}` is not in {PAGE}");
            complaints.push(Complaint::at(path, line, what));
        }
    }
    let alerts = alerts(text(RULES));
    for (line, alert, runbook) in &alerts {
        let there = runbook.and_then(|runbook| runbook.split_once('#'));
        if !there.is_some_and(|(page, heading)| anchors(text(page)).contains(heading)) {
            let what = format!("the alert {alert} has no runbook that is a heading of a page");
            complaints.push(Complaint::at(RULES, *line, what));
        }
        if !fires(alert, text(RULES_TEST)) {
            let what = format!("the alert {alert} never fires in {RULES_TEST}");
            complaints.push(Complaint::at(RULES, *line, what));
        }
    }
    if find(dashboard::FILE).is_some_and(|source| source.text != dashboard::render()) {
        let what = "it is not what the table gives: type `cargo xtask dashboard`";
        complaints.push(Complaint::whole(dashboard::FILE, what));
    }
    complaints
}

/// Whether a test expects this alert to fire at some time.
fn fires(alert: &str, tests: &str) -> bool {
    let begin = format!("alertname: {alert}\n");
    tests.split(&begin).skip(1).any(|after| {
        let own = after.split("alertname:").next().unwrap_or_default();
        own.contains("exp_labels:") || own.contains("exp_alerts: *")
    })
}

/// The metrics in the table of the reference.
fn listed(page: &str) -> BTreeSet<&str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(name, _)| name).filter(|name| is_name(name)).collect()
}

fn is_name(word: &str) -> bool {
    PREFIXES.iter().any(|prefix| word.starts_with(prefix))
}

/// Whether a program names this metric; a counter gets its `_total` on the page.
fn is_in_code(name: &str, sources: &[Source]) -> bool {
    let literal = format!("\"{}\"", name.strip_suffix("_total").unwrap_or(name));
    let mut code = sources.iter().filter(|source| {
        source.is("rs") && source.path.starts_with("crates/") && source.path.contains("/src/")
    });
    code.any(|source| source.text.contains(&literal))
}

/// The names of metrics in a text, each with its line.
fn names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(at, line)| {
        let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        words.filter(|word| is_name(word)).map(move |word| (at + 1, word))
    })
}

/// Whether a metric, or a series of a histogram, is in the list.
fn is_listed(name: &str, listed: &BTreeSet<&str>) -> bool {
    let of_histogram =
        ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    [name].into_iter().chain(of_histogram).any(|name| listed.contains(name))
}

/// The alerts, each with its line and its runbook.
fn alerts(rules: &str) -> Vec<(usize, &str, Option<&str>)> {
    let mut alerts: Vec<(usize, &str, Option<&str>)> = Vec::new();
    for (at, line) in rules.lines().enumerate() {
        let line = line.trim();
        if let Some(alert) = line.strip_prefix("- alert: ") {
            alerts.push((at + 1, alert, None));
        } else if let (Some(found), Some(last)) =
            (line.strip_prefix("runbook: "), alerts.last_mut())
        {
            last.2 = Some(found);
        }
    }
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(texts: &[(&str, &str)]) -> Vec<String> {
        let source =
            |(path, text): &(&str, &str)| Source { path: (*path).into(), text: (*text).into() };
        let sources: Vec<Source> = texts.iter().map(source).collect();
        check(&sources).iter().map(ToString::to_string).collect()
    }

    const TABLE: (&str, &str) = (PAGE, "| `oppidum_orders_total` | counter |\n");
    const CODE: (&str, &str) = ("crates/a/src/b.rs", "page.counter(\"oppidum_orders\", 1);\n");
    const RUNBOOKS: (&str, &str) = ("docs/operating.md", "### NoLeader\n");
    const FIRES: (&str, &str) =
        (RULES_TEST, "alertname: NoLeader\n  exp_alerts:\n    - exp_labels: {}\n");
    const SILENT: (&str, &str) =
        (RULES_TEST, "alertname: NoLeader\n  exp_alerts: []\nalertname: X\n  exp_labels: {}\n");

    #[test]
    fn a_metric_that_no_program_writes_or_that_is_not_listed_is_caught() {
        assert!(complaints(&[TABLE, CODE]).is_empty());
        assert_eq!(complaints(&[TABLE]).len(), 1, "no program writes it");
        let known = (RULES, "expr: oppidum_orders_total > 1\n");
        assert!(complaints(&[TABLE, CODE, known]).is_empty());
        let unknown = (RULES, "expr: oppidum_order_total > process_x\n");
        let caught = complaints(&[TABLE, CODE, unknown]);
        assert_eq!(caught.len(), 2, "{caught:?}");
        assert!(caught[0].contains("`oppidum_order_total` is not in"), "{caught:?}");
    }

    #[test]
    fn an_alert_without_a_runbook_or_a_test_is_caught() {
        let rules = |runbook: &str| format!("  - alert: NoLeader\n    expr: 1\n{runbook}");
        let good = rules("    runbook: docs/operating.md#noleader\n");
        assert!(complaints(&[(RULES, &good), RUNBOOKS, FIRES]).is_empty());
        for bad in [rules(""), rules("    runbook: docs/operating.md#none\n")] {
            assert_eq!(complaints(&[(RULES, &bad), RUNBOOKS, FIRES]).len(), 1, "{bad}");
        }
        assert_eq!(complaints(&[(RULES, &good), RUNBOOKS]).len(), 1, "it is not tested");
        assert_eq!(complaints(&[(RULES, &good), RUNBOOKS, SILENT]).len(), 1, "it never fires");
    }

    #[test]
    fn a_dashboard_that_was_changed_by_hand_is_caught() {
        let page = dashboard::render();
        let caught = complaints(&[(dashboard::FILE, &page.replace("Oppidum", "Shop"))]);
        assert!(caught.iter().any(|line| line.contains("cargo xtask dashboard")), "{caught:?}");
        let kept = complaints(&[(dashboard::FILE, &page)]);
        assert!(!kept.iter().any(|line| line.contains("cargo xtask dashboard")), "{kept:?}");
    }
}
