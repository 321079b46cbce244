//! A batch as bytes: the content of a log entry.

use crate::codec::bytes::{DecodeError, Reader, Writer};
use crate::codec::refs::RequestRef;
use crate::command::{Batch, Request};
use crate::terms::{Index, Timestamp};

/// The version byte of a batch. From the first batch of version 2 on, refusals have key windows of
/// their own ([`crate::windows`]). The bytes after the version are those of version 1.
pub const BATCH_VERSION: u8 = 2;

/// The version in which refusals share the other answers' windows, until a batch of a later
/// version.
const MIXED_BATCH_VERSION: u8 = 1;

/// A borrowed batch: the content of a log entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRef<'a> {
    version: u8,
    pub(crate) at: Timestamp,
    pub(crate) settled: Index,
    pub(crate) count: usize,
    requests: Reader<'a>,
}

impl Batch {
    /// Encodes the batch as a log entry.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.requests.len().saturating_mul(96).saturating_add(32));
        out.u8(BATCH_VERSION);
        out.u64(self.at.0);
        out.u64(self.settled.0);
        out.count(self.requests.len());
        self.requests.iter().for_each(|request| request.encode_to(&mut out));
        out
    }

    /// Decodes a log entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let batch = BatchRef::open(bytes)?;
        let mut requests: Vec<Request> = Vec::with_capacity(batch.count);
        let mut reader = batch.requests;
        for _ in 0..batch.count {
            let request = Request::decode_from(&mut reader, requests.last())?;
            requests.push(request);
        }
        Ok(Self { at: batch.at, settled: batch.settled, requests })
    }
}

/// Encodes a batch of `count` requests that are encoded already.
pub(crate) fn encode_batch<'a>(
    at: Timestamp,
    count: usize,
    requests: impl Iterator<Item = RequestRef<'a>>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(count.saturating_mul(96).saturating_add(32));
    out.u8(BATCH_VERSION);
    out.u64(at.0);
    out.u64(0);
    out.count(count);
    requests.for_each(|request| out.raw(request.bytes));
    out
}

impl<'a> BatchRef<'a> {
    /// Opens a log entry and checks every request in it.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if !(MIXED_BATCH_VERSION..=BATCH_VERSION).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let at = Timestamp(reader.u64()?);
        let settled = Index(reader.u64()?);
        let count = reader.count(10, usize::MAX)?;
        let requests = reader;
        let mut last = None;
        for _ in 0..count {
            last = Some(RequestRef::read_after(&mut reader, last)?.command);
        }
        reader.end()?;
        Ok(Self { version, at, settled, count, requests })
    }

    /// True if refusals have key windows of their own from this batch on.
    pub(crate) fn separates_refusals(&self) -> bool {
        self.version != MIXED_BATCH_VERSION
    }

    /// The length of the requests, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.requests.rest().len()
    }

    /// The requests, in order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = RequestRef<'a>> + use<'a> {
        let mut reader = self.requests;
        (0..self.count).map(move |_| RequestRef::skim(&mut reader).expect("the batch was checked"))
    }
}
