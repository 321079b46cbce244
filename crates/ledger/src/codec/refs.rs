//! Requests where they stand, in their bytes: what a ledger reads of a log entry and of a block.
//!
//! An order that is one of thousands like it needs no name, no list of lines and no key of its own
//! in memory: its bytes are checked, its key is hashed out of them, and they go into the block as
//! they are. Equal bytes are equal commands, so what many want is looked at once.
//!
//! # Invariant
//!
//! What is let pass here (`read_after`, `open`) can be read as a
//! [`Request`](crate::command::Request), and written again it is the same bytes. So a whole batch
//! and a whole block are checked here too, before they are taken apart. Only what has passed before
//! is skimmed: then nothing is looked at but lengths.

use super::{BATCH_VERSION, DecodeError, MIXED_BATCH_VERSION, Reader};
use crate::command::{Command, LINES_MAX, Side};
use crate::outcome::Outcome;
use crate::terms::{Index, Key, Name, Origin, Quantity, Timestamp};

/// The tag of an order.
const PLACE: u8 = 5;

/// A key in its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef<'a> {
    pub(crate) origin: Origin,
    pub(crate) principal: &'a [u8],
    pub(crate) text: &'a [u8],
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

/// A line of an order, in its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineRef<'a> {
    pub(crate) side: Side,
    pub(crate) quantity: Quantity,
    pub(crate) name: &'a str,
}

/// A request and what it came to, in their bytes.
#[derive(Clone, Debug)]
pub(crate) struct RecordRef<'a> {
    pub(crate) request: RequestRef<'a>,
    pub(crate) outcome: Outcome,
}

/// What a log entry carries, in its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRef<'a> {
    version: u8,
    pub(crate) at: Timestamp,
    pub(crate) settled: Index,
    pub(crate) count: usize,
    requests: Reader<'a>,
}

impl<'a> KeyRef<'a> {
    fn skim(origin: Origin, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let length = usize::from(reader.u8()?);
        let principal = reader.take(length)?;
        let length = usize::from(reader.u8()?);
        Ok(Self { origin, principal, text: reader.take(length)? })
    }

    fn check(&self) -> Result<(), DecodeError> {
        if std::str::from_utf8(self.principal).is_err() {
            return Err(DecodeError::Value("text"));
        }
        if Key::fits(self.text) { Ok(()) } else { Err(DecodeError::Value("key")) }
    }
}

impl<'a> RequestRef<'a> {
    /// One that can be read. `last` is a command that can be: one that equals it is not looked at
    /// again.
    pub(crate) fn read_after(
        reader: &mut Reader<'a>,
        last: Option<CommandRef<'a>>,
    ) -> Result<Self, DecodeError> {
        let request = Self::skim(reader)?;
        request.key.map_or(Ok(()), |key| key.check())?;
        if last != Some(request.command) {
            request.command.check()?;
        }
        Ok(request)
    }

    /// One that was checked before: where its parts are, and not what is in them.
    pub(crate) fn skim(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let whole = *reader;
        let key = match reader.u8()? {
            0 => None,
            1 => Some(KeyRef::skim(Origin::Client, reader)?),
            2 => Some(KeyRef::skim(Origin::Frontend, reader)?),
            _ => return Err(DecodeError::Value("origin of a key")),
        };
        let deadline = match reader.u64()? {
            0 => None,
            millis => Some(Timestamp(millis)),
        };
        let command = CommandRef::skim(reader)?;
        Ok(Self { key, deadline, command, bytes: whole.up_to(reader) })
    }
}

impl<'a> CommandRef<'a> {
    fn skim(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let whole = *reader;
        match reader.rest().first() {
            Some(&PLACE) => skim_lines(reader)?,
            // Rare, and not worth a way of their own: they are checked here.
            _ => drop(Command::decode_from(reader, None)?),
        }
        Ok(Self(whole.up_to(reader)))
    }

    fn check(self) -> Result<(), DecodeError> {
        match self.0.first() {
            Some(&PLACE) => check_lines(&mut Reader::new(self.0)),
            _ => Ok(()),
        }
    }

    /// How many lines it has, if it is an order.
    pub(crate) fn lines(self) -> Option<usize> {
        let (tag, rest) = self.0.split_first()?;
        let count = rest.first_chunk().map(|count| u32::from_le_bytes(*count))?;
        (*tag == PLACE).then(|| usize::try_from(count).ok()).flatten()
    }

    /// Its line, if it is an order of one.
    pub(crate) fn only_line(self) -> Option<LineRef<'a>> {
        let mut reader = Reader::new(self.0);
        let mut line = || {
            if reader.u8()? != PLACE || reader.u32()? != 1 {
                return Ok(None);
            }
            let (side, quantity) = (Side::read(&mut reader)?, reader.quantity()?);
            let length = usize::from(reader.u16()?);
            Ok::<_, DecodeError>(Some(LineRef { side, quantity, name: reader.text(length)? }))
        };
        line().expect("it was checked")
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

/// How many lines follow. Twice the limit, so that an order refused for its length can be kept in
/// its block.
fn line_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    reader.u8()?;
    reader.count(8, LINES_MAX.saturating_mul(2))
}

/// An order, passed over.
fn skim_lines(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    for _ in 0..line_count(reader)? {
        reader.array::<5>()?;
        let length = usize::from(reader.u16()?);
        reader.take(length)?;
    }
    Ok(())
}

/// An order, checked and not taken apart.
fn check_lines(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    for _ in 0..line_count(reader)? {
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
    /// One that can be read, after one with the command `last`, as above.
    pub(crate) fn read_after(
        reader: &mut Reader<'a>,
        last: Option<CommandRef<'a>>,
    ) -> Result<Self, DecodeError> {
        let request = RequestRef::read_after(reader, last)?;
        Ok(Self { request, outcome: Outcome::decode_from(reader)? })
    }

    /// One that was checked before.
    pub(crate) fn skim(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let request = RequestRef::skim(reader)?;
        Ok(Self { request, outcome: Outcome::decode_from(reader)? })
    }
}

impl<'a> BatchRef<'a> {
    /// A log entry: every request in it can be read.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if !(MIXED_BATCH_VERSION..=BATCH_VERSION).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let (at, settled) = (Timestamp(reader.u64()?), Index(reader.u64()?));
        let count = reader.count(10, usize::MAX)?;
        let (requests, mut last) = (reader, None);
        for _ in 0..count {
            last = Some(RequestRef::read_after(&mut reader, last)?.command);
        }
        reader.end()?;
        Ok(Self { version, at, settled, count, requests })
    }

    /// From here on, refusals have key windows of their own.
    pub(crate) fn separates_refusals(&self) -> bool {
        self.version != MIXED_BATCH_VERSION
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
        (0..self.count).map(move |_| RequestRef::skim(&mut reader).expect("it was checked"))
    }
}
