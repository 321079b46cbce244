//! Reads and writes numbers, texts and names as bytes.

use std::ops::RangeInclusive;

use crate::terms::{Cents, Name, Quantity, STOCK_MAX};

/// Why bytes cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end too early")]
    Short,
    /// Bytes follow the end.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// A version that this program does not know.
    #[error("version {0} is not known here; a newer program wrote it")]
    Version(u8),
    /// A field is out of range.
    #[error("{0} out of range")]
    Value(&'static str),
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum,
}

/// Reads a byte slice from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Opens bytes that begin with one of these versions and a CRC-32 of all bytes after it.
    /// Returns the version, and a reader of the rest.
    pub(crate) fn sealed(
        bytes: &'a [u8],
        versions: RangeInclusive<u8>,
    ) -> Result<(u8, Self), DecodeError> {
        let mut reader = Self::new(bytes);
        let version = reader.u8()?;
        if !versions.contains(&version) {
            return Err(DecodeError::Version(version));
        }
        if reader.u32()? != crc32fast::hash(reader.rest()) {
            return Err(DecodeError::Checksum);
        }
        Ok((version, reader))
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a count of items. Fails if it exceeds `max`, or if the rest is shorter than this many
    /// items of `bytes_each` bytes.
    pub(crate) fn count(&mut self, bytes_each: usize, max: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u32()?).map_err(|_| DecodeError::Value("count"))?;
        let least = count.checked_mul(bytes_each).ok_or(DecodeError::Value("count"))?;
        if max < count {
            return Err(DecodeError::Value("count"));
        }
        if self.0.len() < least { Err(DecodeError::Short) } else { Ok(count) }
    }

    pub(crate) fn text(&mut self, length: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Value("text"))
    }

    pub(crate) fn name(&mut self) -> Result<Name, DecodeError> {
        self.name_like(None)
    }

    /// Reads a name; a name equal to `last` is copied from it unchecked.
    pub(super) fn name_like(&mut self, last: Option<&Name>) -> Result<Name, DecodeError> {
        let length = usize::from(self.u16()?);
        let bytes = self.take(length)?;
        if let Some(last) = last.filter(|last| last.as_str().as_bytes() == bytes) {
            return Ok(last.clone());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Value("text"))?;
        Name::new(text).ok_or(DecodeError::Value("name"))
    }

    pub(crate) fn cents(&mut self) -> Result<Cents, DecodeError> {
        Cents::new(self.u64()?).ok_or(DecodeError::Value("price"))
    }

    pub(crate) fn stock(&mut self) -> Result<u64, DecodeError> {
        let stock = self.u64()?;
        if stock <= STOCK_MAX { Ok(stock) } else { Err(DecodeError::Value("stock")) }
    }

    pub(super) fn quantity(&mut self) -> Result<Quantity, DecodeError> {
        Quantity::new(u64::from(self.u32()?)).ok_or(DecodeError::Value("quantity"))
    }

    /// Reads a quantity; 0 stands for none.
    pub(crate) fn quantity_maybe(&mut self) -> Result<Option<Quantity>, DecodeError> {
        match self.u32()? {
            0 => Ok(None),
            some => Quantity::new(u64::from(some)).map(Some).ok_or(DecodeError::Value("quantity")),
        }
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }

    /// The bytes between this reader and `end`, a later reader of the same bytes.
    pub(super) fn up_to(self, end: &Self) -> &'a [u8] {
        let length = self.0.len().saturating_sub(end.0.len());
        self.0.get(..length).unwrap_or_default()
    }

    /// The bytes that have not been read yet.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Appends bytes. The types that are written bound every length, so each length fits.
pub(crate) trait Writer {
    fn u8(&mut self, value: u8);
    fn u16(&mut self, value: u16);
    fn u32(&mut self, value: u32);
    fn u64(&mut self, value: u64);
    fn raw(&mut self, bytes: &[u8]);

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("every count is bounded far below 2^32"));
    }

    fn name(&mut self, name: &Name) {
        self.u16(u16::try_from(name.as_str().len()).expect("a name is at most 128 bytes long"));
        self.raw(name.as_str().as_bytes());
    }

    fn short_text(&mut self, text: &str) {
        self.u8(u8::try_from(text.len()).expect("such texts are at most 255 bytes long"));
        self.raw(text.as_bytes());
    }

    fn quantity(&mut self, quantity: Option<Quantity>) {
        let pieces = quantity.map_or(0, Quantity::get);
        self.u32(u32::try_from(pieces).expect("a quantity is at most a million"));
    }
}

impl Writer for Vec<u8> {
    fn u8(&mut self, value: u8) {
        self.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
