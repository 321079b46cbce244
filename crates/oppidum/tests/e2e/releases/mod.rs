//! Compatibility with releases: the current program opens the data folders that each release wrote,
//! and gives the answers that the release gave.
//!
//! `releases/VERSION/` holds the folders of three replicas after a day (`day`) and the answers
//! (`answers`). `cargo xtask release --record` writes them, with the program of that release.

mod answers;
mod day;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use answers::Answers;

use crate::harness::{Plan, Store, post};

/// The variable that names the folder into which a day is recorded.
const RECORD: &str = "OPPIDUM_RECORD";

/// The file with the data folders of the replicas.
const DATA: &str = "data.tar.gz";

/// The file with the answers.
const ANSWERS: &str = "answers.json";

/// True for the folder of a release; the name of an unfinished one begins with a dot.
fn is_release(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_dir() && !name.starts_with('.')
}

/// The folders of all releases.
fn releases() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../releases");
    let entries = fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path());
    let mut releases: Vec<_> = entries.filter(|path| is_release(path)).collect();
    releases.sort();
    releases
}

/// Runs `tar` with these arguments in a folder.
fn tar(folder: &Path, arguments: &[&str]) {
    let status = Command::new("tar").current_dir(folder).args(arguments).status().unwrap();
    assert!(status.success(), "tar {arguments:?} in {}", folder.display());
}

/// A store of the current program on these data folders, led by 456.
fn reopened(data: &Path, answers: &Answers) -> Store {
    let mut store = Store::prepare(Plan::stock());
    store.replace_orders(&answers.replicas);
    tar(store.folder(), &["-xzf", data.to_str().unwrap()]);
    store.start_all();
    store
}

/// [P1, P3, P8] Each release's data opens: every order and every product are those that the release
/// showed, the history verifies, and the next order gets the next number.
#[test]
fn the_data_of_every_release_opens_and_answers_as_before() {
    let releases = releases();
    assert!(!releases.is_empty());
    for release in releases {
        let expected = Answers::read(&release.join(ANSWERS));
        let store = reopened(&release.join(DATA), &expected);
        expected.assert_given_by(&store);
        assert_eq!(store.buy("GameStart", 1), expected.next_order_number);
        store.verify();
    }
}

/// [P1, P3, P8] The day of the current program survives a restart of every process on copies of the
/// data folders. With `OPPIDUM_RECORD=DIR` the folders and the answers are kept in `DIR`.
#[test]
fn a_day_with_every_kind_of_record_survives_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let kept = std::env::var_os(RECORD).map(PathBuf::from);
    let folder = kept.as_deref().unwrap_or(scratch.path());
    let answers = day::run(folder);
    answers.write(&folder.join(ANSWERS));
    assert!(Answers::read(&folder.join(ANSWERS)) == answers);
    let store = reopened(&folder.join(DATA), &answers);
    answers.assert_given_by(&store);
    // A repeated key has the same answer, also that of a refusal.
    for (key, body, status, number) in day::repeated() {
        let reply = store.post_with_key(key, body);
        assert_eq!(reply.status, status, "{key}: {reply:?}");
        assert_eq!(reply.header("idempotent-replayed"), Some("true"), "{key}: {reply:?}");
        assert!(number.is_none_or(|number| number == reply.number()), "{key}: {reply:?}");
    }
    assert_eq!(post(store.port(), day::ONE).number(), answers.next_order_number);
    store.verify();
}
