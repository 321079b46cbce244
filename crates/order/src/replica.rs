//! A replica's life: it opens its folder, fetches what it missed from the others, serves, and
//! stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ledger::shop::ShopState;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::exit::Stop;
use wire::serve::InternalPort;
use wire::stream::LeaderHint;

use crate::batcher::Batcher;
use crate::config::Settings;
use crate::control::Operator;
use crate::disk_space::{DiskSpace, Gauge};
use crate::history::open_error;
use crate::history::sources::Sources;
use crate::history::view::View;
use crate::history_service::HistoryService;
use crate::identity::Identity;
use crate::introduction::Introduction;
use crate::leader_metrics::{LeaderEvents, LeaderMetrics};
use crate::liveness::failover;
use crate::liveness::stream_keeper::StreamKeeper;
use crate::membership::Members;
use crate::membership_change::MembershipChange;
use crate::peers::Peers;
use crate::raft::backend::{Backend, Folders};
use crate::raft::bootstrap;
use crate::raft::compaction::{self, Limits};
use crate::raft::engine::Engine;
use crate::raft::receiver::Receiver;
use crate::raft::transport::Transport;
use crate::read_index::ReadIndex;
use crate::role::Role;
use crate::service::{Service, Shared};
use crate::status::Status;
use crate::takeover::{self, Takeover};
use crate::watch::settling::Settling;
use crate::watch::source::Publisher;
use crate::{catch_up_progress, raft, service, shop, transfer, voting};

/// How long a leader that stops waits for a successor.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long all tasks may take to end after that.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a replica until `stop`, or until it cannot go on.
///
/// # Errors
///
/// [`Stop::Setup`] when it cannot start with these settings; [`Stop::Defect`] when its storage or
/// its engine has failed for good.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), Stop> {
    run_on(Folders, settings, stop).await
}

/// Runs a replica on another backend than its folders: for the simulator.
///
/// # Errors
///
/// Those of [`run`].
pub async fn run_on<G: Backend>(
    backend: G,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), Stop> {
    settings.check()?;
    let port = bind(&settings).await?;
    let replica = Replica::open(backend, settings, &stop).await?;
    replica.serve(port, stop).await
}

async fn bind(settings: &Settings) -> Result<InternalPort, Stop> {
    let Settings { id, listen, credentials, .. } = settings;
    let listener = wire::net::TcpListener::bind(*listen).await.map_err(|error| {
        let advice = wire::net::listen_advice(&error);
        Stop::Setup(format!("replica {id} cannot listen on {listen}: {error}; {advice}"))
    })?;
    Ok(InternalPort { listener, tls: credentials.clone() })
}

/// A replica that is open, with all that its tasks share.
struct Replica {
    settings: Arc<Settings>,
    identity: Arc<Identity>,
    raft: raft::state_machine::Raft,
    engine: Engine,
    view: Arc<View>,
    peers: Peers,
    introduction: Introduction,
    disk_space: DiskSpace,
    /// Where missing blocks are fetched from.
    sources: Sources,
    /// How to ask the disk.
    gauge: Option<Gauge>,
    /// Cancelled when this replica is about to stop; the others are informed.
    leaving: CancellationToken,
    /// Ends the tasks; later than `stop`, for a leader first hands over.
    ending: CancellationToken,
    tasks: TaskTracker,
    /// Why the replica must stop, from the first task that finds out.
    failures: (mpsc::Sender<Stop>, mpsc::Receiver<Stop>),
}

