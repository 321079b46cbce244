//! Announcements: the log names an operator's action before it is done, for the audit trail.
//!
//! Only a leader writes to the log, so a replica that is asked to repair itself asks the leader to
//! announce it. A change of the members needs a majority itself, and is not made without its
//! announcement. A transfer or a repair may be what a store in trouble needs: it goes on without an
//! announcement that is not decided in time, and a warning says so.
//!
//! As long as the log is one of release 0.1, nothing is announced.

use std::sync::Arc;
use std::time::Duration;

use ledger::certificate_actor::{ActorRole, CertificateActor};
use ledger::command::{Command, Request};
use ledger::operator_action::OperatorAction;
use ledger::outcome::Outcome;
use ledger::shop::ShopState;
use ledger::terms::{Key, Origin};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Extensions, Status};
use wire::dial;
use wire::permissions::AuthenticatedCaller;
use wire::problem::{self, Problem};
use wire::proto::RepairAnnouncement;
use wire::proto::control_client::ControlClient;

use crate::formats;
use crate::identity::Identity;
use crate::pending::Pending;
use crate::problems;
use crate::role::Role;
use crate::takeover::{Takeover, batch};

/// How long the announcement of a change of the members may take to be decided: as long as the
/// change.
pub(crate) const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long any other announcement may take.
pub(crate) const ANNOUNCEMENT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a repair, which is never urgent, waits to be announced.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The operator that asks for an action, and the idempotency key of the command.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    certificate: Option<CertificateActor>,
    key: Option<Key>,
}

impl Announcer {
    /// The caller of a connection, by its certificate, with this key.
    pub(crate) fn of(extensions: &Extensions, key: &str) -> Result<Self, Status> {
        let caller = extensions.get::<AuthenticatedCaller>();
        Self::new(caller.and_then(AuthenticatedCaller::actor), key)
    }

    /// The operator whose name another replica has read in a certificate; empty: in none.
    pub(crate) fn named(operator: &str, key: &str) -> Result<Self, Status> {
        let odd = || Status::invalid_argument("no name of an operator");
        let certificate = match operator {
            "" => None,
            name => Some(CertificateActor::new(ActorRole::Operator, name).ok_or_else(odd)?),
        };
        Self::new(certificate, key)
    }

    fn new(certificate: Option<CertificateActor>, key: &str) -> Result<Self, Status> {
        let odd = || Status::invalid_argument("no idempotency key");
        let key = match key {
            "" => None,
            text => Some(Key::new(Origin::Client, text).ok_or_else(odd)?),
        };
        Ok(Self { certificate, key })
    }
}

/// Announces actions at one replica.
#[derive(Debug)]
pub(crate) struct Announcements {
    pub(crate) takeover: Takeover,
    pub(crate) identity: Arc<Identity>,
    pub(crate) role: watch::Receiver<Role>,
}

impl Announcements {
    fn leads(&self) -> bool {
        matches!(*self.role.borrow(), Role::Leading { .. })
    }

    /// Announces an action in the log of this leader. A repetition under the same key is announced
    /// once.
    pub(crate) async fn announce(
        &self,
        action: OperatorAction,
        by: &Announcer,
        timeout: Duration,
    ) -> Result<(), Problem> {
        let view = &self.takeover.view;
        if !view.read(formats::is_activated) {
            return Ok(());
        }
        let Announcer { certificate, key } = by.clone();
        let command = Command::OperatorAction(action);
        let request = Request { key, deadline: None, certificate, command };
        let settled = view.read(ShopState::settled);
        let entry = batch(view, settled, &[Pending::lone(&request)]);
        let proposed = self.takeover.engine.propose(entry);
        let decided = tokio::time::timeout(timeout, proposed).await;
        let (_, outcomes) = decided.map_err(|_| problems::unknown())??;
        match outcomes.first() {
            Some(Outcome::Refused(refusal)) => Err(problems::malformed(refusal.to_string())),
            _ => Ok(()),
        }
    }

