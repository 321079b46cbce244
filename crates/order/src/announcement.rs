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
use tonic::{Extensions, Status};
use wire::dial;
use wire::permissions::AuthenticatedCaller;
use wire::problem::Problem;
use wire::proto::RepairAnnouncement;
use wire::proto::control_client::ControlClient;

use crate::formats;
use crate::identity::Identity;
use crate::pending::Pending;
use crate::problems;
use crate::role::Role;
use crate::takeover::{Takeover, batch};

/// How long an announcement may take to be decided.
const ANNOUNCEMENT_TIMEOUT: Duration = Duration::from_secs(1);

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
        let decided = tokio::time::timeout(ANNOUNCEMENT_TIMEOUT, proposed).await;
        let (_, outcomes) = decided.map_err(|_| problems::unknown())??;
        match outcomes.first() {
            Some(Outcome::Refused(refusal)) => Err(problems::malformed(refusal.to_string())),
            _ => Ok(()),
        }
    }

    /// Announces a transfer that this leader is about to make, if nothing stands against it.
    pub(crate) async fn announce_transfer(&self, to: u64, by: &Announcer) {
        let me = self.takeover.settings.id;
        if to == me || !self.leads() || self.takeover.check(to).is_err() {
            return;
        }
        let announced = self.announce(OperatorAction::TransferLead { to }, by).await;
        let announced = announced.map_err(|problem| problem.message);
        warn_unless(announced, format_args!("the transfer of the lead to {to}"));
    }

    /// Announces a repair of this replica, through the leader. It is tried again while a leader is
    /// being chosen.
    pub(crate) async fn announce_repair(&self, by: &Announcer) {
        let me = self.takeover.settings.id;
        let began = Instant::now();
        let announced = loop {
            let tried = tokio::time::timeout(ANNOUNCEMENT_TIMEOUT, self.try_repair(by)).await;
            let tried = tried.unwrap_or_else(|_| Err("the leader does not answer".into()));
            if tried.is_ok() || REPAIR_TIMEOUT < began.elapsed() {
                break tried;
            }
            tokio::time::sleep(PAUSE).await;
        };
        warn_unless(announced, format_args!("the repair of replica {me}"));
    }

    async fn try_repair(&self, by: &Announcer) -> Result<(), String> {
        if !self.takeover.view.read(formats::is_activated) {
            return Ok(());
        }
        if !self.leads() {
            return self.ask_leader(by).await;
        }
        let repair = OperatorAction::Repair { id: self.takeover.settings.id };
        self.announce(repair, by).await.map_err(|problem| problem.message)
    }

    /// Asks the leader to announce a repair of this replica.
    async fn ask_leader(&self, by: &Announcer) -> Result<(), String> {
        let replica = self.takeover.settings.id;
        let leader = self.role.borrow().leader(replica).ok_or("no leader is known")?;
        let address = self.takeover.members.look(|now| now.addresses.get(&leader).cloned());
        let address = address.ok_or_else(|| format!("the address of {leader} is not known"))?;
        let route = self.identity.route(leader);
        let channel = dial::channel(&route, &address, ANNOUNCEMENT_TIMEOUT).await;
        let channel = channel.map_err(|error| error.to_string())?;
        let name = by.certificate.as_ref().map_or("", CertificateActor::name);
        let announcement = RepairAnnouncement {
            replica,
            key: by.key.as_ref().map_or("", Key::text).to_owned(),
            operator: name.to_owned(),
        };
        let asked = ControlClient::new(channel).announce_repair(announcement).await;
        asked.map(drop).map_err(|status| status.message().to_owned())
    }
}

/// Warns that an action goes on which the trail may not show.
fn warn_unless(announced: Result<(), String>, what: std::fmt::Arguments<'_>) {
    if let Err(why) = announced {
        tracing::warn!("{what} goes on, but the audit trail may not show it: {why}");
    }
}
