//! The double: a small foreign store in this process, correct in the whole classic API except for
//! the faults that a test chooses.
//!
//! It has no products list, no `/status`, no `X-As-Of`, and keys only on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The faults that a test can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// For 40 ms after an order, queries show the stock before it.
    ShowsTheStockBefore,
    /// An order that is refused for want of stock takes a number.
    RefusalTakesANumber,
    /// An order that does not exist is `null`, with 200.
    UnknownOrderIsNull,
    /// A quantity of 2.5 is read as 2.
    TakesFractions,
    /// The store checks the stock, waits, and then takes from it: a race.
    LooksThenTakes,
    /// The store closes the connection instead of answering an order.
    BreaksOnOrders,
    /// The store forgets the keys of refused orders.
    ForgetsRefusals,
    /// The store shows another order under a number than was placed. (It also lists its products,
    /// for clients that read the list first.)
    ShowsAnotherOrder,
    /// The store closes the connection on bad input.
    BreaksOnNonsense,
    /// Numbers are written as strings.
    NumbersAreText,
    /// Whole numbers are written as `100.0`.
    NumbersAreFractions,
    /// A byte order mark stands before each body.
    MarksBodies,
    /// The number of a new order has another name.
    RenamesTheNumber,
    /// The stock has another name.
    RenamesTheStock,
    /// The error object has another name.
    RenamesErrors,
    /// The store uses every permitted choice that ours does not: 400 for a sold-out product, no
    /// quantity as a string, no slash after a path.
    ChoosesOtherwise,
}

/// How long queries show the old stock, and how long the race between check and take lasts.
const MOMENT: Duration = Duration::from_millis(40);

struct Product {
    quantity: i64,
    /// The quantity before the latest order, and when that order came.
    before: (i64, Instant),
}

#[derive(Default)]
struct State {
    products: BTreeMap<String, Product>,
    /// Name, quantity, side; None: a number taken by a refused order.
    orders: Vec<Option<(String, i64, String)>>,
    keys: BTreeMap<String, (Value, Reply)>,
}

#[derive(Clone)]
struct Reply {
    status: u16,
    body: String,
    headers: &'static str,
}

