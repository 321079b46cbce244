//! Bits of a dead follower's log or history are flipped: it must say so and not serve. Then its
//! folder is as it was.

use std::fs;
use std::path::{Path, PathBuf};

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let follower = torture.follower();
    torture.store.kill(follower);
    let data = torture.store.data(follower);
    let found = match torture.pick(3) {
        0 => flip_block(torture, &data),
        part => flip_log(torture, &data, part),
    };
    // A log that is too short, or a block that is not written yet: nothing to flip.
    if let Some((file, whole)) = found {
        let said = torture.store.order(follower).stderr().len();
        torture.store.start_order(follower, &[]);
        assert_eq!(torture.store.end_of(follower), Some(2), "damage of {}", file.display());
        let says = torture.store.order(follower).stderr().split_off(said);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(says.contains(name) && says.contains("is damaged at"), "{name}: {says}");
        mend(&file, &whole);
    }
    torture.crowd.go_on(20);
    torture.store.start_order(follower, &[]);
}

/// What an operator would do: here the file is put back.
fn mend(file: &Path, whole: &[u8]) {
    fs::write(file, whole).unwrap();
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
fn flip_block(torture: &mut Torture, data: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let keys = torture.crowd.history.keys();
    let (key, ..) = keys.get(torture.pick(keys.len() / 2 + 1))?;
    let file = data.join("history").join("blocks.redb");
    let whole = fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    let places: Vec<usize> = whole
        .windows(key.len())
        .enumerate()
        .filter(|(_, window)| *window == key.as_bytes())
        .map(|(place, _)| place)
        .collect();
    places.first()?;
    for place in places {
        bytes[place] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
    Some((file, whole))
}
