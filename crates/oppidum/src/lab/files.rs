//! The files of an experiment: its tables and pictures, in one folder.

use std::path::{Path, PathBuf};

use wire::exit::Stop;

/// Creates the folder before the measurement, so that the measurement is not lost.
pub(super) fn create_folder(out: &Path) -> Result<(), Stop> {
    std::fs::create_dir_all(out).map_err(|error| {
        Stop::Setup(format!("the folder {} cannot be made: {error}", out.display()))
    })
}

/// Writes one of the files; returns its path.
pub(super) fn write(out: &Path, name: &str, text: &str) -> Result<PathBuf, Stop> {
    let path = out.join(name);
    match std::fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(error) => Err(Stop::Setup(format!("{} cannot be written: {error}", path.display()))),
    }
}
