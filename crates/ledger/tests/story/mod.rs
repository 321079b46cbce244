//! The commands of the golden scripts, and a ledger that carries them out.
//!
//! | command | effect |
//! |---|---|
//! | `windows 2 1000` | starts a new ledger, with windows of two keys and one second each |
//! | `version 1` | the batch version of the entries that follow; the default is 2 |
//! | `at 500`, `term 2` | the stamp, and the term, of the entries that follow |
//! | `open`, `define`, `price`, `restock`, `restock_to`, `place` | a request |
//! | `attach`, `detach`, `reopen` | a request |
//! | `together`, `apply` | the requests between them form one entry |
//! | `skip` | an entry without a batch |
//! | `restart` | restores the ledger from the bytes of its state and its blocks |
//! | `ledger` | prints the shop, with the totals by which it is audited |

#![expect(clippy::arithmetic_side_effects, reason = "a story is short")]

use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{Command as Words, Context, Runner};
use ledger::block::EncodedBlock;
use ledger::codec::BATCH_VERSION;
use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
use ledger::ledger::{Entry, Ledger, Windows};
use ledger::outcome::{Accepted, Outcome};
use ledger::restore::Restoring;
use ledger::state::State;
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};
use ledger::windows::PerWindow;

type Failure = Box<dyn Error>;

/// A ledger, and the settings of its next entry.
#[derive(Debug)]
pub(crate) struct Story {
    ledger: Ledger,
    windows: Windows,
    index: u64,
    term: u64,
    version: u8,
    now: u64,
    blocks: Vec<EncodedBlock>,
    /// The requests since `together`.
    gathered: Option<Vec<Request>>,
    /// Called after each entry, with its outcomes and changes as text.
    after_each: fn(&Ledger, &str),
}

impl Story {
    /// A story whose ledger has no entry yet.
    pub(crate) fn new(after_each: fn(&Ledger, &str)) -> Self {
        let windows = Windows::default();
        Self {
            ledger: Ledger::new(windows),
            windows,
            index: 0,
            term: 1,
            version: BATCH_VERSION,
            now: 0,
            blocks: Vec::new(),
            gathered: None,
            after_each,
        }
    }

    fn apply(&mut self, requests: Vec<Request>) -> Result<String, Failure> {
        self.index += 1;
        let keys: Vec<_> = requests.iter().map(|request| request.key.clone()).collect();
        let batch = Batch { at: Timestamp(self.now), settled: Index(0), requests };
        let mut bytes = batch.encode();
        *bytes.first_mut().ok_or("a batch has a version")? = self.version;
        let entry = self.ledger.apply_bytes(Index(self.index), self.term, &bytes)?;
        let Entry { outcomes, changes, block, .. } = entry;
        self.blocks.extend(block);
        let mut lines = Vec::new();
        if outcomes.is_empty() {
            lines.push(format!("@{}", self.index));
        }
        for (key, outcome) in keys.iter().zip(&outcomes) {
            let key = key.as_ref().map_or(String::new(), |key| format!("{}: ", key.text()));
            lines.push(format!("@{} {key}{}", self.index, tell(outcome)));
        }
        let mut told = lines.join("\n");
        for change in changes {
            write!(told, "; {} {} ×{}", change.name, change.price, change.stock)?;
        }
        (self.after_each)(&self.ledger, &told);
        Ok(told + "\n")
    }

    fn restart(&mut self) -> Result<String, Failure> {
        let state = State::decode(&self.ledger.state().encode())?;
        let after = state.keys_after;
        let kept = self.blocks.iter().filter(|block| after < block.header().index);
        let kept = kept.map(|block| EncodedBlock::open(block.bytes()));
        let kept = kept.collect::<Result<Vec<_>, _>>()?;
        let told = format!("restarted at @{} with blocks: {}\n", state.applied, kept.len());
        self.ledger = Restoring::from_chain(self.windows, state).finish_with(kept)?;
        Ok(told)
    }

    fn describe(&self) -> Result<String, Failure> {
        let PerWindow { clients, client_refusals, frontends, frontend_refusals } =
            self.ledger.key_counts().shared;
        let next = self.ledger.next_order_number();
        let mut told =
            format!("next order #{next}; keys: {clients} of clients, {frontends} of frontends");
        if client_refusals + frontend_refusals != 0 {
            write!(told, "; refused: {client_refusals} and {frontend_refusals}")?;
        }
        told.push('\n');
        for product in self.ledger.products(None, usize::MAX) {
            let audited = self.ledger.audited(product.name.as_str()).ok_or("a product is lost")?;
            assert!(audited.is_conserved(), "P2");
            let (supplied, bought, sold) = (audited.supplied, audited.bought_out, audited.sold_in);
            writeln!(
                told,
                "{} {} ×{} = {supplied} supplied − {bought} bought + {sold} sold",
                product.name, product.price, product.stock
            )?;
        }
        for (who, name) in self.ledger.attached() {
            writeln!(told, "attached: {who}, {name}")?;
        }
        Ok(told)
    }
}

impl Runner for Story {
    type Command = Words;

