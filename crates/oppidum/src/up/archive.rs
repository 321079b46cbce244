//! The archive of the children's log lines: every line goes to a file, and lines with certain words
//! also go to memory, with their time.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use parking_lot::Mutex;

/// The largest log file of one child, in bytes: later lines are dropped.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The most lines in memory: lines with the words are rare.
const MATCHED_MAX: usize = 10_000;

/// A child's line, with the time of its arrival.
#[derive(Clone, Debug)]
pub(crate) struct LogLine {
    /// When the line came.
    pub(crate) at: Instant,
    /// The child's name.
    pub(crate) name: String,
    /// The line.
    pub(crate) line: String,
}

/// Keeps the children's lines.
#[derive(Debug)]
pub(crate) struct Archive {
    folder: PathBuf,
    /// Lines with any of these words are kept in memory.
    words: &'static [&'static str],
    kept: Mutex<KeptLine>,
}

#[derive(Debug, Default)]
struct KeptLine {
    files: BTreeMap<String, (File, u64)>,
    last: BTreeMap<String, String>,
    matched: Vec<LogLine>,
}

impl Archive {
    /// Writes to `folder/NAME.log`, and keeps lines with any of `words` in memory.
    pub(crate) fn new(folder: PathBuf, words: &'static [&'static str]) -> Self {
        Self { folder, words, kept: Mutex::default() }
    }

    /// Stores a line. A file that cannot be written must not stop the child.
    pub(crate) fn take(&self, name: &str, line: &str) {
        let mut kept = self.kept.lock();
        let matched = kept.matched.len() < MATCHED_MAX;
        if matched && self.words.iter().any(|words| line.contains(words)) {
            let at = Instant::now();
            let name = name.to_owned();
            let line = line.to_owned();
            kept.matched.push(LogLine { at, name, line });
        }
        kept.last.insert(name.to_owned(), line.to_owned());
        if !kept.files.contains_key(name) {
            let path = self.folder.join(format!("{name}.log"));
            let Ok(file) = OpenOptions::new().create(true).append(true).open(path) else { return };
            kept.files.insert(name.to_owned(), (file, 0));
        }
        if let Some((file, written)) = kept.files.get_mut(name)
            && *written < FILE_BYTES_MAX
            && writeln!(file, "{line}").is_ok()
        {
            *written += u64::try_from(line.len()).unwrap_or(0) + 1;
        }
    }

    /// The last line of a child.
    pub(crate) fn last(&self, name: &str) -> Option<String> {
        self.kept.lock().last.get(name).cloned()
    }

    /// The lines with one of the words, in the order of their arrival.
    pub(crate) fn matched(&self) -> Vec<LogLine> {
        self.kept.lock().matched.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_written_and_lines_with_the_words_are_kept_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::new(folder.path().to_owned(), &["New leader"]);
        archive.take("order-123", "Requesting missing logs");
        archive.take("order-345", "New leader id: 345");
        archive.take("order-123", "New leader id: 345");
        let matched = archive.matched();
        let names: Vec<_> = matched.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["order-345", "order-123"]);
        assert!(matched[0].at <= matched[1].at);
        assert_eq!(archive.last("order-123").as_deref(), Some("New leader id: 345"));
        let file = std::fs::read_to_string(folder.path().join("order-123.log")).unwrap();
        assert_eq!(file, "Requesting missing logs\nNew leader id: 345\n");
    }
}
