//! The examiner: sends the requests of the checks, tracks the expected state, and marks the sheet.
//!
//! The store need not be empty. The examiner reads the stock once and then tracks it itself, so
//! that a store that shows an old stock loses only the points for that.

use std::time::{Duration, Instant};

use ::frontend::classic::Dialect;
use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use serde_json::Value;

use super::check_list::{CheckList, CheckResult};
use crate::client::encode;
use crate::http::{Client, Reply};
use crate::lab::pains::api::{
    OrderSide, StoreApi, clipped, in_short, order_body, order_number, shelf,
};
use crate::lab::pains::stock::showing;
use crate::lab::pains::store_under_test::{ProductStock, StoreUnderTest};
use wire::exit::Stop;

/// How long an answer may take: the longest time that this project's store takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// How often a request is repeated after a 503.
const BUSY_MAX: u32 = 5;

/// The pause before such a repetition.
const PAUSE: Duration = Duration::from_millis(300);

/// How long a store may take to show the effect of an accepted order.
const EFFECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// After this many consecutive requests without an answer the store counts as gone.
const SILENT_MAX: u32 = 6;

/// An order that was placed: number, side, name, quantity.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) number: u64,
    pub(super) side: OrderSide,
    pub(super) name: String,
    pub(super) quantity: u64,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpRequest<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a str,
}

impl<'a> HttpRequest<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: "GET", path, headers: &[], body: "" }
    }

    /// A request that places an order, with the Content-Type of JSON.
    pub(super) fn order(body: &'a str) -> Self {
        let headers = &[("content-type", "application/json")];
        Self { method: "POST", path: "/orders", headers, body }
    }
}

/// Sends requests and tracks the expected state of the store.
pub(super) struct Examiner {
    pub(super) store: StoreUnderTest,
    pub(super) dialect: Dialect,
    pub(super) sheet: CheckList,
    /// The product that most checks trade in.
    pub(super) name: String,
    /// The expected stock of this product.
    pub(super) stock: i64,
    /// The number of the latest order; None: it is not known.
    pub(super) last: Option<u64>,
    pub(super) placed: Vec<Placed>,
    /// The first error that is not in the documented envelope, with the reason.
    pub(super) odd_shape: Option<String>,
    pub(super) odd_status: Option<String>,
    /// The first answer that began with a byte order mark.
    pub(super) marked: Option<String>,
    silent: u32,
}

impl Examiner {
    pub(super) fn new(store: StoreUnderTest, sheet: CheckList) -> Self {
        let ProductStock { name, quantity } = store.richest();
        Self {
            dialect: store.dialect,
            store,
            sheet,
            name,
            stock: quantity,
            last: None,
            placed: Vec::new(),
            odd_shape: None,
            odd_status: None,
            marked: None,
            silent: 0,
        }
    }

    pub(super) fn mark(&mut self, id: &str, found: Result<String, String>) {
        self.sheet.mark(id, CheckResult::of(found));
    }

    pub(super) fn skip(&mut self, id: &str, why: &str) {
        self.sheet.mark(id, CheckResult::Skipped(why.to_owned()));
    }

    /// A new client, for a check that needs its own connection.
    pub(super) fn client(&self) -> Result<Client, Stop> {
        Client::with_timeout(&self.store.urls[0], ANSWER_TIMEOUT)
    }

    pub(super) fn api(&self) -> Result<StoreApi, Stop> {
        self.store.api(0)
    }

    /// Sends a request over a fresh connection.
    pub(super) async fn ask(&mut self, ask: HttpRequest<'_>) -> Result<Reply, String> {
        if SILENT_MAX <= self.silent {
            return Err("not asked: the store had stopped answering".into());
        }
        let began = Instant::now();
        let mut client = self.client().map_err(|stop| stop.to_string())?;
        let mut reply = send(&mut client, ask).await;
        for _ in 0..BUSY_MAX {
            if !reply.as_ref().is_ok_and(|reply| matches!(reply.status, 429 | 503)) {
                break;
            }
            // 429 and 503 are definite: nothing happened, and the client may try again.
            tokio::time::sleep(PAUSE).await;
            client.let_go();
            reply = send(&mut client, ask).await;
        }
        // A store that breaks the connection is not silent.
        let silent = reply.is_err() && ANSWER_TIMEOUT <= began.elapsed();
        self.silent = if silent { self.silent + 1 } else { 0 };
        let asking = format!("{} {}", ask.method, clipped(ask.path));
        if reply.as_ref().is_ok_and(Reply::is_marked) {
            let begins = "was answered with a byte order mark before the JSON";
            self.marked.get_or_insert_with(|| format!("{asking} {begins}"));
        }
        reply.map_err(|why| format!("{asking}: {why}"))
    }

