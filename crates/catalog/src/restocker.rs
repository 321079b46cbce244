//! Proposes to fill up what is sold out: every few seconds, for the products that want it.
//!
//! The proposal acts only at stock 0, decided when it is applied, so any number of catalogs may
//! make it, as often as they like, without a key.

use std::sync::Arc;
use std::time::Duration;

use ledger::command::{Command, Request};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use wire::convert;
use wire::peers::{Directory, Peer};
use wire::problem::Problem;
use wire::proto::{answer, ask};
use wire::stream::Caller;

use crate::desk::Desk;

/// How long one proposal may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks every `every`, until `stop`.
pub(crate) async fn run(
    desk: Arc<Desk>,
    orders: Directory,
    every: Duration,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leader = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        tracing::info!("Checking stock");
        for product in desk.sold_out() {
            let Some(quantity) = product.restock_to else { continue };
            let name = product.name.clone();
            let command = Command::RestockTo { name, quantity };
            let voters = orders.voters();
            let proposing = propose(&voters, &mut leader, &command);
            let proposed = tokio::select! {
                proposed = proposing => proposed,
                () = stop.cancelled() => return,
            };
            match proposed {
                Ok(()) => tracing::info!("restocked {} to {}", product.name, quantity.get()),
                Err(why) => {
                    tracing::info!(
                        "{} is sold out and could not be restocked: {why}",
                        product.name
                    );
                    break;
                }
            }
        }
    }
}

/// Proposes to whoever leads: the one that did last time first, then everybody.
async fn propose(
    orders: &[Peer],
    leader: &mut Option<Caller>,
    command: &Command,
) -> Result<(), Problem> {
    let request = Request { key: None, deadline: None, command: command.clone() };
    let what = ask::What::Request(convert::request_to(&request));
    let mut last = None;
    if let Some(caller) = leader.take() {
        match caller.ask(what.clone(), PATIENCE).await {
            Ok(_) => {
                *leader = Some(caller);
                return Ok(());
            }
            Err(problem) => last = Some(problem),
        }
    }
    for peer in orders.iter().rev() {
        let Ok(caller) = Caller::connect(&peer.address).await else { continue };
        match caller.ask(what.clone(), PATIENCE).await {
            Ok(answer) if matches!(answer.what, Some(answer::What::Outcome(_))) => {
                *leader = Some(caller);
                return Ok(());
            }
            Ok(_) => {}
            Err(problem) => last = Some(problem),
        }
    }
    let nobody = || Problem::definite(wire::problem::Code::NoLeader, "no replica could be reached");
    Err(last.unwrap_or_else(nobody))
}
