//! `oppidum ctl trail`: lists who changed what, from a replica's history.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ledger::api_key::RequestRate;
use ledger::block::{Header, Record};
use ledger::certificate_actor::CertificateActor;
use ledger::command::{Command, Definition, Line, NewApiKey, Request, Side};
use ledger::operator_action::OperatorAction;
use ledger::outcome::{Accepted, Outcome};
use ledger::terms::{OrderNumber, Quantity, Timestamp};
use serde_json::{Value, json};
use wire::exit::Stop;
use wire::status::{ProcessStatus, StoreStatus};
use wire::wall_clock;

use crate::cli::operator::Trail;
use crate::inspect::{self, block_stream};

/// The formats from which on records name certificates, and the log announces actions.
const ANNOUNCING_FORMATS: u32 = 2;

/// How long the leader is looked for: a new one may be being chosen.
const LEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long any replica is looked for.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a tool may take to repeat a command at the next leader.
const REPEATED_MAX: Duration = Duration::from_mins(1);

/// `oppidum ctl trail`
pub(crate) async fn trail(url: &str, flags: &Trail) -> Result<bool, Stop> {
    let Source { id, address, leads } = find_replica(url).await?;
    let since = wall_clock::since_epoch().saturating_sub(flags.since);
    let since = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    if !flags.json {
        answer!("{:<8} {:<19}   {ACTOR:<24}   action", "index", "time (UTC)", ACTOR = "actor");
    }
    let mut seen = SeenActions::default();
    let head = block_stream::read((id, &address), Some(since), |block| {
        let is_order = |record: &Record| matches!(record.request.command, Command::Place(_));
        let records = block.records.iter().filter(|record| flags.orders || !is_order(record));
        for row in records.filter_map(|record| TrailRow::of(&block.header, record, &mut seen)) {
            if flags.json {
                answer!("{}", row.to_json());
            } else {
                answer!("{}", row.to_line());
            }
        }
    })
    .await?;
    if !leads {
        note!(
            "no replica leads: this is what replica {id} knows, up to index {}",
            head.applied_index
        );
    }
    if head.formats < ANNOUNCING_FORMATS {
        note!(
            "names in certificates, members, transfers and repairs are recorded from the first \
             command about API keys on"
        );
    }
    Ok(true)
}

/// The replica whose history is shown.
struct Source {
    id: u64,
    address: String,
    leads: bool,
}

