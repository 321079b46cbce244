//! The interactive client: a menu to query, buy and look orders up, in the toy store's words.

use std::io::{self, BufRead};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use wire::exit::Stop;

use crate::http::{Client, Reply};
use crate::output;

/// Asks until the input ends. An error does not end it: the client prints the error and goes on.
/// `said` holds the settings, as every process of the toy store shows them first.
pub(crate) async fn run(url: &str, said: &[String]) -> Result<(), Stop> {
    let mut client = Client::new(url)?;
    for line in said {
        answer!("{line}");
    }
    loop {
        answer!("Q: Query\nB: Buy\nO: Check Order");
        let Some(choice) = ask("") else { return Ok(()) };
        let done = match choice.to_ascii_lowercase().as_str() {
            "q" => query(&mut client).await,
            "b" => buy(&mut client).await,
            "o" => check(&mut client).await,
            "" => continue,
            other => {
                answer!("{other:?} is not on the menu: type Q, B or O");
                continue;
            }
        };
        match done {
            Some(Ok(reply)) => answer!("{}", String::from_utf8_lossy(&reply.body)),
            Some(Err(why)) => answer!("The store could not be asked: {why}"),
            None => return Ok(()),
        }
    }
}

async fn query(client: &mut Client) -> Option<Result<Reply, String>> {
    let product = named("What product do you want?", "a product's name")?;
    Some(client.get(&format!("/products/{}", encode(&product))).await)
}

async fn buy(client: &mut Client) -> Option<Result<Reply, String>> {
    let name = named("What product do you want?", "a product's name")?;
    let quantity = ask("How many?")?;
    answer!("Attempting to buy");
    // The quantity is sent as it was typed; the store reports what is wrong with it.
    let body = serde_json::json!({ "name": name, "quantity": quantity, "type": "buy" });
    Some(client.post("/orders", &[], body.to_string()).await)
}

async fn check(client: &mut Client) -> Option<Result<Reply, String>> {
    let number = named("What is the order number to check?", "an order's number")?;
    answer!("Checking order number");
    Some(client.get(&format!("/orders/{}", encode(&number))).await)
}

/// The next line of input that is not empty.
fn named(question: &str, what: &str) -> Option<String> {
    loop {
        let line = ask(question)?;
        if !line.is_empty() {
            return Some(line);
        }
        answer!("Type {what}; Ctrl-D ends");
    }
}

/// The next line of input, trimmed; None at its end.
fn ask(question: &str) -> Option<String> {
    if !question.is_empty() {
        answer!("{question}");
    }
    // When stdout is closed, the input ends too.
    if output::reader_gone().is_cancelled() {
        return None;
    }
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim().to_owned()),
    }
}

/// Percent-encodes a path segment.
pub(crate) fn encode(segment: &str) -> String {
    /// All but the unreserved characters of RFC 3986.
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(segment, RESERVED).to_string()
}
