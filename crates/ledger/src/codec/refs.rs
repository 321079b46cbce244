//! Borrowed views of encoded requests: what the ledger reads of a log entry and of a block.
//!
//! An order of one line needs no allocated name, list of lines or key: its bytes are checked, its
//! key is hashed from them, and they are copied into the block unchanged. Equal bytes are equal
//! commands, so a run of equal commands is checked once.
//!
//! # Invariant
//!
//! Bytes that `read_after` or `open` accepts decode to a [`Request`](crate::command::Request),
//! which encodes to the same bytes. Whole batches and blocks are checked here before any of their
//! parts is decoded. `skim` is only for bytes that were checked before: of an order it reads
//! nothing but the lengths.

use crate::api_key::{ActorParts, parts_of, principal_of, split_actor};
use crate::certificate_actor::CertificateActor;
use crate::codec::bytes::{DecodeError, Reader};
use crate::codec::values::CERTIFIED;
use crate::command::{Command, LINES_MAX, Side};
use crate::outcome::Outcome;
use crate::terms::{Key, Name, Origin, Quantity, Timestamp};

/// The tag byte of an order.
const PLACE: u8 = 5;

/// A borrowed key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef<'a> {
    pub(crate) origin: Origin,
    /// The actor; empty: the request came without an API key.
    actor: &'a [u8],
    pub(crate) text: &'a [u8],
}

/// A borrowed request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestRef<'a> {
    /// True if a replica noted the certificate that the request came with.
    pub(crate) is_certified: bool,
    pub(crate) key: Option<KeyRef<'a>>,
    pub(crate) deadline: Option<Timestamp>,
    /// The command, which can be decoded.
    pub(crate) command: CommandRef<'a>,
    /// All bytes of the request.
    pub(crate) bytes: &'a [u8],
}

/// A borrowed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandRef<'a>(&'a [u8]);

/// A borrowed line of an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineRef<'a> {
    pub(crate) side: Side,
    pub(crate) quantity: Quantity,
    pub(crate) name: &'a str,
}

/// A borrowed request and its outcome.
#[derive(Clone, Debug)]
pub(crate) struct RecordRef<'a> {
    pub(crate) request: RequestRef<'a>,
    pub(crate) outcome: Outcome,
}

impl<'a> KeyRef<'a> {
    fn skim(origin: Origin, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let length = usize::from(reader.u8()?);
        let actor = reader.take(length)?;
        let length = usize::from(reader.u8()?);
        Ok(Self { origin, actor, text: reader.take(length)? })
    }

    fn check(&self) -> Result<(), DecodeError> {
        if !self.actor.is_empty() && split_actor(self.actor).is_none() {
            return Err(DecodeError::Value("actor"));
        }
        if Key::fits(self.text) { Ok(()) } else { Err(DecodeError::Value("key")) }
    }

    /// The name of the principal; empty for a request without an API key.
    pub(crate) fn principal(&self) -> &'a [u8] {
        principal_of(self.actor)
    }

    /// True if the request came with an API key.
    pub(crate) fn has_actor(&self) -> bool {
        !self.actor.is_empty()
    }

    /// The principal and the API key.
    pub(crate) fn actor(&self) -> ActorParts<'a> {
        parts_of(self.actor)
    }
}

impl<'a> RequestRef<'a> {
    /// Reads and checks a request. A command that equals `last`, which was checked, is not checked
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

    /// Finds the parts of a request that was checked before, without checking their content.
    pub(crate) fn skim(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let whole = *reader;
        let first = reader.u8()?;
        let is_certified = first & CERTIFIED != 0;
        if is_certified {
            // Certificates are rare: they are decoded, and thereby checked, here.
            drop(CertificateActor::decode_from(reader)?);
        }
        let key = match first & !CERTIFIED {
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
        Ok(Self { is_certified, key, deadline, command, bytes: whole.up_to(reader) })
    }
}

impl RequestRef<'_> {
    /// The name of the principal; empty for a request without an API key.
    pub(crate) fn principal(&self) -> String {
        let principal = self.key.map(|key| key.principal()).unwrap_or_default();
        std::str::from_utf8(principal).unwrap_or_default().into()
    }
}

impl<'a> CommandRef<'a> {
    fn skim(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let whole = *reader;
        match reader.rest().first() {
            Some(&PLACE) => skim_lines(reader)?,
            // Other commands are rare: they are decoded, and thereby checked, here.
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

    /// The number of lines, if the command is an order.
    pub(crate) fn lines(self) -> Option<usize> {
        let (tag, rest) = self.0.split_first()?;
        let count = rest.first_chunk().map(|count| u32::from_le_bytes(*count))?;
        (*tag == PLACE).then(|| usize::try_from(count).ok()).flatten()
    }

    /// The line, if the command is an order of one line.
    pub(crate) fn only_line(self) -> Option<LineRef<'a>> {
        let mut reader = Reader::new(self.0);
        let mut line = || {
            if reader.u8()? != PLACE || reader.u32()? != 1 {
                return Ok(None);
            }
            let side = Side::read(&mut reader)?;
            let quantity = reader.quantity()?;
            let length = usize::from(reader.u16()?);
            Ok::<_, DecodeError>(Some(LineRef { side, quantity, name: reader.text(length)? }))
        };
        line().expect("the command was checked")
    }

    /// The first 64 bits of [`Command::fingerprint`].
    pub(crate) fn fingerprint64(self) -> u64 {
        let hash = blake3::hash(self.0);
        u64::from_le_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// Decodes the command.
    pub(crate) fn command(self) -> Command {
        Command::decode_from(&mut Reader::new(self.0), None).expect("the command was checked")
    }
}

/// Reads the number of lines. Twice the limit is accepted, so that a block can keep an order that
/// was refused for its length.
fn line_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    reader.u8()?;
    reader.count(8, LINES_MAX.saturating_mul(2))
}

/// Skips the lines of an order.
fn skim_lines(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    for _ in 0..line_count(reader)? {
        reader.array::<5>()?;
        let length = usize::from(reader.u16()?);
        reader.take(length)?;
    }
    Ok(())
}

/// Checks the lines of an order without decoding them.
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
    /// Reads and checks a record; `last` is as in [`RequestRef::read_after`].
    pub(crate) fn read_after(
        reader: &mut Reader<'a>,
        last: Option<CommandRef<'a>>,
    ) -> Result<Self, DecodeError> {
        let request = RequestRef::read_after(reader, last)?;
        Ok(Self { request, outcome: Outcome::decode_from(reader)? })
    }

    /// Finds the parts of a record that was checked before.
    pub(crate) fn skim(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let request = RequestRef::skim(reader)?;
        Ok(Self { request, outcome: Outcome::decode_from(reader)? })
    }
}
