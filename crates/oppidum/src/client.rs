//! The human client: a menu to query, buy and check, in the toy store's words.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write as _};

use wire::exit::Stop;

use crate::http::{Client, Reply};

/// Asks until there is no more input. Never ends for an error: it says what went wrong and goes on.
#[expect(clippy::print_stdout, reason = "this is the program's answer")]
pub(crate) async fn run(url: &str) -> Result<(), Stop> {
    let mut client = Client::new(url)?;
    println!("Talking to the store at {url}; Ctrl-D ends.");
    loop {
        println!("Q: Query\nB: Buy\nO: Check Order");
        let Some(choice) = ask("") else { return Ok(()) };
        let done = match choice.to_ascii_lowercase().as_str() {
            "q" => query(&mut client).await,
            "b" => buy(&mut client).await,
            "o" => check(&mut client).await,
            "" => continue,
            other => {
                println!("{other:?} is not on the menu: type Q, B or O");
                continue;
            }
        };
        match done {
            Some(Ok(reply)) => println!("{}", String::from_utf8_lossy(&reply.body)),
            Some(Err(why)) => println!("The store could not be asked: {why}"),
            None => return Ok(()),
        }
    }
}

async fn query(client: &mut Client) -> Option<Result<Reply, String>> {
    let product = ask("What product do you want?")?;
    Some(client.get(&format!("/products/{}", encode(&product))).await)
}

#[expect(clippy::print_stdout, reason = "this is the program's answer")]
async fn buy(client: &mut Client) -> Option<Result<Reply, String>> {
    let name = ask("What product do you want?")?;
    let quantity = ask("How many?")?;
    println!("Attempting to buy");
    // The quantity goes as it was typed: what is wrong with it, the store says.
    let body = serde_json::json!({ "name": name, "quantity": quantity, "type": "buy" });
    Some(client.post("/orders", &[], body.to_string()).await)
}

#[expect(clippy::print_stdout, reason = "this is the program's answer")]
async fn check(client: &mut Client) -> Option<Result<Reply, String>> {
    let number = ask("What is the order number to check?")?;
    println!("Checking order number");
    Some(client.get(&format!("/orders/{}", encode(&number))).await)
}

/// The next line of input, trimmed; None at its end.
#[expect(clippy::print_stdout, reason = "this is the program's answer")]
fn ask(question: &str) -> Option<String> {
    if !question.is_empty() {
        println!("{question}");
    }
    // Whoever reads our questions may be gone; then the input ends, too.
    let _ = io::stdout().flush();
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim().to_owned()),
    }
}

/// A segment of a path, with percent signs where needed.
pub(crate) fn encode(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
