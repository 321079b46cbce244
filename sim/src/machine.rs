//! A machine: a process on a runtime of its own, with its own clocks, that can die at any moment.
//!
//! The runtime has one thread, and its clock moves only when the world advances it. The world runs
//! each machine for one millisecond of its time, one after the other; within it, timers fire in
//! order. To kill a process is to drop its runtime: its tasks end wherever they are.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;
use wire::simulated::{self, Door, Machine, Pipe};

use crate::net::{ConnectionEnd, HostId, Listening, MachineState, Net};
use crate::trace;

/// One step of the world.
pub const STEP: Duration = Duration::from_millis(1);

/// The wall clocks at the start of a run: 2026-11-21, 08:00 UTC.
pub const BEGINNING: Duration = Duration::from_hours(498_680);

/// The result with which a process ends.
pub type Ending = Result<(), Stop>;

/// A machine, and its process while that runs.
#[derive(Debug)]
pub struct Host {
    id: HostId,
    name: String,
    face: Arc<MachineView>,
    process: Option<Process>,
    lives: u64,
}

#[derive(Debug)]
struct Process {
    runtime: Runtime,
    began: Instant,
    ran: u32,
    /// Frozen, for this many steps so far.
    frozen: Option<u32>,
    stop: CancellationToken,
    running: JoinHandle<Ending>,
}

/// The world as the code on a machine sees it.
#[derive(Debug)]
struct MachineView {
    id: HostId,
    net: Net,
    /// The offset of the wall clock, in milliseconds.
    off_ms: AtomicI64,
    /// When the running process began, by the clock of its runtime.
    began: Mutex<Option<Instant>>,
}

impl Host {
    /// A machine that is on, without a process.
    pub fn new(id: HostId, name: &str, net: &Net) -> Self {
        let face = MachineView {
            id,
            net: net.clone(),
            off_ms: AtomicI64::new(0),
            began: Mutex::default(),
        };
        Self { id, name: name.to_owned(), face: Arc::new(face), process: None, lives: 0 }
    }

    /// The machine's number in the network.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// The machine's name, for humans.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True while the machine's process runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The wall clock jumps.
    pub fn jump(&self, by_ms: i64) {
        self.face.off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Starts a process. The seed decides the order in which its tasks are polled.
    pub fn start<F, R>(&mut self, seed: u64, life: F)
    where
        F: FnOnce(CancellationToken) -> R,
        R: Future<Output = Ending> + Send + 'static,
    {
        self.lives += 1;
        self.enter();
        let seed = format!("{seed} {} {}", self.id, self.lives);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(seed.as_bytes()))
            .build()
            .expect("a runtime without a reactor needs nothing from the system");
        self.face.net.set_life(self.id, MachineState::Up);
        let stop = CancellationToken::new();
        let (began, running) = {
            let _entered = runtime.enter();
            (Instant::now(), runtime.spawn(life(stop.clone())))
        };
        *self.face.began.lock() = Some(began);
        self.process = Some(Process { runtime, began, ran: 0, frozen: None, stop, running });
    }

    /// Runs the process for one step. Returns its result, if it has ended.
    pub fn step(&mut self) -> Option<Ending> {
        let process = self.process.as_mut()?;
        if let Some(missed) = &mut process.frozen {
            *missed += 1;
            return None;
        }
        enter(&self.name, &self.face);
        process.ran += 1;
        let until = process.began + STEP * process.ran;
        process.runtime.block_on(async { tokio::time::sleep_until(until).await });
        let threads = process.runtime.metrics().num_blocking_threads();
        assert_eq!(threads, 0, "a blocking thread would race with the run: use `Executor`");
        if !process.running.is_finished() {
            return None;
        }
        let ended = process.runtime.block_on(&mut process.running);
        let ending = ended.unwrap_or_else(|error| Err(Stop::Defect(format!("panicked: {error}"))));
        self.end(MachineState::Gone);
        Some(ending)
    }

    /// Freezes or thaws the process. Its clocks go on while it is frozen, and after the thaw they
    /// show that time before the process reads any message.
    pub fn freeze(&mut self, frozen: bool) {
        self.enter();
        let Some(process) = &mut self.process else { return };
        match (frozen, process.frozen.take()) {
            (true, since) => process.frozen = since.or(Some(0)),
            (false, Some(missed)) => {
                process.ran += missed;
                process.runtime.block_on(tokio::time::advance(STEP * missed));
            }
            (false, None) => {}
        }
    }

    /// Spawns a task in the process.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            self.enter();
            drop(process.runtime.spawn(task));
        }
    }

    /// Asks the process to stop.
    pub fn ask_to_stop(&self) {
        if let Some(process) = &self.process {
            process.stop.cancel();
        }
    }

    /// Ends the process at once: killed, or without power.
    pub fn end(&mut self, life: MachineState) {
        self.enter();
        self.face.net.set_life(self.id, life);
        drop(self.process.take());
    }

    fn enter(&self) {
        enter(&self.name, &self.face);
    }
}

/// From now on this thread runs on this machine, by its clocks: also the system's.
fn enter(name: &str, face: &Arc<MachineView>) {
    simulated::enter(face.clone());
    trace::enter(name, face.net.now());
    ground::clock::show(Duration::from_millis(face.net.now()), face.wall());
}

impl Machine for MachineView {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
        let (net, id) = (self.net.clone(), self.id);
        async move {
            let ended = net.connect(id, to).await?;
            Ok(Box::new(ConnectionHandle(ended)) as Box<dyn Pipe>)
        }
        .boxed()
    }

    fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Door>> {
        Ok(Box::new(ListenerHandle(self.net.listen(at)?)))
    }

    fn since_start(&self) -> Duration {
        let began = *self.began.lock();
        began.map(|began| began.elapsed()).unwrap_or_default()
    }

    fn wall(&self) -> Duration {
        let now = i64::try_from(self.net.now()).unwrap_or(i64::MAX);
        let since = now.saturating_add(self.off_ms.load(Ordering::Relaxed));
        let span = Duration::from_millis(since.unsigned_abs());
        if since < 0 { BEGINNING.saturating_sub(span) } else { BEGINNING + span }
    }
}

/// A listener, as the code on the machine sees it.
struct ListenerHandle(Listening);

impl Door for ListenerHandle {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Pipe>, SocketAddr)>> {
        let accepted =
            |(ended, from)| Ok((Box::new(ConnectionHandle(ended)) as Box<dyn Pipe>, from));
        self.0.poll_accept(cx).map(accepted)
    }

    fn address(&self) -> SocketAddr {
        self.0.at()
    }
}

/// A connection, as the code on the machine sees it.
struct ConnectionHandle(ConnectionEnd);

impl AsyncRead for ConnectionHandle {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_take(cx, into.remaining()).map_ok(|bytes| into.put_slice(&bytes))
    }
}

impl AsyncWrite for ConnectionHandle {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.put(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shut();
        Poll::Ready(Ok(()))
    }
}
