//! The public API: turns each request into an answer.
//!
//! Routes are few, so they are a `match`. Errors are in the envelope; the connection stays usable.

mod authorization;

mod batching;

mod body;

mod ordering;

mod pages;
mod products;

mod scope_check;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use http::header::HeaderValue;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use ledger::api_key::Scopes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wire::problem::{Code, Problem};
use wire::wall_clock::since_epoch;

use self::scope_check::{Identified, allowed, allowed_to_look_up};
use crate::access_log::AccessLog;
use crate::admission::Admission;
use crate::answer::{self, Answer, REQUEST_ID};
use crate::authentication::Authorization;
use crate::body_quota::Bodies;
use crate::cache_report::CacheReport;
use crate::classic::{self, Dialect, Noun};
use crate::client_address::{self, ClientAddress, CustomerAddress};
use crate::clients::Clients;
use crate::coalescer::OrderCoalescer;
use crate::drain::Closing;
use crate::http::handler::{Handler, Pause, Written};
use crate::http::head::Rejection;
use crate::http::parse::{Content, PlainRequest};
use crate::http::phase::RequestPhase;
use crate::http::scheduler::ReadScheduler;
use crate::keys;
use crate::limits;
use crate::queries::Queries;
use crate::rates::Rates;
use crate::remembered_key::RememberedKey;
use crate::replicas::Replicas;
use crate::request_metrics::{Arrived, OrderOutcome, RequestMetrics, Route};
use crate::status_view::{StatusView, shows_whole};
use crate::submit;

const ON_PRODUCTS: &str = "GET, HEAD, OPTIONS";
const ON_SERVER: &str = "GET, HEAD, POST, OPTIONS";
const ON_ORDERS: &str = "POST, OPTIONS";

/// Answers public requests. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dialect: Dialect,
    queries: Queries,
    coalescer: OrderCoalescer,
    replicas: Replicas,
    view: StatusView,
    closing: Arc<Closing>,
    access_log: AccessLog,
    clients: Clients,
    places: Semaphore,
    bodies: Bodies,
    rates: Rates,
    cache_report: CacheReport,
    admission: Admission,
    scheduler: ReadScheduler,
    /// The 503 to an order beyond the limit, before and after the request's id.
    refusal: [String; 2],
    batches: Semaphore,
    /// The `Date` of answers: the second since the Unix epoch, and its text.
    date: Mutex<(u64, Arc<str>)>,
    request_base: u64,
    requests: AtomicU64,
    metrics: RequestMetrics,
}

/// The parts that the API is built from.
pub(crate) struct Parts {
    pub(crate) dialect: Dialect,
    pub(crate) queries: Queries,
    pub(crate) replicas: Replicas,
    pub(crate) view: StatusView,
    pub(crate) closing: Arc<Closing>,
    pub(crate) access_log: AccessLog,
    pub(crate) clients: Clients,
}

