//! The page of metrics, while it is written: one call for each metric.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use super::histogram::{Histogram, Tally};
use crate::connections::ConnectionCounts;

/// The commit that the program was built from, if the build names it.
const REVISION: &str = match option_env!("OPPIDUM_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// A queue, or anything else with a bound: its name, its length and its limit.
pub type QueueFill = (&'static str, usize, usize);

/// The page, while it is written. Writing into a string cannot fail, so no error is returned.
#[derive(Debug)]
pub struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
    written: fmt::Result,
    /// The listeners of the process.
    listeners: Vec<(&'static str, ConnectionCounts)>,
    /// The certificates of the process, and the Unix time at which each ends.
    certificates: Vec<(&'static str, u64)>,
}

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self { encoder, written: Ok(()), listeners: Vec::new(), certificates: Vec::new() }
    }

    /// Writes a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) {
        self.gauges(name, help, [], [([""; 0], value)]);
    }

    /// Writes a gauge with a value for each combination of labels; nothing if there is none.
    pub fn gauges<const N: usize, L: AsRef<str>, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([L; N], V)>,
    ) {
        self.family((name, help), MetricType::Gauge, labels, values, |sample, value| {
            sample.encode_gauge(&value)
        });
    }

    /// Writes a counter, whose name on the page ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) {
        self.counters(name, help, [], [([""; 0], value)]);
    }

    /// Writes a counter with a value for each combination of labels; nothing if there is none.
    pub fn counters<const N: usize, L: AsRef<str>, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([L; N], V)>,
    ) {
        self.family((name, help), MetricType::Counter, labels, values, |sample, value| {
            sample.encode_counter::<NoLabelSet, _, f64>(&value, None)
        });
    }

    /// Writes a histogram.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.histograms(name, help, [], [([""; 0], histogram)]);
    }

    /// Writes a histogram for each combination of labels.
    pub fn histograms<'h, const N: usize, L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([L; N], &'h Histogram)>,
    ) {
        self.family((name, help), MetricType::Histogram, labels, values, |sample, histogram| {
            let Tally { sum, count, buckets } = histogram.read();
            sample.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        });
    }

    /// Writes how full each queue is.
    pub fn queues(&mut self, queues: &[QueueFill]) {
        let lengths = queues.iter().map(|(queue, length, _)| ([*queue], *length));
        let help = "What a queue, or another bounded set, holds now";
        self.gauges("oppidum_queue_length", help, ["queue"], lengths);
        let limits = queues.iter().map(|(queue, _, limit)| ([*queue], *limit));
        let help = "The most that it may hold";
        self.gauges("oppidum_queue_limit", help, ["queue"], limits);
    }

    /// Writes which program this is.
    pub fn build_info(&mut self, role: &str, id: Option<u64>) {
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        let labels = ["role", "id", "version", "revision"];
        let values = [role, &id, env!("CARGO_PKG_VERSION"), REVISION];
        self.gauges("oppidum_build_info", "Which program this is", labels, [(values, 1_u64)]);
    }

    /// Adds a listener of the process.
    pub fn add_listener(&mut self, listener: &'static str, counts: ConnectionCounts) {
        self.listeners.push((listener, counts));
    }

    /// Adds a certificate that the process shows, and the Unix time at which it ends.
    pub fn add_certificate(&mut self, certificate: &'static str, not_after: Option<u64>) {
        self.certificates.extend(not_after.map(|end| (certificate, end)));
    }

    /// Writes what was added. Returns the first error since the page was begun.
    pub(super) fn write_added(&mut self) -> fmt::Result {
        let listeners = std::mem::take(&mut self.listeners);
        let of = |count: fn(&ConnectionCounts) -> usize| {
            listeners.iter().map(move |(listener, counts)| ([*listener], count(counts)))
        };
        let help = "Open connections to a listener";
        self.gauges("oppidum_connections", help, ["listener"], of(|counts| counts.open));
        let help = "The most open connections of a listener";
        self.gauges("oppidum_connections_limit", help, ["listener"], of(|counts| counts.limit));
        let help = "Connections that a listener closed or answered with 503 for want of a place";
        let refused = listeners.iter().map(|(listener, counts)| ([*listener], counts.refused));
        self.counters("oppidum_connections_refused", help, ["listener"], refused);
        let ends = std::mem::take(&mut self.certificates);
        let help = "The Unix time at which a certificate of the process ends";
        let ends = ends.into_iter().map(|(certificate, end)| ([certificate], end));
        self.gauges("oppidum_certificate_not_after_seconds", help, ["certificate"], ends);
        self.written
    }

    fn family<const N: usize, L: AsRef<str>, V>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([L; N], V)>,
        write: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        let samples = || {
            let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
            for (of, value) in values {
                let set: [(&str, &str); N] =
                    std::array::from_fn(|place| (labels[place], of[place].as_ref()));
                write(&mut family.encode_family(&set)?, value)?;
            }
            Ok(())
        };
        self.written = self.written.and(samples());
    }
}
