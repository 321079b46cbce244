//! Requests, commands and outcomes as bytes.

use crate::api_key::{Actor, ApiKeyDigest};
use crate::certificate_actor::CertificateActor;
use crate::codec::api_keys::write_request_rate;
use crate::codec::bytes::{DecodeError, Reader, Writer};
use crate::command::{Command, Definition, LINES_MAX, Line, Request, SHOP_PRODUCTS_MAX};
use crate::command::{NewApiKey, Shop, Side};
use crate::operator_action::OperatorAction;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::terms::{Index, Key, LedgerId, Name, OrderNumber, Origin, Timestamp};

/// The bit of a request's first byte that says that a certificate follows. The rest of the byte is
/// the origin of the key: 0 for no key.
pub(super) const CERTIFIED: u8 = 4;

impl Request {
    /// Appends the encoded request.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let origin = match self.key.as_ref().map(|key| key.origin) {
            None => 0,
            Some(Origin::Client) => 1,
            Some(Origin::Frontend) => 2,
        };
        match &self.certificate {
            None => out.u8(origin),
            Some(certificate) => {
                out.u8(origin | CERTIFIED);
                certificate.encode_to(out);
            }
        }
        if let Some(key) = &self.key {
            out.short_text(key.actor.as_ref().map_or("", Actor::as_str));
            out.short_text(key.text());
        }
        out.u64(self.deadline.map_or(0, |deadline| deadline.0));
        self.command.encode_to(out);
    }

    /// Decodes a request; a name that stands at the same place in `last` is not checked again.
    pub(crate) fn decode_from(
        reader: &mut Reader<'_>,
        last: Option<&Self>,
    ) -> Result<Self, DecodeError> {
        let first = reader.u8()?;
        let is_certified = first & CERTIFIED != 0;
        let certificate =
            is_certified.then(|| CertificateActor::decode_from(reader)).transpose()?;
        let origin = match first & !CERTIFIED {
            0 => None,
            1 => Some(Origin::Client),
            2 => Some(Origin::Frontend),
            _ => return Err(DecodeError::Value("origin of a key")),
        };
        let key = origin.map(|origin| decode_key(origin, reader)).transpose()?;
        let deadline = match reader.u64()? {
            0 => None,
            millis => Some(Timestamp(millis)),
        };
        let command = Command::decode_from(reader, last.map(|last| &last.command))?;
        Ok(Self { key, deadline, certificate, command })
    }
}

fn decode_key(origin: Origin, reader: &mut Reader<'_>) -> Result<Key, DecodeError> {
    let actor = reader.actor()?;
    let text_length = usize::from(reader.u8()?);
    let key = Key::new(origin, reader.text(text_length)?).ok_or(DecodeError::Value("key"))?;
    Ok(key.sent_by(actor))
}