impl Replica {
    /// Takes the data folder into use and starts the engine on it.
    async fn open<G: Backend>(
        mut backend: G,
        settings: Settings,
        stop: &CancellationToken,
    ) -> Result<Self, Stop> {
        let settings = Arc::new(settings);
        let members = Members::new(&settings);
        let identity = Arc::new(Identity::open(&settings, members.clone())?);
        let peers = Peers::new();
        peers.sync(settings.id, &members.now());
        let disk_space = DiskSpace::new(settings.reserve);
        let gauge = backend.gauge(&settings);
        // Before an entry is taken in: the replica may have stopped because the disk was full.
        if let Some(Ok(space)) = gauge.as_ref().map(|gauge| gauge()) {
            disk_space.note(space, &settings.data.display().to_string());
        }
        let transport = Transport::new(identity.clone(), peers.clone());
        let sources = Sources {
            transport: transport.clone(),
            identity: identity.clone(),
            peers: peers.clone(),
            disk_space: disk_space.clone(),
        };
        let (log, machine, view) = backend.open(&settings, Arc::new(sources.clone())).await?;
        if let Some(ledger) = view.read(ShopState::ledger_id) {
            identity.hold_ledger(ledger)?;
        }
        tracing::info!("Requesting missing logs");
        members.set(view.members());
        peers.sync(settings.id, &members.now());
        let configuration = (&*settings, &members);
        let raft =
            bootstrap::start(&backend, configuration, transport.clone(), log, machine).await?;
        backend.runs(&raft, &view);
        let (engine, failed) = Engine::new(settings.id, raft.clone(), transport, identity.clone());
        let introduction =
            Introduction::new(identity.clone(), peers.clone(), engine.clone()).await?;
        let replica = Self {
            settings,
            identity,
            raft,
            engine,
            view,
            peers,
            introduction,
            disk_space,
            sources,
            gauge,
            leaving: CancellationToken::new(),
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failures: mpsc::channel(1),
        };
        replica.watch_failures(failed);
        if stop.is_cancelled() {
            tracing::debug!("asked to stop while starting");
        }
        Ok(replica)
    }

    fn watch_failures(&self, engine: impl Future<Output = Stop> + Send + 'static) {
        let failures = self.failures.0.clone();
        let ending = self.ending.clone();
        let view = self.view.clone();
        let folder = self.settings.data.display().to_string();
        self.tasks.spawn(async move {
            let stop = tokio::select! {
                stop = engine => stop,
                why = view.failed() => open_error::stop(&folder, &why),
                () = ending.cancelled() => return,
            };
            // Full: another task has reported a failure already.
            let _ = failures.try_send(stop);
        });
    }

    /// Spawns the tasks that no order waits for: compaction, catching up, the membership of a new
    /// store.
    fn spawn_maintenance(&self) {
        let limits = Limits::keeping(self.settings.log_kept());
        let view = &self.view;
        let end = &self.ending;
        self.tasks.spawn(compaction::run(self.raft.clone(), view.clone(), limits, end.clone()));
        self.tasks.spawn(catch_up_progress::run(view.clone(), self.peers.clone(), end.clone()));
        self.tasks.spawn(bootstrap::begin(
            self.raft.clone(),
            self.settings.clone(),
            self.peers.clone(),
            self.ending.clone(),
        ));
    }

    /// Serves until `stop`, or until the replica cannot go on.
    async fn serve(mut self, port: InternalPort, stop: CancellationToken) -> Result<(), Stop> {
        let (role, watch_role) = watch::channel(Role::Leaderless { term: 0, no_quorum: false });
        let takeover = self.takeover();
        let batcher = Batcher::new();
        let leaders = self.hold_streams(watch_role.clone());
        if let Some(gauge) = self.gauge.clone() {
            let folder = self.settings.data.display().to_string();
            self.tasks.spawn(self.disk_space.clone().keep(gauge, folder, self.ending.clone()));
        }
        let (transfer, transfers) = transfer::queue();
        let changing = self.changing(&takeover, &watch_role, transfer);
        self.tasks.spawn(changing.clone().end_interrupted(self.ending.clone()));
        let operator = Operator::new(changing, self.view.clone(), self.sources.clone());
        let stop_choosing = self.ending.clone();
        self.tasks.spawn(takeover.clone().run(
            role.clone(),
            batcher.clone(),
            transfers,
            stop_choosing,
        ));
        if self.settings.faults.no_timeouts {
            self.tasks.spawn(self.engine.clone().forget_timeouts());
        }
        let reader = self.reader();
        let settling = self.settling(&batcher, &reader, &watch_role);
        let engine = self.engine.clone();
        let view = self.view.clone();
        let log = Arc::new(takeover::LogProposer { engine, view, settling: settling.clone() });
        self.tasks.spawn(batcher.clone().run(log, watch_role.clone(), self.ending.clone()));
        let service = self.service(batcher.clone(), reader, settling.clone(), watch_role.clone());
        let publisher = Publisher::new(self.settings.id, settling.clone());
        self.tasks.spawn(self.keep_ledger(watch_role.clone()));
        self.spawn_maintenance();
        let address = port.listener.local_addr().unwrap_or(self.settings.listen);
        let facts = Arc::new(self.status(address, settling.clone(), watch_role, leaders));
        let routes = self.routes(service, publisher).add_service(operator.service());
        tracing::info!("Order socket bound to port {}", address.port());
        tracing::info!("socket is listening");
        let internal = wire::serve::internal(port, routes, facts, self.ending.clone());
        let mut internal = Box::pin(internal);
        let failure = tokio::select! {
            () = &mut internal => None,
            failure = self.failures.1.recv() => failure,
            () = stop.cancelled() => None,
        };
        if failure.is_none() {
            takeover.closing.cancel();
            role.send_replace(Role::TakingOver { term: self.engine.leader().term });
            let leave = async {
                takeover::wait_for_idle(&batcher, &settling, HANDOVER_TIMEOUT).await;
                self.leaving.cancel();
                takeover.leave(HANDOVER_TIMEOUT).await;
            };
            tokio::select! {
                () = leave => {}
                () = &mut internal => {}
            }
        }
        self.end(internal, failure).await
    }

