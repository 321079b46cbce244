//! The pages as data: headings, and the fenced blocks under them.
//!
//! A block is identified by its page, its heading and its place under that heading, so that a
//! scenario names in words which block it runs. The book remembers which blocks were run or named
//! as not run; the chore complains about the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// One fenced block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) page: String,
    pub(crate) heading: String,
    /// The place under the heading, counted from 1.
    pub(crate) place: usize,
    /// The line of the page on which the fence opens.
    pub(crate) line: usize,
    /// The word behind the fence: `sh`, `console`, `text`.
    pub(crate) language: String,
    pub(crate) text: String,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, heading, place, line, .. } = self;
        write!(f, "{page}:{line}: \"{heading}\", block {place}")
    }
}

impl Block {
    /// The lines that are not empty.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.text.lines().filter(|line| !line.trim().is_empty()).collect()
    }

    /// The text with each of these words replaced, where the page says "its own", or `NEW`. A word
    /// that is missing is an error, for then the page has changed.
    pub(crate) fn with(&self, changes: &[(&str, &str)]) -> Result<String> {
        let mut text = self.text.clone();
        for (word, other) in changes {
            if !text.contains(word) {
                bail!("{self}: the scenario replaces `{word}`, which does not stand there");
            }
            text = text.replace(word, other);
        }
        Ok(text)
    }

    /// Fails unless the block has `count` lines besides comments, so that a scenario that takes
    /// lines one by one has seen all of them.
    pub(crate) fn has_lines(&self, count: usize) -> Result<()> {
        let found = self.lines().iter().filter(|line| !line.starts_with('#')).count();
        match found == count {
            true => Ok(()),
            false => bail!("{self}: it has {found} lines, and the scenario follows {count}"),
        }
    }

    /// The only line of the block with this word.
    pub(crate) fn line_with(&self, word: &str) -> Result<&str> {
        let mut lines = self.lines().into_iter().filter(|line| line.contains(word));
        let line = lines.next().with_context(|| format!("{self}: no line has `{word}`"))?;
        if lines.next().is_some() {
            bail!("{self}: several lines have `{word}`");
        }
        Ok(line)
    }

    /// Splits a console block into commands, each with the lines that it prints.
    pub(crate) fn session(&self) -> Vec<(String, Vec<String>)> {
        let mut session: Vec<(String, Vec<String>)> = Vec::new();
        let mut open = false;
        for line in self.lines() {
            if let Some(command) = line.strip_prefix("$ ").filter(|_| !open) {
                session.push((command.to_owned(), Vec::new()));
            } else if let Some((command, printed)) = session.last_mut() {
                if open {
                    command.push('\n');
                    command.push_str(line);
                } else {
                    printed.push(line.to_owned());
                    continue;
                }
            }
            open = session.last().is_some_and(|(command, _)| goes_on(command));
        }
        session
    }
}

/// True if a shell would wait for more: a quote is open, or the line ends with a backslash.
fn goes_on(command: &str) -> bool {
    command.matches('\'').count() % 2 == 1 || command.ends_with('\\')
}

/// Splits a page into its blocks.
fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut heading, mut place) = (String::new(), 0);
    let mut open: Option<Block> = None;
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(language)) => {
                place += 1;
                open = Some(Block {
                    page: page.to_owned(),
                    heading: heading.clone(),
                    place,
                    line: at + 1,
                    language: language.trim().to_owned(),
                    text: String::new(),
                });
            }
            (None, None) => {
                let title = line.trim_start_matches('#');
                if title.len() < line.len() {
                    (heading, place) = (title.trim().to_owned(), 0);
                }
            }
        }
    }
    blocks
}

/// What happened to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Run,
    /// The block was not run, with the reason.
    NotRun(&'static str),
}

/// The pages, and what happened to their blocks.
#[derive(Debug, Default)]
pub(crate) struct Book {
    texts: BTreeMap<String, String>,
    blocks: Vec<Block>,
    fates: Mutex<BTreeMap<usize, Fate>>,
}

impl Book {
    /// Reads these pages of a folder.
    pub(crate) fn read(folder: &Path, pages: &[&str]) -> Result<Self> {
        let mut book = Self::default();
        for page in pages {
            let path = folder.join(page);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", path.display()))?;
            book.add(page, text);
        }
        Ok(book)
    }

    fn add(&mut self, page: &str, text: String) {
        self.blocks.extend(blocks(page, &text));
        self.texts.insert(page.to_owned(), text);
    }

