//! Requests where they stand, in their bytes: what a ledger reads of a log entry and of a block.
//!
//! An order that is one of thousands like it needs no name, no list of lines and no key of its own
//! in memory: its bytes are checked, its key is hashed out of them, and they go into the block as
//! they are. Equal bytes are equal commands, so what many want is taken apart once.
//!
//! # Invariant
//!
//! What is let pass here can be read as a [`Request`](crate::command::Request), and written again
//! it is the same bytes. So a whole batch and a whole block are checked here too, before they are
//! taken apart.

use super::{BATCH_VERSION, DecodeError, Reader};
use crate::command::{Command, LINES_MAX, Side};
use crate::outcome::Outcome;
use crate::terms::{Index, Key, Name, Origin, Timestamp};

/// The tag of an order.
const PLACE: u8 = 5;

/// A key in its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef<'a> {
    pub(crate) origin: Origin,
    pub(crate) principal: &'a str,
    pub(crate) text: &'a str,
}

/// A request in its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestRef<'a> {
    pub(crate) key: Option<KeyRef<'a>>,
    pub(crate) deadline: Option<Timestamp>,
    /// Its command, which can be read.
    pub(crate) command: CommandRef<'a>,
    /// All of it.
    pub(crate) bytes: &'a [u8],
}

/// A command in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandRef<'a>(&'a [u8]);

/// A request and what it came to, in their bytes.
#[derive(Clone, Debug)]
pub(crate) struct RecordRef<'a> {
    pub(crate) request: RequestRef<'a>,
    pub(crate) outcome: Outcome,
}

/// What a log entry carries, in its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRef<'a> {
    pub(crate) at: Timestamp,
    pub(crate) settled: Index,
    pub(crate) count: usize,
    requests: Reader<'a>,
}

impl<'a> KeyRef<'a> {
    fn read(origin: Origin, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let length = usize::from(reader.u8()?);
        let principal = reader.text(length)?;
        let length = usize::from(reader.u8()?);
        let text = reader.text(length)?;
        match Key::fits(text) {
            true => Ok(Self { origin, principal, text }),
            false => Err(DecodeError::Value("key")),
        }
    }
}

impl<'a> RequestRef<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let whole = *reader;
        let key = match reader.u8()? {
            0 => None,
            1 => Some(KeyRef::read(Origin::Client, reader)?),
            2 => Some(KeyRef::read(Origin::Frontend, reader)?),
            _ => return Err(DecodeError::Value("origin of a key")),
        };
        let deadline = match reader.u64()? {
            0 => None,
            millis => Some(Timestamp(millis)),
        };
        let command = CommandRef::read(reader)?;
        Ok(Self { key, deadline, command, bytes: whole.up_to(reader) })
    }
}

impl<'a> CommandRef<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let whole = *reader;
        match reader.rest().first() {
            Some(&PLACE) => check_lines(reader)?,
            _ => drop(Command::decode_from(reader, None)?),
        }
        Ok(Self(whole.up_to(reader)))
    }

    /// How many lines it has, if it is an order.
    pub(crate) fn lines(self) -> Option<usize> {
        let (tag, rest) = self.0.split_first()?;
        let count = rest.first_chunk().map(|count| u32::from_le_bytes(*count))?;
        (*tag == PLACE).then(|| usize::try_from(count).ok()).flatten()
    }

    /// 64 bits of what [`Command::fingerprint`] says.
    pub(crate) fn print(self) -> u64 {
        let hash = blake3::hash(self.0);
        u64::from_le_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// The command.
    pub(crate) fn command(self) -> Command {
        Command::decode_from(&mut Reader::new(self.0), None).expect("it was checked")
    }
}

/// An order, checked and not taken apart.
fn check_lines(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    reader.u8()?;
    // Twice the limit, so that an order refused for its length can be kept in its block.
    let lines = reader.count(8, LINES_MAX.saturating_mul(2))?;
    for _ in 0..lines {
        Side::read(reader)?;
        reader.quantity()?;
        let length = usize::from(reader.u16()?);
        if !Name::fits(reader.text(length)?) {
            return Err(DecodeError::Value("name"));
        }
    }
    Ok(())
}

impl<'a> RecordRef<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let request = RequestRef::read(reader)?;
        Ok(Self { request, outcome: Outcome::decode_from(reader)? })
    }
}

impl<'a> BatchRef<'a> {
    /// A log entry: every request in it can be read.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != BATCH_VERSION {
            return Err(DecodeError::Version(version));
        }
        let (at, settled) = (Timestamp(reader.u64()?), Index(reader.u64()?));
        let count = reader.count(10, usize::MAX)?;
        let requests = reader;
        for _ in 0..count {
            RequestRef::read(&mut reader)?;
        }
        reader.end()?;
        Ok(Self { at, settled, count, requests })
    }

    /// How many bytes its requests have.
    pub(crate) fn bytes(&self) -> usize {
        self.requests.rest().len()
    }

    /// What reads its requests.
    pub(crate) fn reader(&self) -> Reader<'a> {
        self.requests
    }

    /// Its requests.
    pub(crate) fn requests(&self) -> impl Iterator<Item = RequestRef<'a>> + use<'a> {
        let mut reader = self.requests;
        (0..self.count).map(move |_| RequestRef::read(&mut reader).expect("it was checked"))
    }
}
