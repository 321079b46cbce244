//! Private files: only the owner has access to a data folder, independent of the umask when it was
//! made.
//!
//! A new file gets its mode from the process's umask, which the program sets. A folder that another
//! program or an earlier version has made is tightened when it is opened.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// The permission bits of group and others.
const GROUP_AND_OTHERS: u32 = 0o077;

/// How deep folders lie in a data folder: `order-ID/log`, `order-ID/history`.
const DEPTH: u32 = 2;

/// Makes a data folder, and those above it, if they are not there.
pub(crate) fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Removes the permissions of group and others from a data folder and its content, and warns. A
/// failure is only logged: it is no reason to stop.
pub(crate) fn tighten(folder: &Path) {
    let place = folder.display();
    match walk(folder, DEPTH) {
        Ok(0) => {}
        Ok(count) => tracing::warn!(
            "others could read the data folder {place} ({count} files and folders): now its owner \
             alone can"
        ),
        Err(error) => tracing::warn!(
            "others can read the data folder {place}, which cannot be changed: {error}"
        ),
    }
}

/// How many files and folders were open to others.
fn walk(path: &Path, depth: u32) -> io::Result<usize> {
    let found = fs::symlink_metadata(path)?;
    if !(found.is_file() || found.is_dir()) {
        return Ok(0);
    }
    let mode = found.permissions().mode();
    let mut count = 0;
    if mode & GROUP_AND_OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !GROUP_AND_OTHERS))?;
        count += 1;
    }
    if found.is_dir() && 0 < depth {
        for entry in fs::read_dir(path)? {
            count += walk(&entry?.path(), depth - 1)?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Danger: each user of the machine can read files with orders and votes.
    #[test]
    fn a_data_folder_of_wider_modes_is_tightened_whole() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data/order-1");
        create(&data).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(data.parent().unwrap())), (0o700, 0o700));
        let log = data.join("log");
        fs::create_dir(&log).unwrap();
        let files = [data.join("identity.toml"), log.join("r-0.wal")];
        for file in &files {
            fs::write(file, "x").unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        for folder in [&data, &log] {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(walk(&data, DEPTH).unwrap(), 4);
        assert_eq!([mode(&data), mode(&log)], [0o700; 2]);
        assert_eq!(files.map(|file| mode(&file)), [0o600; 2]);
        assert_eq!(walk(&data, DEPTH).unwrap(), 0);
    }
}
