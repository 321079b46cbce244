//! Backups of a store that takes orders, and stores that are restored from them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Ended, Plan, Process, Store, run, until};

/// A store, and the folder of its backup.
struct BackedUp {
    store: Store,
    folder: PathBuf,
}

impl BackedUp {
    fn start(locked: bool) -> Self {
        let store = Store::start(Plan { locked, ..Plan::stock() });
        let folder = store.folder().join("backup");
        Self { store, folder }
    }

    fn to(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    /// Backs the store up, and expects success.
    fn back_up(&self) -> String {
        let ended = self.store.run(&["ctl", "backup", "--to", self.to()]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    }

    fn verify_backup(&self) {
        let verified = run(&["ctl", "backup", "verify", "--from", self.to()]);
        assert_eq!(verified.code, Some(0), "{verified:?}");
        assert!(verified.stdout.contains("every file is intact"), "{verified:?}");
    }

    /// Restores into the store's own data folder.
    fn restore(&self, more: &[&str]) -> Ended {
        let data = self.store.all_data();
        let data = data.to_str().unwrap();
        let restore = ["ctl", "restore", "--from", self.to(), "--data", data, "--id", "123"];
        run(&[&restore[..], more].concat())
    }

    /// Loses every replica: what is left of them is moved away.
    fn lose_all(&mut self) -> PathBuf {
        for id in [123, 345, 456] {
            self.store.kill(id);
        }
        let lost = self.store.folder().join("lost");
        fs::rename(self.store.all_data(), &lost).unwrap();
        fs::create_dir(self.store.all_data()).unwrap();
        self.store.drop_order(456);
        lost
    }

    /// Starts the restored replica, and adds two to it.
    fn reopen(&mut self) {
        self.store.start_order(123, &[]);
        self.store.await_status("/readyz", 200);
        for id in [567, 678] {
            self.store.join_order(id, &[]);
            let (number, address) = (id.to_string(), self.store.order_address(id));
            let add = ["ctl", "member", "add", "--id", &number, "--address", &address];
            let added = self.store.run(&add);
            assert_eq!(added.code, Some(0), "{added:?}");
        }
    }

    /// A restore to before the first one: the later blocks prove which numbers and terms were used.
    fn restores_to_before_the_first_restore(&self, next: u64) {
        fs::remove_dir_all(self.folder.join("restores")).unwrap();
        let scratch = self.store.folder().join("earlier");
        let earlier = ["ctl", "restore", "--from", self.to(), "--data", scratch.to_str().unwrap()];
        let earlier = [&earlier[..], &["--id", "8", "--index", "20", "--yes", "oppidum"]].concat();
        let taken = run(&[&earlier[..], &["--orders-from", &next.to_string()]].concat());
        assert!(taken.code == Some(2) && taken.stderr.contains("are given out"), "{taken:?}");
        let earlier = run(&earlier);
        assert_eq!(earlier.code, Some(0), "{earlier:?}");
        let first =
            earlier.stdout.split("rounded up: ").nth(1).and_then(|rest| rest.split('.').next());
        assert!(next < first.unwrap().parse().unwrap(), "{earlier:?}");
        assert!(earlier.stdout.contains("from term 2000000000 on"), "{earlier:?}");
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The number of the last order that a restore keeps.
fn kept(restored: &Ended) -> u64 {
    let line = restored.stdout.lines().find(|line| line.starts_with("Kept:")).unwrap();
    let number = line.trim_end_matches('.').rsplit(' ').next().unwrap();
    number.parse().unwrap_or_else(|_| panic!("{restored:?}"))
}

/// [P1, P3, P8] Two backups while customers order; then every replica is lost. The restored store
/// has the same digest where the backup ends, gives no number out again, and grows to three
/// replicas. No file holds a secret, and an old replica stays out.
#[test]
fn a_store_that_is_backed_up_under_load_is_restored_to_three_replicas() {
    let mut town = BackedUp::start(false);
    let issued = town.store.run(&["ctl", "key", "issue", "webshop", "--as", "storefront"]);
    let secret = issued.stdout.trim().to_owned();
    assert!(secret.starts_with("opk_"), "{issued:?}");
    let load = ["load", "--requests", "300", "--clients", "3", "-p", "1", "--quiet", "--url"];
    let load = load.iter().map(|word| (*word).to_owned()).chain([town.store.url()]);
    let mut load = Process::start("load", town.store.folder(), &load.collect::<Vec<_>>());
    until("orders come in", || (200 == town.store.get("/orders/20").status).then_some(()));
    let first = town.back_up();
    assert!(first.starts_with("restore point 20"), "{first}");
    town.verify_backup();
    until("more orders come in", || (200 == town.store.get("/orders/200").status).then_some(()));
    town.back_up();
    assert_eq!(load.wait(), Some(0), "{}", load.stdout());
    let last = town.store.buy("GameStart", 1);
    town.back_up();
    assert!(town.back_up().starts_with("nothing is new since restore point"));
    town.verify_backup();
    let revoked = town.store.run(&["ctl", "key", "revoke", &secret[4..12]]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let lost = town.store.buy("GameStart", 1);
    for file in files(&town.folder) {
        let content = fs::read(&file).unwrap();
        let holds = |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!holds(&secret) && !holds(&secret[13..]) && !holds("PRIVATE KEY"), "{file:?}");
    }

    let old = town.lose_all();
    let unconfirmed = town.restore(&["--yes", "another"]);
    assert_eq!(unconfirmed.code, Some(1), "{unconfirmed:?}");
    assert_eq!(files(&town.store.all_data()), [""; 0].map(PathBuf::from), "nothing is restored");
    let restored = town.restore(&["--yes", "oppidum"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert_eq!(kept(&restored), last);
    let scratch = town.store.folder().join("scratch");
    let again = ["ctl", "restore", "--from", town.to(), "--data", scratch.to_str().unwrap()];
    let again = run(&[&again[..], &["--id", "7", "--yes", "oppidum"]].concat());
    assert_eq!(again.code, Some(0), "{again:?}");
    let words = ["rounded up: 4000000", "from term 2000000000 on"];
    assert!(words.iter().all(|words| again.stdout.contains(words)), "{again:?}");
    let words = ["1 are live as of that entry", "a new series", "places it again"];
    assert!(words.iter().all(|words| restored.stdout.contains(words)), "{restored:?}");
    town.reopen();
    fs::rename(old.join("order-345"), town.store.all_data().join("order-345")).unwrap();
    town.store.start_order(345, &[]);
    assert_eq!(town.store.end_of(345), Some(2));
    town.store.order(345).says("no replica of this store any more");
    town.store.drop_order(345);
    let next = town.store.buy("GameStart", 1);
    assert!(next >= 1_000_000 && next.is_multiple_of(1_000_000), "{next} after {lost}");
    assert_eq!(town.store.get(&format!("/orders/{last}")).status, 200);
    assert_eq!(town.store.get(&format!("/orders/{lost}")).status, 404);
    town.store.verify();
    // The backup goes on only where the digest at its end is that of the store.
    assert!(town.back_up().starts_with("restore point"));
    town.verify_backup();
    town.restores_to_before_the_first_restore(next);
    let trail = town.store.run(&["ctl", "trail"]).stdout;
    let words = ["restore 123 from a backup", &format!("order numbers go on at {next}")];
    assert!(words.iter().all(|words| trail.contains(words)), "{trail}");
}

/// A restore to a moment loses what came after it, and its store is not that of the backup any
/// more. All processes have certificates, and clients need API keys.
#[test]
fn a_store_is_restored_to_an_earlier_entry_and_backed_up_to_another_folder() {
    let mut town = BackedUp::start(true);
    for number in 0..6 {
        assert_eq!(town.store.buy("GameStart", 1), number);
    }
    let issued = town.store.run(&["ctl", "key", "issue", "webshop", "--as", "storefront"]);
    let id = issued.stdout.get(4..12).unwrap().to_owned();
    let applied = |status: &serde_json::Value| status["applied_index"].as_u64();
    let as_of = town.store.replicas().iter().filter_map(applied).max().unwrap();
    town.store.run(&["ctl", "key", "revoke", &id]);
    assert_eq!(town.store.buy("GameStart", 1), 6);
    town.back_up();
    town.lose_all();
    town.store.drop_order(345);
    let too_late = town.restore(&["--index", "1000000"]);
    assert_eq!((too_late.code, too_late.stderr.lines().count()), (Some(2), 1), "{too_late:?}");
    let too_early = town.restore(&["--at", "2020-01-01T00:00:00Z"]);
    assert!(too_early.code == Some(2) && too_early.stderr.contains("no entry so early"));
    let at = as_of.to_string();
    let given_out = town.restore(&["--index", &at, "--orders-from", "5", "--yes", "oppidum"]);
    assert!(given_out.code == Some(2) && given_out.stderr.contains("--orders-from 7"));
    let restored = town.restore(&["--index", &at, "--orders-from", "50", "--yes", "oppidum"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let words = [&format!("Revoked later, and live again: {id}."), "with 1 orders"];
    assert!(words.iter().all(|words| restored.stdout.contains(words)), "{restored:?}");
    assert_eq!(kept(&restored), 5);
    let again = town.restore(&["--yes", "oppidum"]);
    assert_eq!((again.code, again.stderr.lines().count()), (Some(2), 1), "{again:?}");
    assert!(again.stderr.contains("nothing is overwritten"), "{again:?}");

    town.reopen();
    assert_eq!(town.store.buy("GameStart", 1), 50);
    assert_eq!([5, 6, 49].map(|n| town.store.get(&format!("/orders/{n}")).status), [200, 404, 404]);
    let diverged = town.store.run(&["ctl", "backup", "--to", town.to()]);
    assert_eq!((diverged.code, diverged.stderr.lines().count()), (Some(2), 1), "{diverged:?}");
    assert!(diverged.stderr.contains("back it up to another folder"), "{diverged:?}");
    town.verify_backup();
    town.store.verify();
}

/// Each thing that can be wrong with the folder is one line, and changes nothing.
#[test]
fn a_backup_says_in_one_line_what_is_wrong_and_changes_nothing() {
    let town = BackedUp::start(false);
    town.store.buy("GameStart", 1);
    let refused = |ended: Ended, words: &str| {
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{ended:?}");
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    };
    let to = |folder: &str| town.store.run(&["ctl", "backup", "--to", folder]);
    refused(to("/no/such/folder"), "cannot make the folder /no/such/folder");
    refused(to("s3://bucket/shop"), "give a folder");
    refused(run(&["ctl", "backup", "verify", "--from", "/no/such"]), "No such file");
    let empty = town.store.folder().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(run(&["ctl", "backup", "list", "--from", empty.to_str().unwrap()]), "no backup");
    refused(town.restore(&[]), "cannot read the backup");

    town.back_up();
    // Another writer is at work.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let lock = format!("writer = \"process 7\"\ntime_ms = {}\n", now.as_millis());
    fs::write(town.folder.join("lock"), lock).unwrap();
    refused(to(town.to()), "process 7 writes this backup");
    fs::remove_file(town.folder.join("lock")).unwrap();
    // Another store.
    let other = Store::start(Plan::toy());
    refused(other.run(&["ctl", "backup", "--to", town.to()]), "this is the backup of ledger");
    assert!(!town.folder.join("lock").exists());
    // A flipped byte in each file.
    for file in files(&town.folder) {
        let sound = fs::read(&file).unwrap();
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 1;
        fs::write(&file, flipped).unwrap();
        let verified = run(&["ctl", "backup", "verify", "--from", town.to()]);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(verified.code, Some(1), "{verified:?}");
        assert!(
            verified.stdout.contains(name) && verified.stdout.contains("DAMAGED"),
            "{verified:?}"
        );
        fs::write(&file, sound).unwrap();
    }
    town.verify_backup();
    let listed = run(&["ctl", "backup", "list", "--from", town.to()]);
    assert_eq!((listed.code, listed.stdout.lines().count()), (Some(0), 2), "{listed:?}");
}
