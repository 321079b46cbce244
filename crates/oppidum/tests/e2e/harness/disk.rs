//! File systems of their own for replicas' folders: small ext4 images that can be frozen, filled,
//! and shut down so that un-synced bytes are really lost.
//!
//! Only root can have them, and only where a loop device can be mounted; whoever wants one says
//! aloud why there is none. What a killed test run left mounted is cleared away by the next one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{runs, until};

/// How large a disk is, in bytes: an hour of torture fits. Made of holes, until they are used.
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
    /// Makes a disk of the image and mounts it; or says why that cannot be.
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

    /// Nothing is written any more, until it is thawed.
    pub(crate) fn freeze(&self) {
        run("fsfreeze", &["-f", text(&self.mount)]).unwrap();
    }

    pub(crate) fn thaw(&self) {
        run("fsfreeze", &["-u", text(&self.mount)]).unwrap();
    }

    pub(crate) fn thaw_if_frozen(&self) {
        let _ = run("fsfreeze", &["-u", text(&self.mount)]);
    }

    /// The power goes, on all of these at once: what was not synced is lost. Nobody may be writing.
    pub(crate) fn cut(disks: &[&Self]) {
        let paths: Vec<&str> = disks.iter().map(|disk| text(&disk.mount)).collect();
        if let Err(why) = run("python3", &[&["-c", SHUT_DOWN], &paths[..]].concat()) {
            // Nothing is on a disk that is not: no test may go on.
            panic!("a disk cannot be shut down: {why}");
        }
    }

    /// The power is back: mounted anew, with what had been synced.
    pub(crate) fn again(&self) {
        until("a disk is let go", || run("umount", &[text(&self.mount)]).ok());
        self.mount().unwrap();
    }

    /// No byte of room is left.
    pub(crate) fn fill(&self) {
        let ballast = File::create(self.mount.join(BALLAST)).unwrap();
        let mut bytes = BYTES;
        let mut end = 0;
        // Ever smaller pieces, until nothing fits.
        while 4_096 <= bytes {
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&ballast, flags, end, bytes) {
                Ok(()) => end += bytes,
                Err(_) => bytes /= 2,
            }
        }
    }

    /// There is room again.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.mount.join(BALLAST)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.mount)]);
    }
}

/// Unmounts what test runs that are gone have left behind.
pub(crate) fn clear_left_behind() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for path in mounts.lines().filter_map(|line| line.split_whitespace().nth(1)) {
        let Some((before, rest)) = path.split_once(PREFIX) else { continue };
        let pid = rest.split('-').next().and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid: u32| !runs(pid)) {
            let _ = run("fsfreeze", &["-u", path]);
            let is_gone = run("umount", &["-l", path]).is_ok();
            let folder = rest.split('/').next().filter(|_| is_gone);
            // The others of that run may still be mounted in it: the last one takes it away.
            let _ = folder.map(|name| std::fs::remove_dir_all(format!("{before}{PREFIX}{name}")));
        }
    }
}

/// Runs a tool of the system. What it says when it fails is the error.
fn run(tool: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(tool).args(arguments).output();
    let output = output.map_err(|error| format!("{tool} cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("it failed");
    if output.status.success() { Ok(()) } else { Err(format!("{tool}: {said}")) }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
