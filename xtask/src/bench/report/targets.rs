//! The targets: what is wanted of each row, beside what was measured.

use super::book::Book;
use super::figures::{
    Alone, ClosedLoop, Failover, Figures, Growth, HalfRate, Overload, Phase, Return, StoreState,
};
use super::markdown::figure;
use crate::bench::name::Name;
use crate::bench::ratio;

const NOT_MET: &str = "**not met**";

/// One limit, and what was measured of it.
#[derive(Debug)]
struct Target {
    measured: String,
    limit: String,
    is_met: bool,
}

impl Target {
    /// Each of `values`, which `measured` shows, should be at most `limit`.
    fn at_most(limit: f64, values: &[f64], measured: String) -> Self {
        let is_met = values.iter().all(|value| *value <= limit);
        Self { measured, limit: format!("≤ {}", figure(limit)), is_met }
    }

    /// Each of `values`, which `measured` shows, should be at least `limit`.
    fn at_least(limit: f64, values: &[f64], measured: String) -> Self {
        let is_met = values.iter().all(|value| limit <= *value);
        Self { measured, limit: format!("≥ {}", figure(limit)), is_met }
    }

    /// Another way to meet the target.
    fn or(self, way: &str) -> Self {
        Self { limit: format!("{}, or {way}", self.limit), ..self }
    }
}

/// The targets of every row in the book, an item for each row or two.
pub(crate) fn items(book: &Book) -> Vec<String> {
    let mut items: Vec<String> =
        book.rows.iter().filter_map(|row| of_row(book, row.name, &row.figures)).collect();
    items.extend(gaps(book));
    items
}

/// A title and its targets. Where all are missed, that stands once.
fn item(title: &str, targets: &[Target]) -> String {
    let none_is_met = targets.iter().all(|target| !target.is_met);
    let text = |Target { measured, limit, is_met }: &Target| match *is_met || none_is_met {
        true => format!("{measured} ({limit})"),
        false => format!("{measured} ({limit}, {NOT_MET})"),
    };
    let texts = targets.iter().map(text).collect::<Vec<_>>().join(", ");
    match none_is_met {
        true => format!("{title}: {texts}: {NOT_MET}"),
        false => format!("{title}: {texts}"),
    }
}

fn of_row(book: &Book, name: Name, figures: &Figures) -> Option<String> {
    match figures {
        Figures::ClosedLoop(figures) => closed_loop(name, figures),
        Figures::Alone(figures) => Some(alone(figures)),
        Figures::HalfRate(figures) => Some(half_rate(figures)),
        Figures::Overload(figures) => {
            let both = matches!(book.figures(Name::Overload), Some(Figures::Overload(_)));
            Some(overload(name == Name::OverloadApart, both, figures))
        }
        Figures::Growth(figures) => Some(growth(figures)),
        Figures::Return(figures) => Some(returning(figures)),
        // Both kinds of failover have one item.
        Figures::Failover(_) | Figures::Skipped(_) => None,
    }
}

