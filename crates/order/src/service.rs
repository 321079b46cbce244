//! The service: what a replica answers: requests, lookups, queries.
//!
//! Only the leader decides, through the batcher. An order never changes, so any replica may show it
//! once it is settled; that there is *none* takes the leader and a majority. Products change, so
//! reading them takes the leader and a majority as well, unless the client accepts a stale answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger::api_key::Actor;
use ledger::block::Order;
use ledger::certificate_actor::CertificateActor;
use ledger::codec::bulk::Encoded;
use ledger::outcome::Outcome;
use ledger::shop::ShopState;
use ledger::terms::{Index, OrderNumber, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::access::StoreAccess;
use wire::convert;
use wire::limits::BULK_ORDERS_MAX;
use wire::peers::Roster;
use wire::permissions::AuthenticatedCaller;
use wire::problem::Problem;
use wire::proto::{self, answer::What as Answered, ask::What as Asked};
use wire::stream::{Answerer, LeaderHint, Reply};

use crate::batcher::Batcher;
use crate::config::Settings;
use crate::disk_space::DiskSpace;
use crate::formats;
use crate::history::view::View;
use crate::membership::{Members, Membership};
use crate::peers::Peers;
use crate::pending::{Decisions, Pending};
use crate::problems;
use crate::read_index::ReadIndex;
use crate::role::Role;
use crate::takeover::cannot_decide;
use crate::watch::answers::DecidedAnswer;
use crate::watch::settling::Settling;

/// The most products in one answer; the client continues after the last name.
const LIST_MAX: usize = 1_000;

/// How often the log time is sent, with the name of the leader.
const HINT_EVERY: Duration = Duration::from_millis(500);

/// Answers calls; clones share everything.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
}

/// What answering needs.
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) view: Arc<View>,
    pub(crate) batcher: Batcher,
    pub(crate) reader: ReadIndex,
    pub(crate) settling: Settling,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) peers: Peers,
    pub(crate) disk_space: DiskSpace,
    pub(crate) members: Members,
    pub(crate) hint: watch::Receiver<LeaderHint>,
    /// Replies that are decided and never sent: a fault for tests.
    pub(crate) held: Mutex<Vec<Reply>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// An answer, without the call it belongs to.
struct Read {
    as_of: Index,
    stale: bool,
    what: Answered,
}

impl Answerer for Service {
    fn ask(&self, ask: proto::Ask, reply: Reply) {
        match ask.what {
            Some(Asked::Request(request)) => {
                let certificate = reply.caller().and_then(AuthenticatedCaller::actor);
                self.decide(reply, DecidedAnswer::lone, || self.lone(request, certificate));
            }
            Some(Asked::Bulk(orders)) => {
                self.decide(reply, DecidedAnswer::bulk, || self.bulk(orders));
            }
            Some(read) => {
                let this = self.clone();
                tokio::spawn(async move {
                    let answer = match this.read(read).await {
                        Ok(Read { as_of, stale, what }) => {
                            proto::Answer { call: 0, as_of: as_of.0, stale, what: Some(what) }
                        }
                        Err(problem) => problem_answer(&problem),
                    };
                    reply.send(answer);
                });
            }
            None => reply.send(problem_answer(&problems::malformed("an ask that asks nothing"))),
        }
    }

    fn hint(&self) -> watch::Receiver<LeaderHint> {
        self.shared.hint.clone()
    }

    fn roster(&self) -> Option<watch::Receiver<Roster>> {
        Some(self.shared.members.rosters())
    }

    fn access(&self) -> Option<watch::Receiver<Arc<StoreAccess>>> {
        Some(self.shared.view.access())
    }
}

