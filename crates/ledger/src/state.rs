//! A state: everything that holds at an index except the blocks; the content of a snapshot.
//!
//! The keys are not part of a state. They are rebuilt from the blocks above [`State::keys_after`],
//! so a state stays as small as its table of products.
//!
//! # Layout, version 3
//!
//! u8 version, u32 CRC-32 of all bytes after it, u64 applied, u64 settled, u64 log time, u8 open,
//! 16 bytes ledger id, u64 first number, u64 next number, 32 bytes digest, u64 keys after; u64
//! number of keys of clients, clients' refusals, frontends and frontends' refusals; u32 number of
//! products, each: name, u64 price, u64 stock, u32 restock to, u64 version, u64 supplied, u64 sold
//! in, u64 bought out; u32 number of attached catalogs, each: u64 incarnation, name; u64 index of
//! the last change of access, u16 anonymous scopes, u32 number of API keys, each: 8 bytes id, 16
//! bytes digest, principal (u8 text), u16 scopes, u64 ends, u32 requests per second, u32 burst, u64
//! issued, issuer (u8 text), note (u8 text); u32 number of principals with keys, each: principal
//! (u8 text), u64 number of keys, u64 number of keys of refusals.
//!
//! Version 2 has no access and no principals. It is written as long as nothing about access was
//! ever changed, and no new series of order numbers was begun.
//!
//! Version 1 has no numbers of keys. It is written as long as refusals have no windows of their own
//! ([`State::key_counts`]).

use std::collections::BTreeMap;

use crate::access::{API_KEYS_MAX, Access, ApiKey};
use crate::api_key::Principal;
use crate::codec::{DecodeError, Reader, Writer};
use crate::command::CATALOGS_MAX;
use crate::stock::Product;
use crate::terms::{Digest, Index, LedgerId, Name, OrderNumber, Timestamp};
use crate::windows::{PerAnswer, PerOwner, PerWindow};

/// The version byte of a state.
pub const STATE_VERSION: u8 = 3;

/// The version of states in which nothing about access was ever changed.
const OPEN_VERSION: u8 = 2;

/// The version of states in which refusals have no windows of their own.
const MIXED_VERSION: u8 = 1;

/// Everything that holds at an index, except the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The last applied entry, of any kind.
    pub applied: Index,
    /// The greatest settled index that an entry carried so far.
    pub settled: Index,
    /// Log time.
    pub at: Timestamp,
    /// The ledger's identity. `None`: the shop is not open yet.
    pub ledger_id: Option<LedgerId>,
    /// The number of the first order.
    pub first_order_number: OrderNumber,
    /// The number of the next order.
    pub next_order_number: OrderNumber,
    /// The digest after the last entry that carried requests.
    pub digest: Digest,
    /// The blocks above this index hold every key that is still remembered.
    pub keys_after: Index,
    /// The number of keys in each window. A window holds the youngest answers of its kind and
    /// principal, so these numbers and the blocks determine its keys. `None`: refusals have no
    /// windows of their own yet, as in a store that was opened by a program without windows for
    /// refusals.
    pub key_counts: Option<PerOwner<u64>>,
    /// Every product, in name order.
    pub products: Vec<(Name, Product)>,
    /// The attached catalogs, by incarnation.
    pub attached: Vec<(u64, Name)>,
    /// The API keys, and what requests without one may do.
    pub access: Access,
}

impl State {
    /// The oldest version that holds everything.
    fn version(&self) -> u8 {
        let is_open = self.access.changed == Index(0);
        // Only leaders that separate refusals propose commands about API keys.
        assert!(is_open || self.key_counts.is_some(), "API keys before windows of refusals");
        match self.key_counts {
            None => MIXED_VERSION,
            Some(_) if is_open => OPEN_VERSION,
            Some(_) => STATE_VERSION,
        }
    }

