//! Key windows: which there are, how large each is, and which of them remembers an answer.
//!
//! Clients' keys and frontends' keys have windows of their own, and so have answers that changed
//! the shop and answers that changed nothing. A refused order costs no stock, so one client can get
//! a million refusals in seconds. Their keys push out only each other, never the key of an accepted
//! order, whose retry would be placed a second time (P4). A forgotten refusal changed nothing: its
//! retry is decided anew.
//!
//! Each principal has two windows of its own for its clients' keys, which
//! share their limits with those of the other principals (`principal_windows`).

use std::collections::BTreeMap;

use crate::api_key::Principal;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::terms::Origin;

/// The limits of the key windows. All replicas must have the same limits, since they agree on which
/// keys are remembered. A data folder that was written with other limits is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The most keys of clients of all principals whose answer changed the shop. Default 2,000,000.
    pub client_keys_max: usize,
    /// The most keys of clients of all principals whose answer changed nothing. Default 250,000: an
    /// eighth of the memory of the windows above.
    pub client_refusals_max: usize,
    /// The greatest age of a client's key, in milliseconds of log time. Default 7 days.
    pub client_age_max_ms: u64,
    /// The most keys of frontends whose answer changed the shop. Default 1,000,000.
    pub frontend_keys_max: usize,
    /// The most keys of frontends whose answer changed nothing. Default 125,000.
    pub frontend_refusals_max: usize,
    /// The greatest age of a frontend's key, in milliseconds of log time. Default 60 s.
    pub frontend_age_max_ms: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            client_keys_max: 2_000_000,
            client_refusals_max: 250_000,
            client_age_max_ms: 7 * 24 * 60 * 60 * 1000,
            frontend_keys_max: 1_000_000,
            frontend_refusals_max: 125_000,
            frontend_age_max_ms: 60_000,
        }
    }
}

/// One of the four kinds of key windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowId {
    /// Clients' keys whose answer changed the shop.
    Clients,
    /// Clients' keys whose answer changed nothing.
    ClientRefusals,
    /// Frontends' keys whose answer changed the shop.
    Frontends,
    /// Frontends' keys whose answer changed nothing.
    FrontendRefusals,
}

/// One value for each kind of key window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerWindow<T> {
    /// The value of [`WindowId::Clients`].
    pub clients: T,
    /// The value of [`WindowId::ClientRefusals`].
    pub client_refusals: T,
    /// The value of [`WindowId::Frontends`].
    pub frontends: T,
    /// The value of [`WindowId::FrontendRefusals`].
    pub frontend_refusals: T,
}

/// A value for each window of one principal's clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerAnswer<T> {
    /// The value of the window of answers that changed the shop.
    pub accepted: T,
    /// The value of the window of answers that changed nothing.
    pub refused: T,
}

/// A value for each key window of each owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerOwner<T> {
    /// The values of the windows of requests without an API key, and of all frontends' keys.
    pub shared: PerWindow<T>,
    /// The values of the clients of each principal.
    pub principals: BTreeMap<Principal, PerAnswer<T>>,
}

impl WindowId {
    /// All windows, in the order in which formats list them.
    pub const ALL: [Self; 4] =
        [Self::Clients, Self::ClientRefusals, Self::Frontends, Self::FrontendRefusals];

    /// The window that remembers this answer to a request with a key. `None`: the answer decided
    /// nothing, and is not remembered.
    pub(crate) fn of(origin: Origin, outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Accepted(Accepted::Placed(_) | Accepted::Done) => Some(Self::accepted(origin)),
            Outcome::Refused(refusal) if refusal.is_about_rights() => None,
            Outcome::Refused(Refusal::KeyReused | Refusal::Late) | Outcome::Repeated { .. } => None,
            Outcome::Accepted(Accepted::Unchanged) | Outcome::Refused(_) => {
                Some(Self::refused(origin))
            }
        }
    }

    /// The window of an origin's answers that changed the shop.
    pub(crate) fn accepted(origin: Origin) -> Self {
        match origin {
            Origin::Client => Self::Clients,
            Origin::Frontend => Self::Frontends,
        }
    }

    /// The window of an origin's answers that changed nothing.
    pub(crate) fn refused(origin: Origin) -> Self {
        match origin {
            Origin::Client => Self::ClientRefusals,
            Origin::Frontend => Self::FrontendRefusals,
        }
    }

    /// True for the windows of answers that changed nothing.
    pub(crate) fn is_of_refusals(self) -> bool {
        matches!(self, Self::ClientRefusals | Self::FrontendRefusals)
    }

    /// The origin of the keys in this window.
    pub(crate) fn origin(self) -> Origin {
        match self {
            Self::Clients | Self::ClientRefusals => Origin::Client,
            Self::Frontends | Self::FrontendRefusals => Origin::Frontend,
        }
    }
}

impl<T> PerWindow<T> {
    /// Computes a value for each window.
    pub fn new(mut value: impl FnMut(WindowId) -> T) -> Self {
        Self {
            clients: value(WindowId::Clients),
            client_refusals: value(WindowId::ClientRefusals),
            frontends: value(WindowId::Frontends),
            frontend_refusals: value(WindowId::FrontendRefusals),
        }
    }

    /// The value of one window.
    pub fn get(&self, id: WindowId) -> &T {
        match id {
            WindowId::Clients => &self.clients,
            WindowId::ClientRefusals => &self.client_refusals,
            WindowId::Frontends => &self.frontends,
            WindowId::FrontendRefusals => &self.frontend_refusals,
        }
    }

    /// The value of one window, mutable.
    pub fn get_mut(&mut self, id: WindowId) -> &mut T {
        match id {
            WindowId::Clients => &mut self.clients,
            WindowId::ClientRefusals => &mut self.client_refusals,
            WindowId::Frontends => &mut self.frontends,
            WindowId::FrontendRefusals => &mut self.frontend_refusals,
        }
    }

    /// Maps the value of each window.
    pub fn map<U>(&self, mut other: impl FnMut(&T) -> U) -> PerWindow<U> {
        PerWindow::new(|id| other(self.get(id)))
    }

    /// The values, in the order in which formats list them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        WindowId::ALL.into_iter().map(|id| self.get(id))
    }
}

impl<T> PerAnswer<T> {
    /// The value of the window of this kind of answer.
    pub fn get(&self, id: WindowId) -> &T {
        if id.is_of_refusals() { &self.refused } else { &self.accepted }
    }

    /// The value of the window of this kind of answer, mutable.
    pub fn get_mut(&mut self, id: WindowId) -> &mut T {
        if id.is_of_refusals() { &mut self.refused } else { &mut self.accepted }
    }
}

impl<T> PerOwner<T> {
    /// The value of a principal's window; frontends' keys have windows that all principals share,
    /// and requests without an API key have the empty principal. `None`: no such window is in use.
    pub fn get(&self, id: WindowId, principal: &str) -> Option<&T> {
        if principal.is_empty() || id.origin() == Origin::Frontend {
            return Some(self.shared.get(id));
        }
        self.principals.get(principal).map(|values| values.get(id))
    }
}
