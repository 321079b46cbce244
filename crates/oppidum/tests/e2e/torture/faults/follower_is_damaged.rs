//! Bits of a dead follower's log or history are flipped. With a damaged log it must report the
//! damage and stay down until its folder is restored; a damaged history it repairs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let follower = torture.follower();
    torture.store.kill(follower);
    let data = torture.store.data(follower);
    match torture.pick(3) {
        0 => block(torture, follower, &data),
        part => log(torture, follower, &data, part),
    }
}

/// A damaged block breaks no promise: the replica repairs it from the others.
fn block(torture: &mut Torture, follower: u64, data: &Path) {
    flip_block(torture, data);
    torture.store.start_order(follower, &[]);
    torture.crowd.go_on(20);
    torture.store.await_all_ready();
    let mended = torture.store.run(&["ctl", "repair", "--id", &follower.to_string()]);
    assert_eq!(mended.code, Some(0), "{mended:?}");
}

/// A replica with a damaged log does not start, and reports the position. Then the file is
/// restored.
fn log(torture: &mut Torture, follower: u64, data: &Path, part: usize) {
    // A log that is too short has no bit to flip.
    if let Some((file, whole)) = flip_log(torture, data, part) {
        let logged_before = torture.store.order(follower).stderr().len();
        torture.store.start_order(follower, &[]);
        assert_eq!(torture.store.end_of(follower), Some(2), "damage of {}", file.display());
        let says = torture.store.order(follower).stderr().split_off(logged_before);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(says.contains(name) && says.contains("is damaged at"), "{name}: {says}");
        fs::write(&file, &whole).unwrap();
    }
    torture.crowd.go_on(20);
    torture.store.start_order(follower, &[]);
}

/// Flips a bit in the second or third quarter of the log's last file. The end of the file may be
/// torn, and a torn end would be cut instead of reported.
fn flip_log(torture: &mut Torture, data: &Path, quarter: usize) -> Option<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(data.join("log")).unwrap().map(|file| file.unwrap().path());
    let file = files.filter(|path| path.extension().is_some_and(|end| end == "wal")).max()?;
    let whole = fs::read(&file).unwrap();
    // There are entries before and behind the flipped bit.
    (4_096 < whole.len()).then_some(())?;
    let place = quarter * whole.len() / 4 + torture.pick(whole.len() / 4);
    let mut bytes = whole.clone();
    bytes[place] ^= 1 << torture.pick(8);
    fs::write(&file, bytes).unwrap();
    Some((file, whole))
}

/// Flips a bit of an older acknowledged order, at each place in the history's file.
fn flip_block(torture: &mut Torture, data: &Path) {
    let keys = torture.crowd.history.keys();
    let Some((key, ..)) = keys.get(torture.pick(keys.len() / 2 + 1)) else { return };
    let file = data.join("history").join("blocks.redb");
    let whole = fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    let found = whole.windows(key.len()).enumerate().filter(|(_, seen)| *seen == key.as_bytes());
    for (place, _) in found {
        bytes[place] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
}