    /// Encodes the state.
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(self.products.len().saturating_mul(96).saturating_add(160));
        out.u8(self.version());
        out.u32(0);
        out.u64(self.applied.0);
        out.u64(self.settled.0);
        out.u64(self.at.0);
        out.u8(u8::from(self.ledger_id.is_some()));
        out.raw(&self.ledger_id.unwrap_or_default().0);
        out.u64(self.first_order_number.0);
        out.u64(self.next_order_number.0);
        out.raw(&self.digest.0);
        out.u64(self.keys_after.0);
        let shared = self.key_counts.iter().flat_map(|counts| counts.shared.iter());
        shared.for_each(|keys| out.u64(*keys));
        out.count(self.products.len());
        for (name, product) in &self.products {
            encode_product(name, product, &mut out);
        }
        out.count(self.attached.len());
        for (incarnation, name) in &self.attached {
            out.u64(*incarnation);
            out.name(name);
        }
        if self.version() == STATE_VERSION {
            encode_access(&self.access, &mut out);
            let principals = self.key_counts.iter().flat_map(|counts| &counts.principals);
            encode_principals(&principals.collect::<Vec<_>>(), &mut out);
        }
        let crc = crc32fast::hash(out.get(5..).unwrap_or_default());
        if let Some(place) = out.get_mut(1..5) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        out
    }

    /// Decodes a state.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, mut reader) = Reader::sealed(bytes, MIXED_VERSION..=STATE_VERSION)?;
        let applied = Index(reader.u64()?);
        let settled = Index(reader.u64()?);
        let at = Timestamp(reader.u64()?);
        let open = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Value("open")),
        };
        let ledger_id = LedgerId(reader.array()?);
        if !open && ledger_id != LedgerId::default() {
            return Err(DecodeError::Value("ledger id"));
        }
        let ledger_id = open.then_some(ledger_id);
        let first_order_number = OrderNumber(reader.u64()?);
        let next_order_number = OrderNumber(reader.u64()?);
        let digest = Digest(reader.array()?);
        let keys_after = Index(reader.u64()?);
        let mut key_counts = match version {
            MIXED_VERSION => None,
            _ => Some(PerWindow {
                clients: reader.u64()?,
                client_refusals: reader.u64()?,
                frontends: reader.u64()?,
                frontend_refusals: reader.u64()?,
            }),
        }
        .map(|shared| PerOwner { shared, ..PerOwner::default() });
        let count = reader.count(55, usize::MAX)?;
        let products = (0..count).map(|_| decode_product(&mut reader));
        let products = products.collect::<Result<Vec<_>, _>>()?;
        if !products.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(DecodeError::Value("order of products"));
        }
        if !open && !products.is_empty() {
            return Err(DecodeError::Value("products"));
        }
        if products.iter().any(|(_, product)| applied < product.version) {
            return Err(DecodeError::Value("version of a product"));
        }
        let count = reader.count(11, CATALOGS_MAX)?;
        let attached = (0..count).map(|_| Ok((reader.u64()?, reader.name()?)));
        let attached = attached.collect::<Result<Vec<_>, DecodeError>>()?;
        if !attached.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(DecodeError::Value("order of catalogs"));
        }
        let access = match version {
            STATE_VERSION => decode_access(&mut reader, applied)?,
            _ => Access::default(),
        };
        if let (Some(counts), STATE_VERSION) = (&mut key_counts, version) {
            counts.principals = decode_principals(&mut reader)?;
        }
        reader.end()?;
        Ok(Self {
            applied,
            settled,
            at,
            ledger_id,
            first_order_number,
            next_order_number,
            digest,
            keys_after,
            key_counts,
            products,
            attached,
            access,
        })
    }
}

/// Encodes one row of the table of products.
pub fn encode_product(name: &Name, product: &Product, out: &mut Vec<u8>) {
    out.name(name);
    out.u64(product.price.get());
    out.u64(product.stock);
    out.quantity(product.restock_to);
    out.u64(product.version.0);
    out.u64(product.supplied);
    out.u64(product.sold_in);
    out.u64(product.bought_out);
}

fn decode_product(reader: &mut Reader<'_>) -> Result<(Name, Product), DecodeError> {
    let name = reader.name()?;
    let product = Product {
        price: reader.cents()?,
        stock: reader.stock()?,
        restock_to: reader.quantity_maybe()?,
        version: Index(reader.u64()?),
        supplied: reader.u64()?,
        sold_in: reader.u64()?,
        bought_out: reader.u64()?,
    };
    if !product.is_conserved() {
        return Err(DecodeError::Value("stock of a product"));
    }
    Ok((name, product))
}

fn encode_access(access: &Access, out: &mut Vec<u8>) {
    out.u64(access.changed.0);
    out.u16(access.anonymous.bits());
    out.count(access.keys.len());
    for (id, key) in &access.keys {
        out.raw(id.as_str().as_bytes());
        key.encode_to(out);
    }
}

fn decode_access(reader: &mut Reader<'_>, applied: Index) -> Result<Access, DecodeError> {
    let changed = Index(reader.u64()?);
    if changed == Index(0) || applied < changed {
        return Err(DecodeError::Value("change of access"));
    }
    let anonymous = reader.scopes()?;
    let count = reader.count(45, API_KEYS_MAX)?;
    let keys = (0..count).map(|_| Ok((reader.api_key_id()?, ApiKey::decode_from(reader)?)));
    let keys = keys.collect::<Result<Vec<_>, DecodeError>>()?;
    if !keys.is_sorted_by(|(before, _), (after, _)| before < after) {
        return Err(DecodeError::Value("order of API keys"));
    }
    Ok(Access { changed, anonymous, keys: keys.into_iter().collect() })
}

fn encode_principals(principals: &[(&Principal, &PerAnswer<u64>)], out: &mut Vec<u8>) {
    out.count(principals.len());
    for (principal, keys) in principals {
        out.short_text(principal.as_str());
        out.u64(keys.accepted);
        out.u64(keys.refused);
    }
}

fn decode_principals(
    reader: &mut Reader<'_>,
) -> Result<BTreeMap<Principal, PerAnswer<u64>>, DecodeError> {
    let count = reader.count(18, usize::MAX)?;
    let principals = (0..count).map(|_| {
        let principal = reader.principal()?;
        let keys = PerAnswer { accepted: reader.u64()?, refused: reader.u64()? };
        if keys == PerAnswer::default() {
            return Err(DecodeError::Value("number of a principal's keys"));
        }
        Ok((principal, keys))
    });
    let principals = principals.collect::<Result<Vec<_>, DecodeError>>()?;
    if !principals.is_sorted_by(|(before, _), (after, _)| before < after) {
        return Err(DecodeError::Value("order of principals"));
    }
    Ok(principals.into_iter().collect())
}