    fn status(
        &self,
        address: SocketAddr,
        settling: Settling,
        role: watch::Receiver<Role>,
        leaders: Arc<LeaderMetrics>,
    ) -> Status {
        Status {
            id: self.settings.id,
            address,
            engine: self.engine.clone(),
            members: self.identity.members().clone(),
            view: self.view.clone(),
            settling,
            disk_space: self.disk_space.clone(),
            peers: self.peers.clone(),
            role,
            leaders,
            data: self.settings.data.clone(),
        }
    }

    /// Ends all tasks, flushes the applied entries, and returns the failure.
    async fn end(
        self,
        internal: impl Future<Output = ()> + Send,
        failure: Option<Stop>,
    ) -> Result<(), Stop> {
        self.ending.cancel();
        self.tasks.close();
        let ended = async {
            internal.await;
            self.tasks.wait().await;
            self.engine.shut_down().await;
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            tracing::warn!(
                "not everything ended within {SHUTDOWN_TIMEOUT:?}; what is acknowledged is on disk"
            );
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        let flushed = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.view.flush()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!("the last of the history is not on disk, the log has it: {error}");
        }
        Ok(())
    }

    fn changing(
        &self,
        takeover: &Takeover,
        role: &watch::Receiver<Role>,
        transfers: mpsc::Sender<transfer::TransferRequest>,
    ) -> MembershipChange {
        let takeover = takeover.clone();
        let identity = self.identity.clone();
        let role = role.clone();
        MembershipChange { takeover, identity, role, transfers, turn: Arc::default() }
    }

    fn takeover(&self) -> Takeover {
        Takeover {
            settings: self.settings.clone(),
            engine: self.engine.clone(),
            peers: self.peers.clone(),
            members: self.identity.members().clone(),
            view: self.view.clone(),
            disk_space: self.disk_space.clone(),
            closing: CancellationToken::new(),
            handed: takeover::LastHandover::default(),
        }
    }

