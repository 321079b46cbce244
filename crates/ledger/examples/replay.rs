//! Replays a script and prints the shop after each entry: `cargo run -p ledger --example replay`.
//!
//! Its argument is the path of any script of the tests; by default, the last bear is sold once.

#![expect(clippy::print_stdout, reason = "this is the program's answer")]

#[path = "../tests/story/mod.rs"]
mod story;

use ledger::ledger::Ledger;
use story::Story;

const LAST_BEAR: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/the_last_bear_is_sold_once");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let script = std::env::args().nth(1).unwrap_or_else(|| LAST_BEAR.into());
    let text = std::fs::read_to_string(&script).map_err(|error| format!("{script}: {error}"))?;
    goldenscript::generate(&mut Story::new(print), &text)?;
    Ok(())
}

/// Prints the outcomes of an entry, and the shop after it.
fn print(ledger: &Ledger, told: &str) {
    let (at, next) = (ledger.log_time().0, ledger.next_order_number());
    let digest: String = ledger.digest().to_string().chars().take(12).collect();
    println!("{told}");
    println!("  log time {at}, next order #{next}, digest {digest}");
    for product in ledger.products(None, usize::MAX) {
        let (price, version) = (product.price.to_string(), product.version);
        println!("  {:<12} {price:>8} ×{:<6} since entry {version}", product.name, product.stock);
    }
}
