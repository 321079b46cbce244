//! The sections of the rows that have a table of their own.

use super::book::Book;
use super::figures::{
    Alone, Answers, Failover, Figures, Growth, HalfRate, OpenSide, Overload, Phase, Return,
    StoreState,
};
use super::markdown::{Markdown, TableLine, count, figure, whole};
use crate::bench::load::Spread;
use crate::bench::load::closed::Done;
use crate::bench::name::Name;
use crate::bench::{float, ratio};

pub(crate) fn alone(figures: &Alone, page: &mut Markdown) {
    let Alone { order, legs, sync_appending, sync_overwriting, round_trip, .. } = figures;
    let columns = [order, legs, sync_appending, sync_overwriting, round_trip];
    let cells = |measure: fn(&Spread) -> f64| columns.map(measure).to_vec();
    page.heading(3, "One client by itself");
    page.paragraph(
        "`--only alone`: in turns, on the same disk: an order of the only client; its ten legs \
         and three syncs, by threads that do nothing else; a record synced, appending and \
         overwriting; a record sent over loopback and back.",
    );
    page.table(
        &[
            "",
            "an order",
            "its legs, bare",
            "a sync, appending",
            "a sync, overwriting",
            "a round trip",
        ],
        &[
            ("median, ms", cells(|latency| latency.p50)),
            ("99th percentile, ms", cells(|latency| latency.p99)),
        ],
    );
    page.list(&[
        format!(
            "CPU of what serves: {:.0} µs per order; of the bare legs, without the client: {:.0} \
             µs.",
            figures.order_cpu_us, figures.legs_cpu_us
        ),
        format!(
            "The legs alone take {:.2} of what the target allows with a sync that appends.",
            ratio(legs.p50, 2.0 * (sync_appending.p50 + 2.0 * round_trip.p50))
        ),
    ]);
}

pub(crate) fn half_rate(figures: &HalfRate, page: &mut Markdown) {
    let cells = |OpenSide { latency, late_p99, cpu_us }: &OpenSide| {
        let Spread { p50, p90, p99, p999, max } = *latency;
        vec![p50, p90, p99, p999, max, *late_p99, *cpu_us]
    };
    page.heading(3, "Latency at half of the greatest rate");
    page.paragraph(&format!(
        "`--only latency`: {} orders per second on one hot product, open loop: each is timed from \
         when it is due. Latency in ms:",
        figure(figures.rate)
    ));
    page.table(
        &[
            "",
            "median",
            "90 %",
            "99 %",
            "99.9 %",
            "longest",
            "sent late, 99 %",
            "CPU, µs per order",
        ],
        &[("the store", cells(&figures.store)), ("a bare handler", cells(&figures.bare))],
    );
}

/// Both rows at twice the greatest rate, in one section.
pub(crate) fn overload(book: &Book, page: &mut Markdown) {
    let row = |name: Name| match book.figures(name) {
        Some(Figures::Overload(figures)) => Some(figures),
        _ => None,
    };
    let (together, apart) = (row(Name::Overload), row(Name::OverloadApart));
    let rows: Vec<&Overload> = together.into_iter().chain(apart).collect();
    if rows.is_empty() {
        return;
    }
    page.heading(3, "Twice the greatest rate");
    page.paragraph(&overload_opening(together, apart));
    let cells = |Answers { due, answered, latency }: &Answers| {
        vec![*due, *answered, latency.p50, latency.p99, latency.p999, latency.max]
    };
    let lines = |names: [&'static str; 3], figures: Option<&Overload>| -> Vec<TableLine> {
        let answers = figures.map(|it| [&it.accepted, &it.refused, &it.bare].map(cells));
        answers.map(|cells| names.into_iter().zip(cells).collect()).unwrap_or_default()
    };
    let mut table = lines(["accepted", "refused", "a bare handler"], together);
    let names = ["apart, accepted", "apart, refused", "apart, a bare handler"];
    table.extend(lines(names, apart));
    page.table(&["", "due per second", "answered", "median", "99 %", "99.9 %", "longest"], &table);
    page.list(&overload_notes(&rows));
}

fn overload_opening(together: Option<&Overload>, apart: Option<&Overload>) -> String {
    let opening = |name: Name, rate: f64| {
        format!(
            "`--only {}`: {} orders per second on one hot product, open loop, each on a free \
             connection or a new one. The bare handler refuses none: its rate is the limit of \
             this machine.",
            name.text(),
            figure(rate)
        )
    };
    let core = "load has one core, and what it measures the others.";
    let text = match (together, apart) {
        (Some(together), Some(apart)) => format!(
            "{} `--only overload-apart`: {} per second; the {core}",
            opening(Name::Overload, together.rate),
            figure(apart.rate)
        ),
        (Some(together), None) => opening(Name::Overload, together.rate),
        (None, apart) => {
            let rate = apart.map(|apart| apart.rate).unwrap_or_default();
            format!("{} The {core}", opening(Name::OverloadApart, rate))
        }
    };
    format!("{text} Latency in ms:")
}