    /// Announces a transfer that this leader is about to make, if nothing stands against it. An
    /// error: the log refuses to announce it.
    pub(crate) async fn announce_transfer(&self, to: u64, by: &Announcer) -> Result<(), Status> {
        let me = self.takeover.settings.id;
        if to == me {
            return Ok(());
        }
        let announced = if !self.leads() {
            Err(NotAnnounced::Now("this replica does not lead yet".into()))
        } else if let Err(why) = self.takeover.check(to) {
            Err(NotAnnounced::Now(why))
        } else {
            let transfer = OperatorAction::TransferLead { to };
            self.announce(transfer, by, ANNOUNCEMENT_TIMEOUT).await.map_err(NotAnnounced::from)
        };
        go_on(announced, format_args!("the transfer of the lead to {to}"))
    }

    /// Announces a repair of this replica, through the leader. It is tried again while a leader is
    /// being chosen. An error: the log refuses to announce it.
    pub(crate) async fn announce_repair(&self, by: &Announcer) -> Result<(), Status> {
        let me = self.takeover.settings.id;
        let began = Instant::now();
        let announced = loop {
            let tried = tokio::time::timeout(ANNOUNCEMENT_TIMEOUT, self.try_repair(by)).await;
            let silent = || NotAnnounced::Now("the leader does not answer".into());
            let tried = tried.unwrap_or_else(|_| Err(silent()));
            if !matches!(tried, Err(NotAnnounced::Now(_))) || REPAIR_TIMEOUT < began.elapsed() {
                break tried;
            }
            tokio::time::sleep(PAUSE).await;
        };
        go_on(announced, format_args!("the repair of replica {me}"))
    }

    async fn try_repair(&self, by: &Announcer) -> Result<(), NotAnnounced> {
        if !self.leads() {
            return self.ask_leader(by).await;
        }
        let repair = OperatorAction::Repair { id: self.takeover.settings.id };
        self.announce(repair, by, ANNOUNCEMENT_TIMEOUT).await.map_err(NotAnnounced::from)
    }

    /// Asks the leader to announce a repair of this replica.
    async fn ask_leader(&self, by: &Announcer) -> Result<(), NotAnnounced> {
        let now = NotAnnounced::Now;
        let replica = self.takeover.settings.id;
        let leader = self.role.borrow().leader(replica);
        let leader = leader.ok_or_else(|| now("no leader is known".into()))?;
        let address = self.takeover.members.look(|now| now.addresses.get(&leader).cloned());
        let address =
            address.ok_or_else(|| now(format!("the address of {leader} is not known")))?;
        let route = self.identity.route(leader);
        let channel = dial::channel(&route, &address, ANNOUNCEMENT_TIMEOUT).await;
        let channel = channel.map_err(|error| now(error.to_string()))?;
        let name = by.certificate.as_ref().map_or("", CertificateActor::name);
        let announcement = RepairAnnouncement {
            replica,
            key: by.key.as_ref().map_or("", Key::text).to_owned(),
            operator: name.to_owned(),
        };
        let asked = ControlClient::new(channel).announce_repair(announcement).await;
        match asked {
            Ok(_) => Ok(()),
            // A leader of release 0.1, whose log announces nothing.
            Err(status) if status.code() == Code::Unimplemented => Ok(()),
            Err(status) if status.code() == Code::FailedPrecondition => {
                Err(NotAnnounced::Ever(status.message().to_owned()))
            }
            Err(status) => Err(now(status.message().to_owned())),
        }
    }
}

/// Why an action was not announced.
enum NotAnnounced {
    /// It might be announced later.
    Now(String),
    /// The ledger refuses it.
    Ever(String),
}

impl From<Problem> for NotAnnounced {
    fn from(Problem { code, message, .. }: Problem) -> Self {
        if code == problem::Code::Malformed { Self::Ever(message) } else { Self::Now(message) }
    }
}

/// Warns that an action may go on which the trail does not show. An error: it must not go on.
fn go_on(announced: Result<(), NotAnnounced>, what: std::fmt::Arguments<'_>) -> Result<(), Status> {
    match announced {
        Ok(()) => Ok(()),
        Err(NotAnnounced::Ever(why)) => Err(Status::failed_precondition(why)),
        Err(NotAnnounced::Now(why)) => {
            tracing::warn!("the audit trail may not show {what}: {why}");
            Ok(())
        }
    }
}
