//! The book: the newest row of each name that was measured on one machine, as JSON beside the page.
//!
//! Some rows take hours and are measured separately; the page is written from the book, so it has
//! them as well.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::figures::{Figures, Row};
use crate::bench::name::Name;

/// All rows in the order of the page, with their machine and compiler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) machine: String,
    pub(crate) compiler: String,
    pub(crate) rows: Vec<Row>,
}

impl Book {
    /// Opens the book at `path`. The book is empty if there is none, or if its rows are from
    /// another machine or from programs that were compiled in another way.
    pub(crate) fn open(path: &Path, machine: String, compiler: String) -> Self {
        let written = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let rows = match written {
            Some(Self { machine: there, compiler: by, rows })
                if there == machine && by == compiler =>
            {
                rows
            }
            _ => Vec::new(),
        };
        Self { machine, compiler, rows }
    }

    /// Adds a row, or replaces the row of the same name.
    pub(crate) fn enter(&mut self, row: Row) {
        match self.rows.iter_mut().find(|old| old.name == row.name) {
            // A row that was measured before is kept if it cannot be measured now.
            Some(old) if !old.is_skipped() && row.is_skipped() => {}
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
        self.rows.sort_by_key(|row| row.name);
    }

    /// The figures of a row, if it is in the book.
    pub(crate) fn figures(&self, name: Name) -> Option<&Figures> {
        self.rows.iter().find(|row| row.name == name).map(|row| &row.figures)
    }

    /// Writes the book to a file.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("write a book")?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Failover;

    fn row(name: Name, figures: Figures) -> Row {
        let (date, command) = ("2026-11-21".into(), "cargo xtask bench".into());
        Row { name, date, command, busy: 0.25, figures }
    }

    fn killed(times: u32) -> Figures {
        Figures::Failover(Failover { times, ..Failover::default() })
    }

    #[test]
    fn the_newest_row_of_a_name_is_kept_and_saved() {
        let folder = std::env::temp_dir().join(format!("oppidum-book-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        let path = folder.join("performance.json");
        let open_by = |machine: &str, by: &str| Book::open(&path, machine.into(), by.into());
        let open = |machine: &str| open_by(machine, "rustc");
        let mut book = open("here");
        book.enter(row(Name::Freeze, killed(1)));
        book.enter(row(Name::Failover, killed(2)));
        book.enter(row(Name::Freeze, killed(3)));
        book.enter(row(Name::Failover, Figures::Skipped("not now".into())));
        book.save(&path).expect("the book can be written");
        let found = open("here").rows;
        assert_eq!(found, [row(Name::Failover, killed(2)), row(Name::Freeze, killed(3))]);
        assert!(open("elsewhere").rows.is_empty());
        assert!(open_by("here", "another").rows.is_empty());
        fs::remove_dir_all(&folder).expect("the folder exists");
    }
}
