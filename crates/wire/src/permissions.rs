//! Permissions on the internal plane: which role may call which method, and make which call.
//!
//! A pure table. A method without a row is rejected, and a call of a stream has its row by its
//! kind. The role is that of the certificate that the handshake has verified. At a listener without
//! TLS no caller has a role, and the table does not apply.

use std::fmt;
use std::sync::Arc;

use http::Extensions;
use ledger::certificate_actor::{ActorRole, CertificateActor};

use crate::problem::{Code, Problem};
use crate::proto::{ask, request};
use crate::tls::subject::{CertificateRole, Subject};

/// Pages for which no certificate is needed: probes have none.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// A set of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RoleSet(&'static [CertificateRole]);

impl RoleSet {
    fn contains(self, role: CertificateRole) -> bool {
        self.0.contains(&role)
    }
}

const NONE: RoleSet = RoleSet(&[]);
const REPLICAS: RoleSet = RoleSet(&[CertificateRole::Order]);
const CATALOGS: RoleSet = RoleSet(&[CertificateRole::Catalog]);
const WATCHERS: RoleSet = RoleSet(&[CertificateRole::Catalog, CertificateRole::Frontend]);
const OPERATORS: RoleSet = RoleSet(&[CertificateRole::Operator]);
const CLIENTS: RoleSet = RoleSet(&[CertificateRole::Frontend, CertificateRole::Operator]);
const RESTOCKERS: RoleSet = RoleSet(&[CertificateRole::Catalog, CertificateRole::Operator]);
const CALLERS: RoleSet =
    RoleSet(&[CertificateRole::Catalog, CertificateRole::Frontend, CertificateRole::Operator]);

/// A method, and the roles that may call it at a replica and at a catalog.
type Row = (&'static str, RoleSet, RoleSet);

/// Every method of every service. A frontend serves none.
const METHODS: [Row; 16] = [
    ("/oppidum.v1.Peer/Append", REPLICAS, NONE),
    ("/oppidum.v1.Peer/Beat", REPLICAS, NONE),
    ("/oppidum.v1.Peer/Vote", REPLICAS, NONE),
    ("/oppidum.v1.Peer/PreVote", REPLICAS, NONE),
    ("/oppidum.v1.Peer/Transfer", REPLICAS, NONE),
    ("/oppidum.v1.Peer/Snapshot", REPLICAS, NONE),
    ("/oppidum.v1.Peer/Blocks", REPLICAS, NONE),
    ("/oppidum.v1.Peer/Hold", REPLICAS, NONE),
    ("/oppidum.v1.Watch/Follow", CATALOGS, WATCHERS),
    // A catalog calls a replica to restock, and to be told the replicas.
    ("/oppidum.v1.Store/Calls", CALLERS, CLIENTS),
    ("/oppidum.v1.Store/History", OPERATORS, NONE),
    ("/oppidum.v1.Control/Transfer", OPERATORS, NONE),
    ("/oppidum.v1.Control/Repair", OPERATORS, NONE),
    ("/oppidum.v1.Control/Add", OPERATORS, NONE),
    ("/oppidum.v1.Control/Remove", OPERATORS, NONE),
    ("/oppidum.v1.Control/AnnounceRepair", REPLICAS, NONE),
];

/// The roles that may make a call of this kind at a replica and at a catalog.
fn roles_of_call(what: &ask::What) -> (RoleSet, RoleSet) {
    match what {
        ask::What::Query(_) | ask::What::List(_) => (CLIENTS, CLIENTS),
        ask::What::Lookup(_) | ask::What::Bulk(_) => (CLIENTS, NONE),
        ask::What::Request(request) => match &request.command {
            // A request without a command is malformed, and answered so.
            None | Some(request::Command::Place(_)) => (CLIENTS, NONE),
            Some(request::Command::RestockTo(_)) => (RESTOCKERS, NONE),
            Some(
                request::Command::Define(_)
                | request::Command::SetPrice(_)
                | request::Command::RestockBy(_)
                | request::Command::IssueApiKey(_)
                | request::Command::RevokeApiKey(_)
                | request::Command::SetAnonymousScopes(_),
            ) => (OPERATORS, NONE),
        },
    }
}

/// The part of a row for a listener of this role.
fn part_of((at_replica, at_catalog): (RoleSet, RoleSet), listener: CertificateRole) -> RoleSet {
    match listener {
        CertificateRole::Order => at_replica,
        CertificateRole::Catalog => at_catalog,
        CertificateRole::Frontend | CertificateRole::Monitor | CertificateRole::Operator => NONE,
    }
}

/// The caller of a connection with mutual TLS, and the role of the listener that it calls.
#[derive(Clone, Debug)]
pub struct AuthenticatedCaller {
    /// The subject of its certificate.
    pub subject: Arc<Subject>,
    /// The role of the listener.
    pub listener: CertificateRole,
}

impl AuthenticatedCaller {
    /// The holder of the certificate, as a record names it. `None`: a frontend acts for clients,
    /// and replicas and monitors send no requests.
    pub fn actor(&self) -> Option<CertificateActor> {
        let role = match self.subject.role {
            CertificateRole::Operator => ActorRole::Operator,
            CertificateRole::Catalog => ActorRole::Catalog,
            CertificateRole::Order | CertificateRole::Frontend | CertificateRole::Monitor => {
                return None;
            }
        };
        CertificateActor::new(role, &self.subject.name)
    }
}

/// Why a request is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessDenied {
    /// The caller has shown no certificate of the store.
    #[error("this needs a certificate of the store: give --tls DIR, or curl --cert and --key")]
    NoCertificate,
    /// The role of the caller may not do this.
    #[error("the certificate of {caller} does not allow {what} at a process of role {listener}")]
    NotAllowed {
        /// The caller's subject.
        caller: String,
        /// The method, or the kind of call.
        what: String,
        /// The role of the listener.
        listener: CertificateRole,
    },
}

