//! A machine: a process on a runtime of its own, with its own clocks, that can die at any moment.
//!
//! The runtime has one thread and a clock that only moves when it is told to. The world lets each
//! machine run for a millisecond of its time, one after the other; within it, timers fire in their
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

use crate::net::{Ended, HostId, Life, Listening, Net};
use crate::trace;

/// One step of the world.
pub const STEP: Duration = Duration::from_millis(1);

/// What the clocks on the walls say when a run begins: 2026-11-21, 08:00 UTC.
pub const BEGINNING: Duration = Duration::from_hours(498_680);

/// What a process ends with.
pub type Ending = Result<(), Stop>;

/// A machine, with its process if that runs.
#[derive(Debug)]
pub struct Host {
    id: HostId,
    name: String,
    face: Arc<Face>,
    process: Option<Process>,
    lives: u64,
}

#[derive(Debug)]
struct Process {
    runtime: Runtime,
    began: Instant,
    ran: u32,
    /// It stands still: for so many steps so far.
    frozen: Option<u32>,
    stop: CancellationToken,
    running: JoinHandle<Ending>,
}

/// What the code on a machine sees of the world.
#[derive(Debug)]
struct Face {
    id: HostId,
    net: Net,
    /// How much the clock on the wall is off, in milliseconds.
    off_ms: AtomicI64,
    /// When the process that runs began, by the clock of its runtime.
    began: Mutex<Option<Instant>>,
}

impl Host {
    /// A machine that is on, without a process.
    pub fn new(id: HostId, name: &str, net: &Net) -> Self {
        let face =
            Face { id, net: net.clone(), off_ms: AtomicI64::new(0), began: Mutex::default() };
        Self { id, name: name.to_owned(), face: Arc::new(face), process: None, lives: 0 }
    }

    /// Its number in the network.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True while its process runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Its clock on the wall jumps.
    pub fn jump(&self, by_ms: i64) {
        self.face.off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Starts a process. The seed decides the order in which its tasks look at things.
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
        self.face.net.set_life(self.id, Life::Up);
        let stop = CancellationToken::new();
        let (began, running) = {
            let _entered = runtime.enter();
            (Instant::now(), runtime.spawn(life(stop.clone())))
        };
        *self.face.began.lock() = Some(began);
        self.process = Some(Process { runtime, began, ran: 0, frozen: None, stop, running });
    }

    /// Lets the process run for a step. What it ended with, if it has.
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
        assert_eq!(threads, 0, "a thread of its own would race with the run: that is for `Hand`");
        if !process.running.is_finished() {
            return None;
        }
        let ended = process.runtime.block_on(&mut process.running);
        let ending = ended.unwrap_or_else(|error| Err(Stop::Defect(format!("panicked: {error}"))));
        self.end(Life::Gone);
        Some(ending)
    }

    /// Its process stands still, or goes on. When it goes on, its clocks have done so all the time,
    /// and nothing that it has heard meanwhile is looked at before that shows.
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

    /// Lets something run within the process.
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

    /// Ends the process where it stands: killed, or with the power gone.
    pub fn end(&mut self, life: Life) {
        self.enter();
        self.face.net.set_life(self.id, life);
        drop(self.process.take());
    }

    fn enter(&self) {
        enter(&self.name, &self.face);
    }
}

/// What this thread does from now on happens on this machine, by its clocks: also the system's.
fn enter(name: &str, face: &Arc<Face>) {
    simulated::enter(face.clone());
    trace::enter(name, face.net.now());
    ground::clock::show(Duration::from_millis(face.net.now()), face.wall());
}

impl Machine for Face {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
        let (net, id) = (self.net.clone(), self.id);
        async move {
            let ended = net.connect(id, to).await?;
            Ok(Box::new(Held(ended)) as Box<dyn Pipe>)
        }
        .boxed()
    }

    fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Door>> {
        Ok(Box::new(Opened(self.net.listen(at)?)))
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
struct Opened(Listening);

impl Door for Opened {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Pipe>, SocketAddr)>> {
        let accepted = |(ended, from)| Ok((Box::new(Held(ended)) as Box<dyn Pipe>, from));
        self.0.poll_accept(cx).map(accepted)
    }

    fn address(&self) -> SocketAddr {
        self.0.at()
    }
}

/// A connection, as the code on the machine sees it.
struct Held(Ended);

impl AsyncRead for Held {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_take(cx, into.remaining()).map_ok(|bytes| into.put_slice(&bytes))
    }
}

impl AsyncWrite for Held {
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
