//! Log formats: a log line as a sentence for people, or as a JSON object for machines.
//!
//! Both are made from the same event. Text is the time of day, the level if it is not `info`, and
//! the sentence, which names what matters. JSON has the sentence as `message` and, beside it, the
//! fields by which lines are searched: `leader`, `term`, `index`, `peer`, `order`, and others.

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::wall_clock::{date, time_of_day};

/// The target of access log lines.
pub const ACCESS: &str = "access";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A sentence for people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// The process that writes a log; each line in JSON names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSource {
    /// `frontend`, `catalog` or `order`.
    pub role: &'static str,
    /// The id of an order replica.
    pub id: Option<u64>,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected text or json, and found {text:?}")),
        }
    }
}

/// An event as text. Access log lines have a format of their own, and stay as they are.
pub(crate) fn text(event: &Event<'_>, since_epoch: Duration) -> String {
    let mut line = String::with_capacity(128);
    if event.metadata().target() != ACCESS {
        let _ = write!(line, "{} ", time_of_day(since_epoch));
        match *event.metadata().level() {
            Level::ERROR => line.push_str("ERROR "),
            Level::WARN => line.push_str("WARNING "),
            Level::DEBUG => line.push_str("debug "),
            Level::TRACE => line.push_str("trace "),
            Level::INFO => {}
        }
    }
    let begins = line.len();
    // The sentences of this program name what matters; those of libraries, at these levels, do not.
    let with_fields = matches!(*event.metadata().level(), Level::DEBUG | Level::TRACE);
    event.record(&mut Message { line: &mut line, with_fields });
    without_controls(&line, begins).unwrap_or(line)
}

/// An event as a JSON object.
pub(crate) fn json(event: &Event<'_>, since_epoch: Duration, source: &LogSource) -> String {
    let metadata = event.metadata();
    let mut object = Map::new();
    event.record(&mut Fields(&mut object));
    // No field of an event takes the place of these.
    let time = format!("{}T{}Z", date(since_epoch), time_of_day(since_epoch));
    object.insert("time".into(), time.into());
    object.insert("level".into(), metadata.level().as_str().to_ascii_lowercase().into());
    object.insert("role".into(), source.role.into());
    if let Some(id) = source.id {
        object.insert("id".into(), id.into());
    }
    object.insert("target".into(), metadata.target().into());
    ascii(&Value::Object(object).to_string())
}

/// A JSON text without the control characters and line ends beyond ASCII, which JSON allows.
fn ascii(json: &str) -> String {
    let is_odd = |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
    if !json.contains(is_odd) {
        return json.to_owned();
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        if is_odd(letter) {
            let _ = write!(shown, "\\u{:04x}", u32::from(letter));
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Escapes the control characters of a line; None: it has none. Untrusted text is escaped where it
/// is logged; this covers texts of libraries and of the system.
fn without_controls(line: &str, begins: usize) -> Option<String> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
    if line.as_bytes().iter().skip(begins).all(is_plain) || !line.contains(char::is_control) {
        return None;
    }
    let mut shown = String::with_capacity(line.len() + 16);
    for letter in line.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    Some(shown)
}

/// Writes the message of an event, and if asked to its fields as `name=value`.
struct Message<'a> {
    line: &'a mut String,
    with_fields: bool,
}

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.line, "{value:?}"),
            name if self.with_fields => write!(self.line, " {name}={value:?}"),
            _ => Ok(()),
        };
    }
}

/// Collects the fields of an event, its message among them.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::Subscriber;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    /// 2026-11-29 05:30:00.250 UTC.
    const TIME: Duration = Duration::from_millis(1_795_930_200_250);

    /// Keeps each event in both formats.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<(String, String)>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let source = LogSource { role: "order", id: Some(456) };
            self.0.lock().push((text(event, TIME), json(event, TIME, &source)));
        }
    }

    fn lines(log: impl FnOnce()) -> (String, Value) {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::Registry::default().with(lines.clone());
        tracing::subscriber::with_default(subscriber, log);
        let (text, json) = lines.0.lock().pop().expect("a line was logged");
        (text, serde_json::from_str(&json).expect("one JSON object"))
    }

    #[test]
    fn a_line_is_a_sentence_in_text_and_an_object_with_fields_in_json() {
        let (text, json) = lines(|| {
            tracing::warn!(leader = 3_u64, term = 7_u64, peer = %"a:1", "New leader id: {}", 3);
        });
        assert_eq!(text, "05:30:00.250 WARNING New leader id: 3");
        let expected = serde_json::json!({
            "time": "2026-11-29T05:30:00.250Z", "level": "warn", "role": "order", "id": 456,
            "target": "wire::log_format::tests", "message": "New leader id: 3",
            "leader": 3, "term": 7, "peer": "a:1",
        });
        assert_eq!(json, expected);
    }

    /// A line break forges a line, and a terminal executes the text after an escape character.
    #[test]
    fn no_line_holds_a_control_character() {
        assert_eq!(without_controls("12:00 a plain line", 6), None);
        assert_eq!(without_controls("12:00 a café…", 6), None);
        let forged = without_controls("12:00 a\nb\u{1b}[2J\u{9b}1m", 6);
        assert_eq!(forged.as_deref(), Some("12:00 a\\nb\\u{1b}[2J\\u{9b}1m"));
        let message = "a\n\"b\"\u{1b}[2J \u{9b}1m \u{2028}";
        let (text, json) = lines(|| tracing::info!("{message}"));
        assert_eq!(text, "05:30:00.250 a\\n\"b\"\\u{1b}[2J \\u{9b}1m \u{2028}");
        assert_eq!(json["message"], message);
        let shown = ascii(&json.to_string());
        assert!(!shown.contains(char::is_control) && !shown.contains('\u{2028}'), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), json);
    }

    #[test]
    fn no_field_of_an_event_hides_which_process_wrote_the_line() {
        let (text, json) = lines(|| tracing::debug!(id = 7_u64, level = "fatal", "odd"));
        assert_eq!(text, "05:30:00.250 debug odd id=7 level=\"fatal\"");
        assert_eq!((&json["id"], &json["level"]), (&456.into(), &"debug".into()));
    }

    #[test]
    fn an_access_log_line_stays_as_it_is_in_text_and_is_a_message_in_json() {
        let (text, json) = lines(|| tracing::info!(target: ACCESS, "127.0.0.1 - GET"));
        assert_eq!(text, "127.0.0.1 - GET");
        assert_eq!(
            (&json["target"], &json["message"]),
            (&ACCESS.into(), &"127.0.0.1 - GET".into())
        );
    }

    #[test]
    fn a_format_is_text_or_json() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert!("JSON".parse::<LogFormat>().unwrap_err().contains("text or json"));
    }
}