/// Decides whether a request for this path is accepted by a listener with TLS.
pub(crate) fn check_path(
    caller: Option<&AuthenticatedCaller>,
    path: &str,
) -> Result<(), AccessDenied> {
    if PROBES.contains(&path) {
        return Ok(());
    }
    let AuthenticatedCaller { subject, listener } = caller.ok_or(AccessDenied::NoCertificate)?;
    // The path of a gRPC call has a dot, the path of a page has none. Every role reads pages.
    if !path.contains('.') {
        return Ok(());
    }
    let row = METHODS.iter().find(|(method, ..)| *method == path);
    let allowed = row.is_some_and(|(_, at_replica, at_catalog)| {
        part_of((*at_replica, *at_catalog), *listener).contains(subject.role)
    });
    if allowed { Ok(()) } else { Err(denied(subject, path, *listener)) }
}

/// Decides whether a caller may make this call on its stream.
pub(crate) fn check_call(caller: &AuthenticatedCaller, what: &ask::What) -> Result<(), Problem> {
    let AuthenticatedCaller { subject, listener } = caller;
    if part_of(roles_of_call(what), *listener).contains(subject.role) {
        return Ok(());
    }
    let why = denied(subject, "this call", *listener);
    Err(Problem::definite(Code::NotPermitted, why.to_string()))
}

fn denied(subject: &Subject, what: &str, listener: CertificateRole) -> AccessDenied {
    AccessDenied::NotAllowed { caller: subject.to_string(), what: what.to_owned(), listener }
}

/// The replica that a caller's certificate names: `sender.id` in its calls must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertifiedReplica {
    /// The listener has no TLS, so any sender is believed.
    Any,
    /// The certificate is that of this replica; 0: of no replica.
    Only(u64),
}

impl CertifiedReplica {
    /// The replica of the connection that a request came over.
    pub fn of(extensions: &Extensions) -> Self {
        match extensions.get::<AuthenticatedCaller>() {
            None => Self::Any,
            Some(caller) => Self::Only(caller.subject.replica().unwrap_or(0)),
        }
    }

    /// True if the certificate allows this sender.
    pub fn allows(self, sender: u64) -> bool {
        self == Self::Any || self == Self::Only(sender)
    }
}

