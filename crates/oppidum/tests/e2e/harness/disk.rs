//! Dedicated disks for replicas' folders: small ext4 images that can be frozen, filled, and shut
//! down so that unsynced bytes are really lost.
//!
//! They need root, and a loop device that can be mounted; without them a test prints the reason.
//! The next run unmounts what a killed run left mounted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{runs, until};

/// The size of a disk, in bytes: an hour of torture fits. The image is sparse.
const BYTES: u64 = 384 << 20;

/// Folders of tests begin with this and the id of their process.
pub(crate) const PREFIX: &str = "oppidum-e2e-";

/// The file that fills a disk.
const BALLAST: &str = "ballast";

/// Shuts file systems down without a flush, like a power cut: `EXT4_IOC_SHUTDOWN` with
/// `NOLOGFLUSH`, as in `linux/fs/ext4/ext4.h`.
const SHUT_DOWN: &str = "\
import fcntl, os, struct, sys
for path in sys.argv[1:]:
    fcntl.ioctl(os.open(path, os.O_RDONLY), 0x8004587d, struct.pack('I', 2))
";

/// An ext4 image, mounted.
pub(crate) struct Disk {
    mount: PathBuf,
    image: PathBuf,
}

impl Disk {
    /// Makes an image, formats and mounts it; or returns the reason why not.
    pub(crate) fn make(mount: &Path, image: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(mount).map_err(|error| error.to_string())?;
        let file = File::create(image).map_err(|error| error.to_string())?;
        file.set_len(BYTES).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(image)])?;
        let disk = Self { mount: mount.into(), image: image.into() };
        disk.mount()?;
        // A new folder is empty.
        std::fs::remove_dir(mount.join("lost+found")).map_err(|error| error.to_string())?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop,noatime", text(&self.image), text(&self.mount)])
    }

    /// Freezes the file system: no write completes until it is thawed.
    pub(crate) fn freeze(&self) {
        run("fsfreeze", &["-f", text(&self.mount)]).unwrap();
    }

    pub(crate) fn thaw(&self) {
        run("fsfreeze", &["-u", text(&self.mount)]).unwrap();
    }

    pub(crate) fn thaw_if_frozen(&self) {
        let _ = run("fsfreeze", &["-u", text(&self.mount)]);
    }

    /// A power cut on all of these disks at once: unsynced bytes are lost. No process may be
    /// writing.
    pub(crate) fn cut(disks: &[&Self]) {
        let paths: Vec<&str> = disks.iter().map(|disk| text(&disk.mount)).collect();
        if let Err(why) = run("python3", &[&["-c", SHUT_DOWN], &paths[..]].concat()) {
            // The disk's state is unknown: no test may go on.
            panic!("a disk cannot be shut down: {why}");
        }
    }

    /// Power is back: mounts the disk again, with its synced bytes.
    pub(crate) fn again(&self) {
        // A mount namespace that another program made meanwhile keeps the file system in use, so
        // that it stays shut down.
        until("a disk can be written again, and is in no other mount namespace", || {
            if self.is_mounted() {
                run("umount", &[text(&self.mount)]).ok()?;
            }
            self.mount().ok()?;
            let probe = self.mount.join("probe");
            std::fs::write(&probe, []).and_then(|()| std::fs::remove_file(&probe)).ok()
        });
    }

    fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let mut paths = mounts.lines().filter_map(|line| line.split_whitespace().nth(1));
        paths.any(|path| path == text(&self.mount))
    }

    /// Fills the disk: no byte is free.
    pub(crate) fn fill(&self) {
        let ballast = File::create(self.mount.join(BALLAST)).unwrap();
        let mut bytes = BYTES;
        let mut end = 0;
        // In ever smaller pieces, until none fits.
        while 4_096 <= bytes {
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&ballast, flags, end, bytes) {
                Ok(()) => end += bytes,
                Err(_) => bytes /= 2,
            }
        }
    }

    /// Frees the space again.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.mount.join(BALLAST)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.mount)]);
    }
}

/// Unmounts the disks that ended test runs have left mounted.
pub(crate) fn clear_left_behind() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for path in mounts.lines().filter_map(|line| line.split_whitespace().nth(1)) {
        let Some((before, rest)) = path.split_once(PREFIX) else { continue };
        let pid = rest.split('-').next().and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid: u32| !runs(pid)) {
            let _ = run("fsfreeze", &["-u", path]);
            let is_gone = run("umount", &["-l", path]).is_ok();
            let folder = rest.split('/').next().filter(|_| is_gone);
            // Other disks of that run may still be mounted in the folder: the last one removes it.
            let _ = folder.map(|name| std::fs::remove_dir_all(format!("{before}{PREFIX}{name}")));
        }
    }
}

/// Runs a tool of the system. The error is its output when it fails.
fn run(tool: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(tool).args(arguments).output();
    let output = output.map_err(|error| format!("{tool} cannot be run: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.lines().next().unwrap_or("it failed");
    if output.status.success() { Ok(()) } else { Err(format!("{tool}: {stderr}")) }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
