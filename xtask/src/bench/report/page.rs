//! The page in the repository: targets first, then each row; its handwritten end is kept.

use std::fmt::Write as _;

use super::book::Book;
use super::row::{Aim, Row};

/// From this heading on, the page is written by hand.
const BY_HAND: &str = "## Where the microseconds go";

impl Book {
    /// The page's text. `before` is the page that was there, whose handwritten end is kept.
    pub(crate) fn page(&self, before: &str) -> String {
        let Self { machine, compiler, rows } = self;
        let mut page = format!(
            "# Performance\n\n\
             Written by `cargo xtask bench`.\n\n\
             * Machine: {machine}; {compiler}, as [deployed](deploy.md). It also runs the load: \
             one thread, which in an open loop has the highest priority (as root).\n\
             * The store: three replicas, a catalog and a frontend (`--log warn`, `--access-log \
             off`). Before its answer, each order is on disk on a majority, and dropped from every \
             cache.\n\
             * The bare handler: axum; it parses and answers the same requests, and keeps \
             nothing. It shows what HTTP alone costs here.\n\
             * The sides of a table run in turns; figures are medians of the runs. CPU is that of \
             all processes of a side, without the load. Only ratios within one run can be \
             compared. A run fails unless the ledger has grown by as many orders as were \
             acknowledged.\n\n\
             ## Against the targets\n\n\
             | | | target | measured | |\n|---|---|---:|---:|---|\n"
        );
        for row in rows {
            for (at, aim) in row.aims.iter().enumerate() {
                let Aim { what, wanted, found, met } = aim;
                let title = if at == 0 { row.title.as_str() } else { "" };
                let met = if *met { "" } else { "**not met**" };
                // Writing into a string cannot fail, here and below.
                let _ = writeln!(page, "| {title} | {what} | {wanted} | {found} | {met} |");
            }
        }
        let _ = write!(page, "\n## Each by itself\n");
        for row in rows {
            let _ = write!(page, "\n{}", row.table());
        }
        let _ = write!(page, "\n### When\n\n{}", runs(rows));
        if let Some(at) = before.find(BY_HAND) {
            let _ = write!(page, "\n\n{}", &before[at..]);
        }
        page
    }
}

/// When and with which command the rows were measured, as a list.
fn runs(rows: &[Row]) -> String {
    let mut runs: Vec<(String, Vec<&str>)> = Vec::new();
    for row in rows.iter().filter(|row| row.skipped.is_none()) {
        let Row { name, date, command, busy, .. } = row;
        let run = format!("{date}, `{command}`, load average before {busy:.2}");
        match runs.iter_mut().find(|(other, _)| *other == run) {
            Some((_, names)) => names.push(name.as_str()),
            None => runs.push((run, vec![name.as_str()])),
        }
    }
    let mut text = String::new();
    for (run, names) in runs {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "* {run}: {}", names.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_targets_first_and_keeps_what_is_written_by_hand() {
        let mut row = Row::new("Orders", "All buy.", &["a store", "a handler"]);
        row.line("orders per second", &[1.0, 2.0]);
        row.aims.push(Aim::at_most("CPU per order", 25.0, " µs", 30.5));
        (row.date, row.command) = ("2026-11-21".into(), "cargo xtask bench".into());
        let mut book = Book { machine: "2 cores".into(), ..Book::default() };
        book.enter(row);
        let by_hand = format!("{BY_HAND}\n\nMostly into syncs.\n");
        let page = book.page(&format!("# Performance\n\nold\n\n{by_hand}"));
        let target = "| Orders | CPU per order | ≤ 25.0 µs | 30.5 µs | **not met** |";
        let order = [target, "### Orders", "* 2026-11-21, `cargo xtask bench`", &by_hand];
        let places: Vec<_> = order.iter().map(|text| page.find(text)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{page}");
        assert!(!page.contains("old"));
        assert!(page.ends_with(&by_hand));
        // Writing the page again changes nothing.
        assert_eq!(book.page(&page), page);
    }
}