impl Service {
    /// A service on these parts.
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// The applied state of this replica.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.shared.view
    }

    /// This replica's id.
    pub(crate) fn id(&self) -> u64 {
        self.shared.settings.id
    }

    /// The name of the store.
    pub(crate) fn store(&self) -> &str {
        &self.shared.settings.cluster
    }

    /// Why this replica cannot decide now.
    fn hindrance(&self) -> Option<Problem> {
        let role = *self.shared.role.borrow();
        if !matches!(role, Role::Leading { .. } | Role::TakingOver { .. }) {
            return Some(self.elsewhere(role));
        }
        if self.is_cut_off() {
            return Some(problems::no_quorum());
        }
        let me = self.id();
        let majority = self.shared.members.look(Membership::majority);
        self.shared.disk_space.admits(me, &self.shared.peers, majority).err()
    }

    /// Decides requests through the log: `decode` reads them, and `answer` makes the answer to
    /// their outcomes.
    fn decide(
        &self,
        reply: Reply,
        answer: fn(Index, &[Outcome]) -> Option<DecidedAnswer>,
        decode: impl FnOnce() -> Result<Pending, Problem>,
    ) {
        let pending = match self.hindrance() {
            Some(problem) => Err(problem),
            None => decode(),
        };
        let pending = match pending {
            Ok(pending) => pending,
            Err(problem) => return reply.send(problem_answer(&problem)),
        };
        let shared = self.shared.clone();
        let respond = move |decisions: Decisions| match decisions {
            Ok(_) if shared.settings.faults.hold_answers => shared.held.lock().push(reply),
            Ok((index, outcomes)) => match answer(index, &outcomes) {
                Some(decided) => shared.settling.answer(reply, decided),
                None => reply.send(problem_answer(&problems::unknown())),
            },
            Err(problem) => reply.send(problem_answer(&problem)),
        };
        self.shared.batcher.offer(pending, Box::new(respond));
    }

    /// A lone request of a caller with this certificate.
    fn lone(
        &self,
        request: proto::Request,
        certificate: Option<CertificateActor>,
    ) -> Result<Pending, Problem> {
        let mut request = convert::request(request)?;
        let Shared { view, peers, .. } = &*self.shared;
        let has_actor = request.key.as_ref().is_some_and(|key| key.actor.is_some());
        let checked = view.read(|shop| {
            formats::check_command(&request.command, shop, peers)?;
            formats::check_actor(has_actor, shop)?;
            Ok(formats::names_certificates(&request.command, shop))
        });
        let names_certificate = checked.map_err(|problem| self.unless_taking_over(problem))?;
        if certificate.is_some() && !names_certificate {
            // A leader that is taking over may lack the command that lets records name it.
            self.check_leading()?;
        }
        request.certificate = certificate.filter(|_| names_certificate);
        Ok(Pending::lone(&request))
    }

    /// A bulk of orders of a caller.
    fn bulk(&self, orders: proto::Bulk) -> Result<Pending, Problem> {
        let orders = bulk(orders)?;
        let checked = self.shared.view.read(|shop| formats::check_actor(orders.has_actors(), shop));
        checked.map_err(|problem| self.unless_taking_over(problem))?;
        Ok(Pending::bulk(orders))
    }

    /// A leader that is taking over may not have applied the command that would allow it.
    fn unless_taking_over(&self, problem: Problem) -> Problem {
        self.check_leading().err().unwrap_or(problem)
    }

    fn check_leading(&self) -> Result<(), Problem> {
        match *self.shared.role.borrow() {
            Role::Leading { .. } => Ok(()),
            _ => Err(problems::no_leader()),
        }
    }

    async fn read(&self, asked: Asked) -> Result<Read, Problem> {
        match asked {
            Asked::Lookup(lookup) => {
                let actor = wire::access::actor(&lookup.actor)?;
                self.lookup(OrderNumber(lookup.number), actor.as_ref()).await
            }
            Asked::Query(query) => {
                let stale = self.is_stale(Index(query.floor), query.stale_ok).await?;
                let look = |ledger: &ShopState| (ledger.applied(), ledger.product(&query.name));
                let (as_of, product) = self.shared.view.read(look);
                if stale && product.is_none() {
                    // The product may have been defined in an entry that is not applied here.
                    return Err(problems::no_quorum());
                }
                let version = product.as_ref().map(|product| product.version);
                self.await_settled(version, stale).await?;
                let what = match product {
                    Some(product) => Answered::Product(convert::product(&product)),
                    None => Answered::Nothing(proto::Nothing {}),
                };
                Ok(Read { as_of, stale, what })
            }
            Asked::List(list) => {
                let stale = self.is_stale(Index(list.floor), list.stale_ok).await?;
                let limit = usize::try_from(list.limit).unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
                let after = (!list.after.is_empty()).then_some(list.after.as_str());
                let look = |ledger: &ShopState| (ledger.applied(), ledger.products(after, limit));
                if stale && !self.shared.view.read(ShopState::is_open) {
                    return Err(problems::no_quorum());
                }
                let (as_of, products) = self.shared.view.read(look);
                let newest = products.iter().map(|product| product.version).max();
                self.await_settled(newest, stale).await?;
                let products = products.iter().map(convert::product).collect();
                let what = Answered::Products(proto::Products { products });
                Ok(Read { as_of, stale, what })
            }
            Asked::Request(_) | Asked::Bulk(_) => {
                Err(problems::malformed("a request is not a read"))
            }
        }
    }

    /// Any replica shows an order at once that it has and that is settled. That there is none, only
    /// a confirmed leader can say. A leaderless replica shows what it has, marked as stale.
    ///
    /// An order that the actor may not see takes the same way as one that does not exist.
    async fn lookup(&self, number: OrderNumber, actor: Option<&Actor>) -> Result<Read, Problem> {
        let role = *self.shared.role.borrow();
        let leads = matches!(role, Role::Leading { .. } | Role::TakingOver { .. });
        let stale = matches!(role, Role::Leaderless { .. });
        if let Some(order) = self.visible(number, actor).await? {
            if !leads && !stale && self.shared.settling.settled() < order.index {
                return Err(self.elsewhere(role));
            }
            return self.show(&order, stale).await;
        }
        if !leads {
            return Err(self.elsewhere(role));
        }
        let as_of = self.confirm().await?;
        if let Some(order) = self.visible(number, actor).await? {
            return self.show(&order, false).await;
        }
        self.await_settled(Some(as_of), false).await?;
        Ok(Read { as_of, stale: false, what: Answered::Nothing(proto::Nothing {}) })
    }

    /// The order, if it is here and this actor may see it now.
    async fn visible(
        &self,
        number: OrderNumber,
        actor: Option<&Actor>,
    ) -> Result<Option<Order>, Problem> {
        let found = self.order(number).await?;
        // Without orders the last entry's log time stands still.
        let now = Timestamp(self.shared.hint.borrow().log_time_ms);
        let shows = |order: &Order| {
            self.shared.view.read(|shop| {
                shop.access().shows_orders_of(&order.principal, actor, now.max(shop.log_time()))
            })
        };
        Ok(found.filter(shows))
    }

    /// The order, from memory, or from the disk on a thread that may wait for it.
    async fn order(&self, number: OrderNumber) -> Result<Option<Order>, Problem> {
        if let Some(found) = self.shared.view.recent(number) {
            return Ok(found);
        }
        let view = self.shared.view.clone();
        let reader = view.clone();
        let found = view.shared.hand.aside(move || reader.order(number)).await;
        found.map_err(|error| {
            tracing::error!(order = number.0, "cannot read order {number}: {error}");
            problems::unreadable(&error)
        })
    }

    /// Shows an order, once every attached catalog has seen its index.
    async fn show(&self, order: &Order, stale: bool) -> Result<Read, Problem> {
        self.await_settled(Some(order.index), stale).await?;
        let as_of = order.index.max(self.shared.settling.settled());
        Ok(Read { as_of, stale, what: Answered::Order(convert::order(order)) })
    }

    /// A read waits until it is settled; a stale read does not.
    async fn await_settled(&self, index: Option<Index>, stale: bool) -> Result<(), Problem> {
        match index {
            Some(index) if !stale => self.shared.settling.reading(index).await,
            _ => Ok(()),
        }
    }

    /// Waits until products may be read here. True: not confirmed, and the client accepts a stale
    /// answer.
    async fn is_stale(&self, floor: Index, stale_ok: bool) -> Result<bool, Problem> {
        let role = *self.shared.role.borrow();
        let confirmed = match role {
            Role::Leading { .. } | Role::TakingOver { .. } => self.confirm().await,
            _ => Err(self.elsewhere(role)),
        };
        match confirmed {
            Ok(as_of) if floor <= as_of => Ok(false),
            // A floor beyond the end of the log is not of this ledger.
            Ok(_) => Err(problems::malformed("a floor beyond the end of the log")),
            Err(_) if stale_ok => Ok(true),
            Err(problem) => Err(problem),
        }
    }

    async fn confirm(&self) -> Result<Index, Problem> {
        if self.is_cut_off() {
            return Err(problems::no_quorum());
        }
        self.shared.reader.confirm().await
    }

    /// Too many of the others refuse connections: no majority is left.
    fn is_cut_off(&self) -> bool {
        !self.may_decide()
    }

    fn may_decide(&self) -> bool {
        let Shared { settings, peers, members, .. } = &*self.shared;
        peers.may_decide(settings.id, members)
    }

    fn elsewhere(&self, role: Role) -> Problem {
        cannot_decide(role, self.may_decide())
    }
}

