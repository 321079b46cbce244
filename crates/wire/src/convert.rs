//! Conversion between protobuf messages and the ledger's terms. A message that the ledger's types
//! cannot hold is rejected here as a `Malformed` problem, and never reaches the ledger.

use ledger::block::Order;
use ledger::change::Change;
use ledger::command::{Command, Definition, LINES_MAX, Line, Request, Side};
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::terms::{Cents, Index, Key, Name, OrderNumber, Origin, Quantity, STOCK_MAX, Timestamp};

use crate::access;
use crate::names::new_name;
use crate::problem::{Code, Problem};
use crate::proto::{self, outcome::What as Told, request::Command as Asked};

type Converted<T> = Result<T, Problem>;

fn malformed(what: &str) -> Problem {
    Problem::malformed(what)
}

/// A name from the wire.
pub fn name(text: &str) -> Converted<Name> {
    Name::new(text).ok_or_else(|| malformed("a product name"))
}

/// A request from the wire. It has no certificate: that is noted by the replica that accepts it.
pub fn request(request: proto::Request) -> Converted<Request> {
    let origin = match request.origin() {
        proto::Origin::Client => Origin::Client,
        proto::Origin::Frontend => Origin::Frontend,
    };
    let key = match request.key.as_str() {
        "" => None,
        text => Some(Key::new(origin, text).ok_or_else(|| malformed("an idempotency key"))?),
    };
    let actor = access::actor(&request.actor)?;
    if key.is_none() && actor.is_some() {
        return Err(malformed("the idempotency key of an actor"));
    }
    let key = key.map(|key| key.sent_by(actor));
    let deadline = Some(Timestamp(request.deadline_ms)).filter(|deadline| deadline.0 != 0);
    let command = request.command.ok_or_else(|| malformed("a command"))?;
    Ok(Request { key, deadline, certificate: None, command: command_from(command)? })
}

/// A request for the wire.
pub fn request_to(request: &Request) -> proto::Request {
    let origin = match request.key.as_ref().map(|key| key.origin) {
        Some(Origin::Frontend) => proto::Origin::Frontend,
        Some(Origin::Client) | None => proto::Origin::Client,
    };
    proto::Request {
        key: request.key.as_ref().map(|key| key.text().to_owned()).unwrap_or_default(),
        origin: origin.into(),
        deadline_ms: request.deadline.map_or(0, |deadline| deadline.0),
        command: command_to(&request.command),
        actor: request.key.as_ref().map(access::actor_text).unwrap_or_default(),
    }
}

fn command_from(command: Asked) -> Converted<Command> {
    Ok(match command {
        Asked::Place(place) if LINES_MAX < place.lines.len() => {
            return Err(malformed("the number of lines"));
        }
        Asked::Place(place) => {
            Command::Place(place.lines.iter().map(line).collect::<Converted<_>>()?)
        }
        Asked::Define(define) => Command::Define(Definition {
            name: new_name(&define.name).map_err(|why| Problem::definite(Code::Malformed, why))?,
            price: cents(define.price_cents)?,
            stock: stock(define.stock)?,
            restock_to: restock_to(define.restock_to)?,
        }),
        Asked::SetPrice(set) => {
            Command::SetPrice { name: name(&set.name)?, price: cents(set.price_cents)? }
        }
        Asked::RestockBy(by) => {
            Command::RestockBy { name: name(&by.name)?, quantity: quantity(by.quantity)? }
        }
        Asked::RestockTo(to) => {
            Command::RestockTo { name: name(&to.name)?, quantity: quantity(to.quantity)? }
        }
        Asked::IssueApiKey(issue) => Command::IssueApiKey(access::new_api_key(issue)?),
        Asked::RevokeApiKey(revoke) => Command::RevokeApiKey {
            id: access::id(&revoke.id)?,
            ends: access::ends(revoke.ends_ms),
        },
        Asked::SetAnonymousScopes(set) => Command::SetAnonymousScopes(access::scopes(set.scopes)?),
    })
}

fn command_to(command: &Command) -> Option<Asked> {
    Some(match command {
        Command::Place(lines) => {
            Asked::Place(proto::Place { lines: lines.iter().map(line_to).collect() })
        }
        Command::Define(definition) => Asked::Define(proto::Define {
            name: definition.name.as_str().to_owned(),
            price_cents: definition.price.get(),
            stock: definition.stock,
            restock_to: definition.restock_to.map_or(0, Quantity::get),
        }),
        Command::SetPrice { name, price } => Asked::SetPrice(proto::SetPrice {
            name: name.as_str().to_owned(),
            price_cents: price.get(),
        }),
        Command::RestockBy { name, quantity } => Asked::RestockBy(restock(name, *quantity)),
        Command::RestockTo { name, quantity } => Asked::RestockTo(restock(name, *quantity)),
        Command::IssueApiKey(new) => Asked::IssueApiKey(access::new_api_key_to(new)),
        Command::RevokeApiKey { id, ends } => Asked::RevokeApiKey(proto::RevokeApiKey {
            id: id.to_string(),
            ends_ms: ends.map_or(0, |ends| ends.0),
        }),
        Command::SetAnonymousScopes(scopes) => {
            Asked::SetAnonymousScopes(proto::SetAnonymousScopes { scopes: scopes.bits().into() })
        }
        // Only a replica proposes these commands, to its own log, so they never cross the wire.
        Command::Open(_)
        | Command::Attach { .. }
        | Command::Detach { .. }
        | Command::OperatorAction(_)
        | Command::Reopen { .. } => return None,
    })
}

fn restock(name: &Name, quantity: Quantity) -> proto::Restock {
    proto::Restock { name: name.as_str().to_owned(), quantity: quantity.get() }
}

