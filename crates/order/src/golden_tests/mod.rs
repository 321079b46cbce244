//! Golden scripts of the cores that decide when an entry closes, which replica leads, and which one
//! stands for election. Each script in `tests/scripts/` is run, and its output is compared.
//!
//! To rewrite them: `UPDATE_GOLDENFILES=1 cargo test -p order --lib golden`; then read the
//! difference until it is understood.

mod elections;
mod queue;

use std::error::Error;
use std::path::{Path, PathBuf};

use goldenscript::{Command, Context, Runner};

use elections::{choose, judge};
use queue::QueueStory;

type Failure = Box<dyn Error>;

/// Carries out the commands of a script.
struct Story {
    queue: QueueStory,
}

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Failure> {
        match command.name.as_str() {
            "elected" => choose(command),
            "lost" => judge(command),
            _ => self.queue.run(command),
        }
    }
}

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
    assert!(3 <= scripts.len(), "{scripts:?}");
    for script in scripts {
        goldenscript::run(&mut Story { queue: QueueStory::new() }, &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}

#[test]
fn every_script_opens_with_a_sentence() {
    for script in scripts() {
        let name = script.display();
        assert!(script.is_file(), "{name} is a folder: its scripts would not be run");
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.starts_with("# "), "{name} does not open with a comment");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{name} is wider than a hundred columns");
    }
}