    fn run(&mut self, words: &Words, _: &Context) -> Result<String, Failure> {
        let mut args = words.consume_args();
        let mut word = || args.next_pos().ok_or("a word is missing");
        match words.name.as_str() {
            "windows" => {
                let [keys, age]: [u64; 2] = [word()?.parse()?, word()?.parse()?];
                let keys = usize::try_from(keys)?;
                self.windows = Windows {
                    client_keys_max: keys,
                    client_refusals_max: keys,
                    client_age_max_ms: age,
                    frontend_keys_max: keys,
                    frontend_refusals_max: keys,
                    frontend_age_max_ms: age,
                };
                self.ledger = Ledger::new(self.windows);
            }
            "at" => self.now = word()?.parse()?,
            "term" => self.term = word()?.parse()?,
            "version" => self.version = word()?.parse()?,
            "together" => self.gathered = Some(Vec::new()),
            "apply" => {
                let requests = self.gathered.take().ok_or("nothing was put together")?;
                return self.apply(requests);
            }
            "skip" => {
                self.index += 1;
                self.ledger.skip_entry(Index(self.index));
                return Ok(format!("@{}\n", self.index));
            }
            "restart" => return self.restart(),
            "ledger" => return self.describe(),
            _ => {
                let request = request(words)?;
                let Some(gathered) = &mut self.gathered else { return self.apply(vec![request]) };
                gathered.push(request);
                return Ok(String::new());
            }
        }
        args.reject_next()?;
        Ok(String::new())
    }

    fn end_script(&mut self) -> Result<(), Failure> {
        if self.gathered.is_some() { Err("`together` without `apply`".into()) } else { Ok(()) }
    }
}

fn tell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted(Accepted::Placed(number)) => format!("accepted #{number}"),
        Outcome::Accepted(Accepted::Done) => "done".into(),
        Outcome::Accepted(Accepted::Unchanged) => "nothing to do".into(),
        Outcome::Refused(refusal) => format!("refused, {refusal}"),
        Outcome::Repeated { index, first } => format!("as decided @{index}: {}", tell(first)),
    }
}

/// Parses `place ann bear=1 fox=2/sell`: a key (`_`: none; `fe.ann`: a frontend's), then lines.
fn request(words: &Words) -> Result<Request, Failure> {
    let mut args = words.consume_args();
    let deadline = args.take_key("deadline").map(str::parse).transpose()?.map(Timestamp);
    let mut key = None;
    let command = match words.name.as_str() {
        "open" => {
            let first: u64 = args.take_key("first").unwrap_or("0").parse()?;
            let mut products = Vec::new();
            while let Some((name, rest)) = args.next_key() {
                products.push(definition(name, rest)?);
            }
            let (ledger_id, first_order_number) = (LedgerId([7; 16]), OrderNumber(first));
            Command::Open(Shop { ledger_id, first_order_number, products })
        }
        "define" => {
            let (name, rest) = args.next_key().ok_or("name=price/stock")?;
            Command::Define(definition(name, rest)?)
        }
        "price" => {
            let (name, price) = args.next_key().ok_or("name=price")?;
            Command::SetPrice { name: named(name)?, price: cents(price)? }
        }
        "restock" => {
            let (name, pieces) = args.next_key().ok_or("name=pieces")?;
            Command::RestockBy { name: named(name)?, quantity: quantity(pieces)? }
        }
        "restock_to" => {
            let (name, pieces) = args.next_key().ok_or("name=pieces")?;
            Command::RestockTo { name: named(name)?, quantity: quantity(pieces)? }
        }
        "place" => {
            key = keyed(args.next_pos().ok_or("a key, or _")?)?;
            let mut lines = Vec::new();
            while let Some((name, pieces)) = args.next_key() {
                let side = if pieces.ends_with("/sell") { Side::Sell } else { Side::Buy };
                let quantity = quantity(pieces.trim_end_matches("/sell"))?;
                lines.push(Line { name: named(name)?, quantity, side });
            }
            Command::Place(lines)
        }
        "attach" => {
            let incarnation = args.next_pos().ok_or("an incarnation")?.parse()?;
            let name = named(args.next_pos().unwrap_or("catalog"))?;
            Command::Attach { incarnation, name }
        }
        "reopen" => {
            let number = args.next_pos().ok_or("a number")?.parse()?;
            Command::Reopen { next_number: OrderNumber(number) }
        }
        "detach" => {
            let incarnation = args.next_pos().ok_or("an incarnation")?.parse()?;
            Command::Detach { incarnation, term: args.next_pos().ok_or("a term")?.parse()? }
        }
        other => return Err(format!("there is no command {other}").into()),
    };
    args.reject_next()?;
    Ok(Request { key, deadline, certificate: None, command })
}

fn keyed(word: &str) -> Result<Option<Key>, Failure> {
    let (origin, text) = match word.strip_prefix("fe.") {
        Some(text) => (Origin::Frontend, text),
        None => (Origin::Client, word),
    };
    if text == "_" {
        return Ok(None);
    }
    Ok(Some(Key::new(origin, text).ok_or("a bad key")?))
}

/// Parses `29.99/100`, or `29.99/100/50` for a product that is refilled to 50.
fn definition(name: &str, rest: &str) -> Result<Definition, Failure> {
    let mut parts = rest.split('/');
    let price = cents(parts.next().unwrap_or_default())?;
    let stock = parts.next().unwrap_or("0").parse()?;
    let restock_to = parts.next().map(quantity).transpose()?;
    Ok(Definition { name: named(name)?, price, stock, restock_to })
}

fn named(name: &str) -> Result<Name, Failure> {
    Name::new(name).ok_or_else(|| "a bad name".into())
}

fn cents(price: &str) -> Result<Cents, Failure> {
    let (whole, part) = price.split_once('.').ok_or("a price has two decimals")?;
    let cents = whole.parse::<u64>()? * 100 + part.parse::<u64>()?;
    Cents::new(cents).ok_or_else(|| "a bad price".into())
}

fn quantity(pieces: &str) -> Result<Quantity, Failure> {
    Quantity::new(pieces.parse()?).ok_or_else(|| "a bad quantity".into())
}
