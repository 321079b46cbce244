//! Metrics: the numbers of `/status` in the text format of Prometheus (exposition format 0.0.4).
//!
//! `/metrics` has no number that `/status` lacks, so a process publishes its facts in one place.

use std::fmt::Write as _;

use serde_json::Value;

use crate::status::ProcessStatus;

/// The fields that never decrease while a process lives; all other fields are gauges.
const COUNTERS: [&str; 10] = [
    "let_go",
    "cache_hits",
    "cache_misses",
    "cache_coalesced",
    "cache_evicted",
    "cache_invalidated",
    "cache_lapsed",
    "cache_waited",
    "cache_rejected",
    "cache_refused",
];

/// Renders the `/metrics` page. It holds numbers and booleans only; names and addresses are in
/// `/status`.
pub fn page(status: &ProcessStatus) -> String {
    let mut page = String::new();
    let labels = match status.id {
        Some(id) => format!("{{role=\"{}\",id=\"{id}\"}}", status.role),
        None => format!("{{role=\"{}\"}}", status.role),
    };
    // A status is plain data, so its serialization to JSON never fails.
    let fields = serde_json::to_value(status).unwrap_or_default();
    let mut line = |name: &str, value: &Value| {
        let number = match value {
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => u8::from(*truth).to_string(),
            _ => return,
        };
        let is_counter = COUNTERS.contains(&name);
        let (kind, end) = if is_counter { ("counter", "_total") } else { ("gauge", "") };
        // Writing into a string cannot fail.
        let _ = writeln!(page, "# TYPE oppidum_{name}{end} {kind}");
        let _ = writeln!(page, "oppidum_{name}{end}{labels} {number}");
    };
    for (name, value) in fields.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                for (field, value) in inner {
                    line(&format!("{name}_{field}"), value);
                }
            }
            value if name != "id" => line(name, value),
            _ => {}
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::CacheStatus;

    #[test]
    fn every_number_of_a_status_is_on_the_page() {
        let cache = CacheStatus { capacity: 5, hits: 7, ..CacheStatus::default() };
        let status = ProcessStatus {
            role: "frontend".into(),
            ready: true,
            leader: Some(456),
            cache: Some(cache),
            ..ProcessStatus::default()
        };
        let page = page(&status);
        for line in [
            "# TYPE oppidum_cache_hits_total counter",
            "oppidum_cache_hits_total{role=\"frontend\"} 7",
            "# TYPE oppidum_ready gauge",
            "oppidum_ready{role=\"frontend\"} 1",
            "oppidum_leader{role=\"frontend\"} 456",
            "oppidum_cache_capacity{role=\"frontend\"} 5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(!page.contains("address"), "only numbers");
    }

    #[test]
    fn a_counter_is_a_field_of_the_status() {
        let status = ProcessStatus {
            let_go: Some(1),
            cache: Some(CacheStatus::default()),
            ..Default::default()
        };
        let page = page(&status);
        for counter in COUNTERS {
            assert!(page.contains(&format!("oppidum_{counter}_total")), "{counter}");
        }
    }
}
