//! The page in the repository: targets first, then each row; its handwritten end is kept.

use super::book::Book;
use super::figures::{Figures, Row};
use super::markdown::Markdown;
use super::{closed, runs, sections, targets};
use crate::bench::name::Name;

/// From this heading on, the page is written by hand.
const BY_HAND: &str = "## Where the microseconds go";

impl Book {
    /// The page's text. `before` is the page that was there, whose handwritten end is kept.
    pub(crate) fn page(&self, before: &str) -> String {
        let mut page = Markdown::default();
        page.heading(1, "Performance");
        self.opening(&mut page);
        page.heading(2, "Against the targets");
        page.paragraph("Measured, and the target:");
        page.list(&targets::items(self));
        page.heading(2, "Each by itself");
        page.paragraph("Each measured by `cargo xtask bench --only NAME`.");
        self.sections(&mut page);
        page.heading(3, "When");
        runs::section(&self.rows, &mut page);
        let page = page.into_text();
        match before.find(BY_HAND) {
            Some(at) => format!("{page}\n\n{}", &before[at..]),
            None => page,
        }
    }

    fn opening(&self, page: &mut Markdown) {
        let Self { machine, compiler, .. } = self;
        page.paragraph("Figures of `cargo xtask bench`.");
        page.list(&[
            format!(
                "Machine: {machine}; {compiler}, as [deployed](deploy.md). It also runs the load: \
                 one thread, which in an open loop has the highest priority (as root)."
            ),
            "The store: three replicas, a catalog and a frontend (`--log warn`, `--access-log \
             off`). Before its answer, each order is on disk on a majority, and dropped from every \
             cache."
                .into(),
            "The bare handler: axum; it parses and answers the same requests, and keeps nothing."
                .into(),
            "The sides of a row run in turns; figures are medians of the runs. CPU is that of all \
             processes of a side, without the load. Only ratios within one run can be compared. A \
             run fails unless the ledger has grown by as many orders as were acknowledged."
                .into(),
        ]);
    }

    /// The closed loops, then the rows with a table of their own.
    fn sections(&self, page: &mut Markdown) {
        closed::section(self, page);
        let mut overload_is_written = false;
        for Row { name, figures, .. } in &self.rows {
            match figures {
                Figures::Alone(figures) => sections::alone(figures, page),
                Figures::HalfRate(figures) => sections::half_rate(figures, page),
                Figures::Overload(_) => {
                    if !overload_is_written {
                        sections::overload(self, page);
                    }
                    overload_is_written = true;
                }
                Figures::Growth(figures) => sections::growth(figures, page),
                Figures::Return(figures) => sections::returning(figures, page),
                Figures::Failover(figures) => {
                    let is_second =
                        *name != Name::Failover && self.figures(Name::Failover).is_some();
                    sections::failover(*name, is_second, figures, page);
                }
                Figures::ClosedLoop(_) | Figures::Skipped(_) => {}
            }
        }
    }
}

impl Row {
    /// What the page says of this row alone, for the terminal: its section and its targets.
    pub(crate) fn text(&self) -> String {
        let book = Book { rows: vec![self.clone()], ..Book::default() };
        let mut text = Markdown::default();
        book.sections(&mut text);
        text.list(&targets::items(&book));
        text.into_text()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::bench::{FIGURES, PAGE};

    fn read(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn kept() -> Book {
        serde_json::from_str(&read(FIGURES)).expect("the kept figures are a book")
    }

    /// The page and the program that writes it agree in every heading, table, label and sentence.
    #[test]
    fn the_kept_figures_give_the_page_of_the_repository() {
        let page = read(PAGE);
        assert!(page.contains(BY_HAND), "the handwritten end has another heading");
        let written = kept().page(&page);
        for (at, (found, expected)) in page.lines().zip(written.lines()).enumerate() {
            assert_eq!(found, expected, "{PAGE}:{}: the bench writes another line", at + 1);
        }
        assert_eq!(page, written);
    }

    /// What the page says of a few rows only.
    fn page_of(names: &[Name]) -> String {
        let mut book = kept();
        book.rows.retain(|row| names.contains(&row.name));
        book.page("")
    }

    #[test]
    fn a_row_without_its_neighbour_is_described_in_full() {
        let all = page_of(&Name::every());
        let some = page_of(&[Name::Hot256, Name::OverloadApart, Name::Settling1, Name::Freeze]);
        let some = some.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in [
            "* Twice the greatest rate, the load on a core of its own, 99th percentiles: 2,378 ms \
             of what is accepted (≤ 50.0), 109 ms from a request to its refusal (≤ 5)",
            "* The longest gap (P6): 383 ms when the leader is frozen (≤ 1,000)",
            "* `hot-256`: orders of one product over 256 connections. Of the µs: followers 2.5 and \
             2.4, leader 3.7, catalog 0.7, frontend 6.3.",
            "* `settling-1`: what a catalog and a cache cost one connection.",
            "`--only overload-apart`: 133,338 orders per second on one hot product, open loop",
            "this machine. The load has one core, and what it measures the others. Latency in ms:",
            "* 99.2 % were refused, 99 of 100 within 109 ms of being sent; 0 got 504.",
            "* Memory of all processes: 805 MB before, at most 806 MB, 806 MB after.",
            "`--only freeze`: 20 times SIGSTOP to the leader under 8 clients; the old leader is \
             continued. The longest time without an acknowledged order",
        ] {
            assert!(some.contains(text), "{text}\nis not in\n{some}");
            assert!(!all.contains(text), "{text}");
        }
        assert!(!page_of(&[Name::Growth]).contains("Closed loops"));
    }

    #[test]
    fn a_skipped_row_says_why_and_a_new_page_has_no_handwritten_end() {
        let mut book = kept();
        for row in book.rows.iter_mut().filter(|row| row.name == Name::Redis) {
            row.figures = Figures::Skipped("`redis-server` is not here.".into());
        }
        let page = book.page("# Performance\n\nold\n");
        assert!(page.contains("\n* `redis`: not measured: `redis-server` is not here.\n"));
        assert!(page.contains("\n* `postgresql`: the same job over 64 connections: an order"));
        assert!(!page.contains("settling-1, redis"), "a run lists what it has measured");
        assert!(!page.contains("old\n") && !page.contains(BY_HAND));
    }
}
