//! The log's record format: a layout of our own, so that the engine may change its types.
//!
//! Everything is little-endian. Each part begins with a version byte. An entry's body has a short
//! header with a checksum of its own: the log decides by "the record ends too early" that a tail
//! was torn and may be cut, so a flipped bit in a length must never look like that.
//!
//! ```text
//! log id    version u8 | term u64 | replica u64 | index u64
//! vote      version u8 | term u64 | replica u64 | committed u8
//! body      version u8 | kind u8 | length u32 | crc32 of these six u32 | content
//!   content of kind 0: nothing; 1: a batch in the ledger's encoding; 2: members
//! members   configs u32 { ids u32 { id u64 } } | members u32 { id u64 | length u16 | address }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use bytes::Bytes;
use openraft::EntryPayload;
use raft_log::codeq::{Decode, Encode};

use crate::raft::types::{
    Address, Body, LeaderId, LogId, Payload, RaftMembership, StoredMembership, Vote,
};

/// The version that is written, and the only version that can be read so far.
const VERSION: u8 = 1;

/// The longest content of an entry: 64 MB. A shop of 100,000 products takes about a third.
pub const CONTENT_BYTES_MAX: u32 = 64 << 20;

/// The longest address of a replica, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 1024;

/// The most replicas one membership may name: far above what a store may have.
const MEMBERS_MAX: u32 = 1024;

/// A log id as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredLogId(pub LogId);

/// A vote as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct StoredVote(pub Vote);

/// An entry's body as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBody(pub Body);

impl StoredBody {
    /// The approximate size in bytes.
    pub fn size(&self) -> u64 {
        match &self.0 {
            EntryPayload::Normal(payload) => payload.0.len() as u64 + 64,
            EntryPayload::Blank | EntryPayload::Membership(_) => 64,
        }
    }
}

impl Encode for StoredLogId {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let mut out = [0; 25];
        out[0] = VERSION;
        out[1..9].copy_from_slice(&self.0.leader_id.term.to_le_bytes());
        out[9..17].copy_from_slice(&self.0.leader_id.node_id.to_le_bytes());
        out[17..25].copy_from_slice(&self.0.index.to_le_bytes());
        w.write_all(&out)?;
        Ok(out.len())
    }
}

impl Decode for StoredLogId {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        version(&mut r, "log id")?;
        let leader_id = LeaderId { term: u64_le(&mut r)?, node_id: u64_le(&mut r)? };
        Ok(Self(LogId { leader_id, index: u64_le(&mut r)? }))
    }
}

impl Encode for StoredVote {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let mut out = [0; 18];
        out[0] = VERSION;
        out[1..9].copy_from_slice(&self.0.leader_id.term.to_le_bytes());
        out[9..17].copy_from_slice(&self.0.leader_id.node_id.to_le_bytes());
        out[17] = u8::from(self.0.committed);
        w.write_all(&out)?;
        Ok(out.len())
    }
}

impl Decode for StoredVote {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        version(&mut r, "vote")?;
        let leader_id = LeaderId { term: u64_le(&mut r)?, node_id: u64_le(&mut r)? };
        let committed = flag(&mut r, "vote")?;
        Ok(Self(Vote { leader_id, committed }))
    }
}

impl Encode for StoredBody {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let (kind, content) = match &self.0 {
            EntryPayload::Blank => (0, Bytes::new()),
            EntryPayload::Normal(payload) => (1, payload.0.clone()),
            EntryPayload::Membership(members) => (2, encode_members(members)?.into()),
        };
        let length =
            u32::try_from(content.len()).ok().filter(|length| *length <= CONTENT_BYTES_MAX);
        let length = length.ok_or_else(|| invalid("an entry is longer than 64 MB"))?;
        let mut head = [0; 10];
        head[0] = VERSION;
        head[1] = kind;
        head[2..6].copy_from_slice(&length.to_le_bytes());
        let check = crc32fast::hash(&head[..6]);
        head[6..].copy_from_slice(&check.to_le_bytes());
        w.write_all(&head)?;
        w.write_all(&content)?;
        Ok(head.len() + content.len())
    }
}

impl Decode for StoredBody {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let head: [u8; 10] = array(&mut r)?;
        let check = u32::from_le_bytes([head[6], head[7], head[8], head[9]]);
        if crc32fast::hash(&head[..6]) != check {
            return Err(invalid("the header of an entry does not match its checksum"));
        }
        if head[0] != VERSION {
            return Err(unknown_version("entry", head[0]));
        }
        let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        if CONTENT_BYTES_MAX < length {
            return Err(invalid("an entry claims to be longer than 64 MB"));
        }
        let content = exactly(&mut r, length)?;
        match (head[1], length) {
            (0, 0) => Ok(Self(EntryPayload::Blank)),
            (1, _) => Ok(Self(EntryPayload::Normal(Payload(content.into())))),
            (2, _) => Ok(Self(EntryPayload::Membership(whole(&content, decode_members)?))),
            _ => Err(invalid("an entry is of an unknown kind")),
        }
    }
}

