//! The versions of what replicas write, and when a new one may be written.
//!
//! Every replica of a store applies the same log, so nothing may be written that one of them cannot
//! read. Each replica tells the others which formats it reads. Until the first command of a newer
//! version is in the log, all that is written is of the version before, and the former program may
//! be put back.
//!
//! | version | what is new |
//! |---|---|
//! | 1 | release 0.1 |
//! | 2 | API keys: their commands, the actor of a request, states that hold them |

use ledger::command::Command;
use ledger::shop::ShopState;
use ledger::terms::Index;
use wire::problem::{Code, Problem};

use crate::peers::Peers;

/// The newest formats that this program reads and writes.
pub(crate) const FORMATS: u32 = 2;

/// The formats with API keys.
const API_KEYS: u32 = 2;

/// Why a command cannot be proposed yet: another replica could not read it.
pub(crate) fn hindrance(command: &Command, shop: &ShopState, peers: &Peers) -> Option<Problem> {
    let is_new = matches!(
        command,
        Command::IssueApiKey(_) | Command::RevokeApiKey { .. } | Command::SetAnonymousScopes(_)
    );
    if !is_new || shop.access().changed != Index(0) {
        return None;
    }
    let ids = peers.reading_less_than(API_KEYS);
    let first = ids.first()?;
    let why = format!(
        "replica {first} has not said that it reads API keys: start it with this program, or \
         remove it from the store, and try again"
    );
    Some(Problem::definite(Code::Malformed, why))
}
