//! `oppidum ctl ca`: the store's own certificate authority, at the command line.

use std::fs;
use std::path::Path;

use crate::harness::{Ended, run_in};

/// Runs `oppidum ctl ca` in a folder. No line that it prints holds a part of a key there.
fn ca(folder: &Path, arguments: &str) -> Ended {
    let arguments: Vec<&str> = ["ctl", "ca"].into_iter().chain(arguments.split(' ')).collect();
    let ended = run_in(folder, &[], &arguments);
    let files = fs::read_dir(folder.join("ca")).into_iter().flatten();
    for file in files.map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|kind| kind == "key") {
            for line in fs::read_to_string(&file).unwrap().lines() {
                let shown = [&ended.stdout, &ended.stderr].iter().any(|text| text.contains(line));
                assert!(!shown, "{ended:?}");
            }
        }
    }
    ended
}

#[test]
fn an_operator_makes_a_ca_issues_renews_and_lists() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let made = ca(folder, "init --dir ca/ --store shop-1");
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stdout.starts_with("ca/ca.pem: the CA of shop-1, until 20"), "{made:?}");
    assert!(made.stderr.contains("keep it on this machine"), "{made:?}");
    let issued = ca(folder, "issue --dir ca/ order 123 --host 10.0.0.1 --host one.example");
    assert_eq!(issued.code, Some(0), "{issued:?}");
    let line = "ca/order-123.pem: order 123 of shop-1, until 20";
    assert!(issued.stdout.starts_with(line) && issued.stdout.lines().count() == 1, "{issued:?}");
    assert!(
        issued.stderr.contains("copy order-123.key and order-123.pem to the folder of its --tls"),
        "{issued:?}"
    );
    let renewed = ca(folder, "issue --dir ca/ order 123 --host 10.0.0.1");
    assert!(renewed.stderr.contains("it replaces the certificate that ends at"), "{renewed:?}");
    assert!(renewed.stderr.contains("was also for one.example: repeat `--host`"), "{renewed:?}");
    let list = ca(folder, "list --dir ca/");
    assert_eq!((list.code, list.stdout.lines().count()), (Some(0), 3), "{list:?}");
    assert_eq!(ca(folder, "issue --dir ca/ operator anna --for 13d").code, Some(0));
    let list = ca(folder, "list --dir ca/");
    assert_eq!((list.code, list.stdout.lines().count()), (Some(1), 4), "{list:?}");
    assert!(list.stderr.contains("1 of these end within 14 days"), "{list:?}");
    let again = ca(folder, "init --dir ca/");
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("is kept"), "{again:?}");
}

/// Kind: bad input that says nothing of what to type.
#[test]
fn each_bad_argument_gets_one_sentence() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let empty = ca(folder, "issue --dir ca/ order 123");
    assert!(empty.stderr.contains("ca/ holds no CA: `oppidum ctl ca init --dir ca/`"), "{empty:?}");
    assert_eq!(ca(folder, "init --dir ca/").code, Some(0));
    for (arguments, words) in [
        (
            "issue --dir ca/ boss 1",
            "\"boss\" is no role: type order, catalog, frontend, monitor or",
        ),
        ("issue --dir ca/ order web-1", "a replica id is a number from 1 to"),
        ("issue --dir ca/ catalog Web_1", "a name has 1 to 40 letters a-z, digits or `-`"),
        ("issue --dir ca/ order 123 --for 0", "a time is written as 90d, 24h, 30m or 45s"),
        ("issue --dir ca/ order 123 --for 3651d", "up to 3650d"),
        ("issue --dir ca/ order 123 --host a:1", "has a port: give the host alone"),
        ("issue --dir ca/ order 123 --host order.oppidum.oppidum", "say roles"),
        ("issue --dir ~/ca order 123", "~ is not replaced here"),
        ("issue order 123", "--dir <DIR>"),
        ("init --dir new/ --store Shop", "a name has 1 to 40 letters a-z, digits or `-`"),
        ("list --dir nowhere/", "nowhere/ holds no ca.pem: give the folder of a CA"),
        ("list --dir ca/ca.pem", "ca/ca.pem"),
    ] {
        let ended = ca(folder, arguments);
        assert_eq!((ended.code, ended.stdout.len()), (Some(2), 0), "{arguments}: {ended:?}");
        assert!(ended.stderr.contains(words), "{arguments}: {ended:?}");
    }
    fs::remove_file(folder.join("ca/ca.key")).unwrap();
    let lost = ca(folder, "issue --dir ca/ order 123");
    assert_eq!(lost.code, Some(2), "{lost:?}");
    assert!(
        lost.stderr.contains(
            "To replace a CA that is lost, type `oppidum ctl ca init --dir NEW --store STORE`"
        ),
        "{lost:?}"
    );
    assert_eq!(ca(folder, "list --dir ca/").code, Some(0), "it needs no key");
}
