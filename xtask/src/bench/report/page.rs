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
             Measured with `cargo xtask bench`, which wrote this page.\n\n\
             * Machine: {machine}; {compiler}, as it is [deployed](deploy.md). The load runs on \
             the same machine.\n\
             * The store: three replicas, a catalog and a frontend; every order is on disk on a \
             majority, and dropped from every cache, before its answer. CPU is that of all their \
             processes, from `/proc`. They write no line per batch or request (`--log warn`, \
             `--access-log off`).\n\
             * The bare handler: axum, an order parsed and answered, nothing kept; a query \
             answered with the same bytes. It shows what HTTP alone costs here.\n\
             * What is compared runs in turns, in the same run; medians of the runs. What lasts \
             are the ratios: the rest says as much about the machine.\n\
             * The load is one thread that waits for all its connections at once; an open loop \
             goes before what it measures, where that is allowed (root). After each run the \
             ledger has grown by as many orders as were acknowledged, or the run fails.\n\n\
             ## Against the targets\n\n\
             | | | target | measured | |\n|---|---|---:|---:|---|\n"
        );
        for (row, aim) in rows.iter().flat_map(|row| row.aims.iter().map(move |aim| (row, aim))) {
            let Aim { what, wanted, found, met } = aim;
            let met = if *met { "met" } else { "**not met**" };
            // Writing into a string cannot fail, here and below.
            let _ = writeln!(page, "| {} | {what} | {wanted} | {found} | {met} |", row.title);
        }
        let _ = write!(page, "\n## Each by itself\n");
        for row in rows {
            let _ = write!(page, "\n{}", row.table());
            if row.skipped.is_none() {
                let Row { date, command, busy, .. } = row;
                let _ = writeln!(
                    page,
                    "\nMeasured on {date} with `{command}`; load average before: {busy:.2}."
                );
            }
        }
        if let Some(at) = before.find(BY_HAND) {
            let _ = write!(page, "\n\n{}", &before[at..]);
        }
        page
    }
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
        let order = [target, "### Orders", "Measured on 2026-11-21", &by_hand];
        let places: Vec<_> = order.iter().map(|text| page.find(text)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{page}");
        assert!(!page.contains("old"));
        assert!(page.ends_with(&by_hand));
        // Writing the page again changes nothing.
        assert_eq!(book.page(&page), page);
    }
}