fn closed_loop(name: Name, ClosedLoop { sides, .. }: &ClosedLoop) -> Option<String> {
    let [store, .., other] = sides.as_slice() else { return None };
    let cpu = |limit: f64| {
        let measured = format!("{} µs of CPU per order", figure(store.cpu_us));
        Target::at_most(limit, &[store.cpu_us], measured)
    };
    let rate = |limit: f64| {
        let measured = format!("{} orders per second", figure(store.rate));
        Target::at_least(limit, &[store.rate], measured)
    };
    let cpu_ratio = |limit: f64, what: &str| {
        let times = ratio(store.cpu_us, other.cpu_us);
        Target::at_most(limit, &[times], format!("{what}{} × a bare handler's", figure(times)))
    };
    match name {
        Name::Hot64 => Some(item(
            "Orders on one hot product, 64 connections",
            &[cpu(25.0), cpu_ratio(3.5, "")],
        )),
        Name::Hot256 => {
            Some(item("Orders on one hot product, 256 connections", &[cpu(18.0), rate(40_000.0)]))
        }
        Name::Products => {
            let excess_of = |what: &str, values: Vec<f64>| {
                let percent = excess(&values);
                Target::at_most(10.0, &[percent], format!("{what} {} %", figure(percent)))
            };
            let rates = sides.iter().map(|side| side.rate).collect();
            let cpu = sides.iter().map(|side| side.cpu_us).collect();
            let targets = [excess_of("orders per second", rates), excess_of("CPU per order", cpu)];
            Some(item("Hot and cold products, the most against the least", &targets))
        }
        Name::Query => Some(item("Queries that hit the cache", &[cpu_ratio(1.5, "CPU ")])),
        Name::SoldOut => {
            let (limit, measured) = (100_000.0, format!("{} per second", figure(store.rate)));
            let target = Target::at_least(limit, &[store.rate], measured);
            let is_met = target.is_met || other.rate <= store.rate;
            let target = target.or("the bare handler's rate where that is less");
            Some(item("Refusals of what is sold out", &[Target { is_met, ..target }]))
        }
        Name::ApiKeys => {
            let [order, bare, query, bare_query] = sides.as_slice() else { return None };
            let more = order.cpu_us - bare.cpu_us;
            let times = ratio(query.cpu_us, bare_query.cpu_us);
            Some(item(
                "An API key",
                &[
                    Target::at_most(1.0, &[more], format!("{} µs more per order", figure(more))),
                    Target::at_most(1.05, &[times], format!("{} × per query", figure(times))),
                ],
            ))
        }
        Name::Certificates => {
            let times = ratio(store.cpu_us, other.cpu_us);
            let target = Target::at_most(1.1, &[times], format!("{} × the CPU", figure(times)));
            Some(item("Certificates between the processes, per order", &[target]))
        }
        Name::Batch => Some(item("Batches of 1,000 orders", &[cpu(3.0), rate(300_000.0)])),
        _ => None,
    }
}

/// By how many per cent the greatest value exceeds the least.
fn excess(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    100.0 * (ratio(most, least) - 1.0)
}

fn alone(figures: &Alone) -> String {
    let [appending, overwriting] = [figures.sync_appending, figures.sync_overwriting]
        .map(|sync| ratio(figures.order.p50, sync.p50 + 2.0 * figures.round_trip.p50));
    let measured =
        format!("{} ×, appending; {} ×, overwriting", figure(appending), figure(overwriting));
    item(
        "One client by itself, median against a sync and two round trips",
        &[Target::at_most(2.0, &[appending, overwriting], measured)],
    )
}

fn half_rate(HalfRate { store, refused_percent, .. }: &HalfRate) -> String {
    let (times, p999) = (ratio(store.latency.p99, store.latency.p50), store.latency.p999);
    let refused = *refused_percent;
    let times_text = format!("99th percentile {} × the median", figure(times));
    item(
        "Latency at half of the greatest rate",
        &[
            Target::at_most(5.0, &[times], times_text),
            Target::at_most(20.0, &[p999], format!("99.9th {} ms", figure(p999))),
            // The latencies are those of accepted orders, and say little if others were refused.
            Target::at_most(0.0, &[refused], format!("{} % refused", figure(refused))),
        ],
    )
}

/// `both`: the row without a core of its own for the load is in the book, so it stands above.
fn overload(apart: bool, both: bool, figures: &Overload) -> String {
    let short = apart && both;
    let title = match (apart, short) {
        (false, _) => "Twice the greatest rate, 99th percentiles",
        (true, true) => "The same, the load on a core of its own",
        (true, false) => "Twice the greatest rate, the load on a core of its own, 99th percentiles",
    };
    let target = |limit: f64, value: f64, what: &str| {
        let what = if short { "" } else { what };
        Target::at_most(limit, &[value], format!("{} ms{what}", figure(value)))
    };
    let mut targets = vec![target(50.0, figures.accepted.latency.p99, " of what is accepted")];
    if 0.0 < figures.refused_percent {
        targets.push(target(5.0, figures.refusal_p99, " from a request to its refusal"));
    }
    item(title, &targets)
}

