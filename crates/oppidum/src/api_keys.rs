//! The operator's work on API keys: issue, list, rotate, revoke, and the rights of requests without
//! one.
//!
//! These commands go to the leader's internal listener.

use std::sync::Arc;
use std::time::Duration;

use ledger::access::{Access, ApiKey};
use ledger::api_key::{Actor, ApiKeyId, Principal, REQUEST_RATE_MAX, RequestRate, Scopes, is_note};
use ledger::api_key_text::ApiKeyText;
use ledger::command::{Command, NewApiKey};
use ledger::outcome::Outcome;
use ledger::terms::Timestamp;
use wire::access::AccessNews;
use wire::exit::Stop;
use wire::stream::Caller;

use crate::cli::keys::{ApiKeys, Init};
use crate::cli::values::{FreeText, Url};
use crate::settings::{self, Settings};
use crate::{ctl, inspect, internal_plane, key_file};

/// How long the leader may take to say who may do what.
const ACCESS_TIMEOUT: Duration = Duration::from_secs(3);

/// The file of the root key in the folder of `oppidum init`.
const ROOT_KEY_FILE: &str = "root.key";

/// `oppidum init`: the first API key of a new store.
pub(crate) fn init(flags: Init) -> Result<bool, Stop> {
    let FreeText(data) = Settings::load()?.want(settings::DATA, flags.data)?;
    crate::roles::keep_private();
    let no = |error: std::io::Error| Stop::Setup(format!("{data}: {error}"));
    std::fs::create_dir_all(&data).map_err(no)?;
    let file = std::path::Path::new(&data).join(ROOT_KEY_FILE);
    let key = if file.exists() { key_file::read(&file)? } else { key_file::new_api_key() };
    if file.exists() {
        note!("{} is there already, and is kept", file.display());
    } else {
        key_file::write(&file, &key)?;
        note!("{} holds the root key, which allows everything: keep it", file.display());
    }
    note!("the environment of every replica of the new store needs this line:");
    answer!("OPPIDUM_ROOT_KEY={}:{:032x}", key.id(), u128::from_be_bytes(key.digest().0));
    Ok(true)
}

/// Runs `oppidum ctl key`. False: the ledger refused it.
pub(crate) async fn run(what: ApiKeys) -> Result<bool, Stop> {
    let mut settings = Settings::load()?;
    let mut at = |flag: Url| flag.resolve(&mut settings);
    match what {
        ApiKeys::List(url) => list(&at(url)?).await,
        ApiKeys::Issue { principal, scopes, lifetime, rate, burst, note, url } => {
            if !is_note(&note) {
                let why = "a note has at most 64 bytes and no control characters";
                return Err(Stop::Setup(why.into()));
            }
            let url = at(url)?;
            let store = LeaderView::of(&url).await?;
            let ends = lifetime.map(|lifetime| store.later(lifetime));
            let rate = rate.map(|rate| (rate, burst.unwrap_or(rate.saturating_mul(2))));
            let rate =
                rate.and_then(|(rate, burst)| RequestRate::new(rate, burst.min(REQUEST_RATE_MAX)));
            issue(&url, KeyRequest { principal, scopes, ends, rate, note }).await
        }
        ApiKeys::Rotate { principal, overlap, url } => rotate(&at(url)?, &principal, overlap).await,
        ApiKeys::Revoke { id, later, url } => {
            let url = at(url)?;
            let ends = match later {
                Some(later) => Some(LeaderView::of(&url).await?.later(later)),
                None => None,
            };
            let outcome = ctl::decide(&url, Command::RevokeApiKey { id, ends }).await?;
            let when =
                ends.map_or_else(|| "now".to_owned(), |ends| format!("at {} UTC", time(ends)));
            ctl::report(outcome, &format!("API key {id} ends {when}"))
        }
        ApiKeys::Anonymous { scopes, url } => {
            let url = at(url)?;
            let store = LeaderView::of(&url).await?;
            if scopes == Scopes::NONE && !store.has_live_key() {
                note!("oppidum: no API key is in force: `oppidum ctl key issue` makes one");
            }
            let outcome = ctl::decide(&url, Command::SetAnonymousScopes(scopes)).await?;
            let done = match scopes {
                Scopes::NONE => "the store is closed: without an API key nothing is allowed".into(),
                scopes => format!("without an API key a request may: {scopes}"),
            };
            ctl::report(outcome, &done)
        }
    }
}

/// An API key to be issued.
struct KeyRequest {
    principal: Principal,
    scopes: Scopes,
    ends: Option<Timestamp>,
    rate: Option<RequestRate>,
    note: String,
}

/// Issues an API key, and prints it: the only line on stdout.
async fn issue(url: &str, request: KeyRequest) -> Result<bool, Stop> {
    let KeyRequest { principal, scopes, ends, rate, note } = request;
    let key: ApiKeyText = key_file::new_api_key();
    let often = rate.map_or_else(String::new, |rate| format!(", {},", at_most(rate)));
    let told = format!("this API key of {principal} allows {scopes}{often}");
    let new = NewApiKey { id: key.id(), digest: key.digest(), principal, scopes, ends, rate, note };
    let outcome = ctl::decide(url, Command::IssueApiKey(new)).await?;
    if let Some(refusal) = refused(&outcome) {
        note!("refused: {refusal}");
        return Ok(false);
    }
    answer!("{}", key.reveal());
    let until =
        ends.map_or_else(|| "until it is revoked".into(), |at| format!("until {} UTC", time(at)));
    note!("{told} {until}; it is not shown again");
    Ok(true)
}

