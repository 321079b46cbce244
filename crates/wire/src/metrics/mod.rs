//! Metrics: the page of numbers that a process shows to Prometheus at `/metrics`.
//!
//! Each process has a registry of its own, so that several processes in one program do not share
//! numbers. What happens is counted where it happens, in atomics; everything else is read when the
//! page is asked for. No label holds the name of a product, a key, a principal or an address.

mod histogram;
mod page;
mod process;

use std::fmt;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

pub use histogram::{Histogram, Tally};
pub use page::{Page, QueueFill};

use self::process::ProcessNumbers;
use crate::connections::Connections;
use crate::facts::Facts;
use crate::tls::credentials::Credentials;

/// The media type of the other format, which Prometheus asks for.
const OPENMETRICS: &str = "application/openmetrics-text";

/// What one internal listener shows at `/metrics`.
struct ListenerNumbers {
    facts: Arc<dyn Facts>,
    connections: Connections,
    credentials: Option<Arc<Credentials>>,
    process: ProcessNumbers,
}

impl fmt::Debug for ListenerNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerNumbers").finish_non_exhaustive()
    }
}

impl Collector for ListenerNumbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        page.add_listener("internal", self.connections.counts());
        let not_after = self.credentials.as_ref().and_then(|own| own.not_after());
        page.add_certificate("internal", not_after);
        self.facts.measure(&mut page);
        self.process.measure(&mut page);
        page.write_added()
    }
}

/// The numbers of one process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// One page is written at a time: a flood of requests takes one thread.
    turn: Arc<Semaphore>,
}

impl Metrics {
    /// Those of a process with these facts and this internal listener.
    pub(crate) fn new(
        facts: Arc<dyn Facts>,
        connections: Connections,
        credentials: Option<Arc<Credentials>>,
    ) -> Self {
        let process = ProcessNumbers::new();
        let mut registry = Registry::default();
        let numbers = ListenerNumbers { facts, connections, credentials, process };
        registry.register_collector(Box::new(numbers));
        Self { registry, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The answer to `GET /metrics`: text format 0.0.4, or `OpenMetrics` if the request asks for
    /// it.
    pub(crate) async fn answer(self: Arc<Self>, headers: HeaderMap) -> Response {
        let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let (form, encode): (_, fn(&mut String, &Registry) -> fmt::Result) = match accepts
            .into_iter()
            .any(|value| value.contains(OPENMETRICS))
        {
            true => ("application/openmetrics-text; version=1.0.0; charset=utf-8", text::encode),
            false => (prometheus_text::CONTENT_TYPE, prometheus_text::encode),
        };
        // The semaphore is never closed.
        let turn = self.turn.clone().acquire_owned().await;
        let metrics = self.clone();
        // Files in /proc and the sizes of the data folder are read: not on a thread of the runtime.
        let page = tokio::task::spawn_blocking(move || {
            let mut page = String::new();
            // Writing into a string cannot fail.
            let _ = encode(&mut page, &metrics.registry);
            // Here and not earlier: the client may have gone away meanwhile.
            drop(turn);
            page
        });
        ([(CONTENT_TYPE, form)], page.await.unwrap_or_default()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::ConnectionCounts;
    use crate::status::ProcessStatus;

    struct Measured(Histogram);

    impl Facts for Measured {
        fn status(&self) -> ProcessStatus {
            ProcessStatus::default()
        }

        fn ready(&self) -> bool {
            true
        }

        fn measure(&self, page: &mut Page<'_>) {
            page.build_info("order", Some(456));
            page.histogram("oppidum_waits_seconds", "How long", &self.0);
            let lags: [([&str; 1], u64); 0] = [];
            page.gauges("oppidum_lag", "Of nothing", ["peer"], lags);
            page.counters("oppidum_orders", "Orders", ["outcome"], [(["placed"], 7_u64)]);
            page.queues(&[("requests", 3, 10)]);
            let public = ConnectionCounts { open: 2, limit: 5, refused: 9 };
            page.add_listener("public", public);
        }
    }

    async fn page(accept: &str) -> (String, String) {
        let places = crate::connections::Places::new(8, 0);
        let waits = Histogram::of_durations();
        waits.observe(std::time::Duration::from_micros(600));
        let facts = Arc::new(Measured(waits));
        let metrics = Arc::new(Metrics::new(facts, Connections::new(places), None));
        let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        let answer = metrics.answer(headers).await;
        let form = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (form, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_page_has_the_numbers_of_the_role_of_its_listeners_and_of_its_process() {
        let (form, page) = page("text/plain").await;
        assert_eq!(form, "text/plain; version=0.0.4; charset=utf-8");
        let version = env!("CARGO_PKG_VERSION");
        let build = format!(
            "oppidum_build_info{{role=\"order\",id=\"456\",version=\"{version}\",\
             revision=\"unknown\"}} 1"
        );
        for line in [
            "# HELP oppidum_orders_total Orders",
            "# TYPE oppidum_orders_total counter",
            "oppidum_orders_total{outcome=\"placed\"} 7",
            "oppidum_waits_seconds_bucket{le=\"0.0005\"} 0",
            "oppidum_waits_seconds_bucket{le=\"0.001\"} 1",
            "oppidum_waits_seconds_bucket{le=\"+Inf\"} 1",
            "oppidum_waits_seconds_sum 0.0006",
            "oppidum_waits_seconds_count 1",
            "oppidum_queue_length{queue=\"requests\"} 3",
            "oppidum_queue_limit{queue=\"requests\"} 10",
            "oppidum_connections{listener=\"internal\"} 0",
            "oppidum_connections{listener=\"public\"} 2",
            "oppidum_connections_refused_total{listener=\"public\"} 9",
            "# TYPE process_cpu_seconds_total counter",
            &build,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(!page.contains("oppidum_lag"), "a metric without a value is not on the page");
        assert!(!page.contains("# EOF"));
    }

    #[tokio::test]
    async fn prometheus_gets_the_format_that_it_asks_for() {
        let (form, page) =
            page("application/openmetrics-text;version=1.0.0,text/plain;q=0.5").await;
        assert!(form.starts_with(OPENMETRICS), "{form}");
        assert!(page.contains("# TYPE oppidum_orders counter\n"), "{page}");
        assert!(page.contains("oppidum_waits_seconds_bucket{le=\"+Inf\"} 1\n"), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }
}
