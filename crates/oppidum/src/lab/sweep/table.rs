//! The sweep's numbers as CSV: a row for each cache setting, probability and kind of request.

use std::fmt::Write as _;

use crate::load::report::{Kind, LatencySummary, Report};

/// The header line.
const HEAD: &str = "cache,p,kind,n,mean_ms,p50_ms,p95_ms,p99_ms";

/// The kinds of rows: the name in the file, the name for people, and the requests it counts.
pub(super) const ROWS: [(&str, &str, &[Kind]); 5] = [
    ("query", "every query", &[Kind::QueryHit, Kind::QueryMiss, Kind::Query]),
    ("query_hit", "query, hit", &[Kind::QueryHit]),
    ("query_miss", "query, miss", &[Kind::QueryMiss]),
    ("order", "order", &[Kind::Order]),
    ("lookup", "look-up", &[Kind::Lookup]),
];

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// `on`, `off`, or `unknown` for a store that does not report it.
    pub(super) cache: String,
    /// The probability that a query is followed by a trade.
    pub(super) p: f64,
    /// One of [`ROWS`].
    pub(super) kind: String,
    /// None: no request of this kind was measured.
    pub(super) spread: Option<LatencySummary>,
}

/// The rows of one point of the sweep.
pub(super) fn rows(cache: &str, p: f64, report: &Report) -> impl Iterator<Item = Row> {
    ROWS.into_iter().map(move |(kind, _, kinds)| Row {
        cache: cache.to_owned(),
        p,
        kind: kind.to_owned(),
        spread: report.spread(kinds),
    })
}

/// All rows as CSV. Without a measurement `n` is 0 and the times are empty.
pub(super) fn write(rows: &[Row]) -> String {
    let mut text = format!("{HEAD}\n");
    for Row { cache, p, kind, spread } in rows {
        let _ = match spread {
            Some(LatencySummary { n, mean, p50, p95, p99 }) => {
                writeln!(text, "{cache},{p},{kind},{n},{mean:.4},{p50:.4},{p95:.4},{p99:.4}")
            }
            None => writeln!(text, "{cache},{p},{kind},0,,,,"),
        };
    }
    text
}

/// Parses a CSV. The picture is drawn from the parsed rows, so that file and picture agree.
pub(super) fn read(text: &str) -> Option<Vec<Row>> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    lines.map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut cells = line.split(',');
    let cache = cells.next()?;
    let p = cells.next()?.parse().ok()?;
    let kind = cells.next()?;
    let n = cells.next()?.parse().ok()?;
    let spread = match n {
        0 => None,
        n => {
            let mut millis = || cells.next()?.parse().ok();
            Some(LatencySummary {
                n,
                mean: millis()?,
                p50: millis()?,
                p95: millis()?,
                p99: millis()?,
            })
        }
    };
    Some(Row { cache: cache.to_owned(), p, kind: kind.to_owned(), spread })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_writing_and_parsing() {
        let spread = LatencySummary { n: 7, mean: 0.25, p50: 0.2, p95: 0.5, p99: 0.75 };
        let row =
            |kind: &str, spread| Row { cache: "on".into(), p: 0.2, kind: kind.into(), spread };
        let rows = [row("query_hit", Some(spread)), row("order", None)];
        let text = write(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "on,0.2,query_hit,7,0.2500,0.2000,0.5000,0.7500");
        assert_eq!(lines[2], "on,0.2,order,0,,,,");
        assert_eq!(read(&text).as_deref(), Some(&rows[..]));
        assert_eq!(read("something else\n"), None);
        assert_eq!(read(&format!("{HEAD}\non,x,order,0,,,,\n")), None);
    }
}