/// The store. Its threads end with the process.
pub(crate) struct Double {
    toy: bool,
    keys: bool,
    faults: Vec<Fault>,
    state: Mutex<State>,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Double {
    /// Opens the store; returns its URL.
    pub(crate) fn open(dialect: &str, keys: bool, faults: &[Fault]) -> String {
        let names = if dialect == "toy" { ["tux", "whale"] } else { ["FishCo", "GameStart"] };
        let before = (100, Instant::now());
        let product = |name: &str| (name.to_owned(), Product { quantity: 100, before });
        let state = State { products: names.map(product).into(), ..State::default() };
        let (toy, faults, state) = (dialect == "toy", faults.to_vec(), Mutex::new(state));
        let double = Arc::new(Self { toy, keys, faults, state });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let double = double.clone();
                thread::spawn(move || double.serve(stream));
            }
        });
        url
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream) {
            if self.has(Fault::BreaksOnOrders) && request.method == "POST" {
                return;
            }
            let Reply { status, body, headers } = self.disguised(self.answer(&request));
            let nonsense = status == 400 || body.contains("no such route");
            if self.has(Fault::BreaksOnNonsense) && nonsense {
                return;
            }
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} so\r\nContent-Type: application/json\r\n{headers}\
                 Content-Length: {length}\r\n\r\n"
            );
            if stream.get_mut().write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
    }

    /// The same answer with the names and types that the faults ask for.
    fn disguised(&self, reply: Reply) -> Reply {
        let Reply { status, mut body, headers } = reply;
        for (fault, from, to) in [
            (Fault::RenamesTheNumber, "\"transaction_number\"", "\"order_id\""),
            (Fault::RenamesErrors, "\"error\"", "\"problem\""),
        ] {
            if self.has(fault) {
                body = body.replace(from, to);
            }
        }
        if self.has(Fault::RenamesTheStock) && body.contains("\"price\"") {
            body = body.replace("\"quantity\"", "\"in_stock\"");
        }
        if self.has(Fault::NumbersAreText) && status == 200 {
            let mut json: Value = serde_json::from_str(&body).unwrap();
            for value in json["data"].as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
                if value.is_number() {
                    *value = value.to_string().into();
                }
            }
            body = json.to_string();
        }
        if self.has(Fault::NumbersAreFractions) && status == 200 {
            let mut json: Value = serde_json::from_str(&body).unwrap();
            for value in json["data"].as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
                if value.is_number() {
                    *value = value.as_f64().into();
                }
            }
            body = json.to_string();
        }
        if self.has(Fault::MarksBodies) {
            body.insert(0, '\u{feff}');
        }
        if self.has(Fault::ChoosesOtherwise) && status == 409 {
            return error(400, "out of stock");
        }
        Reply { status, body, headers }
    }

    fn answer(&self, request: &Request) -> Reply {
        if self.has(Fault::ShowsAnotherOrder) {
            match request.path.as_str() {
                "/status" => return whole(&json!({ "leader": null, "processes": [] })),
                "/products?limit=1000" => return self.list(),
                _ => {}
            }
        }
        let shelf = if self.toy { "products" } else { "stocks" };
        if self.has(Fault::ChoosesOtherwise) && request.path.ends_with('/') {
            return error(404, "no such route");
        }
        let segments: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let allowed = match segments.as_slice() {
            ["orders"] => "POST",
            ["orders", _] => "GET",
            [first, _] if *first == shelf => "GET",
            _ => return error(404, "no such route"),
        };
        if request.method != allowed {
            return Reply { headers: "Allow: GET, POST\r\n", ..error(405, "not so") };
        }
        match segments.as_slice() {
            ["orders"] => self.post(request),
            ["orders", number] => self.order(number),
            [_, name] => self.query(name),
            _ => error(404, "no such route"),
        }
    }

    fn query(&self, name: &str) -> Reply {
        let state = self.state.lock().unwrap();
        let Some(product) = state.products.get(name) else { return error(404, self.missing()) };
        let (before, when) = product.before;
        let stale = self.has(Fault::ShowsTheStockBefore) && when.elapsed() < MOMENT;
        let quantity = if stale { before } else { product.quantity };
        data(&json!({ "name": name, "price": 9.5, "quantity": quantity }))
    }

    fn list(&self) -> Reply {
        let state = self.state.lock().unwrap();
        data(&state.products.keys().map(|name| json!({ "name": name })).collect())
    }

    fn missing(&self) -> &'static str {
        if self.toy { "product not found" } else { "stock not found" }
    }

    fn order(&self, number: &str) -> Reply {
        let state = self.state.lock().unwrap();
        let order = number.parse().ok().and_then(|number: usize| state.orders.get(number)?.clone());
        let Some((name, quantity, side)) = order else {
            let null = self.has(Fault::UnknownOrderIsNull) && number.parse::<u64>().is_ok();
            return if null { data(&Value::Null) } else { error(404, "order not found") };
        };
        let number: u64 = number.parse().unwrap();
        let quantity = quantity + i64::from(self.has(Fault::ShowsAnotherOrder));
        let mut order = json!({ "number": number, "name": name, "quantity": quantity });
        if !self.toy {
            order["type"] = side.into();
        }
        data(&order)
    }

    fn post(&self, request: &Request) -> Reply {
        let kind = request.headers.get("content-type").map_or("application/json", String::as_str);
        if !kind.starts_with("application/json") {
            return error(415, "that is no JSON");
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let Some((name, quantity, side)) = self.parse(&body) else {
            return error(400, "that is no order");
        };
        let key = request.headers.get("idempotency-key").filter(|_| self.keys);
        if key.is_some_and(|key| key.is_empty() || 255 < key.len()) {
            return error(400, "that is no key");
        }
        let mut state = self.state.lock().unwrap();
        let what = json!([name, quantity, side]);
        if let Some((before, reply)) = key.and_then(|key| state.keys.get(key)) {
            return match *before == what {
                true => Reply { headers: "Idempotent-Replayed: true\r\n", ..reply.clone() },
                false => error(422, "the key was used"),
            };
        }
        if self.has(Fault::LooksThenTakes)
            && state.products.get(&name).is_some_and(|product| quantity <= product.quantity)
        {
            drop(state);
            thread::sleep(MOMENT);
            return self.take(&mut self.state.lock().unwrap(), (name, quantity, side));
        }
        let reply = match state.products.get(&name) {
            None => error(404, self.missing()),
            Some(product) if side == "buy" && product.quantity < quantity => {
                if self.has(Fault::RefusalTakesANumber) {
                    state.orders.push(None);
                }
                error(409, "out of stock")
            }
            Some(_) => self.take(&mut state, (name, quantity, side)),
        };
        if let Some(key) = key
            && !(self.has(Fault::ForgetsRefusals) && reply.status != 200)
        {
            state.keys.insert(key.clone(), (what, reply.clone()));
        }
        reply
    }

    fn take(&self, state: &mut MutexGuard<'_, State>, order: (String, i64, String)) -> Reply {
        let product = state.products.get_mut(&order.0).unwrap();
        product.before = (product.quantity, Instant::now());
        product.quantity += if order.2 == "buy" { -order.1 } else { order.1 };
        let number = state.orders.len();
        state.orders.push(Some(order));
        data(&match self.toy {
            true => json!({ "order_number": number }),
            false => json!({ "transaction_number": number }),
        })
    }

    /// Name, quantity, side.
    fn parse(&self, body: &Value) -> Option<(String, i64, String)> {
        let name = body.get("name")?.as_str()?.to_owned();
        let quantity = body.get("quantity")?;
        let otherwise = self.has(Fault::ChoosesOtherwise);
        let digits = |text: &&str| !otherwise && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = match quantity.as_str().filter(digits) {
            Some(text) => text.parse().ok()?,
            None if self.has(Fault::TakesFractions) && quantity.is_f64() => {
                format!("{quantity}").split('.').next()?.parse().ok()?
            }
            None => quantity.as_i64()?,
        };
        let side = match self.toy {
            true => "buy",
            false => body.get("type")?.as_str()?,
        };
        let good = (1..=1_000_000).contains(&number) && ["buy", "sell"].contains(&side);
        good.then(|| (name, number, side.to_owned()))
    }
}

fn data(data: &Value) -> Reply {
    whole(&json!({ "data": data }))
}

fn whole(body: &Value) -> Reply {
    Reply { status: 200, body: body.to_string(), headers: "" }
}

fn error(status: u16, message: &str) -> Reply {
    let body = json!({ "error": { "code": status, "message": message } }).to_string();
    Reply { status, body, headers: "" }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}
