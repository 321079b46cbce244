//! The book: the newest row of each name that was measured here, as JSON in cargo's target folder.
//!
//! Some rows take hours and are measured separately; the page is written from the book, so it has
//! them as well.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::row::Row;

/// All rows, with their machine and compiler.
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
            Some(old) if old.skipped.is_none() && row.skipped.is_some() => {}
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
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

    fn row(name: &str, title: &str) -> Row {
        Row { name: name.into(), title: title.into(), ..Row::default() }
    }

    #[test]
    fn the_newest_row_of_a_name_is_kept_and_saved() {
        let folder = std::env::temp_dir().join(format!("oppidum-book-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        let path = folder.join("bench.json");
        let open_by = |machine: &str, by: &str| Book::open(&path, machine.into(), by.into());
        let open = |machine: &str| open_by(machine, "rustc");
        let mut book = open("here");
        book.enter(row("one", "old"));
        book.enter(row("two", "other"));
        book.enter(row("one", "new"));
        book.enter(Row { skipped: Some("not now".into()), ..row("two", "skipped") });
        book.save(&path).expect("the book can be written");
        let titles = |book: &Book| -> Vec<String> {
            book.rows.iter().map(|row| row.title.clone()).collect()
        };
        assert_eq!(titles(&open("here")), ["new", "other"]);
        assert!(open("elsewhere").rows.is_empty());
        assert!(open_by("here", "another").rows.is_empty());
        fs::remove_dir_all(&folder).expect("the folder exists");
    }
}