impl Command {
    /// 128 bits of BLAKE3 over the parsed command, to which a key is bound. A quantity sent as
    /// `"2"` and one sent as `2` are the same command.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut bytes = Vec::with_capacity(64);
        self.encode_to(&mut bytes);
        *blake3::hash(&bytes).as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open(shop) => {
                out.u8(0);
                shop.encode_to(out);
            }
            Self::Define(definition) => {
                out.u8(1);
                definition.encode_to(out);
            }
            Self::SetPrice { name, price } => {
                out.u8(2);
                out.name(name);
                out.u64(price.get());
            }
            Self::RestockBy { name, quantity } => {
                out.u8(3);
                out.name(name);
                out.quantity(Some(*quantity));
            }
            Self::RestockTo { name, quantity } => {
                out.u8(4);
                out.name(name);
                out.quantity(Some(*quantity));
            }
            Self::Place(lines) => {
                out.u8(5);
                encode_lines(lines, out);
            }
            Self::Attach { incarnation, name } => {
                out.u8(6);
                out.u64(*incarnation);
                out.name(name);
            }
            Self::Detach { incarnation, term } => {
                out.u8(7);
                out.u64(*incarnation);
                out.u64(*term);
            }
            Self::IssueApiKey(new) => {
                out.u8(8);
                new.encode_to(out);
            }
            Self::RevokeApiKey { id, ends } => {
                out.u8(9);
                out.raw(id.as_str().as_bytes());
                out.u64(ends.map_or(0, |ends| ends.0));
            }
            Self::SetAnonymousScopes(scopes) => {
                out.u8(10);
                out.u16(scopes.bits());
            }
            Self::OperatorAction(action) => {
                out.u8(11);
                action.encode_to(out);
            }
            Self::Reopen { next_number } => {
                out.u8(12);
                out.u64(next_number.0);
            }
        }
    }

    pub(super) fn decode_from(
        reader: &mut Reader<'_>,
        last: Option<&Self>,
    ) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Self::Open(Shop::decode_from(reader)?),
            1 => Self::Define(Definition::decode_from(reader)?),
            2 => Self::SetPrice { name: reader.name()?, price: reader.cents()? },
            3 => Self::RestockBy { name: reader.name()?, quantity: reader.quantity()? },
            4 => Self::RestockTo { name: reader.name()?, quantity: reader.quantity()? },
            5 => Self::Place(decode_lines(reader, last)?),
            6 => Self::Attach { incarnation: reader.u64()?, name: reader.name()? },
            7 => Self::Detach { incarnation: reader.u64()?, term: reader.u64()? },
            8 => Self::IssueApiKey(NewApiKey::decode_from(reader)?),
            9 => Self::RevokeApiKey { id: reader.api_key_id()?, ends: reader.time_maybe()? },
            10 => Self::SetAnonymousScopes(reader.scopes()?),
            11 => Self::OperatorAction(OperatorAction::decode_from(reader)?),
            12 => Self::Reopen { next_number: OrderNumber(reader.u64()?) },
            _ => return Err(DecodeError::Value("command")),
        })
    }
}

fn encode_lines(lines: &[Line], out: &mut Vec<u8>) {
    out.count(lines.len());
    for line in lines {
        line.side.write(out);
        out.quantity(Some(line.quantity));
        out.name(&line.name);
    }
}

fn decode_lines(reader: &mut Reader<'_>, last: Option<&Command>) -> Result<Vec<Line>, DecodeError> {
    let last = if let Some(Command::Place(lines)) = last { lines } else { &Vec::new() };
    // Twice the limit, so that a block can keep an order that was refused for its length.
    let count = reader.count(8, LINES_MAX.saturating_mul(2))?;
    (0..count)
        .map(|place| {
            let side = Side::read(reader)?;
            let quantity = reader.quantity()?;
            let name = reader.name_like(last.get(place).map(|line| &line.name))?;
            Ok(Line { name, quantity, side })
        })
        .collect()
}

impl Side {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.u8(match self {
            Self::Buy => 1,
            Self::Sell => 2,
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::Buy),
            2 => Ok(Self::Sell),
            _ => Err(DecodeError::Value("side")),
        }
    }
}

impl Shop {
    fn encode_to(&self, out: &mut Vec<u8>) {
        out.raw(&self.ledger_id.0);
        out.u64(self.first_order_number.0);
        out.count(self.products.len());
        self.products.iter().for_each(|definition| definition.encode_to(out));
    }

    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let ledger_id = LedgerId(reader.array()?);
        let first_order_number = OrderNumber(reader.u64()?);
        let count = reader.count(23, SHOP_PRODUCTS_MAX)?;
        let products =
            (0..count).map(|_| Definition::decode_from(reader)).collect::<Result<_, _>>()?;
        Ok(Self { ledger_id, first_order_number, products })
    }
}

impl Definition {
    fn encode_to(&self, out: &mut Vec<u8>) {
        out.name(&self.name);
        out.u64(self.price.get());
        out.u64(self.stock);
        out.quantity(self.restock_to);
    }

    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = reader.name()?;
        let price = reader.cents()?;
        let stock = reader.stock()?;
        Ok(Self { name, price, stock, restock_to: reader.quantity_maybe()? })
    }
}

