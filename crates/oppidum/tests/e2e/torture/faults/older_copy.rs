//! A follower's folder is replaced by an older copy of it: the replica must refuse to start, and
//! name the command to type. Then its own folder is restored.

use std::fs;
use std::path::Path;

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let follower = torture.follower();
    let (own, older) = (torture.store.folder().join("own"), torture.store.folder().join("older"));
    let data = torture.store.data(follower);
    torture.store.kill(follower);
    copy(&data, &older);
    torture.store.start_order(follower, &[]);
    torture.crowd.go_on(20);
    torture.store.await_all_ready();
    torture.store.kill(follower);
    copy(&data, &own);
    copy(&older, &data);
    torture.store.start_order(follower, &[]);
    assert_eq!(torture.store.end_of(follower), Some(2), "an older copy is taken");
    let says = torture.store.order(follower).stderr();
    let line = says.lines().last().unwrap();
    assert!(line.contains("older copy") && line.contains("oppidum ctl replace"), "{line}");
    torture.crowd.go_on(20);
    copy(&own, &data);
    torture.store.start_order(follower, &[]);
}

/// Makes `to` hold exactly what `from` holds. The folder itself stays: it may be a mount.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(to).unwrap() {
        let path = entry.unwrap().path();
        // `lost+found` of a mounted disk is not the replica's.
        let is_systems = path.file_name().is_some_and(|name| name == "lost+found");
        match path.is_dir() {
            true if is_systems => {}
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
    fill(from, to);
}

fn fill(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.file_name().is_some_and(|name| name == "lost+found") {
            continue;
        }
        match path.is_dir() {
            true => {
                fs::create_dir_all(&target).unwrap();
                fill(&path, &target);
            }
            false => drop(fs::copy(&path, target).unwrap()),
        }
    }
}
