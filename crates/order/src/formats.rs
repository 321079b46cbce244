//! The versions of what replicas write, and when a new one may be written.
//!
//! Every replica of a store applies the same log, so nothing may be written that one of them cannot
//! read. Each replica tells the others, when they connect, which formats it reads. Until the first
//! command about API keys is in the log, or a new series of order numbers begins, all that is
//! written is of version 1, and the former program may be put back. (A new store with a root key
//! begins with version 2: release 0.1 does not start with that setting.)
//!
//! | version | what is new |
//! |---|---|
//! | 1 | release 0.1 |
//! | 2 | API keys: their commands, the actor of a request, states that hold them |
//! | 2 | the audit trail: the certificate of a request, operators' actions |
//! | 2 | a new series of order numbers, after a recovery or a restore |

use ledger::command::Command;
use ledger::shop::ShopState;
use ledger::terms::Index;
use wire::problem::{Code, Problem};

use crate::peers::Peers;

/// The newest formats that this program reads and writes.
pub(crate) const FORMATS: u32 = 2;

/// The formats with API keys.
const API_KEYS: u32 = 2;

/// The formats of release 0.1.
const RELEASE_0_1: u32 = 1;

/// Checks that every replica can read a command about API keys, and that it has an effect: the
/// first one is the end of what release 0.1 reads.
///
/// # Errors
///
/// The replica that could not, or might not.
pub(crate) fn check_command(
    command: &Command,
    shop: &ShopState,
    peers: &Peers,
) -> Result<(), Problem> {
    if !command.is_about_api_keys() || is_activated(shop) {
        return Ok(());
    }
    if matches!(command, Command::RevokeApiKey { .. }) {
        return Err(no_api_keys());
    }
    let Some(first) = peers.not_reading(API_KEYS).into_iter().next() else { return Ok(()) };
    let why = format!(
        "replica {first} has not said that it reads API keys: start it with this program, or \
         remove it from the store, and try again"
    );
    Err(Problem::definite(Code::Malformed, why))
}

/// Checks that a request comes without an API key as long as the store has none: an older replica
/// would decide it otherwise.
pub(crate) fn check_actor(has_actor: bool, shop: &ShopState) -> Result<(), Problem> {
    if has_actor && !is_activated(shop) {
        return Err(no_api_keys());
    }
    Ok(())
}

fn no_api_keys() -> Problem {
    Problem::definite(Code::Malformed, "this store has no API keys")
}

/// True if the log is beyond what release 0.1 reads.
pub(crate) fn is_activated(shop: &ShopState) -> bool {
    shop.access().changed != Index(0)
}

/// True if the record of this command may name the certificate that its request came with: release
/// 0.1 could not read it.
pub(crate) fn names_certificates(command: &Command, shop: &ShopState) -> bool {
    command.is_about_api_keys() || is_activated(shop)
}

/// The formats that are written to this log.
pub(crate) fn written(shop: &ShopState) -> u32 {
    if is_activated(shop) { FORMATS } else { RELEASE_0_1 }
}

#[cfg(test)]
mod tests {
    use ledger::api_key::{ApiKeyId, Scopes};
    use ledger::command::Request;
    use ledger::ledger::{Ledger, Windows};
    use ledger::terms::Timestamp;

    use super::*;
    use crate::config::tests::three;
    use crate::membership::Members;
    use crate::role::Reach;

    /// Kind: a command that one replica of the store cannot read, and stops at.
    #[test]
    fn no_api_key_is_issued_before_every_replica_reads_it() {
        let settings = three();
        let peers = Peers::new();
        peers.sync(settings.id, &Members::new(&settings).now());
        let closing = Command::SetAnonymousScopes(Scopes::NONE);
        let allowed = || check_command(&closing, &ShopState::default(), &peers).is_ok();
        assert!(!allowed(), "no other replica has been met");
        peers.set_reach(123, Reach::Up);
        peers.set_formats(123, FORMATS);
        assert!(!allowed(), "345 has not said it");
        peers.set_reach(345, Reach::Up);
        peers.set_formats(345, API_KEYS - 1);
        assert!(!allowed(), "345 is older");
        peers.set_formats(345, API_KEYS);
        assert!(allowed());
        peers.set_reach(123, Reach::Refused);
        peers.set_reach(123, Reach::Up);
        assert!(!allowed(), "123 may have come back with an older program");
        peers.set_formats(123, FORMATS);
        assert!(allowed());
        let id = ApiKeyId::new(b"7f3kq2mw").unwrap();
        let revoke = Command::RevokeApiKey { id, ends: None };
        assert!(check_command(&revoke, &ShopState::default(), &peers).is_err(), "there is none");
        let restock = Command::Place(Vec::new());
        peers.set_reach(123, Reach::Refused);
        assert!(check_command(&restock, &ShopState::default(), &peers).is_ok());
    }

    /// Kind: a record that release 0.1 cannot read, in a store that has used nothing newer.
    #[test]
    fn a_certificate_is_named_from_the_first_command_about_api_keys_on() {
        let mut ledger = Ledger::new(Windows::default());
        let restock = Command::Place(Vec::new());
        let issue = Command::SetAnonymousScopes(Scopes::OPEN);
        assert!(!names_certificates(&restock, &ledger) && names_certificates(&issue, &ledger));
        assert_eq!(written(&ledger), RELEASE_0_1);
        let request = Request { key: None, deadline: None, certificate: None, command: issue };
        ledger.apply(Index(1), Timestamp(1), &request);
        assert!(names_certificates(&restock, &ledger));
        assert_eq!(written(&ledger), FORMATS);
    }

    #[test]
    fn a_store_without_api_keys_takes_no_request_of_one() {
        let shop = ShopState::default();
        assert!(check_actor(false, &shop).is_ok() && check_actor(true, &shop).is_err());
    }
}
