//! The prompt after the demo: the user kills and freezes processes, and the orders go on.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wire::exit::Stop;

use super::command::{DemoCommand, HELP, Target, parse};
use super::counter::grouped;
use super::demo_store::{DemoStore, verify};
use super::lines::TypedLines;
use crate::http::Client;
use crate::inspect;
use crate::output::ms;
use crate::signals::Interrupt;

/// How long the orders are counted after an injected fault.
const LOOK: Duration = Duration::from_millis(1_500);

/// Runs commands until the input ends, and then restarts and resumes all processes.
pub(super) async fn converse(demo: &DemoStore<'_>, interrupt: &Interrupt) -> Result<(), Stop> {
    let is_typed = std::io::stdin().is_terminal();
    let mut lines = TypedLines::open(interrupt.stop.clone());
    let mut frozen = BTreeSet::new();
    loop {
        let prompt = || format!("{} orders> ", grouped(demo.orders()));
        let shown = if is_typed { prompt() } else { String::new() };
        if is_typed {
            answer!("");
        }
        let Some(line) = lines.next(shown).await else {
            if !lines.is_edited() {
                answer!("");
            }
            break;
        };
        if !is_typed {
            answer!("\n{}{}", prompt(), line.trim());
        }
        match parse(&line, &demo.cluster.names()) {
            Ok(DemoCommand::Quit) => break,
            Ok(command) => perform(demo, command, &mut frozen).await?,
            Err(why) => answer!("  {why}"),
        }
    }
    for name in demo.cluster.names() {
        demo.cluster.thaw(&name);
        demo.cluster.restart(&name);
    }
    demo.cluster.whole().await
}

async fn perform(
    demo: &DemoStore<'_>,
    command: DemoCommand,
    frozen: &mut BTreeSet<String>,
) -> Result<(), Stop> {
    match command {
        DemoCommand::Kill(target) => {
            let name = named(demo, target).await?;
            frozen.remove(&name);
            if demo.inject_fault(&name, false).await {
                demo.count(LOOK).await;
            } else {
                answer!("  {name} is down already: restart brings it back");
            }
        }
        DemoCommand::Freeze(target) => {
            let name = named(demo, target).await?;
            if demo.inject_fault(&name, true).await {
                frozen.insert(name);
                demo.count(LOOK).await;
            } else {
                answer!("  {name} is down: restart brings it back");
            }
        }
        DemoCommand::Thaw(target) => {
            let names = match target {
                Some(target) => vec![named(demo, target).await?],
                None => frozen.iter().cloned().collect(),
            };
            if names.is_empty() {
                answer!("  no process is frozen");
            }
            for name in names {
                frozen.remove(&name);
                let went = demo.cluster.thaw(&name);
                answer!("  {name} {}", if went { "goes on" } else { "is down" });
            }
        }
        DemoCommand::Restart(target) => {
            let names = match target {
                Some(target) => vec![named(demo, target).await?],
                None => down(demo),
            };
            if names.is_empty() {
                answer!("  no process is down");
            }
            for name in names {
                if !demo.restart(&name).await? {
                    answer!("  {name} runs");
                }
            }
        }
        DemoCommand::Buy { name, quantity } => buy(demo, &name, &quantity).await,
        DemoCommand::Status => {
            if let Err(stop) = inspect::status(&demo.url, false).await {
                answer!("  {stop}");
            }
        }
        DemoCommand::Verify => {
            if let Err(stop) = verify(&demo.url).await {
                answer!("  {stop}: restart it first");
            }
        }
        DemoCommand::Help => answer!("{HELP}"),
        DemoCommand::Nothing | DemoCommand::Quit => {}
    }
    Ok(())
}

async fn named(demo: &DemoStore<'_>, target: Target) -> Result<String, Stop> {
    match target {
        Target::Named(name) => Ok(name),
        Target::Leader => Ok(format!("order-{}", demo.cluster.leader().await?)),
    }
}

fn down(demo: &DemoStore<'_>) -> Vec<String> {
    let names = demo.cluster.names().into_iter();
    names.filter(|name| demo.cluster.pid(name).is_none()).collect()
}

async fn buy(demo: &DemoStore<'_>, name: &str, quantity: &str) {
    let began = Instant::now();
    // The quantity is sent as it was typed; the store reports what is wrong with it.
    let body = json!({ "name": name, "quantity": quantity }).to_string();
    let asked = match Client::new(&demo.url) {
        Ok(mut client) => client.post("/orders", &[], body).await,
        Err(stop) => Err(stop.to_string()),
    };
    let said = match asked.and_then(|reply| reply.json()) {
        Ok(Value::Object(body)) => {
            match body.get("data").and_then(|d| d["order_number"].as_u64()) {
                Some(number) => format!("order number {}, after {}", number, ms(began.elapsed())),
                None => {
                    let why = body.get("error").and_then(|error| error["message"].as_str());
                    format!("refused: {}", why.unwrap_or("it does not say why"))
                }
            }
        }
        Ok(other) => format!("an odd answer: {other}"),
        Err(why) => format!("the frontend could not be asked: {why}"),
    };
    answer!("  {said}");
}