fn growth(figures: &Growth) -> String {
    let Growth { empty, full, started_again, start_s, later_start_s, .. } = figures;
    let against_empty = |measure: fn(&StoreState) -> f64| ratio(measure(full), measure(empty));
    let (rate, look_up) = (against_empty(|it| it.rate), against_empty(|it| it.look_up.p99));
    let memory = full.memory.max(started_again.memory);
    let starts = format!(
        "{} s from a start to the first order, at once, {} s a quiet minute later",
        figure(*start_s),
        figure(*later_start_s)
    );
    let rate_text = format!("orders per second {} × those of an empty store", figure(rate));
    let look_up_text =
        format!("the 99th percentile of look-ups {} × an empty store's", figure(look_up));
    item(
        "After many orders",
        &[
            Target::at_least(0.9, &[rate], rate_text),
            replica_memory(memory),
            Target::at_most(3.0, &[*start_s, *later_start_s], starts),
            Target::at_most(1.25, &[look_up], look_up_text).or("unchanged"),
        ],
    )
}

fn replica_memory(memory: f64) -> Target {
    Target::at_most(300.0, &[memory], format!("{} MB of memory of a replica", figure(memory)))
}

fn returning(Return { away, returning, back, .. }: &Return) -> String {
    let against = |other: &Phase| ratio(returning.rate, other.rate);
    let (before, afterwards) = (against(away), against(back));
    let rates = format!(
        "orders per second {} × those before, {} × those afterwards",
        figure(before),
        figure(afterwards)
    );
    let memory = returning.memory.max(returning.others_memory);
    item(
        "While a replica returns",
        &[Target::at_least(0.8, &[before, afterwards], rates), replica_memory(memory)],
    )
}

/// The item of each kind of failover.
fn gaps(book: &Book) -> Option<String> {
    let mut targets = Vec::new();
    let kinds = [
        (Name::Failover, "killed", 100.0),
        (Name::FailoverCertificates, "killed in a store with certificates", 100.0),
        (Name::Freeze, "frozen", 1_000.0),
    ];
    for (name, what, limit) in kinds {
        let Some(Figures::Failover(Failover { gap, .. })) = book.figures(name) else { continue };
        let leader = if targets.is_empty() { "the leader" } else { "it" };
        let measured = format!("{} ms when {leader} is {what}", figure(gap.max));
        targets.push(Target::at_most(limit, &[gap.max], measured));
    }
    (!targets.is_empty()).then(|| item("The longest gap (P6)", &targets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_is_marked_by_itself_unless_all_are_missed() {
        let two = |limit: f64| {
            let target = |value: f64| Target::at_most(limit, &[value], figure(value));
            item("Orders", &[target(1.0), target(2.0)])
        };
        assert_eq!(two(2.0), "Orders: 1 (≤ 2), 2 (≤ 2)");
        assert_eq!(two(1.5), "Orders: 1 (≤ 1.5), 2 (≤ 1.5, **not met**)");
        assert_eq!(two(0.5), "Orders: 1 (≤ 0.5), 2 (≤ 0.5): **not met**");
    }

    #[test]
    fn one_value_beyond_the_limit_misses_it() {
        assert!(Target::at_least(0.8, &[0.9, 0.8], String::new()).is_met);
        assert!(!Target::at_least(0.8, &[0.9, 0.7], String::new()).is_met);
        assert!(!Target::at_most(2.0, &[1.0, 2.1], String::new()).is_met);
    }

    #[test]
    fn the_excess_is_that_of_the_greatest_over_the_least() {
        assert!((excess(&[100.0, 110.0, 105.0]) - 10.0).abs() < 1e-9);
        assert!(excess(&[7.0, 7.0]).abs() < f64::EPSILON);
    }
}
