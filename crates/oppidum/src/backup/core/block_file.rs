//! A block file: blocks as a replica stores them, and a digest of the whole.
//!
//! # Layout, version 1
//!
//! u8 version; each block: u32 length, its bytes; at the end 32 bytes: the BLAKE3 hash of all bytes
//! before.

use bytes::Bytes;

/// A file has at most this many bytes, unless one block alone has more.
pub(crate) const BLOCK_FILE_BYTES_MAX: usize = 64 << 20;

const VERSION: u8 = 1;

const DIGEST_BYTES: usize = 32;

/// A block file while it is being made.
#[derive(Debug)]
pub(crate) struct BlockFile {
    bytes: Vec<u8>,
}

impl Default for BlockFile {
    fn default() -> Self {
        Self { bytes: vec![VERSION] }
    }
}

impl BlockFile {
    /// True if there is no block in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == 1
    }

    /// True if a block of this length fits.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        self.bytes.len() + 4 + length + DIGEST_BYTES <= BLOCK_FILE_BYTES_MAX
    }

    /// Appends a block.
    pub(crate) fn push(&mut self, block: &[u8]) {
        // A block has far less than 4 GB: an entry of the log has at most 64 MB.
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(block);
    }

    /// The content of the file.
    pub(crate) fn seal(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }
}

/// The blocks of a file, whose content must match its digest.
pub(crate) fn open(content: Vec<u8>) -> Result<Vec<Bytes>, String> {
    let content = Bytes::from(content);
    let covered = content.len().checked_sub(DIGEST_BYTES).ok_or("it is cut off")?;
    if blake3::hash(&content[..covered]).as_bytes()[..] != content[covered..] {
        return Err("its content does not match its digest".into());
    }
    match content.first() {
        Some(&VERSION) => {}
        Some(other) => return Err(format!("it is of version {other}: a newer program wrote it")),
        None => return Err("it is empty".into()),
    }
    let mut rest = content.slice(1..covered);
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let length = split_off(&mut rest, 4).ok_or("it ends within a length")?;
        let length = length[..].try_into().map_or(0, u32::from_le_bytes);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        blocks.push(split_off(&mut rest, length).ok_or("it ends within a block")?);
    }
    Ok(blocks)
}

/// The first `length` bytes, which leave the rest. `None`: there are fewer.
fn split_off(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_or_missing_byte_is_found() {
        let mut file = BlockFile::default();
        assert!(file.is_empty());
        file.push(b"one");
        file.push(b"");
        file.push(b"three");
        let content = file.seal();
        let blocks = open(content.clone()).unwrap();
        assert_eq!(blocks, [&b"one"[..], b"", b"three"]);
        for place in 0..content.len() {
            let mut flipped = content.clone();
            flipped[place] ^= 1;
            assert!(open(flipped).is_err(), "{place}");
            assert!(open(content[..place].to_vec()).is_err(), "{place}");
        }
    }

    #[test]
    fn a_file_of_a_newer_version_or_of_another_kind_is_rejected() {
        for (content, words) in [
            (&b"\x02"[..], "version 2"),
            (b"\x01\x09\0\0\0short", "within a block"),
            (b"\x01\x09\0", "within a length"),
        ] {
            let mut content = content.to_vec();
            let digest = blake3::hash(&content);
            content.extend_from_slice(digest.as_bytes());
            let why = open(content).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_file_is_full_before_it_exceeds_its_limit() {
        let file = BlockFile::default();
        assert!(file.has_room(BLOCK_FILE_BYTES_MAX - 37));
        assert!(!file.has_room(BLOCK_FILE_BYTES_MAX - 36));
    }
}