impl fmt::Display for CertifiedReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any replica"),
            Self::Only(id) => write!(f, "replica {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::proto;
    use crate::tls::subject::CERTIFICATE_ROLES;

    use CertificateRole::{Catalog, Frontend, Monitor, Operator, Order};

    fn caller(role: CertificateRole, listener: CertificateRole) -> AuthenticatedCaller {
        let subject = Subject { role, name: "7".into(), store: "shop".into() };
        AuthenticatedCaller { subject: Arc::new(subject), listener }
    }

    /// The paths of all methods in the contracts.
    fn methods() -> Vec<String> {
        let files = ["store.proto", "watch.proto", "peer.proto", "control.proto"];
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
        let FileDescriptorSet { file } = protox::compile(files, [root]).unwrap();
        let services = file.iter().flat_map(|file| {
            let package = file.package().to_owned();
            file.service.iter().map(move |service| (package.clone(), service))
        });
        let paths = services.flat_map(|(package, service)| {
            let name = service.name().to_owned();
            let methods = service.method.iter();
            methods.map(move |method| format!("/{package}.{name}/{}", method.name()))
        });
        paths.collect()
    }

    #[test]
    fn every_method_has_a_row_and_every_row_a_method() {
        let mut expected = methods();
        let mut rows: Vec<String> = METHODS.iter().map(|(path, ..)| (*path).to_owned()).collect();
        expected.sort();
        rows.sort();
        assert_eq!(rows, expected);
        let every_folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto"));
        assert_eq!(every_folder.unwrap().count(), 4, "a contract that this test does not read");
    }

    #[test]
    fn a_method_without_a_row_is_rejected_and_probes_need_no_certificate() {
        for path in ["/oppidum.v1.Store/Erase", "/oppidum.v2.Store/Calls", "/a.b", "//x.y/z"] {
            for role in CERTIFICATE_ROLES {
                assert!(check_path(Some(&caller(role, Order)), path).is_err(), "{path}");
            }
        }
        for path in ["/livez", "/readyz"] {
            assert_eq!(check_path(None, path), Ok(()));
        }
        for path in ["/status", "/metrics", "/nothing", "/livez/", "/LIVEZ", ""] {
            assert_eq!(check_path(None, path), Err(AccessDenied::NoCertificate), "{path}");
            assert_eq!(check_path(Some(&caller(Monitor, Order)), path), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_call_of_a_stream_has_its_roles_by_its_kind() {
        use request::Command as C;
        let request = |command| {
            ask::What::Request(proto::Request {
                command: Some(command),
                ..proto::Request::default()
            })
        };
        let rows: [(ask::What, &[CertificateRole], &[CertificateRole]); 12] = [
            (
                ask::What::Query(proto::Query::default()),
                &[Frontend, Operator],
                &[Frontend, Operator],
            ),
            (ask::What::List(proto::List::default()), &[Frontend, Operator], &[Frontend, Operator]),
            (ask::What::Lookup(proto::Lookup::default()), &[Frontend, Operator], &[]),
            (ask::What::Bulk(proto::Bulk::default()), &[Frontend, Operator], &[]),
            (request(C::Place(proto::Place::default())), &[Frontend, Operator], &[]),
            (request(C::RestockTo(proto::Restock::default())), &[Catalog, Operator], &[]),
            (request(C::RestockBy(proto::Restock::default())), &[Operator], &[]),
            (request(C::Define(proto::Define::default())), &[Operator], &[]),
            (request(C::SetPrice(proto::SetPrice::default())), &[Operator], &[]),
            (request(C::IssueApiKey(proto::IssueApiKey::default())), &[Operator], &[]),
            (request(C::RevokeApiKey(proto::RevokeApiKey::default())), &[Operator], &[]),
            (
                request(C::SetAnonymousScopes(proto::SetAnonymousScopes::default())),
                &[Operator],
                &[],
            ),
        ];
        for (what, at_replica, at_catalog) in rows {
            for (listener, allowed) in
                [(Order, at_replica), (Catalog, at_catalog), (Frontend, &[][..])]
            {
                for role in CERTIFICATE_ROLES {
                    let checked = check_call(&caller(role, listener), &what);
                    let is_allowed = allowed.contains(&role);
                    assert_eq!(checked.is_ok(), is_allowed, "{what:?} of {role} at {listener}");
                }
            }
        }
    }

    #[test]
    fn a_record_names_operators_and_catalogs_only() {
        let named = CERTIFICATE_ROLES.map(|role| caller(role, Order).actor());
        let named: Vec<_> = named.into_iter().flatten().map(|actor| actor.to_string()).collect();
        assert_eq!(named, ["catalog 7", "operator 7"]);
    }

    #[test]
    fn a_sender_must_be_the_replica_of_its_certificate() {
        let mut extensions = Extensions::new();
        assert!(CertifiedReplica::of(&extensions).allows(8), "a listener without TLS");
        extensions.insert(caller(Order, Order));
        let certified = CertifiedReplica::of(&extensions);
        assert!(certified.allows(7) && !certified.allows(8));
        extensions.insert(caller(Catalog, Order));
        assert!(!CertifiedReplica::of(&extensions).allows(7), "a catalog named 7");
    }
}