fn line(line: &proto::Line) -> Converted<Line> {
    let side = match line.side() {
        proto::Side::Buy => Side::Buy,
        proto::Side::Sell => Side::Sell,
        proto::Side::Unknown => return Err(malformed("the side of a line")),
    };
    Ok(Line { name: name(&line.name)?, quantity: quantity(line.quantity)?, side })
}

fn line_to(line: &Line) -> proto::Line {
    let side = match line.side {
        Side::Buy => proto::Side::Buy,
        Side::Sell => proto::Side::Sell,
    };
    let name = line.name.as_str().to_owned();
    proto::Line { name, quantity: line.quantity.get(), side: side.into() }
}

fn cents(cents: u64) -> Converted<Cents> {
    Cents::new(cents).ok_or_else(|| malformed("a price"))
}

fn quantity(pieces: u64) -> Converted<Quantity> {
    Quantity::new(pieces).ok_or_else(|| malformed("a quantity"))
}

fn restock_to(pieces: u64) -> Converted<Option<Quantity>> {
    if pieces == 0 { Ok(None) } else { quantity(pieces).map(Some) }
}

fn stock(stock: u64) -> Converted<u64> {
    if stock <= STOCK_MAX { Ok(stock) } else { Err(malformed("a stock")) }
}

/// A product for the wire.
pub fn product(change: &Change) -> proto::Product {
    proto::Product {
        name: change.name.as_str().to_owned(),
        price_cents: change.price.get(),
        stock: change.stock,
        restock_to: change.restock_to.map_or(0, Quantity::get),
        version: change.version.0,
    }
}

/// A product from the wire.
pub fn product_from(product: &proto::Product) -> Converted<Change> {
    Ok(Change {
        name: name(&product.name)?,
        price: cents(product.price_cents)?,
        stock: stock(product.stock)?,
        restock_to: restock_to(product.restock_to)?,
        version: Index(product.version),
    })
}

/// An order for the wire.
pub fn order(order: &Order) -> proto::Order {
    let lines = order.lines.iter().map(line_to).collect();
    proto::Order { number: order.number.0, lines, at_ms: order.at.0 }
}

/// An order from the wire, looked up as of `index`.
pub fn order_from(order: &proto::Order, index: Index) -> Converted<Order> {
    let lines = order.lines.iter().map(line).collect::<Converted<_>>()?;
    // A replica shows an order only to those who may see it, so nothing asks whose it is.
    let (number, principal) = (OrderNumber(order.number), String::new());
    Ok(Order { number, lines, principal, at: Timestamp(order.at_ms), index })
}

/// An outcome for the wire.
pub fn outcome(outcome: &Outcome) -> proto::Outcome {
    let (repeated, outcome) = match outcome {
        Outcome::Repeated { first, .. } => (true, first.as_ref()),
        first => (false, first),
    };
    let what = match outcome {
        Outcome::Accepted(Accepted::Placed(number)) => {
            Some(Told::Placed(proto::Placed { number: number.0 }))
        }
        Outcome::Accepted(Accepted::Done) => Some(Told::Done(proto::Nothing {})),
        Outcome::Accepted(Accepted::Unchanged) => Some(Told::Unchanged(proto::Nothing {})),
        Outcome::Refused(refusal) => Some(Told::Refusal(refusal_to(refusal))),
        // The first outcome of a key is never itself `Repeated`.
        Outcome::Repeated { .. } => None,
    };
    proto::Outcome { repeated, what }
}

/// An outcome from the wire, decided at `index`.
pub fn outcome_from(outcome: proto::Outcome, index: Index) -> Converted<Outcome> {
    let first = match outcome.what.ok_or_else(|| malformed("an outcome"))? {
        Told::Placed(placed) => Outcome::Accepted(Accepted::Placed(OrderNumber(placed.number))),
        Told::Done(_) => Outcome::Accepted(Accepted::Done),
        Told::Unchanged(_) => Outcome::Accepted(Accepted::Unchanged),
        Told::Refusal(refusal) => Outcome::Refused(refusal_from(&refusal)?),
    };
    if !outcome.repeated {
        return Ok(first);
    }
    Ok(Outcome::Repeated { index, first: Box::new(first) })
}

fn refusal_to(refusal: &Refusal) -> proto::Refusal {
    let name = refusal.product().map(|name| name.as_str().to_owned()).unwrap_or_default();
    proto::Refusal { reason: i32::from(refusal.code()), name }
}

fn refusal_from(refusal: &proto::Refusal) -> Converted<Refusal> {
    let about = || name(&refusal.name);
    Ok(match refusal.reason() {
        proto::Reason::KeyReused => Refusal::KeyReused,
        proto::Reason::Late => Refusal::Late,
        proto::Reason::NotOpen => Refusal::NotOpen,
        proto::Reason::LinesOutOfRange => Refusal::LinesOutOfRange,
        proto::Reason::ProductExists => Refusal::ProductExists(about()?),
        proto::Reason::NoSuchProduct => Refusal::NoSuchProduct(about()?),
        proto::Reason::OutOfStock => Refusal::OutOfStock(about()?),
        proto::Reason::StockLimit => Refusal::StockLimit(about()?),
        proto::Reason::CatalogsLimit => Refusal::CatalogsLimit,
        proto::Reason::NumbersExhausted => Refusal::NumbersExhausted,
        proto::Reason::NotAuthenticated => Refusal::NotAuthenticated,
        proto::Reason::NotAllowed => Refusal::NotAllowed,
        proto::Reason::ApiKeyExists => Refusal::ApiKeyExists,
        proto::Reason::NoSuchApiKey => Refusal::NoSuchApiKey,
        proto::Reason::ApiKeysLimit => Refusal::ApiKeysLimit,
        proto::Reason::Unknown => return Err(malformed("the reason of a refusal")),
    })
}
