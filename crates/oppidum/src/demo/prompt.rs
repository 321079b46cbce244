//! The prompt after the story: whoever sits at the terminal breaks things, and the orders go on.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use wire::exit::Stop;

use super::command::{Command, HELP, Target, parse};
use super::counter::{grouped, ms};
use super::scene::{Scene, verify};
use crate::http::Client;
use crate::inspect;
use crate::lab::tell;
use crate::output;

/// How long the orders are counted after an accident.
const LOOK: Duration = Duration::from_millis(1_500);

/// Takes commands until there are no more, and then mends what they broke.
pub(super) async fn converse(scene: &Scene<'_>) -> Result<(), Stop> {
    let typed = std::io::stdin().is_terminal();
    let mut lines = lines();
    let mut frozen = BTreeSet::new();
    loop {
        if typed {
            output::answer_part(format_args!("\n{} orders> ", grouped(scene.orders())));
        }
        let Some(line) = lines.recv().await else {
            tell("");
            break;
        };
        if !typed {
            tell(format!("\n{} orders> {}", grouped(scene.orders()), line.trim()));
        }
        match parse(&line, &scene.stage.names()) {
            Ok(Command::Quit) => break,
            Ok(command) => perform(scene, command, &mut frozen).await?,
            Err(why) => tell(format!("  {why}")),
        }
    }
    for name in scene.stage.names() {
        scene.stage.thaw(&name);
        scene.stage.restart(&name);
    }
    scene.stage.whole().await
}

/// The lines that are typed. The thread that reads them ends with the program.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn perform(
    scene: &Scene<'_>,
    command: Command,
    frozen: &mut BTreeSet<String>,
) -> Result<(), Stop> {
    match command {
        Command::Kill(target) => {
            let name = named(scene, target).await?;
            frozen.remove(&name);
            match scene.kill(&name).await {
                true => scene.count(LOOK).await,
                false => tell(format!("  {name} is down already: restart brings it back")),
            }
        }
        Command::Freeze(target) => {
            let name = named(scene, target).await?;
            match scene.freeze(&name).await {
                true => {
                    frozen.insert(name);
                    scene.count(LOOK).await;
                }
                false => tell(format!("  {name} is down: restart brings it back")),
            }
        }
        Command::Thaw(target) => {
            let names = match target {
                Some(target) => vec![named(scene, target).await?],
                None => frozen.iter().cloned().collect(),
            };
            if names.is_empty() {
                tell("  nobody is frozen");
            }
            for name in names {
                frozen.remove(&name);
                let went = scene.stage.thaw(&name);
                tell(format!("  {name} {}", if went { "goes on" } else { "is down" }));
            }
        }
        Command::Restart(target) => {
            let names = match target {
                Some(target) => vec![named(scene, target).await?],
                None => down(scene),
            };
            if names.is_empty() {
                tell("  nobody is down");
            }
            for name in names {
                if !scene.restart(&name).await? {
                    tell(format!("  {name} runs"));
                }
            }
        }
        Command::Buy { name, quantity } => buy(scene, &name, &quantity).await,
        Command::Status => {
            if let Err(stop) = inspect::status(&scene.url, false).await {
                tell(format!("  {stop}"));
            }
        }
        Command::Verify => {
            if let Err(stop) = verify(&scene.url).await {
                tell(format!("  {stop}: restart it first"));
            }
        }
        Command::Help => tell(HELP),
        Command::Nothing | Command::Quit => {}
    }
    Ok(())
}

async fn named(scene: &Scene<'_>, target: Target) -> Result<String, Stop> {
    match target {
        Target::Named(name) => Ok(name),
        Target::Leader => Ok(format!("order-{}", scene.stage.leader().await?)),
    }
}

fn down(scene: &Scene<'_>) -> Vec<String> {
    let names = scene.stage.names().into_iter();
    names.filter(|name| scene.stage.pid(name).is_none()).collect()
}

async fn buy(scene: &Scene<'_>, name: &str, quantity: &str) {
    let began = Instant::now();
    // The quantity goes as it was typed: what is wrong with it, the store says.
    let body = json!({ "name": name, "quantity": quantity }).to_string();
    let asked = match Client::new(&scene.url) {
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
    tell(format!("  {said}"));
}
