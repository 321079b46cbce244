//! The closed loops: one table for all of them, and a note for each kind.

use super::book::Book;
use super::figures::{ClosedLoop, ClosedSide, CpuShares, Figures};
use super::markdown::{Markdown, TableLine, each};
use crate::bench::name::Name;

const HEAD: [&str; 6] = ["`--only`", "per second", "CPU", "median", "99 %", "99.9 %"];

/// The rows of the table, and the names of their sides in the order in which they are measured.
const ROWS: [(Name, &[&str]); 12] = [
    (Name::Hot64, &["`hot-64`", "bare handler"]),
    (Name::Hot256, &["`hot-256`", "bare handler"]),
    (Name::Products, &["`products`, one product", "10 products", "10,000 products"]),
    (Name::Query, &["`query`", "bare handler"]),
    (Name::SoldOut, &["`sold-out`", "bare handler"]),
    (Name::Batch, &["`batch`", "bare handler"]),
    (Name::Settling64, &["`settling-64`", "without settling"]),
    (Name::Settling1, &["`settling-1`", "without settling"]),
    (
        Name::ApiKeys,
        &["`api-keys`, an order", "without a key", "`api-keys`, a query", "without a key"],
    ),
    (Name::Certificates, &["`certificates`", "without certificates"]),
    (Name::PostgreSql, &["`postgresql`", "PostgreSQL"]),
    (Name::Redis, &["`redis`, 64", "Redis, 64", "`redis`, 256", "Redis, 256"]),
];

/// The section of all closed loops in the book; nothing if there is none.
pub(crate) fn section(book: &Book, page: &mut Markdown) {
    let mut lines: Vec<TableLine> = Vec::new();
    for (name, sides) in ROWS {
        if let Some(figures) = measured(book, name) {
            lines.extend(sides.iter().copied().zip(figures.sides.iter().map(cells)));
        }
    }
    let notes = notes(book);
    if lines.is_empty() && notes.is_empty() {
        return;
    }
    page.heading(3, "Closed loops");
    if !lines.is_empty() {
        page.paragraph(
            "Kept connections, each with one request under way. Orders, queries or refusals per \
             second, CPU in µs for each, and latency in ms. A line with a name is the store; its \
             comparison follows.",
        );
        page.table(&HEAD, &lines);
    }
    page.list(&notes);
}

fn cells(ClosedSide { rate, cpu_us, latency }: &ClosedSide) -> Vec<f64> {
    vec![*rate, *cpu_us, latency.p50, latency.p99, latency.p999]
}

fn measured(book: &Book, name: Name) -> Option<&ClosedLoop> {
    match book.figures(name) {
        Some(Figures::ClosedLoop(figures)) => Some(figures),
        _ => None,
    }
}

/// What was done, and why a row was not measured.
fn notes(book: &Book) -> Vec<String> {
    let is_measured = |name| measured(book, name).is_some();
    let fixed =
        |name: Name, text: &str| is_measured(name).then(|| format!("`{}`: {text}", name.text()));
    let notes = [
        hot(book),
        fixed(
            Name::Products,
            "64 connections on a store of 10,000 products, of which one, 10 or all are ordered, \
             at random.",
        ),
        fixed(
            Name::Query,
            "64 connections; the frontend answers from its cache, the bare handler with the same \
             bytes.",
        ),
        fixed(
            Name::SoldOut,
            "64 connections order, without a key, a product of which there is none.",
        ),
        batch(book),
        settling(is_measured(Name::Settling64), is_measured(Name::Settling1)),
        fixed(
            Name::ApiKeys,
            "64 connections; orders of one product, and queries from the cache, with an API key \
             and without.",
        ),
        fixed(
            Name::Certificates,
            "64 connections; orders of a store whose processes speak mutual TLS with each other, \
             and of one in plaintext. The public port speaks plain HTTP.",
        ),
        other_stores(book),
    ];
    let skipped = book.rows.iter().filter_map(|row| match &row.figures {
        Figures::Skipped(why) => Some(format!("`{}`: not measured: {why}", row.name.text())),
        _ => None,
    });
    notes.into_iter().flatten().chain(skipped).collect()
}

