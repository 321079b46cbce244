//! Where a backup is kept: a folder, or any other storage with the same five operations.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use wire::exit::Stop;

use super::core::block_range::BLOCKS;
use super::core::restore_point::{POINTS, RESTORES, STATES};

/// The names of files that are being written begin with this.
const DRAFT: &str = ".oppidum-draft-";

/// The folders of a backup. Drafts are written in them and beside them, and nowhere else.
const FOLDERS: [&str; 4] = [BLOCKS, POINTS, RESTORES, STATES];

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The storage of one backup. Names have at most one folder: `blocks/NAME`.
pub(crate) trait BackupStorage: std::fmt::Debug + Send + Sync {
    /// The content of a file. `None`: there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Writes a file that lasts, whole or not at all. False: a file of this name exists already.
    fn write_new(&self, name: &str, content: &[u8]) -> io::Result<bool>;

    /// The names of all files in a folder; none if there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Removes a file. No error if it is gone already.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Removes what a writer that was killed has left unfinished. Only for the only writer.
    fn clear_drafts(&self) -> io::Result<()>;
}

/// A folder as storage.
#[derive(Debug)]
pub(crate) struct FolderStorage {
    root: PathBuf,
}

impl FolderStorage {
    /// The storage of a backup that exists.
    pub(crate) fn existing(root: &Path) -> Result<Self, Stop> {
        match fs::metadata(root) {
            Ok(found) if found.is_dir() => Ok(Self { root: root.to_path_buf() }),
            Ok(_) => Err(Stop::Setup(format!("{} is no folder", root.display()))),
            Err(error) => {
                Err(Stop::Setup(format!("cannot read the backup in {}: {error}", root.display())))
            }
        }
    }

    /// The storage of a backup that may be new. The folder above it must exist: a disk that is not
    /// mounted must not be taken for an empty one.
    pub(crate) fn new(root: &Path) -> Result<Self, Stop> {
        make(root).map_err(|error| {
            Stop::Setup(format!("cannot make the folder {}: {error}", root.display()))
        })?;
        Self::existing(root)
    }

    fn folder_of(&self, name: &str) -> PathBuf {
        match name.split_once('/') {
            Some((folder, _)) => self.root.join(folder),
            None => self.root.clone(),
        }
    }
}

/// Makes a folder that lasts, if it is not there. The one above it must be.
fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => match folder.parent() {
            Some(above) if !above.as_os_str().is_empty() => File::open(above)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a file. A FIFO would be waited for, and a file of another program may have any size.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if FILE_BYTES_MAX < about.len() {
        return Err(io::Error::other("it is longer than any file of a backup"));
    }
    fs::read(path)
}

impl BackupStorage for FolderStorage {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match read_file(&self.root.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_new(&self, name: &str, content: &[u8]) -> io::Result<bool> {
        let folder = self.folder_of(name);
        make(&folder)?;
        let mut draft = tempfile::Builder::new().prefix(DRAFT).tempfile_in(&folder)?;
        draft.write_all(content)?;
        draft.as_file().sync_all()?;
        match draft.persist_noclobber(self.root.join(name)) {
            Ok(_) => File::open(&folder)?.sync_all().map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            // Other programs' names need not be text; none of ours is hidden.
            if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
                names.push(format!("{folder}/{name}"));
            }
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn clear_drafts(&self) -> io::Result<()> {
        let inside = FOLDERS.map(|name| self.root.join(name));
        // A link leads out of the backup.
        let is_folder = |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|it| it.is_dir());
        for folder in inside.iter().filter(is_folder).chain([&self.root]) {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_name().to_str().is_some_and(|name| name.starts_with(DRAFT)) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_lasts_whole() {
        let root = tempfile::tempdir().unwrap();
        let storage = FolderStorage::new(&root.path().join("shop")).unwrap();
        assert_eq!(storage.read("points/one").unwrap(), None);
        assert!(storage.write_new("points/one", b"first").unwrap());
        assert!(!storage.write_new("points/one", b"second").unwrap());
        assert_eq!(storage.read("points/one").unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(storage.list("points").unwrap(), ["points/one"]);
        storage.remove("points/one").unwrap();
        storage.remove("points/one").unwrap();
        assert_eq!(storage.list("points").unwrap(), [""; 0]);
    }

    #[test]
    fn what_a_killed_writer_left_is_no_file_and_is_cleared() {
        let root = tempfile::tempdir().unwrap();
        let storage = FolderStorage::new(root.path()).unwrap();
        storage.write_new("blocks/one", b"whole").unwrap();
        let left = root.path().join("blocks/.oppidum-draft-abc");
        fs::write(&left, "half").unwrap();
        // What is not of a backup stays as it is, wherever the backup is kept.
        let others = ["mine/.oppidum-draft-novel", "blocks/.draft-letter", ".draft-thesis"];
        fs::create_dir(root.path().join("mine")).unwrap();
        for other in others {
            fs::write(root.path().join(other), "mine").unwrap();
        }
        assert_eq!(storage.list("blocks").unwrap(), ["blocks/one"]);
        storage.clear_drafts().unwrap();
        assert!(!left.exists());
        assert!(others.iter().all(|other| root.path().join(other).exists()));
        assert_eq!(storage.list("blocks").unwrap(), ["blocks/one"]);
    }

    /// Kind: a command that waits for ever for what is no file of a backup.
    #[test]
    fn what_is_no_file_is_an_error_at_once() {
        let root = tempfile::tempdir().unwrap();
        let storage = FolderStorage::new(root.path()).unwrap();
        let path = root.path().join("lock");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(storage.read("lock").unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn a_disk_that_is_not_mounted_is_not_taken_for_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let absent = root.path().join("mounted/shop");
        for storage in [FolderStorage::new(&absent), FolderStorage::existing(&absent)] {
            let Err(Stop::Setup(why)) = storage else { panic!() };
            assert!(why.contains("mounted/shop: No such file"), "{why}");
        }
    }
}
