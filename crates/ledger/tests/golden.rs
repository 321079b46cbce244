//! Golden scripts: every script in `scripts/` is run, and its output is compared.
//!
//! To rewrite them: `UPDATE_GOLDENFILES=1 cargo test -p ledger --test golden`; then read the
//! difference until it is understood.

#![expect(clippy::unwrap_used, reason = "a test that panics has found something")]

mod story;

use std::path::{Path, PathBuf};

use story::Story;

/// All files of the folder. Each of them is a script, so that none is left out.
fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut scripts: Vec<_> = entries.collect();
    scripts.sort();
    scripts
}

#[test]
fn every_script_matches_its_recorded_output() {
    let scripts = scripts();
    assert!(10 <= scripts.len(), "{scripts:?}");
    for script in scripts {
        goldenscript::run(&mut Story::new(|_, _| ()), &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}

/// A script is a file at the top of the folder; a sentence names it, and a sentence opens it.
#[test]
fn every_script_is_named_by_a_sentence_and_opens_with_one() {
    for script in scripts() {
        let name = script.file_name().unwrap().to_str().unwrap();
        assert!(script.is_file(), "{name} is a folder: its scripts would not be run");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(plain) && 2 <= name.matches('_').count(), "{name}");
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.starts_with("# "), "{name} does not open with a comment");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{name} is wider than a hundred columns");
    }
}
