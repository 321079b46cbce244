//! Whether the sender of a request may do what it asks, by the scopes of its API key.

use ledger::api_key::Scopes;

use crate::answer::{self, Answer};
use crate::authentication::{Sender, Unauthorized};

/// The sender of a request, or the answer that says why it is not known.
pub(super) type Identified = Result<Sender, Box<Answer>>;

/// The sender of a request, if it may do what needs `needed`; else the answer.
pub(super) fn allowed(sender: Identified, needed: Scopes) -> Identified {
    let sender = sender?;
    sender.check(needed).map_err(rejected)?;
    Ok(sender)
}

/// The sender of a look-up, if it may see its own orders or every order; else the answer.
pub(super) fn allowed_to_look_up(sender: Identified) -> Identified {
    let sender = sender?;
    if !sender.may(Scopes::ORDER_ANY) {
        sender.check(Scopes::ORDER).map_err(rejected)?;
    }
    Ok(sender)
}

/// The answer to a request that may not be made.
pub(super) fn rejected(why: Unauthorized) -> Box<Answer> {
    answer::rejection(why.status(), &why.to_string()).into()
}