fn hot(book: &Book) -> Option<String> {
    let rows = [(Name::Hot64, "64"), (Name::Hot256, "256")];
    let rows = rows.into_iter().filter_map(|(name, connections)| {
        Some((format!("`{}`", name.text()), connections, measured(book, name)?))
    });
    let rows: Vec<_> = rows.collect();
    let names = rows.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
    let connections: Vec<_> = rows.iter().map(|(_, connections, _)| *connections).collect();
    let shares: Vec<_> = rows.iter().filter_map(|(.., row)| row.cpu_shares.as_ref()).collect();
    (!rows.is_empty()).then(|| {
        format!(
            "{names}: orders of one product over {} connections.{}",
            connections.join(" and "),
            cpu_shares(&shares)
        )
    })
}

fn batch(book: &Book) -> Option<String> {
    let ClosedLoop { cpu_shares: shares, .. } = measured(book, Name::Batch)?;
    Some(format!(
        "`batch`: 8 connections, each with a batch of 1,000 orders of one product under way, \
         every order with its own key. Latencies are those of a batch.{}",
        cpu_shares(&shares.iter().collect::<Vec<_>>())
    ))
}

/// The CPU of one order by processes: of the first row, and of the others in brackets.
fn cpu_shares(rows: &[&CpuShares]) -> String {
    let Some((first, others)) = rows.split_first() else { return String::new() };
    let part = |name: &str, text: fn(&CpuShares) -> String| {
        let others: Vec<String> = others.iter().map(|shares| text(shares)).collect();
        let others =
            if others.is_empty() { String::new() } else { format!(" ({})", others.join("; ")) };
        format!("{name} {}{others}", text(first))
    };
    let parts = [
        part("followers", |shares| {
            each(&shares.followers.iter().map(|us| format!("{us:.1}")).collect::<Vec<_>>())
        }),
        part("leader", |shares| format!("{:.1}", shares.leader)),
        part("catalog", |shares| format!("{:.1}", shares.catalog)),
        part("frontend", |shares| format!("{:.1}", shares.frontend)),
    ];
    format!(" Of the µs: {}.", parts.join(", "))
}

fn settling(with_64: bool, with_1: bool) -> Option<String> {
    let (names, connections) = match (with_64, with_1) {
        (true, true) => ("`settling-64`, `settling-1`", "64 connections, and one"),
        (true, false) => ("`settling-64`", "64 connections"),
        (false, true) => ("`settling-1`", "one connection"),
        (false, false) => return None,
    };
    Some(format!("{names}: what a catalog and a cache cost {connections}."))
}

fn other_stores(book: &Book) -> Option<String> {
    let version = |name| Some(measured(book, name)?.other_store.as_deref().unwrap_or_default());
    let (postgresql, redis) = (version(Name::PostgreSql), version(Name::Redis));
    let (names, connections) = match (postgresql, redis) {
        (Some(_), Some(_)) => ("`postgresql`, `redis`", "64 connections (and 256)"),
        (Some(_), None) => ("`postgresql`", "64 connections"),
        (None, Some(_)) => ("`redis`", "64 connections (and 256)"),
        (None, None) => return None,
    };
    let postgresql = postgresql.map(|version| {
        format!(
            " {version}: on two of three disks, a primary and two standbys \
             (`synchronous_standby_names = 'ANY 1'`), one prepared statement per order by \
             `pgbench`."
        )
    });
    let redis = redis.map(|version| {
        format!(
            " {version}: a master and two replicas with `appendfsync always`, one script and \
             `WAIT 1` per order: no HTTP, no consensus, and a failover may lose what was \
             acknowledged."
        )
    });
    Some(format!(
        "{names}: the same job over {connections}: an order takes one from the stock of one \
         product, gets the next number without a gap, and is remembered under a key. The store \
         over HTTP.{}{}",
        postgresql.unwrap_or_default(),
        redis.unwrap_or_default()
    ))
}