fn overload_notes(rows: &[&Overload]) -> [String; 3] {
    let all = |text: fn(&Overload) -> String| {
        rows.iter().map(|row| text(row)).collect::<Vec<_>>().join(" and ")
    };
    let unknown: u64 = rows.iter().map(|row| row.unknown).sum();
    let connections = rows.iter().map(|row| row.connections).max().unwrap_or_default();
    let refused = match rows.iter().any(|row| 0.0 < row.refused_percent) {
        true => format!(
            "{} % were refused, 99 of 100 within {} ms of being sent",
            all(|row| format!("{:.1}", row.refused_percent)),
            all(|row| whole(row.refusal_p99)),
        ),
        false => "Nothing was refused".to_owned(),
    };
    let cost = format!(
        "The load sent 99 of 100 within {} ms of when they were due (for the bare handler {}). \
         CPU of what serves: {} µs per answer ({}), of the load {} µs ({}).",
        all(|row| whole(row.cost.late_p99)),
        all(|row| whole(row.bare_cost.late_p99)),
        all(|row| format!("{:.1}", row.cost.cpu_us)),
        all(|row| format!("{:.1}", row.bare_cost.cpu_us)),
        all(|row| format!("{:.1}", row.cost.load_cpu_us)),
        all(|row| format!("{:.1}", row.bare_cost.load_cpu_us)),
    );
    let memory = rows.iter().enumerate().map(|(at, row)| {
        let [before, most, after] =
            [row.memory.before, row.memory.most, row.memory.after].map(whole);
        match at {
            0 => format!("{before} MB before, at most {most} MB, {after} MB after"),
            _ => format!("apart {before}, {most} and {after} MB"),
        }
    });
    let memory = memory.collect::<Vec<_>>().join("; ");
    [
        format!(
            "{refused}; {} got 504. At most {} connections.",
            count(unknown),
            count(connections)
        ),
        cost,
        format!("Memory of all processes: {memory}."),
    ]
}

pub(crate) fn growth(figures: &Growth, page: &mut Markdown) {
    let states = [&figures.empty, &figures.full, &figures.started_again];
    let cells = |measure: fn(&StoreState) -> f64| states.map(measure).to_vec();
    page.heading(3, "After many orders");
    page.paragraph(&format!(
        "`--only growth`: a store of its own: empty; after {} orders, placed {}, {} per second; \
         and started again after `kill -9` of all replicas, with their files out of memory. \
         Rates: 256 connections on one product. Look-ups: of any order, open loop, 1,000 per \
         second.",
        count(figures.placed),
        if figures.in_batches { "in batches of 1,000" } else { "one by one" },
        figure(figures.placed_per_second),
    ));
    page.table(
        &["", "empty", "full", "full, started again"],
        &[
            ("orders there were", cells(|state| float(state.orders))),
            ("orders per second", cells(|state| state.rate)),
            ("CPU, µs per order", cells(|state| state.cpu_us)),
            ("look-up, median, ms", cells(|state| state.look_up.p50)),
            ("look-up, 99th percentile, ms", cells(|state| state.look_up.p99)),
            ("memory of the largest replica, MB", cells(|state| state.memory)),
            ("all replicas on disk, MB", cells(|state| state.disk)),
        ],
    );
    page.paragraph(&format!(
        "Started again, all replicas were ready and the first order was acknowledged after {:.2} \
         s (the keys of frontends are less than a minute old then, so the start reads them), a \
         quiet minute later after {:.2} s.",
        figures.start_s, figures.later_start_s
    ));
}

pub(crate) fn returning(figures: &Return, page: &mut Markdown) {
    let Return { orders, missed, away, returning, back, under_load } = figures;
    let phases = [away, returning, back];
    let cells = |measure: fn(&Phase) -> f64| phases.map(measure).to_vec();
    page.heading(3, "While a replica returns");
    page.paragraph(&format!(
        "`--only return`: {} orders, of which one replica missed the second half, which is in no \
         log any more. 64 connections order on one product: while it is away, until it has caught \
         up, and afterwards.",
        count(*orders)
    ));
    page.table(
        &["", "one is away", "it returns", "it is back"],
        &[
            ("seconds", cells(|phase| phase.seconds)),
            ("orders per second", cells(|phase| phase.rate)),
            ("CPU, µs per order", cells(|phase| phase.cpu_us)),
            ("most memory of the one that returns, MB", cells(|phase| phase.memory)),
            ("most memory of the others, MB", cells(|phase| phase.others_memory)),
        ],
    );
    let Done { good, shed, unknown } = under_load;
    page.paragraph(&format!(
        "{} missed orders came at {} per second; {} were placed under load, {} refused, {} of \
         unknown outcome.",
        count(*missed),
        figure(ratio(float(*missed), returning.seconds)),
        count(*good),
        count(*shed),
        count(*unknown),
    ));
}

/// `is_second`: the leader that is killed stands above, so the text refers to it.
pub(crate) fn failover(name: Name, is_second: bool, figures: &Failover, page: &mut Markdown) {
    let Failover { times, gap, quiet, under_load: Done { good, shed, unknown } } = figures;
    let (gone, signal, of, back) = match name {
        Name::Freeze => ("frozen", "SIGSTOP", "to", "continued"),
        Name::FailoverCertificates => {
            ("killed, with certificates", "`kill -9`", "of", "started again")
        }
        _ => ("killed", "`kill -9`", "of", "started again"),
    };
    let name = name.text();
    page.heading(3, &format!("The leader is {gone}"));
    page.paragraph(&match is_second {
        true => {
            format!("`--only {name}`: the same, {times} times {signal}; the old leader is {back}.")
        }
        false => format!(
            "`--only {name}`: {times} times {signal} {of} the leader under 8 clients; the old \
             leader is {back}. The longest time without an acknowledged order, from before the \
             signal until all are ready again; beside it, that of the second before. In ms:"
        ),
    });
    let cells = |latency: &Spread| vec![latency.p50, latency.p90, latency.p99, latency.max];
    page.table(
        &["", "median", "90 %", "99 %", "longest"],
        &[(gone, cells(gap)), ("left alone", cells(quiet))],
    );
    page.paragraph(&format!(
        "{} orders were acknowledged and are in the ledger, once; {} got 503, {} got 504.",
        count(*good),
        count(*shed),
        count(*unknown)
    ));
}