/// Encodes the last applied entry and the members of the store.
pub(crate) fn encode_position(
    applied: Option<LogId>,
    members: &StoredMembership,
) -> io::Result<Vec<u8>> {
    let mut out = vec![VERSION];
    encode_optional(applied, &mut out)?;
    encode_optional(*members.log_id(), &mut out)?;
    out.extend(encode_members(members.membership())?);
    out.extend(crc32fast::hash(&out).to_le_bytes());
    Ok(out)
}

/// Decodes the result of [`encode_position`].
pub(crate) fn decode_position(bytes: &[u8]) -> io::Result<(Option<LogId>, StoredMembership)> {
    let Some((content, check)) = bytes.split_last_chunk::<4>() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    if crc32fast::hash(content).to_le_bytes() != *check {
        return Err(invalid("the last applied position does not match its checksum"));
    }
    whole(content, |r| {
        version(r, "last applied position")?;
        let applied = decode_optional(r)?;
        let at = decode_optional(r)?;
        Ok((applied, StoredMembership::new(at, decode_members(r)?)))
    })
}

/// Encodes the durable mark: what the log was known to have on disk.
pub(crate) fn encode_durable_mark(vote: Option<Vote>, last: Option<LogId>) -> io::Result<Vec<u8>> {
    let mut out = vec![VERSION];
    out.push(u8::from(vote.is_some()));
    if let Some(vote) = vote {
        StoredVote(vote).encode(&mut out)?;
    }
    encode_optional(last, &mut out)?;
    out.extend(crc32fast::hash(&out).to_le_bytes());
    Ok(out)
}

/// Decodes the result of [`encode_durable_mark`].
pub(crate) fn decode_durable_mark(bytes: &[u8]) -> io::Result<(Option<Vote>, Option<LogId>)> {
    let Some((content, check)) = bytes.split_last_chunk::<4>() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    if crc32fast::hash(content).to_le_bytes() != *check {
        return Err(invalid("the durable mark does not match its checksum"));
    }
    whole(content, |r| {
        version(r, "durable mark")?;
        let voted = flag(r, "vote")?;
        let vote = if voted { Some(StoredVote::decode(&mut *r)?.0) } else { None };
        Ok((vote, decode_optional(r)?))
    })
}

fn encode_optional(log_id: Option<LogId>, out: &mut Vec<u8>) -> io::Result<()> {
    out.push(u8::from(log_id.is_some()));
    if let Some(log_id) = log_id {
        StoredLogId(log_id).encode(out)?;
    }
    Ok(())
}

fn decode_optional(r: &mut &[u8]) -> io::Result<Option<LogId>> {
    if flag(r, "log id")? { Ok(Some(StoredLogId::decode(r)?.0)) } else { Ok(None) }
}

fn encode_members(members: &RaftMembership) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let configs = members.get_joint_config();
    out.extend(count(configs.len())?);
    for ids in configs {
        out.extend(count(ids.len())?);
        out.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    out.extend(count(members.nodes().count())?);
    for (id, address) in members.nodes() {
        let text = address.address.as_bytes();
        let length = u16::try_from(text.len()).ok().filter(|_| text.len() <= ADDRESS_BYTES_MAX);
        let length =
            length.ok_or_else(|| invalid("a replica's address is longer than 1024 bytes"))?;
        out.extend(id.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(text);
    }
    Ok(out)
}

fn decode_members(r: &mut &[u8]) -> io::Result<RaftMembership> {
    let mut configs = Vec::new();
    for _ in 0..decode_count(r)? {
        let mut ids = BTreeSet::new();
        for _ in 0..decode_count(r)? {
            ids.insert(u64_le(r)?);
        }
        configs.push(ids);
    }
    let mut members = BTreeMap::new();
    for _ in 0..decode_count(r)? {
        let id = u64_le(r)?;
        let length = u16::from_le_bytes(array(r)?);
        let text = exactly(r, u32::from(length))?;
        let text = String::from_utf8(text).map_err(|_| invalid("an address is not text"))?;
        members.insert(id, Address { address: text });
    }
    if configs.is_empty() && members.is_empty() {
        return Ok(RaftMembership::default());
    }
    RaftMembership::new(configs, members).map_err(|error| invalid(&error.to_string()))
}

fn count(number: usize) -> io::Result<[u8; 4]> {
    let number = u32::try_from(number).ok().filter(|number| *number <= MEMBERS_MAX);
    Ok(number.ok_or_else(|| invalid("a store has at most 1024 members"))?.to_le_bytes())
}

fn decode_count(r: &mut &[u8]) -> io::Result<u32> {
    let number = u32::from_le_bytes(array(r)?);
    if MEMBERS_MAX < number {
        return Err(invalid("a membership claims more than 1024 members"));
    }
    Ok(number)
}

/// Decodes a value that must fill `bytes` to the end.
fn whole<T>(mut bytes: &[u8], decode: impl Fn(&mut &[u8]) -> io::Result<T>) -> io::Result<T> {
    let value = decode(&mut bytes)?;
    if !bytes.is_empty() {
        return Err(invalid("there are extra bytes behind the value"));
    }
    Ok(value)
}

fn version<R: Read>(r: &mut R, what: &str) -> io::Result<()> {
    let [found] = array(r)?;
    if found == VERSION { Ok(()) } else { Err(unknown_version(what, found)) }
}

fn flag<R: Read>(r: &mut R, what: &str) -> io::Result<bool> {
    match array(r)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(invalid(&format!("a flag of a {what} is {other}"))),
    }
}

