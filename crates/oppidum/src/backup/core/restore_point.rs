//! Restore points, and what else a backup says of itself: its store, and the restores from it. TOML
//! below a line with its digest.

use std::collections::BTreeMap;

use ledger::terms::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::utc_second::UtcSecond;

/// The folder of the restore points.
pub(crate) const POINTS: &str = "points";

/// The folder of the states.
pub(crate) const STATES: &str = "states";

/// The folder that names the restores.
pub(crate) const RESTORES: &str = "restores";

/// The file that names the store.
pub(crate) const STORE_FILE: &str = "store.toml";

/// The format of all of them.
pub(crate) const POINT_VERSION: u32 = 1;

/// The first line of a file begins with this.
const DIGEST_LINE: &str = "# blake3 ";

/// A moment of the store that is wholly in the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestorePoint {
    pub(crate) version: u32,
    /// When the backup was made, by the clock of its writer.
    pub(crate) taken_ms: u64,
    /// The last applied entry.
    pub(crate) index: u64,
    /// The last entry that has a block, and its term.
    pub(crate) last_block: u64,
    pub(crate) term: u64,
    /// Log time at the index.
    pub(crate) log_time_ms: u64,
    /// How many orders there are, and the number of the next one.
    pub(crate) orders: u64,
    pub(crate) next_order_number: u64,
    /// The digest of the ledger, in hexadecimal.
    pub(crate) digest: String,
    /// The BLAKE3 hash of the file of the state.
    pub(crate) state: String,
    /// The members of the store, and their addresses.
    pub(crate) members: BTreeMap<String, String>,
}

/// The store of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackedUpStore {
    pub(crate) version: u32,
    /// The name of the store.
    pub(crate) store: String,
    /// The ledger's id, in hexadecimal.
    pub(crate) ledger: String,
}

/// A restore of this backup: the next one takes a later epoch, and other order numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PastRestore {
    pub(crate) version: u32,
    /// The first term of its epoch.
    pub(crate) term: u64,
    /// The first number of its series.
    pub(crate) first_order_number: u64,
}

impl PastRestore {
    /// The file of this restore.
    pub(crate) fn name(self) -> String {
        format!("{RESTORES}/{:020}.toml", self.term)
    }

    /// The term in the name of such a file. `None`: it is another file.
    pub(crate) fn term_of(name: &str) -> Option<u64> {
        let term = name.strip_prefix(RESTORES)?.strip_prefix('/')?.strip_suffix(".toml")?;
        let term = term.parse().ok()?;
        let whole = Self { term, ..Self::default() };
        (whole.name() == name).then_some(term)
    }
}

impl RestorePoint {
    /// The file of this point.
    pub(crate) fn name(&self) -> String {
        let taken = UtcSecond::of(std::time::Duration::from_millis(self.taken_ms));
        format!("{POINTS}/{}-{}.toml", taken.file_name(), self.index)
    }
}

/// The name of the file of the state at an index.
pub(crate) fn state_name(index: u64) -> String {
    format!("{STATES}/{index:016}.state")
}

/// The index of the state in this file. `None`: it is no file of a state.
pub(crate) fn index_of_state(name: &str) -> Option<u64> {
    let index = name.strip_prefix(STATES)?.strip_prefix('/')?.strip_suffix(".state")?;
    let index = index.parse().ok()?;
    (state_name(index) == name).then_some(index)
}

/// What a person calls the point of this file. `None`: it is no restore point.
pub(crate) fn label(name: &str) -> Option<&str> {
    let label = name.strip_prefix(POINTS)?.strip_prefix('/')?.strip_suffix(".toml")?;
    index_of(label).map(|_| label)
}

/// The index of the point with this label.
pub(crate) fn index_of(label: &str) -> Option<u64> {
    label.rsplit_once("Z-")?.1.parse().ok()
}

/// A digest in hexadecimal.
pub(crate) fn hex(digest: &[u8; 32]) -> String {
    Digest(*digest).to_string()
}

/// The content of a file with this value.
pub(crate) fn seal(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let content = toml::to_string(value).map_err(|error| error.to_string())?;
    let digest = hex(blake3::hash(content.as_bytes()).as_bytes());
    Ok(format!("{DIGEST_LINE}{digest}\n{content}").into_bytes())
}

/// The value of a file, whose content must match its digest.
pub(crate) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let (first, content) = text.split_once('\n').ok_or("it is cut off")?;
    let digest = hex(blake3::hash(content.as_bytes()).as_bytes());
    if first.strip_prefix(DIGEST_LINE) != Some(digest.as_str()) {
        return Err("its content does not match its digest".into());
    }
    let newer = |version: &Version| POINT_VERSION < version.version;
    match toml::from_str::<Version>(content) {
        Ok(version) if newer(&version) => {
            Err(format!("it is of version {}: a newer program wrote it", version.version))
        }
        _ => toml::from_str(content).map_err(|error| error.message().to_owned()),
    }
}

/// The version alone.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn point(taken_ms: u64, index: u64) -> RestorePoint {
        RestorePoint {
            version: POINT_VERSION,
            taken_ms,
            index,
            last_block: index,
            term: 1,
            log_time_ms: taken_ms,
            orders: 3,
            next_order_number: 3,
            digest: hex(&[1; 32]),
            state: hex(&[2; 32]),
            members: BTreeMap::from([("123".into(), "here:1".into())]),
        }
    }

    #[test]
    fn a_point_is_named_by_its_time_and_its_index() {
        let point = point(1_714_170_115_999, 41_200);
        assert_eq!(point.name(), "points/2024-04-26T22-21-55Z-41200.toml");
        assert_eq!(label(&point.name()), Some("2024-04-26T22-21-55Z-41200"));
        assert_eq!(index_of("2024-04-26T22-21-55Z-41200"), Some(41_200));
        for odd in ["points/notes.toml", "points/2024-04-26T22-21-55Z-.toml", "states/7.state"] {
            assert_eq!(label(odd), None, "{odd}");
        }
    }

    #[test]
    fn every_flipped_byte_of_a_point_is_found() {
        let sealed = seal(&point(7, 7)).unwrap();
        assert_eq!(open(&sealed), Ok(point(7, 7)));
        for place in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[place] ^= 1;
            assert!(open::<RestorePoint>(&flipped).is_err(), "{place}");
            assert!(open::<RestorePoint>(&sealed[..place]).is_err(), "{place}");
        }
    }

    #[test]
    fn a_point_of_a_newer_program_is_rejected_by_its_version() {
        let newer = BTreeMap::from([("version", 2), ("fields_of_the_future", 1)]);
        let why = open::<RestorePoint>(&seal(&newer).unwrap()).unwrap_err();
        assert!(why.contains("version 2"), "{why}");
    }
}