/// Looks for the leader, and then for any replica.
async fn find_replica(url: &str) -> Result<Source, Stop> {
    let began = Instant::now();
    loop {
        let store = inspect::fetch(url).await?;
        let waits_for_leader = store.leading().is_none() && began.elapsed() < LEADER_TIMEOUT;
        if let Some(replica) = best_replica(&store).filter(|_| !waits_for_leader) {
            let (id, address) = (replica.id.unwrap_or(0), replica.address.clone());
            return Ok(Source { id, address, leads: store.leader == Some(id) });
        }
        if REPLICA_TIMEOUT < began.elapsed() {
            let why = format!("{url} knows no replica that answers: see `oppidum status`");
            return Err(Stop::Setup(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The leader; without one, the replica that has applied most.
fn best_replica(store: &StoreStatus) -> Option<&ProcessStatus> {
    let answers = |process: &&ProcessStatus| process.role == "order" && process.error.is_none();
    let newest = || store.processes.iter().filter(answers).max_by_key(|it| it.applied_index);
    store.leading().or_else(newest)
}

/// One record, as the trail shows it.
struct TrailRow {
    index: u64,
    at: Timestamp,
    /// `None`: the request came without a certificate and without an API key.
    actor: Option<String>,
    /// The kind of the action, for scripts.
    kind: &'static str,
    /// The action, for people.
    action: String,
    /// What the action is about, for scripts.
    details: Value,
    outcome: TrailOutcome,
}

enum TrailOutcome {
    Done,
    Unchanged,
    Refused(String),
    /// An action was asked for again, under the key of an earlier one.
    Again,
}

/// The operators' actions so far, by their idempotency keys.
#[derive(Default)]
struct SeenActions {
    first: HashMap<String, (Option<CertificateActor>, Timestamp)>,
}

impl SeenActions {
    /// True for an action that another operator repeats, or the same one later than a tool does
    /// that goes on at the next leader: it may have been done twice.
    fn is_asked_again(&mut self, header: &Header, record: &Record) -> bool {
        let Request { key: Some(key), certificate, command, .. } = &record.request else {
            return false;
        };
        if !matches!(command, Command::OperatorAction(_)) {
            return false;
        }
        self.first.get(key.text()).is_none_or(|(first, at)| {
            let passed = Duration::from_millis(header.at.0.saturating_sub(at.0));
            first != certificate || REPEATED_MAX < passed
        })
    }

    fn note(&mut self, header: &Header, record: &Record) {
        let Request { key: Some(key), certificate, command, .. } = &record.request else { return };
        let is_first = !matches!(record.outcome, Outcome::Repeated { .. });
        if matches!(command, Command::OperatorAction(_)) && is_first {
            self.first.insert(key.text().to_owned(), (certificate.clone(), header.at));
        }
    }
}

impl TrailRow {
    /// `None`: the record repeats another one, or is not for the trail.
    fn of(header: &Header, record: &Record, seen: &mut SeenActions) -> Option<Self> {
        let command = &record.request.command;
        seen.note(header, record);
        let outcome = match &record.outcome {
            Outcome::Repeated { .. } if !seen.is_asked_again(header, record) => return None,
            Outcome::Repeated { .. } => TrailOutcome::Again,
            Outcome::Refused(refusal) => TrailOutcome::Refused(refusal.to_string()),
            Outcome::Accepted(Accepted::Unchanged) => match command {
                // Every catalog proposes to restock, and every first leader to open.
                Command::RestockTo { .. } | Command::Open(_) => return None,
                _ => TrailOutcome::Unchanged,
            },
            Outcome::Accepted(Accepted::Done | Accepted::Placed(_)) => TrailOutcome::Done,
        };
        let (kind, action, details) = describe(record, header.at)?;
        let (index, at) = (header.index.0, header.at);
        Some(Self { index, at, actor: actor(record), kind, action, details, outcome })
    }

    fn to_line(&self) -> String {
        let Self { index, action, .. } = self;
        let actor = self.actor.as_deref().unwrap_or("-");
        let end = match &self.outcome {
            TrailOutcome::Done => String::new(),
            TrailOutcome::Unchanged => " (nothing changed)".to_owned(),
            TrailOutcome::Refused(refusal) => format!(" (refused: {refusal})"),
            TrailOutcome::Again => " (asked for again)".to_owned(),
        };
        let action = visible(&format!("{action}{end}"));
        format!("{index:<8} {:<19}   {actor:<24}   {action}", time(self.at))
    }

    fn to_json(&self) -> Value {
        let (outcome, refusal) = match &self.outcome {
            TrailOutcome::Done => ("done", None),
            TrailOutcome::Unchanged => ("unchanged", None),
            TrailOutcome::Refused(refusal) => ("refused", Some(refusal)),
            TrailOutcome::Again => ("again", None),
        };
        json!({
            "index": self.index,
            "at_ms": self.at.0,
            "time": time(self.at),
            "actor": self.actor,
            "kind": self.kind,
            "action": self.action,
            "details": self.details,
            "outcome": outcome,
            "refusal": refusal,
        })
    }
}

/// Who asked, by the certificate and the API key that the request came with.
fn actor(record: &Record) -> Option<String> {
    let key = record.request.key.as_ref().and_then(|key| key.actor.as_ref());
    match (&record.request.certificate, key) {
        (Some(certificate), Some(key)) => Some(format!("{certificate}, key {key}")),
        (Some(certificate), None) => Some(certificate.to_string()),
        (None, Some(key)) => Some(format!("key {key}")),
        // Catalogs propose it, unless an operator calls a replica without a certificate.
        (None, None) if matches!(record.request.command, Command::RestockTo { .. }) => {
            Some("catalog".to_owned())
        }
        (None, None) => None,
    }
}

/// The kind of an action, the action in words, and its details. `None`: it is not for the trail.
fn describe(record: &Record, at: Timestamp) -> Option<(&'static str, String, Value)> {
    Some(match &record.request.command {
        Command::Open(shop) => {
            let (products, first) = (shop.products.len(), shop.first_order_number.0);
            let action = format!("shop opened: {products} products, first order {first}");
            ("open", action, json!({ "products": products, "first_order_number": first }))
        }
        Command::Define(definition) => define(definition),
        Command::SetPrice { name, price } => {
            let action = format!("price of {name}: {price}");
            ("price", action, json!({ "product": name.as_str(), "price": price.to_string() }))
        }
        Command::RestockBy { name, quantity } => {
            let action = format!("{} more of {name}", quantity.get());
            ("restock", action, json!({ "product": name.as_str(), "quantity": quantity.get() }))
        }
        Command::RestockTo { name, quantity } => {
            let action = format!("{name} restocked to {}", quantity.get());
            ("restock_to", action, json!({ "product": name.as_str(), "quantity": quantity.get() }))
        }
        Command::Place(lines) => place(record, lines),
        Command::Attach { .. } | Command::Detach { .. } => return None,
        Command::IssueApiKey(new) => issue(new),
        Command::RevokeApiKey { id, ends } => {
            let ends = ends.filter(|ends| at < *ends);
            let when =
                ends.map_or_else(|| "ends now".into(), |ends| format!("ends at {}", time(ends)));
            let details = json!({ "id": id.as_str(), "ends_ms": ends.map(|ends| ends.0) });
            ("revoke_key", format!("API key {id} {when}"), details)
        }
        Command::SetAnonymousScopes(scopes) => {
            let action = format!("without an API key a request may: {scopes}");
            ("anonymous", action, json!({ "scopes": scopes.to_string() }))
        }
        Command::OperatorAction(action) => operator_action(action),
        Command::Reopen { next_number: OrderNumber(first) } => {
            let action = format!("order numbers go on at {first}: a new series");
            ("reopen", action, json!({ "first_order_number": first }))
        }
    })
}

fn define(definition: &Definition) -> (&'static str, String, Value) {
    let Definition { name, price, stock, restock_to } = definition;
    let restock_to = restock_to.map(Quantity::get);
    let restocked = restock_to.map_or_else(String::new, |to| format!(", restocked to {to}"));
    let action = format!("{name} defined at {price}, {stock} in stock{restocked}");
    let details = json!({
        "product": name.as_str(),
        "price": price.to_string(),
        "quantity": stock,
        "restock_to": restock_to,
    });
    ("define", action, details)
}

fn issue(new: &NewApiKey) -> (&'static str, String, Value) {
    let NewApiKey { id, principal, scopes, ends, rate, note, .. } = new;
    let (per_second, burst) = RequestRate::numbers(*rate);
    let often = if per_second == 0 { String::new() } else { format!(", {per_second} per second") };
    let until = ends.map_or_else(String::new, |ends| format!(", until {}", time(ends)));
    let action = format!("API key {id} issued for {principal}: {scopes}{often}{until}");
    let details = json!({
        "id": id.as_str(),
        "principal": principal.as_str(),
        "scopes": scopes.to_string(),
        "ends_ms": ends.map(|ends| ends.0),
        "requests_per_second": rate.map(|_| per_second),
        "burst": rate.map(|_| burst),
        "note": note,
    });
    ("issue_key", action, details)
}

fn place(record: &Record, lines: &[Line]) -> (&'static str, String, Value) {
    let side = |side| match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    };
    let words = lines
        .iter()
        .map(|line| format!("{} {} {}", side(line.side), line.quantity.get(), line.name));
    let words = words.collect::<Vec<_>>().join(", ");
    let number = record.number().map(|number| number.0);
    let order = number.map_or_else(|| "order".to_owned(), |number| format!("order {number}"));
    let rows = lines.iter().map(|line| {
        json!({
            "product": line.name.as_str(),
            "quantity": line.quantity.get(),
            "type": side(line.side),
        })
    });
    let details = json!({ "number": number, "lines": rows.collect::<Vec<_>>() });
    ("order", format!("{order}: {words}"), details)
}

fn operator_action(action: &OperatorAction) -> (&'static str, String, Value) {
    let (kind, details) = match action {
        OperatorAction::AddReplica { id, address } => {
            ("member_add", json!({ "replica": id, "address": address.as_str() }))
        }
        OperatorAction::RemoveReplica { id } => ("member_remove", json!({ "replica": id })),
        OperatorAction::TransferLead { to } => ("transfer", json!({ "replica": to })),
        OperatorAction::Repair { id } => ("repair", json!({ "replica": id })),
        OperatorAction::Recover { id } => ("recover", json!({ "replica": id })),
        OperatorAction::Restore { id } => ("restore", json!({ "replica": id })),
    };
    (kind, action.to_string(), details)
}

/// The text without characters that do not show, or that change the direction of a line: a product
/// of an order that is refused may have any name.
fn visible(text: &str) -> String {
    let is_odd = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(letter, '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}')
            || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
    };
    text.chars().map(|letter| if is_odd(letter) { '\u{fffd}' } else { letter }).collect()
}

/// A moment in UTC: `2026-11-28 14:29:51`.
fn time(at: Timestamp) -> String {
    wall_clock::second(Duration::from_millis(at.0))
}

#[cfg(test)]
mod tests;