    /// The path of a product.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{}", shelf(self.dialect), encode(name))
    }

    /// Places an order of the product, which must succeed; returns its number.
    pub(super) async fn place(&mut self, side: OrderSide, quantity: u64) -> Result<u64, String> {
        let body = order_body(self.dialect, side, &self.name, quantity).to_string();
        let reply = self.ask(HttpRequest::order(&body)).await?;
        self.took(side, quantity, &reply).ok_or_else(|| answered(&body, &reply))
    }

    /// Books an answer that places an order. None: the answer does not place it.
    pub(super) fn took(&mut self, side: OrderSide, quantity: u64, reply: &Reply) -> Option<u64> {
        let number = self.number(reply)?;
        let pieces = i64::try_from(quantity).unwrap_or(i64::MAX);
        self.stock += if side == OrderSide::Buy { -pieces } else { pieces };
        self.last = Some(number);
        self.placed.push(Placed { number, side, name: self.name.clone(), quantity });
        Some(number)
    }

    /// The order number in an answer that places an order.
    #[expect(clippy::unused_self, reason = "asked of the examiner, as whether it was placed is")]
    pub(super) fn number(&self, reply: &Reply) -> Option<u64> {
        let body = reply.json().ok().filter(|_| (200..300).contains(&reply.status))?;
        order_number(&body)
    }

    /// Whether the answer is a refusal, which is any client error. Other checks judge its envelope
    /// and which of these statuses it has.
    pub(super) fn refused(
        &mut self,
        sent: &str,
        reply: &Reply,
        status: u16,
    ) -> Result<String, String> {
        let seen = answered(sent, reply);
        if !(400..500).contains(&reply.status) {
            return Err(format!("{seen}: expected {status}"));
        }
        if reply.status != status {
            self.odd_status.get_or_insert_with(|| format!("{seen}: ours says {status}"));
        }
        if let Err(why) = is_error(sent, reply, reply.status) {
            self.odd_shape.get_or_insert(why);
        }
        Ok(seen)
    }

    /// The same, for a refusal with exactly this status.
    pub(super) fn missing(
        &mut self,
        sent: &str,
        reply: &Reply,
        status: u16,
    ) -> Result<String, String> {
        let seen = self.refused(sent, reply, status)?;
        if reply.status == status { Ok(seen) } else { Err(format!("{seen}: expected {status}")) }
    }

    /// Whether the store shows the expected stock within the limit; another check covers freshness.
    /// The stock shown is the expected one from then on.
    pub(super) async fn balanced(&mut self) -> Result<(), String> {
        let mut api = self.api().map_err(|stop| stop.to_string())?;
        let expected = self.stock;
        match showing(&mut api, &self.name, expected).await {
            Some(shown) if shown == expected => Ok(()),
            Some(shown) => {
                self.stock = shown;
                Err(format!("{shown} of {} are shown, and {expected} must be left", self.name))
            }
            None => Err(format!("the stock of {} is not shown", self.name)),
        }
    }

    /// The store has accepted an order that it should have refused, for an unknown quantity. The
    /// books go on from the stock shown once it no longer changes.
    pub(super) async fn rebook(&mut self) {
        let Ok(mut api) = self.api() else { return };
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < EFFECT_TIMEOUT {
            let shown = api.look(&self.name).await.ok().map(|shown| shown.quantity);
            if let Some(quantity) = shown
                && shown == last
                && (quantity != self.stock || EFFECT_TIMEOUT / 3 < began.elapsed())
            {
                self.stock = quantity;
                return;
            }
            last = shown;
            tokio::time::sleep(EFFECT_TIMEOUT / 15).await;
        }
        self.stock = last.unwrap_or(self.stock);
    }
}

/// Sends one request over the client's connection.
pub(super) async fn send(client: &mut Client, ask: HttpRequest<'_>) -> Result<Reply, String> {
    let mut request = Request::builder().method(ask.method).uri(ask.path);
    for (name, value) in ask.headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(ask.body.as_bytes()));
    let request = request.body(body).map_err(|error| error.to_string())?;
    client.exchange(request).await
}

/// A request and its answer, in short.
pub(super) fn answered(sent: &str, reply: &Reply) -> String {
    format!("{} was answered {}", clipped(sent), in_short(reply))
}

/// Whether the answer is an error with this status, in the envelope and with no other field.
pub(super) fn is_error(sent: &str, reply: &Reply, status: u16) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("{}: {what}", answered(sent, reply)));
    if reply.status != status {
        return wrong(&format!("expected {status}"));
    }
    let Ok(body) = reply.json() else { return wrong("the body is no JSON") };
    if fields(&body) != ["error"] || fields(&body["error"]) != ["code", "message"] {
        return wrong("expected {\"error\":{\"code\",\"message\"}} and nothing else");
    }
    if body["error"]["code"] != status {
        return wrong("code is not the HTTP status");
    }
    match body["error"]["message"].as_str() {
        None | Some("") => wrong("there is no message"),
        Some(_) => Ok(answered(sent, reply)),
    }
}

/// The names of an object's fields, sorted.
pub(super) fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = match value.as_object() {
        Some(object) => object.keys().map(String::as_str).collect(),
        None => Vec::new(),
    };
    names.sort_unstable();
    names
}

/// Whether the Content-Type is JSON.
pub(super) fn is_json(reply: &Reply) -> bool {
    let kind = reply.header(CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase();
    kind.starts_with("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_only_the_fields_of_its_envelope() {
        let reply = |status: u16, body: &str| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            Reply { status, headers: http::HeaderMap::new(), body }
        };
        let good = reply(404, r#"{"error":{"code":404,"message":"gone"}}"#);
        assert!(is_error("GET /a", &good, 404).is_ok());
        assert!(is_error("GET /a", &good, 400).is_err());
        for body in [
            "",
            "<html>",
            "[]",
            r#"{"error":"gone"}"#,
            r#"{"error":{"code":404}}"#,
            r#"{"error":{"code":400,"message":"gone"}}"#,
            r#"{"error":{"code":404,"message":""}}"#,
            r#"{"error":{"code":404,"message":"gone","why":1}}"#,
            r#"{"error":{"code":404,"message":"gone"},"data":null}"#,
        ] {
            assert!(is_error("GET /a", &reply(404, body), 404).is_err(), "{body}");
        }
    }
}