fn u64_le<R: Read>(r: &mut R) -> io::Result<u64> {
    Ok(u64::from_le_bytes(array(r)?))
}

fn array<const N: usize, R: Read>(r: &mut R) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    r.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads exactly `length` bytes, without reserving memory for a length that is only claimed.
fn exactly<R: Read>(r: &mut R, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    r.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn unknown_version(what: &str, version: u8) -> io::Error {
    invalid(&format!("a {what} is of version {version}, this program knows version {VERSION}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log_ids() -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, node_id, index)| LogId {
            leader_id: LeaderId { term, node_id },
            index,
        })
    }

    fn members() -> impl Strategy<Value = RaftMembership> {
        let ids = prop::collection::btree_set(any::<u64>(), 1..6);
        (ids, "[a-z0-9.:]{0,40}").prop_map(|(ids, address)| {
            let named = ids.iter().map(|id| (*id, Address { address: address.clone() }));
            let members: BTreeMap<u64, Address> = named.collect();
            RaftMembership::new(vec![ids], members).expect("every voter has an address")
        })
    }

    fn bodies() -> impl Strategy<Value = Body> {
        let batch = prop::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            Just(EntryPayload::Blank),
            batch.prop_map(|bytes| EntryPayload::Normal(Payload(bytes.into()))),
            members().prop_map(EntryPayload::Membership),
        ]
    }

    fn bytes(value: &impl Encode) -> Vec<u8> {
        let mut out = Vec::new();
        let written = value.encode(&mut out).unwrap();
        assert_eq!(written, out.len());
        out
    }

    /// Decodes the encoded value, fails with a torn tail's error on each truncation, and leaves the
    /// bytes behind it unread.
    fn check<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: &T) {
        let whole = bytes(value);
        for length in 0..whole.len() {
            let error = T::decode(&whole[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {length}");
        }
        let followed = [whole.as_slice(), b"next"].concat();
        let mut rest = followed.as_slice();
        assert_eq!(T::decode(&mut rest).unwrap(), *value);
        assert_eq!(rest, b"next");
    }

    proptest! {
        #[test]
        fn a_written_value_is_read_and_a_truncated_value_ends_too_early(
            log_id in log_ids(), committed: bool, body in bodies(),
        ) {
            check(&StoredLogId(log_id));
            check(&StoredVote(Vote { leader_id: log_id.leader_id, committed }));
            check(&StoredBody(body));
        }

        #[test]
        fn a_flipped_length_never_looks_like_a_torn_tail(body in bodies(), bit in 0..80_usize) {
            let mut whole = bytes(&StoredBody(body));
            whole[bit / 8] ^= 1 << (bit % 8);
            let error = StoredBody::decode(whole.as_slice()).unwrap_err();
            prop_assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }

        #[test]
        fn a_position_is_read_whole_or_rejected(
            applied in prop::option::of(log_ids()), at in prop::option::of(log_ids()),
            members in members(), bit: prop::sample::Index,
        ) {
            let stored = StoredMembership::new(at, members);
            let mut whole = encode_position(applied, &stored).unwrap();
            prop_assert_eq!(decode_position(&whole).unwrap(), (applied, stored));
            for length in 0..whole.len() {
                prop_assert!(decode_position(&whole[..length]).is_err());
            }
            let bit = bit.index(whole.len() * 8);
            whole[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_position(&whole).is_err());
        }

        #[test]
        fn random_bytes_are_rejected(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            // Decoding neither panics nor reserves memory for a claimed length.
            let _ = StoredLogId::decode(bytes.as_slice());
            let _ = StoredVote::decode(bytes.as_slice());
            let _ = decode_members(&mut bytes.as_slice());
            prop_assert!(StoredBody::decode(bytes.as_slice()).is_err());
            prop_assert!(decode_position(&bytes).is_err());
        }
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let leader_id = LeaderId { term: 2, node_id: 3 };
        let log_id = [1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes(&StoredLogId(LogId { leader_id, index: 4 })), log_id);
        let vote = [1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(bytes(&StoredVote(Vote { leader_id, committed: true })), vote);
        let batch = StoredBody(EntryPayload::Normal(Payload(Bytes::from_static(b"hi"))));
        assert_eq!(bytes(&batch)[..6], [1, 1, 2, 0, 0, 0]);
        assert_eq!(bytes(&batch)[10..], *b"hi");
        let ids = BTreeSet::from([5]);
        let address = Address { address: "a:1".into() };
        let members = RaftMembership::new(vec![ids], BTreeMap::from([(5, address)])).unwrap();
        let content = [
            &[1, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0],
            b"a:1",
        ]
        .concat();
        let body = bytes(&StoredBody(EntryPayload::Membership(members)));
        assert_eq!(body[..6], [1, 2, 33, 0, 0, 0]);
        assert_eq!(body[10..], content);
    }
}
