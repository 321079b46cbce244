//! API keys as bytes.

use crate::access::ApiKey;
use crate::api_key::{
    API_KEY_ID_BYTES, Actor, ApiKeyDigest, ApiKeyId, Principal, RequestRate, Scopes, is_note,
};
use crate::codec::bytes::{DecodeError, Reader, Writer};
use crate::terms::Timestamp;

impl ApiKey {
    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        out.raw(&self.digest.0);
        out.short_text(self.principal.as_str());
        out.u16(self.scopes.bits());
        out.u64(self.ends.map_or(0, |ends| ends.0));
        write_request_rate(out, self.rate);
        out.u64(self.issued.0);
        out.short_text(self.issuer.as_ref().map_or("", Actor::as_str));
        out.short_text(&self.note);
    }

    pub(crate) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            digest: ApiKeyDigest(reader.array()?),
            principal: reader.principal()?,
            scopes: reader.scopes()?,
            ends: reader.time_maybe()?,
            rate: reader.request_rate()?,
            issued: Timestamp(reader.u64()?),
            issuer: reader.actor()?,
            note: reader.note()?,
        })
    }
}

/// Writes a rate; twice 0 stands for none.
pub(crate) fn write_request_rate(out: &mut Vec<u8>, rate: Option<RequestRate>) {
    let (per_second, burst) = RequestRate::numbers(rate);
    out.u32(per_second);
    out.u32(burst);
}

impl<'a> Reader<'a> {
    /// Reads a text with a length of one byte.
    fn short_text(&mut self) -> Result<&'a str, DecodeError> {
        let length = usize::from(self.u8()?);
        self.text(length)
    }

    pub(crate) fn principal(&mut self) -> Result<Principal, DecodeError> {
        Principal::new(self.short_text()?).ok_or(DecodeError::Value("principal"))
    }

    pub(crate) fn api_key_id(&mut self) -> Result<ApiKeyId, DecodeError> {
        ApiKeyId::new(&self.array::<API_KEY_ID_BYTES>()?).ok_or(DecodeError::Value("API key id"))
    }

    pub(crate) fn scopes(&mut self) -> Result<Scopes, DecodeError> {
        Scopes::from_bits(self.u16()?).ok_or(DecodeError::Value("scopes"))
    }

    /// Reads a time; 0 stands for none.
    pub(crate) fn time_maybe(&mut self) -> Result<Option<Timestamp>, DecodeError> {
        Ok(Some(Timestamp(self.u64()?)).filter(|time| time.0 != 0))
    }

    /// Reads a rate; twice 0 stands for none.
    pub(crate) fn request_rate(&mut self) -> Result<Option<RequestRate>, DecodeError> {
        match (self.u32()?, self.u32()?) {
            (0, 0) => Ok(None),
            (per_second, burst) => RequestRate::new(per_second, burst)
                .map(Some)
                .ok_or(DecodeError::Value("rate of an API key")),
        }
    }

    /// Reads an actor; an empty text stands for none.
    pub(crate) fn actor(&mut self) -> Result<Option<Actor>, DecodeError> {
        match self.short_text()? {
            "" => Ok(None),
            text => Actor::parse(text).map(Some).ok_or(DecodeError::Value("actor")),
        }
    }

    pub(crate) fn note(&mut self) -> Result<String, DecodeError> {
        let note = self.short_text()?;
        if is_note(note) { Ok(note.into()) } else { Err(DecodeError::Value("note")) }
    }
}