/// A bulk of orders of a caller.
fn bulk(bulk: proto::Bulk) -> Result<Encoded<Bytes>, Problem> {
    let malformed =
        |why: &dyn std::fmt::Display| problems::malformed(format!("a bulk of orders: {why}"));
    let count = usize::try_from(bulk.count).unwrap_or(usize::MAX);
    if BULK_ORDERS_MAX < count {
        return Err(malformed(&format!("more than {BULK_ORDERS_MAX} orders")));
    }
    Encoded::open(bulk.orders, count).map_err(|error| malformed(&error))
}

fn problem_answer(problem: &Problem) -> proto::Answer {
    let what = Some(Answered::Problem(problem.into()));
    proto::Answer { call: 0, as_of: 0, stale: false, what }
}

/// Maintains the hint that goes out with answers: the leader, and the log time.
pub(crate) async fn tell_leader(
    me: u64,
    mut role: watch::Receiver<Role>,
    view: Arc<View>,
    hint: watch::Sender<LeaderHint>,
    stop: CancellationToken,
) {
    loop {
        let now = *role.borrow_and_update();
        hint.send_replace(LeaderHint {
            leader: now.leader(me),
            term: now.term(),
            log_time_ms: view.clock.stamp(view.read(ShopState::log_time)).0,
            replica: me,
        });
        tokio::select! {
            changed = role.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(HINT_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}