impl Api {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { dialect, queries, replicas, view, closing, access_log, clients } = parts;
        let places = Semaphore::new(limits::REQUESTS_OPEN_MAX);
        let rates = Rates::new(clients.requests_per_address);
        let shared = Shared {
            dialect,
            queries,
            coalescer: OrderCoalescer::new(replicas.clone()),
            replicas,
            view,
            closing,
            access_log,
            clients,
            places,
            bodies: Bodies::default(),
            rates,
            cache_report: CacheReport::default(),
            admission: Admission::new(),
            scheduler: ReadScheduler::new(),
            refusal: answer::on_the_wire(&no_room()),
            batches: Semaphore::new(limits::BATCHES_OPEN_MAX),
            date: Mutex::new((u64::MAX, Arc::default())),
            request_base: rand::random(),
            requests: AtomicU64::new(0),
            metrics: RequestMetrics::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// hyper moves a request's future several times, so branches larger than a query's are boxed.
    async fn route(
        &self,
        request: Request<Incoming>,
        sender: Identified,
        from: ClientAddress,
        phase: &RequestPhase,
    ) -> Answer {
        let path = request.uri().path();
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
        let mut segments = path.split('/').skip(1);
        let place = (segments.next(), segments.next(), segments.next());
        // Health requests count, and are answered beyond the rate, too.
        if let (Some("livez" | "readyz"), None, None) = place
            && is_known(request.method())
        {
            return self.health(request.method(), place.0 == Some("livez")).await;
        }
        let sender = match sender {
            Err(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS => return *answer,
            _ if !is_known(request.method()) => {
                return answer::error(StatusCode::NOT_IMPLEMENTED, "no such method");
            }
            sender => sender,
        };
        // Orders take a permit after their body, `/status` none: slow senders must not block them.
        let _permit = match place {
            (Some("v1"), Some("orders"), Some("batch")) if segments.next().is_none() => {
                return Box::pin(self.batch(request, sender, from)).await;
            }
            (Some("orders"), None, None) => {
                return Box::pin(self.orders(request, sender, from, phase)).await;
            }
            (Some("status"), None, None) => None,
            _ => match self.shared.places.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => return too_many(),
            },
        };
        match place {
            // `OPTIONS` for the whole server: `*`, or its root.
            (None | Some(""), None, None) if request.method() == Method::OPTIONS => {
                answer::options(ON_SERVER)
            }
            (Some("orders"), Some(number), None) => {
                on_get(request.method(), || self.look_up(sender, number)).await
            }
            (Some("stocks" | "products"), None, None) => {
                let query = request.uri().query().unwrap_or_default();
                on_get(request.method(), || Box::pin(self.list(sender, query))).await
            }
            (Some("stocks"), Some(name), None) => {
                on_get(request.method(), || self.product(sender, Noun::Stock, name)).await
            }
            (Some("products"), Some(name), None) => {
                on_get(request.method(), || self.product(sender, Noun::Product, name)).await
            }
            (Some("status"), None, None) => {
                let public = self.shared.clients.public_status;
                let whole = from.is_peer && shows_whole(public, from.address, request.headers());
                on_get(request.method(), || self.status(sender, whole)).await
            }
            (Some("status"), Some("cache"), None) => {
                on_get(request.method(), || std::future::ready(self.cache(sender))).await
            }
            _ => answer::error(StatusCode::NOT_FOUND, "no such route"),
        }
    }

    async fn look_up(&self, sender: Identified, segment: &str) -> Answer {
        let sender = match allowed_to_look_up(sender) {
            Ok(sender) => sender,
            Err(rejection) => return *rejection,
        };
        let not_found = || answer::error(StatusCode::NOT_FOUND, "order not found");
        let Some(number) = classic::parse_number(segment) else { return not_found() };
        match submit::look_up(&self.shared.replicas, number, sender.actor_text()).await {
            Ok(found) => {
                let order = found.order.as_ref();
                let body =
                    order.and_then(|order| classic::render_order(self.shared.dialect, order));
                let answer = body.map_or_else(not_found, |body| answer::json(StatusCode::OK, body));
                answer::as_of(answer, found.as_of, found.stale)
            }
            Err(problem) => answer::problem(&problem),
        }
    }

    async fn health(&self, method: &Method, is_livez: bool) -> Answer {
        on_get(method, || async move {
            if is_livez { answer::text(StatusCode::OK, "alive\n") } else { self.readyz() }
        })
        .await
    }

    /// What clients have sent lately.
    pub(crate) fn rates(&self) -> &Rates {
        &self.shared.rates
    }

    /// The settings of the public port.
    pub(crate) fn clients(&self) -> &Clients {
        &self.shared.clients
    }

    fn next_id(&self) -> u64 {
        let count = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.shared.request_base.wrapping_add(count)
    }

    /// The client's request id if it is valid, else a new one.
    fn id_or(&self, given: Option<&[u8]>) -> HeaderValue {
        let given = given.filter(|id| is_id(id)).and_then(|id| HeaderValue::from_bytes(id).ok());
        given.unwrap_or_else(|| {
            let id = format!("{:016x}", self.next_id());
            HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
        })
    }
}

impl Handler for Api {
    fn is_overloaded(&self) -> bool {
        self.shared.admission.is_overloaded()
    }

    fn should_reject(&self) -> bool {
        self.shared.admission.should_reject(self.shared.scheduler.has_backlog())
    }

    fn read_scheduler(&self) -> &ReadScheduler {
        &self.shared.scheduler
    }

    fn is_draining(&self) -> bool {
        self.shared.closing.drains()
    }

    fn idle(&self) -> Duration {
        self.shared.clients.idle
    }

    fn access_log(&self) -> &AccessLog {
        &self.shared.access_log
    }

    fn write_overloaded(&self, out: &mut Vec<u8>, given: Option<&str>) -> Written {
        self.metrics().note_overloaded();
        let [before, after] = &self.shared.refusal;
        out.extend_from_slice(before.as_bytes());
        let id = out.len();
        // Writing into a vector cannot fail.
        let _ = match given.filter(|id| is_id(id.as_bytes())) {
            Some(id) => write!(out, "{id}"),
            None => write!(out, "{:016x}", self.next_id()),
        };
        let id = id..out.len();
        out.extend_from_slice(after.as_bytes());
        Written { id, bytes: after.trim_start().len() }
    }

    fn write(&self, out: &mut Vec<u8>, answer: &Answer, last: bool) {
        let since = since_epoch();
        let now = UNIX_EPOCH + since;
        let since = since.as_secs();
        let date = {
            let mut date = self.shared.date.lock();
            if date.0 != since {
                *date = (since, httpdate::fmt_http_date(now).into());
            }
            date.1.clone()
        };
        answer::write(out, answer, &date, last);
    }

