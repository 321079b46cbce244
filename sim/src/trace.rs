//! The trace of a run: each line with its time and machine.
//!
//! The log lines of the services and of the simulator go into one trace per thread. Its digest
//! covers these lines and all bytes sent: equal digests mean that two runs of a seed were equal.

use std::cell::RefCell;
use std::fmt::Write as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// The crates whose log lines are kept.
const OURS: [&str; 5] = ["ledger", "wire", "order", "catalog", "frontend"];

#[derive(Debug, Default)]
struct Trace {
    host: String,
    now: u64,
    /// Printed at once, for a human who watches.
    aloud: bool,
    most: Option<Level>,
    digest: blake3::Hasher,
    lines: u64,
    errors: Vec<String>,
    panics: Vec<String>,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// The summary of a run, from its trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSummary {
    /// Equal for equal runs.
    pub digest: String,
    /// The number of lines.
    pub lines: u64,
    /// Lines that ask for a human.
    pub errors: Vec<String>,
    /// Defects caught during the run.
    pub panics: Vec<String>,
}

/// Begins a trace on this thread; `aloud`: prints it, with the finer lines.
pub fn begin(aloud: bool) -> tracing::subscriber::DefaultGuard {
    let most = if aloud { Level::DEBUG } else { Level::INFO };
    TRACE.set(Trace { aloud, most: Some(most), ..Trace::default() });
    tracing::subscriber::set_default(tracing_subscriber::registry().with(TraceLayer { most }))
}

/// Ends the trace.
pub fn end() -> RunSummary {
    let trace = TRACE.take();
    let digest = trace.digest.finalize().to_hex()[..16].to_owned();
    RunSummary { digest, lines: trace.lines, errors: trace.errors, panics: trace.panics }
}

/// Panics of simulated processes become lines of the trace.
pub fn take_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let inside = TRACE.with_borrow(|trace| trace.most.is_some() && !trace.host.is_empty());
        if inside {
            let text = info.to_string().replace('\n', " ");
            say(&format!("PANIC {text}"));
            TRACE.with_borrow_mut(|trace| trace.panics.push(text));
        } else {
            before(info);
        }
    }));
}

/// The panics so far.
pub fn panics() -> Vec<String> {
    TRACE.with_borrow(|trace| trace.panics.clone())
}

/// The following lines come from this machine, at this time; the empty name is the world's.
pub fn enter(host: &str, now: u64) {
    TRACE.with_borrow_mut(|trace| {
        if trace.host != host {
            host.clone_into(&mut trace.host);
        }
        trace.now = now;
    });
}

/// Adds a line to the trace.
pub fn say(text: &str) {
    TRACE.with_borrow_mut(|trace| {
        let line = format!("{:>7} {:<9} {text}", trace.now, trace.host);
        trace.digest.update(line.as_bytes());
        trace.lines += 1;
        if trace.aloud {
            eprintln!("{line}");
        }
    });
}

/// Records bytes sent over this connection, by the end that opened it (0) or accepted it (1).
pub fn sent(now: u64, link: u64, side: usize, bytes: &[u8]) {
    TRACE.with_borrow_mut(|trace| {
        for number in [now, link, side as u64, bytes.len() as u64] {
            trace.digest.update(&number.to_le_bytes());
        }
        trace.digest.update(bytes);
    });
}

/// Turns the services' log lines into lines of the trace.
struct TraceLayer {
    most: Level,
}

impl<S: Subscriber> Layer<S> for TraceLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        *metadata.level() <= self.most && OURS.contains(&crate_name)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = *event.metadata().level();
        match level {
            Level::ERROR => {
                say(&format!("ERROR {}", text.0));
                TRACE.with_borrow_mut(|trace| trace.errors.push(text.0));
            }
            Level::WARN => say(&format!("WARN {}", text.0)),
            Level::DEBUG => {
                // Finer lines are for humans, and are not compared.
                TRACE.with_borrow(|trace| {
                    if trace.aloud {
                        eprintln!("{:>7} {:<9} . {}", trace.now, trace.host, text.0);
                    }
                });
            }
            _ => say(&text.0),
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