impl NewApiKey {
    fn encode_to(&self, out: &mut Vec<u8>) {
        out.raw(self.id.as_str().as_bytes());
        out.raw(&self.digest.0);
        out.short_text(self.principal.as_str());
        out.u16(self.scopes.bits());
        out.u64(self.ends.map_or(0, |ends| ends.0));
        write_request_rate(out, self.rate);
        out.short_text(&self.note);
    }

    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: reader.api_key_id()?,
            digest: ApiKeyDigest(reader.array()?),
            principal: reader.principal()?,
            scopes: reader.scopes()?,
            ends: reader.time_maybe()?,
            rate: reader.request_rate()?,
            note: reader.note()?,
        })
    }
}

impl Outcome {
    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted(Accepted::Placed(number)) => {
                out.u8(0);
                out.u64(number.0);
            }
            Self::Accepted(Accepted::Done) => out.u8(1),
            Self::Accepted(Accepted::Unchanged) => out.u8(2),
            Self::Refused(refusal) => {
                out.u8(3);
                refusal.encode_to(out);
            }
            Self::Repeated { index, first } => {
                out.u8(4);
                out.u64(index.0);
                first.encode_to(out);
            }
        }
    }

    pub(crate) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            4 => {
                let index = Index(reader.u64()?);
                let tag = reader.u8()?;
                Ok(Self::Repeated { index, first: Box::new(Self::decode_first(tag, reader)?) })
            }
            tag => Self::decode_first(tag, reader),
        }
    }

    fn decode_first(tag: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match tag {
            0 => Self::Accepted(Accepted::Placed(OrderNumber(reader.u64()?))),
            1 => Self::Accepted(Accepted::Done),
            2 => Self::Accepted(Accepted::Unchanged),
            3 => Self::Refused(Refusal::decode_from(reader)?),
            _ => return Err(DecodeError::Value("outcome")),
        })
    }
}

impl Refusal {
    fn encode_to(&self, out: &mut Vec<u8>) {
        out.u8(self.code());
        if let Some(name) = self.product() {
            out.name(name);
        }
    }

    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::KeyReused,
            2 => Self::Late,
            3 => Self::NotOpen,
            4 => Self::LinesOutOfRange,
            5 => Self::ProductExists(reader.name()?),
            6 => Self::NoSuchProduct(reader.name()?),
            7 => Self::OutOfStock(reader.name()?),
            8 => Self::StockLimit(reader.name()?),
            9 => Self::CatalogsLimit,
            10 => Self::NumbersExhausted,
            11 => Self::NotAuthenticated,
            12 => Self::NotAllowed,
            13 => Self::ApiKeyExists,
            14 => Self::NoSuchApiKey,
            15 => Self::ApiKeysLimit,
            _ => return Err(DecodeError::Value("refusal")),
        })
    }

    /// The number of this refusal in every format.
    pub fn code(&self) -> u8 {
        match self {
            Self::KeyReused => 1,
            Self::Late => 2,
            Self::NotOpen => 3,
            Self::LinesOutOfRange => 4,
            Self::ProductExists(_) => 5,
            Self::NoSuchProduct(_) => 6,
            Self::OutOfStock(_) => 7,
            Self::StockLimit(_) => 8,
            Self::CatalogsLimit => 9,
            Self::NumbersExhausted => 10,
            Self::NotAuthenticated => 11,
            Self::NotAllowed => 12,
            Self::ApiKeyExists => 13,
            Self::NoSuchApiKey => 14,
            Self::ApiKeysLimit => 15,
        }
    }

    /// The product that the refusal is about, if any.
    pub fn product(&self) -> Option<&Name> {
        match self {
            Self::ProductExists(name)
            | Self::NoSuchProduct(name)
            | Self::OutOfStock(name)
            | Self::StockLimit(name) => Some(name),
            Self::KeyReused
            | Self::Late
            | Self::NotOpen
            | Self::LinesOutOfRange
            | Self::NumbersExhausted
            | Self::CatalogsLimit
            | Self::NotAuthenticated
            | Self::NotAllowed
            | Self::ApiKeyExists
            | Self::NoSuchApiKey
            | Self::ApiKeysLimit => None,
        }
    }
}