    /// Holds a stream to each of the others, and watches for the death of the leader.
    fn hold_streams(&self, role: watch::Receiver<Role>) -> Arc<LeaderMetrics> {
        let leaders = Arc::<LeaderMetrics>::default();
        let (reported_loss, reported) = watch::channel(None);
        let (sender, voting) = watch::channel(None);
        let events = LeaderEvents {
            me: self.settings.id,
            role: role.clone(),
            reported_loss: reported.clone(),
            peers: self.peers.clone(),
            view: self.view.clone(),
        };
        self.tasks.spawn(leaders.clone().observe(events, self.ending.clone()));
        let watch = voting::Watch::new(self.identity.clone(), self.takeover(), role);
        self.tasks.spawn(watch.run(sender, self.ending.clone()));
        let holding = StreamKeeper {
            identity: self.identity.clone(),
            peers: self.peers.clone(),
            introduction: self.introduction.clone(),
            reported_loss: reported,
            disk_space: self.disk_space.watch(),
            voting,
            failures: self.failures.0.clone(),
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn(holding.run(self.ending.clone()));
        let engine = self.engine.clone();
        let peers = self.peers.clone();
        let members = self.identity.members().clone();
        self.tasks.spawn(failover::run(engine, peers, members, reported_loss, self.ending.clone()));
        leaders
    }

    fn reader(&self) -> ReadIndex {
        let engine = self.engine.clone();
        let confirm = Box::new(move || {
            let engine = engine.clone();
            async move { engine.confirm().await }.boxed()
        });
        let (reader, asking) = ReadIndex::new(confirm, self.ending.clone());
        self.tasks.spawn(asking);
        reader
    }

    fn service(
        &self,
        batcher: Batcher,
        reader: ReadIndex,
        settling: Settling,
        role: watch::Receiver<Role>,
    ) -> Service {
        let (hint, hints) = watch::channel(LeaderHint::default());
        self.tasks.spawn(service::tell_leader(
            self.settings.id,
            role.clone(),
            self.view.clone(),
            hint,
            self.ending.clone(),
        ));
        Service::new(Shared {
            settings: self.settings.clone(),
            view: self.view.clone(),
            batcher,
            reader,
            settling,
            role,
            peers: self.peers.clone(),
            disk_space: self.disk_space.clone(),
            members: self.identity.members().clone(),
            hint: hints,
            held: parking_lot::Mutex::default(),
        })
    }

    fn settling(
        &self,
        batcher: &Batcher,
        reader: &ReadIndex,
        role: &watch::Receiver<Role>,
    ) -> Settling {
        let settling = Settling::new(
            (self.settings.times, self.settings.rules),
            self.view.clone(),
            role.clone(),
            batcher.clone(),
            self.ending.clone(),
        );
        self.tasks.spawn(settling.clone().follow());
        self.tasks.spawn(settling.clone().keep_lease(self.engine.clone(), reader.clone()));
        settling
    }

    fn routes(&self, service: Service, publisher: Publisher) -> tonic::service::Routes {
        let receiver = Receiver::new(
            self.raft.clone(),
            self.identity.clone(),
            self.view.clone(),
            (self.peers.clone(), self.disk_space.clone()),
            (self.introduction.clone(), self.failures.0.clone()),
            (self.leaving.clone(), self.ending.clone()),
        );
        let history = HistoryService::new(service, self.ending.clone());
        tonic::service::Routes::new(receiver.service())
            .add_service(wire::proto::store_server::StoreServer::new(history))
            .add_service(publisher.service())
    }

    /// Follows the ledger: remembers its id, compares the shop file with it, and logs when a
    /// follower's log grows.
    fn keep_ledger(
        &self,
        role: watch::Receiver<Role>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let settings = self.settings.clone();
        let view = self.view.clone();
        let identity = self.identity.clone();
        let failures = self.failures.0.clone();
        let ending = self.ending.clone();
        async move {
            let mut applied = view.applied();
            let mut feed = view.watch(|_| ()).1;
            // The ledger is never read while the mark is borrowed: applying takes the two locks in
            // the opposite order.
            while !view.read(ShopState::is_open) {
                tokio::select! {
                    changed = applied.changed() => if changed.is_err() { return },
                    () = ending.cancelled() => return,
                }
            }
            if let Some(ledger) = view.read(ShopState::ledger_id)
                && let Err(stop) = identity.hold_ledger(ledger)
            {
                let _ = failures.try_send(stop);
                return;
            }
            shop::compare(&settings, &view).await;
            loop {
                let entry = tokio::select! {
                    entry = feed.recv() => entry,
                    () = ending.cancelled() => return,
                };
                let follows = matches!(*role.borrow(), Role::Following { .. });
                match entry {
                    Ok(entry)
                        if follows && entry.changes.as_ref().is_none_or(|c| !c.is_empty()) =>
                    {
                        tracing::info!("Updating log");
                    }
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        }
    }
}
