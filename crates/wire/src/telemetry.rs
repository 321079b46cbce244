//! Telemetry: writes the log of a process to stderr, line by line (`log_format.rs`).
//!
//! Lines never block the caller: they go through a bounded queue to one writing thread, and the
//! queue counts lost lines and reports their number later.

use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry};

use crate::lines::{self, LineQueue};
use crate::log_format::{self, LogFormat, LogSource};
use crate::wall_clock::since_epoch;

/// The levels of the libraries underneath, unless the filter names others.
const QUIET: &str = "openraft=off,raft_log=warn,chunked_wal=warn,h2=warn,hyper=warn,tonic=warn";

/// Why a filter is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected error, warn, info, debug, trace, off, or directives such as info,order=debug: {0}"
)]
pub struct FilterError(String);

/// Starts to write lines to stderr, in the name of `source`. `filter` holds directives of
/// `tracing`, such as `info` or `info,order=debug`. Call it once, at the start of the process.
///
/// # Errors
///
/// When [`check_filter`] rejects the filter.
pub fn start(filter: &str, format: LogFormat, source: LogSource) -> Result<(), FilterError> {
    check_filter(filter)?;
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .map_err(|error| FilterError(error.to_string()))?;
    let lines = lines::stderr().clone();
    if format == LogFormat::Json {
        lines.use_json();
    }
    let layer = LogWriter { lines, format, source };
    let subscriber = Registry::default().with(filter).with(layer);
    // In tests one program runs the telemetry of several processes; the first subscriber stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Rejects filters that `tracing` accepts by mistake. It takes a misspelt level for the name of a
/// module, and the process would log nothing.
///
/// # Errors
///
/// When a directive has no known level.
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |text: &str| LEVELS.contains(&text.to_ascii_lowercase().as_str());
    for directive in filter.split(',').map(str::trim) {
        let (known, level) = match directive.rsplit_once('=') {
            Some((target, level)) => (!target.is_empty(), level),
            None => (true, directive),
        };
        if !known || !is_level(level) {
            return Err(FilterError(format!("{directive:?} is none of these")));
        }
    }
    Ok(())
}

/// Writes `tracing` events as lines.
struct LogWriter {
    lines: LineQueue,
    format: LogFormat,
    source: LogSource,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogWriter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = since_epoch();
        self.lines.push(&match self.format {
            LogFormat::Text => log_format::text(event, now),
            LogFormat::Json => log_format::json(event, now, &self.source),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a setting that is accepted and has no effect.
    #[test]
    fn a_misspelt_level_is_rejected() {
        for filter in ["info", "WARN", "info,order=debug", "warn, order::takeover=info", "off"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["inof", "", "info,", "info,order=loud", "=info", "order", "3"] {
            let error = check_filter(filter).unwrap_err().to_string();
            assert!(error.contains("info"), "{filter}: {error}");
        }
    }
}
