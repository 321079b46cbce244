//! The API key of the client's commands: read from a file, never from an argument, which every user
//! of the machine can read.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use ledger::api_key_text::{ApiKeyText, RANDOM_BYTES};
use wire::exit::Stop;

/// The longest file of an API key: the key, and blanks around it.
const FILE_BYTES_MAX: u64 = 1_024;

/// A new API key.
pub(crate) fn new_api_key() -> ApiKeyText {
    ApiKeyText::new(&rand::random::<[u8; RANDOM_BYTES]>())
}

/// Reads the API key in a file. No error repeats what the file holds.
pub(crate) fn read(file: &Path) -> Result<ApiKeyText, Stop> {
    let shown = file.display();
    let no = |why: String| Stop::Setup(format!("key-file {shown}: {why}"));
    let about = std::fs::metadata(file).map_err(|error| no(error.to_string()))?;
    if !about.is_file() || FILE_BYTES_MAX < about.len() {
        return Err(no("it is no file of one API key".into()));
    }
    let text = std::fs::read(file).map_err(|error| no(error.to_string()))?;
    let text = std::str::from_utf8(&text).map_err(|_| no("it is no text".into()))?;
    let key = ApiKeyText::parse(text.trim()).map_err(|why| no(why.to_string()))?;
    if about.permissions().mode() & 0o077 != 0 {
        note!("oppidum: other users can read {shown}: chmod 600 {shown}");
    }
    Ok(key)
}

/// Writes an API key to a new file that only this user can read.
pub(crate) fn write(file: &Path, key: &ApiKeyText) -> Result<(), Stop> {
    let no = |error: std::io::Error| Stop::Setup(format!("{}: {error}", file.display()));
    let mut options = std::fs::OpenOptions::new();
    let mut open = options.write(true).create_new(true).mode(0o600).open(file).map_err(no)?;
    open.write_all(format!("{}\n", key.reveal()).as_bytes()).map_err(no)?;
    open.sync_all().map_err(no)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_private_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root.key");
        let key = new_api_key();
        write(&file, &key).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&file).unwrap(), key);
        assert!(write(&file, &key).is_err(), "it is not overwritten");
    }

    #[test]
    fn what_is_no_key_file_is_explained_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let mut mistyped = new_api_key().reveal().to_owned();
        mistyped.pop();
        for (content, words) in [
            ("", "the form of an API key"),
            ("secret-of-mine", "the form of an API key"),
            (&*format!("{mistyped}-"), "the form of an API key"),
            (&*"x".repeat(2_000), "no file of one API key"),
        ] {
            std::fs::write(&file, content).unwrap();
            let why = read(&file).unwrap_err().to_string();
            assert!(why.contains(words) && (content.is_empty() || !why.contains(content)), "{why}");
        }
        std::fs::write(&file, [0xff]).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("no text"));
        let why = read(folder.path()).unwrap_err().to_string();
        assert!(why.contains("no file of one API key"), "{why}");
        assert!(
            read(&folder.path().join("none")).unwrap_err().to_string().contains("No such file")
        );
    }
}
