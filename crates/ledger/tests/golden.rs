//! Stories about the ledger: every script in `scripts/` is run, and its lines are compared.
//!
//! To write them anew: `UPDATE_GOLDENFILES=1 cargo test -p ledger --test golden`; then read the
//! difference until it is understood.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has found something"
)]

use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{Command as Words, Context, Runner};
use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
use ledger::ledger::{Ledger, Windows};
use ledger::outcome::{Accepted, Outcome};
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};

type Failure = Box<dyn Error>;

/// One ledger, and the words that it is told.
struct Story {
    ledger: Ledger,
    index: u64,
    term: u64,
    now: u64,
}

#[test]
fn every_script_tells_what_happens() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(10 <= scripts.len(), "{scripts:?}");
    for script in scripts {
        let ledger = Ledger::new(Windows::default());
        let mut story = Story { ledger, index: 0, term: 1, now: 0 };
        goldenscript::run(&mut story, &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
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
                self.ledger = Ledger::new(Windows {
                    client_keys_max: keys,
                    client_age_max_ms: age,
                    frontend_keys_max: keys,
                    frontend_age_max_ms: age,
                });
                return Ok(String::new());
            }
            "at" => {
                self.now = word()?.parse()?;
                return Ok(String::new());
            }
            "term" => {
                self.term = word()?.parse()?;
                return Ok(String::new());
            }
            "skip" => {
                self.index += 1;
                self.ledger.skip_entry(Index(self.index));
                return Ok(format!("@{}\n", self.index));
            }
            "ledger" => return Ok(self.describe()),
            _ => {}
        }
        let request = request(words)?;
        self.index += 1;
        let batch = Batch { at: Timestamp(self.now), settled: Index(0), requests: vec![request] };
        let key = batch.requests[0].key.clone();
        let entry = self.ledger.apply_entry(Index(self.index), self.term, batch);
        let mut told = format!("@{} ", self.index);
        if let Some(key) = key {
            write!(told, "{}: ", key.text())?;
        }
        told.push_str(&tell(&entry.outcomes[0]));
        for change in &entry.changes {
            write!(told, "; {} {} ×{}", change.name, change.price, change.stock)?;
        }
        Ok(told + "\n")
    }
}

impl Story {
    fn describe(&self) -> String {
        let (clients, frontends) = self.ledger.key_counts();
        let next = self.ledger.next_order_number();
        let mut told =
            format!("next order #{next}; keys: {clients} of clients, {frontends} of frontends\n");
        for product in self.ledger.products(None, usize::MAX) {
            let audited = self.ledger.audited(product.name.as_str()).unwrap();
            assert!(audited.is_conserved(), "P2");
            let (supplied, bought, sold) = (audited.supplied, audited.bought_out, audited.sold_in);
            let _ = writeln!(
                told,
                "{} {} ×{} = {supplied} supplied − {bought} bought + {sold} sold",
                product.name, product.price, product.stock
            );
        }
        for (who, name) in self.ledger.attached() {
            let _ = writeln!(told, "attached: {who}, {name}");
        }
        told
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

/// `place ann bear=1 fox=2/sell`: a key (`_`: none; `fe.ann`: of a frontend), then lines.
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
        "detach" => {
            let incarnation = args.next_pos().ok_or("an incarnation")?.parse()?;
            Command::Detach { incarnation, term: args.next_pos().ok_or("a term")?.parse()? }
        }
        other => return Err(format!("there is no command {other}").into()),
    };
    args.reject_next()?;
    Ok(Request { key, deadline, command })
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

/// `29.99/100`, or `29.99/100/50` for one that is filled up to 50.
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
