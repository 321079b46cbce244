//! The API key that a connection sent last on the fast path: a client that keeps its connection
//! open is authenticated by one comparison, not by a digest and a look-up per request.
//!
//! # Invariants
//!
//! * It finds the sender that [`Sender::of`] finds.

use std::sync::{Arc, Weak};

use ledger::access::Access;
use ledger::api_key::Actor;
use ledger::terms::Timestamp;

use crate::authentication::{Authorization, Sender, Unauthorized};

/// The longest header that is remembered. An API key in its usual form takes 50 bytes.
const HEADER_BYTES_MAX: usize = 64;

/// The API key that a connection sent last, if it was valid.
#[derive(Default)]
pub(crate) struct RememberedKey(Option<KnownSender>);

/// A sender, as its key was found.
struct KnownSender {
    /// The header, which holds the key.
    header: Box<[u8]>,
    /// The access in which the key was found. The weak pointer keeps no list of keys in memory,
    /// and is never equal to that of a later one.
    access: Weak<Access>,
    /// The log time from which on the key allows nothing.
    ends: Option<Timestamp>,
    sender: Sender,
}

impl KnownSender {
    fn sent(&self, header: &[u8], access: &Arc<Access>) -> bool {
        std::ptr::eq(self.access.as_ptr(), Arc::as_ptr(access)) && are_equal(&self.header, header)
    }

    fn is_live(&self, at: Option<Timestamp>) -> bool {
        self.ends.zip(at).is_none_or(|(ends, at)| at < ends)
    }
}

impl RememberedKey {
    /// The sender of a request, as of a log time.
    pub(crate) fn sender(
        &mut self,
        sent: Authorization<'_>,
        access: &Arc<Access>,
        at: Option<Timestamp>,
    ) -> Result<Sender, Unauthorized> {
        let Authorization::One(header) = sent else { return Sender::of(sent, access, at) };
        if let Some(known) = &self.0
            && known.sent(header, access)
        {
            return if known.is_live(at) {
                Ok(known.sender.clone())
            } else {
                Err(Unauthorized::Ended)
            };
        }
        let sender = Sender::of(sent, access, at)?;
        let id = sender.actor.as_ref().and_then(Actor::id);
        if let Some(key) = id.and_then(|id| access.keys.get(&id))
            && header.len() <= HEADER_BYTES_MAX
        {
            self.0 = Some(KnownSender {
                header: header.into(),
                access: Arc::downgrade(access),
                ends: key.ends,
                sender: sender.clone(),
            });
        }
        Ok(sender)
    }
}

/// True for equal bytes. The time it takes does not tell where they differ: through a gateway,
/// several customers share a connection.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use ledger::access::ApiKey;
    use ledger::api_key::{Principal, Scopes};
    use ledger::api_key_text::{ApiKeyText, RANDOM_BYTES};
    use ledger::terms::Index;
    use proptest::prelude::*;

    use super::*;

    /// A store with the keys of two principals; `scopes` and `ends` are those of the first.
    fn store(changed: u64, scopes: Scopes, ends: Option<u64>) -> Arc<Access> {
        let mut access = Access { changed: Index(changed), ..Access::default() };
        for (seed, principal) in [(1, "webshop"), (2, "kiosk")] {
            let text = ApiKeyText::new(&[seed; RANDOM_BYTES]);
            let key = ApiKey {
                digest: text.digest(),
                principal: Principal::new(principal).unwrap(),
                scopes: if seed == 1 { scopes } else { Scopes::QUERY },
                ends: ends.filter(|_| seed == 1).map(Timestamp),
                issued: Timestamp(1),
                rate: None,
                issuer: None,
                note: String::new(),
            };
            access.keys.insert(text.id(), key);
        }
        Arc::new(access)
    }

    /// The headers that a connection may send.
    fn headers() -> Vec<Vec<u8>> {
        let bearer = |seed: u8| {
            let text = ApiKeyText::new(&[seed; RANDOM_BYTES]);
            format!("Bearer {}", text.reveal()).into_bytes()
        };
        let mut mistyped = bearer(1);
        mistyped[20] ^= 1;
        let spaces = [b"Bearer ".as_slice(), &[b' '; 40], &bearer(1)[7..]].concat();
        let cut_off = bearer(1)[..30].to_vec();
        let longer = [&bearer(1)[..], b" "].concat();
        let others = [&b"Basic eA=="[..], b"", b"B"].map(<[u8]>::to_vec);
        let keys = [bearer(1), bearer(2), bearer(3), mistyped, spaces, cut_off, longer];
        keys.into_iter().chain(others).collect()
    }

    proptest! {
        /// Kinds: a key that ends, is revoked, or gains and loses scopes between two requests; two
        /// customers behind one gateway.
        #[test]
        fn a_connection_that_remembers_finds_the_sender_that_a_new_one_finds(
            requests in prop::collection::vec((0..12_usize, 0..4_usize, 0..5_u64), 1..40)
        ) {
            let headers = headers();
            let stores = [
                store(7, Scopes::ORDER, None),
                store(8, Scopes::QUERY, None),
                store(9, Scopes::ORDER, Some(3)),
                store(10, Scopes::ORDER, Some(2)),
            ];
            let mut remembered = RememberedKey::default();
            for (header, store, at) in requests {
                let sent = || match headers.get(header) {
                    Some(header) => Authorization::One(header),
                    None if header == headers.len() => Authorization::None,
                    None => Authorization::Several,
                };
                let at = (at != 4).then_some(Timestamp(at));
                let found = remembered.sender(sent(), &stores[store], at);
                prop_assert_eq!(found, Sender::of(sent(), &stores[store], at));
            }
        }
    }

    #[test]
    fn a_key_is_remembered_until_the_access_changes() {
        let (header, access) = (headers().swap_remove(0), store(7, Scopes::ORDER, None));
        let mut remembered = RememberedKey::default();
        remembered.sender(Authorization::One(&header), &access, None).unwrap();
        let knows = |remembered: &RememberedKey, access: &Arc<Access>| {
            remembered.0.as_ref().is_some_and(|known| known.sent(&header, access))
        };
        assert!(knows(&remembered, &access), "it is found without a digest");
        assert!(!knows(&remembered, &Arc::new((*access).clone())), "another access");
        drop(access);
        assert!(!knows(&remembered, &store(7, Scopes::ORDER, None)), "not at the same address");
    }
}