async fn rotate(url: &str, principal: &Principal, overlap: Duration) -> Result<bool, Stop> {
    let store = LeaderView::of(url).await?;
    let own = store.access.keys.iter();
    let own = own.filter(|(_, key)| key.principal == *principal && key.is_live(store.log_time));
    let own: Vec<(&ApiKeyId, &ApiKey)> = own.collect();
    let Some((_, newest)) = own.iter().max_by_key(|(_, key)| key.issued) else {
        let why = format!("{principal} has no API key that could be rotated: issue one");
        return Err(Stop::Setup(why));
    };
    let lifetime = newest.ends.map(|ends| ends.0.saturating_sub(newest.issued.0));
    let ends = lifetime.map(|millis| store.later(Duration::from_millis(millis)));
    let note = newest.note.clone();
    let (principal, scopes) = (principal.clone(), newest.scopes);
    let request = KeyRequest { principal, scopes, ends, rate: newest.rate, note };
    if !issue(url, request).await? {
        return Ok(false);
    }
    let ends = store.later(overlap);
    for (id, _) in own {
        let outcome = ctl::decide(url, Command::RevokeApiKey { id: *id, ends: Some(ends) }).await?;
        match refused(&outcome) {
            Some(refusal) => note!("API key {id} goes on: {refusal}"),
            None => note!("API key {id} ends at {} UTC, or before", time(ends)),
        }
    }
    Ok(true)
}

fn refused(outcome: &Outcome) -> Option<&ledger::outcome::Refusal> {
    match outcome {
        Outcome::Refused(refusal) => Some(refusal),
        Outcome::Repeated { first, .. } => refused(first),
        Outcome::Accepted(_) => None,
    }
}

async fn list(url: &str) -> Result<bool, Stop> {
    let LeaderView { access, log_time } = LeaderView::of(url).await?;
    if !access.keys.is_empty() {
        answer!(
            "{:<8}  {:<16}  {:<28}  {:<13}  {:<20}  {:<24}  {:<20}  note",
            "id",
            "principal",
            "scopes",
            "rate",
            "issued (UTC)",
            "by",
            "ends (UTC)"
        );
    }
    for (id, key) in &access.keys {
        let by = key.issuer.as_ref().map_or("operator", Actor::as_str);
        let ends = match key.ends {
            Some(ends) if ends <= log_time => "has ended".to_owned(),
            Some(ends) => time(ends),
            None => "-".to_owned(),
        };
        let scopes = match key.scopes {
            Scopes::ALL => "all".to_owned(),
            scopes => scopes.to_string(),
        };
        let rate = key.rate.map_or_else(
            || "-".to_owned(),
            |rate| format!("{}/s, {}", rate.per_second(), rate.burst()),
        );
        answer!(
            "{id}  {:<16}  {scopes:<28}  {rate:<13}  {:<20}  {by:<24}  {ends:<20}  {}",
            key.principal.as_str(),
            time(key.issued),
            key.note
        );
    }
    answer!("without an API key a request may: {}", access.anonymous);
    Ok(true)
}

/// What the leader knows of the store's API keys.
struct LeaderView {
    access: Arc<Access>,
    log_time: Timestamp,
}

impl LeaderView {
    async fn of(url: &str) -> Result<Self, Stop> {
        let store = inspect::fetch(url).await?;
        let leader = store.leading().ok_or_else(|| {
            Stop::Setup("no replica leads just now: see `oppidum status`, and try again".into())
        })?;
        let no = |why: String| Stop::Setup(format!("the leader cannot be asked: {why}"));
        let route = internal_plane::to_replica(leader.id)?;
        let caller =
            Caller::connect(&route, &leader.address).await.map_err(|e| no(e.to_string()))?;
        let mut accesses = caller.access();
        let is_told = |news: &AccessNews| !matches!(news, AccessNews::Unknown);
        let told = tokio::time::timeout(ACCESS_TIMEOUT, accesses.wait_for(is_told)).await;
        let access = match told.ok().and_then(Result::ok).as_deref() {
            Some(AccessNews::Told(store)) => store.access.clone(),
            Some(AccessNews::Release01) => return Err(no("it is of release 0.1".into())),
            Some(AccessNews::Unknown) | None => {
                return Err(no("it does not tell its API keys".into()));
            }
        };
        match caller.log_time_ms() {
            0 => Err(no("it does not say the log time".into())),
            millis => Ok(Self { access, log_time: Timestamp(millis) }),
        }
    }

    fn has_live_key(&self) -> bool {
        self.access.keys.values().any(|key| key.is_live(self.log_time))
    }

    /// The log time after this much more time.
    fn later(&self, time: Duration) -> Timestamp {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.log_time.0.saturating_add(millis))
    }
}

/// A rate for people: `at most 500 requests per second`.
fn at_most(rate: RequestRate) -> String {
    format!("at most {} requests per second, {} at once", rate.per_second(), rate.burst())
}

/// A log time for people: `2027-02-26 15:00`.
fn time(at: Timestamp) -> String {
    wire::wall_clock::minute(Duration::from_millis(at.0))
}