    /// The block at this place under this heading, which is noted as run.
    pub(crate) fn block(&self, page: &str, heading: &str, place: usize) -> Result<&Block> {
        self.note(page, heading, place, Fate::Run)
    }

    /// Notes a block as not run.
    pub(crate) fn not_run(
        &self,
        page: &str,
        heading: &str,
        place: usize,
        why: &'static str,
    ) -> Result<&Block> {
        self.note(page, heading, place, Fate::NotRun(why))
    }

    fn note(&self, page: &str, heading: &str, place: usize, fate: Fate) -> Result<&Block> {
        let is_it =
            |block: &Block| block.page == page && block.heading == heading && block.place == place;
        let at = self.blocks.iter().position(is_it).with_context(|| {
            format!("{page} has no block {place} under \"{heading}\": does the scenario follow it?")
        })?;
        self.fates.lock().unwrap_or_else(PoisonError::into_inner).insert(at, fate);
        Ok(&self.blocks[at])
    }

    /// Fails unless the page has this text, in one line or broken into several.
    pub(crate) fn says(&self, page: &str, words: &str) -> Result<()> {
        let even = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.texts.get(page).with_context(|| format!("{page} was not read"))?;
        if !even(text).contains(&even(words)) {
            bail!("{page} does not say: {words}");
        }
        Ok(())
    }

    /// The blocks that were neither run nor noted as not run.
    pub(crate) fn left(&self) -> Vec<&Block> {
        let fates = self.fates.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |(at, block)| (!fates.contains_key(&at)).then_some(block);
        self.blocks.iter().enumerate().filter_map(left).collect()
    }

    /// The number of blocks that were run, and the blocks that were not.
    pub(crate) fn done(&self) -> (usize, Vec<(&Block, &'static str)>) {
        let fates = self.fates.lock().unwrap_or_else(PoisonError::into_inner);
        let run = fates.values().filter(|fate| **fate == Fate::Run).count();
        let not_run = fates.iter().filter_map(|(at, fate)| match fate {
            Fate::Run => None,
            Fate::NotRun(why) => Some((&self.blocks[*at], *why)),
        });
        (run, not_run.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n\n```sh\nls\n```\n\n## B\n\nWords that\nbreak.\n\n```console\n\
                        $ echo '\nb'\n\nb\n$ true\n```\n\n```text\nc\n```\n";

    fn book() -> Book {
        let mut book = Book::default();
        book.add("a.md", PAGE.to_owned());
        book
    }

    #[test]
    fn a_block_is_found_by_its_heading_and_its_place() {
        let book = book();
        assert_eq!(book.block("a.md", "A", 1).unwrap().text, "ls\n");
        let block = book.block("a.md", "B", 2).unwrap();
        assert_eq!((block.language.as_str(), block.line), ("text", 20));
        assert!(book.block("a.md", "B", 3).is_err());
        assert!(book.block("a.md", "C", 1).is_err());
    }

    #[test]
    fn a_command_goes_on_until_its_quote_is_closed() {
        let book = book();
        let session = book.block("a.md", "B", 1).unwrap().session();
        let commands: Vec<&str> = session.iter().map(|(command, _)| command.as_str()).collect();
        assert_eq!(commands, ["echo '\nb'", "true"]);
        assert_eq!(session[0].1, ["b"]);
        assert!(session[1].1.is_empty());
    }

    #[test]
    fn a_block_that_no_scenario_runs_is_left() {
        let book = book();
        book.block("a.md", "A", 1).unwrap();
        book.not_run("a.md", "B", 1, "it needs a cloud").unwrap();
        let left: Vec<String> = book.left().iter().map(ToString::to_string).collect();
        assert_eq!(left, ["a.md:20: \"B\", block 2"]);
        assert_eq!(book.done().0, 1);
    }

    #[test]
    fn a_line_that_a_scenario_does_not_follow_is_detected() {
        let book = book();
        let block = book.block("a.md", "A", 1).unwrap();
        assert!(block.has_lines(1).is_ok());
        assert!(block.has_lines(2).is_err());
    }

    #[test]
    fn a_replaced_word_must_stand_in_the_block() {
        let book = book();
        let block = book.block("a.md", "A", 1).unwrap();
        assert_eq!(block.with(&[("ls", "ls -l")]).unwrap(), "ls -l\n");
        assert!(block.with(&[("rm", "ls")]).is_err());
    }

    #[test]
    fn a_text_is_found_across_the_line_breaks_of_a_page() {
        assert!(book().says("a.md", "Words that break.").is_ok());
        assert!(book().says("a.md", "Words that mend.").is_err());
    }
}
