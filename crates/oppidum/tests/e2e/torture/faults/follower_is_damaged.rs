//! Bits of a dead follower's log or history are flipped. With a damaged log it must say so and stay
//! away, until its folder is as it was; a damaged history it mends.

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

/// The history is nobody's promise: it is mended with what the others have.
fn block(torture: &mut Torture, follower: u64, data: &Path) {
    flip_block(torture, data);
    torture.store.start_order(follower, &[]);
    torture.crowd.go_on(20);
    torture.store.await_all_ready();
    let mended = torture.store.run(&["ctl", "repair", "--id", &follower.to_string()]);
    assert_eq!(mended.code, Some(0), "{mended:?}");
}

/// A replica whose log is damaged stays away and says where. Then the file is put back.
fn log(torture: &mut Torture, follower: u64, data: &Path, part: usize) {
    // A log that is too short: nothing to flip.
    if let Some((file, whole)) = flip_log(torture, data, part) {
        let said = torture.store.order(follower).stderr().len();
        torture.store.start_order(follower, &[]);
        assert_eq!(torture.store.end_of(follower), Some(2), "damage of {}", file.display());
        let says = torture.store.order(follower).stderr().split_off(said);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(says.contains(name) && says.contains("is damaged at"), "{name}: {says}");
        fs::write(&file, &whole).unwrap();
    }
    torture.crowd.go_on(20);
    torture.store.start_order(follower, &[]);
}

/// Flips a bit in the second or third quarter of the log's last file. What is behind may be torn,
/// and then it would be cut.
fn flip_log(torture: &mut Torture, data: &Path, quarter: usize) -> Option<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(data.join("log")).unwrap().map(|file| file.unwrap().path());
    let file = files.filter(|path| path.extension().is_some_and(|end| end == "wal")).max()?;
    let whole = fs::read(&file).unwrap();
    // Some entries are there, and more behind.
    (4_096 < whole.len()).then_some(())?;
    let place = quarter * whole.len() / 4 + torture.pick(whole.len() / 4);
    let mut bytes = whole.clone();
    bytes[place] ^= 1 << torture.pick(8);
    fs::write(&file, bytes).unwrap();
    Some((file, whole))
}

/// Flips a bit of an order that was acknowledged a while ago, wherever the history has it.
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