    fn write_rejection(&self, out: &mut Vec<u8>, rejection: &Rejection) -> Answer {
        let mut answer = answer::error(rejection.status, rejection.why);
        answer.headers_mut().insert(REQUEST_ID, self.id_or(None));
        self.metrics().note_rejected(Route::Malformed, answer.status());
        self.write(out, &answer, true);
        answer
    }

    async fn answer_plain(
        &self,
        request: &PlainRequest<'_>,
        remembered: &mut RememberedKey,
        from: ClientAddress,
    ) -> Answer {
        let began = Instant::now();
        let sent = request.authorization.map_or(Authorization::None, Authorization::One);
        let sender = self.identify(sent, Some(remembered), from);
        let permit = self.shared.places.try_acquire();
        let mut answer = match (permit, request.content) {
            (Err(_), content) => {
                if matches!(content, Content::Order { .. }) && sender.is_ok() {
                    self.metrics().note_order(OrderOutcome::Overloaded);
                }
                sender.err().map_or_else(too_many, |rejection| *rejection)
            }
            (Ok(_permit), Content::Query(path)) => self.query(sender, path).await,
            (Ok(_permit), Content::Order { key, body }) => {
                match (allowed(sender, Scopes::ORDER), key.map(keys::given_as).transpose()) {
                    (Ok(sender), Ok(key)) => self.order_of(sender, key, body).await,
                    (Err(rejection), _) => *rejection,
                    (_, Err(why)) => bad_request(why),
                }
            }
        };
        answer.headers_mut().insert(REQUEST_ID, self.id_or(request.id.map(str::as_bytes)));
        let route = match request.content {
            Content::Order { .. } => Route::Orders,
            Content::Query(_) => Route::Product,
        };
        self.metrics().note_answered(route, answer.status(), began.elapsed());
        answer
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        from: ClientAddress,
        phase: &RequestPhase,
    ) -> Answer {
        let (route, began) = (Route::of(request.uri().path()), Instant::now());
        let id = self.id_or(request.headers().get(REQUEST_ID).map(HeaderValue::as_bytes));
        let sent = Authorization::of(request.headers());
        let sender = self.identify(sent, None, from);
        // The pause of a rejected sender is that of any answer.
        let pause = sender.as_ref().err().and_then(|answer| answer.extensions().get().copied());
        let mut answer = self.route(request, sender, from, phase).await;
        if let Some(pause) = pause {
            answer.extensions_mut().insert::<Pause>(pause);
        }
        answer.headers_mut().insert(REQUEST_ID, id);
        let arrived = answer.extensions_mut().remove().map_or(began, |Arrived(at)| at);
        self.metrics().note_answered(route, answer.status(), arrived.elapsed());
        answer::with_constant_headers(answer)
    }

    fn client_of(&self, connection: ClientAddress, headers: &HeaderMap) -> ClientAddress {
        let how = self.shared.clients.customer_address;
        let values = client_address::values(how, headers);
        connection.of_request(how, values, &self.shared.clients.gateways)
    }

    fn client_of_plain(
        &self,
        connection: ClientAddress,
        request: &PlainRequest<'_>,
    ) -> ClientAddress {
        let how = self.shared.clients.customer_address;
        let value = match how {
            CustomerAddress::XForwardedFor => request.x_forwarded_for,
            CustomerAddress::Forwarded => request.forwarded,
            CustomerAddress::Unknown | CustomerAddress::ProxyProtocol => return connection,
        };
        connection.of_request(how, value.into_iter(), &self.shared.clients.gateways)
    }
}

/// True if a client's request id is repeated in the answer.
fn is_id(id: &[u8]) -> bool {
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    (1..=limits::REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(is_text)
}

fn too_many() -> Answer {
    answer::problem(&Problem::definite(Code::Overloaded, "too many requests"))
}

fn no_room() -> Problem {
    let why = "too many orders at once: nothing was ordered";
    Problem::definite(Code::Overloaded, why)
}

async fn on_get<F: Future<Output = Answer>>(method: &Method, get: impl FnOnce() -> F) -> Answer {
    match *method {
        // The server drops the body of an answer to `HEAD`.
        Method::GET | Method::HEAD => get().await,
        Method::OPTIONS => answer::options(ON_PRODUCTS),
        _ => answer::not_allowed(ON_PRODUCTS),
    }
}

fn bad_request(why: &str) -> Answer {
    answer::error(StatusCode::BAD_REQUEST, why)
}

/// True for a method of RFC 9110 or RFC 5789.
fn is_known(method: &Method) -> bool {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::POST,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::TRACE,
        Method::CONNECT,
    ];
    KNOWN.contains(method)
}
