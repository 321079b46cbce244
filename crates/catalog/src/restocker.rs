//! The restocker: every few seconds, proposes to restock the products that are sold out.
//!
//! The proposal acts only at stock 0, which is decided when it is applied. So any number of
//! catalogs may propose it at any rate, without an idempotency key.

use std::sync::Arc;
use std::time::Duration;

use ledger::change::Change;
use ledger::command::{Command, Request};
use ledger::terms::Quantity;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use wire::convert;
use wire::dial::Route;
use wire::peers::{Directory, Peer};
use wire::problem::Problem;
use wire::proto::{answer, ask};
use wire::stream::Caller;

use crate::state::CatalogState;

/// The time-out of one proposal.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks for products that are sold out at intervals of `every`, until `stop`.
pub(crate) async fn run(
    state: Arc<CatalogState>,
    (orders, route): (Directory, Route),
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
        for product in state.sold_out() {
            let Some(quantity) = product.restock_to else { continue };
            let command = proposal(&product, quantity);
            let voters = orders.voters();
            let proposing = propose(&voters, &route, &mut leader, &command);
            let proposed = tokio::select! {
                proposed = proposing => proposed,
                () = stop.cancelled() => return,
            };
            match proposed {
                Ok(()) => tracing::info!(
                    product = %product.name,
                    "restocked {} to {}",
                    product.name,
                    quantity.get()
                ),
                Err(why) => {
                    tracing::info!(
                        product = %product.name,
                        "{} is sold out and could not be restocked: {why}",
                        product.name
                    );
                    break;
                }
            }
        }
    }
}

/// The command proposed for a product that is sold out. It fills the stock up instead of adding to
/// it: every catalog proposes it, and the ledger restocks once.
fn proposal(product: &Change, quantity: Quantity) -> Command {
    Command::RestockTo { name: product.name.clone(), quantity }
}

/// Proposes to the leader: first to the replica that led last time, then to every other one.
async fn propose(
    orders: &[Peer],
    route: &Route,
    leader: &mut Option<Caller>,
    command: &Command,
) -> Result<(), Problem> {
    let request =
        Request { key: None, deadline: None, certificate: None, command: command.clone() };
    let what = ask::What::Request(convert::request_to(&request));
    let mut last = None;
    if let Some(caller) = leader.take() {
        match caller.ask(what.clone(), PROPOSAL_TIMEOUT).await {
            Ok(_) => {
                *leader = Some(caller);
                return Ok(());
            }
            Err(problem) => last = Some(problem),
        }
    }
    for peer in orders.iter().rev() {
        let Ok(caller) = Caller::connect(route, &peer.address).await else { continue };
        match caller.ask(what.clone(), PROPOSAL_TIMEOUT).await {
            Ok(answer) if matches!(answer.what, Some(answer::What::Outcome(_))) => {
                *leader = Some(caller);
                return Ok(());
            }
            Ok(_) => {}
            Err(problem) => last = Some(problem),
        }
    }
    let unreachable =
        || Problem::definite(wire::problem::Code::NoLeader, "no replica could be reached");
    Err(last.unwrap_or_else(unreachable))
}

#[cfg(test)]
mod tests {
    use ledger::command::{Definition, Shop};
    use ledger::ledger::{Ledger, Windows};
    use ledger::outcome::{Accepted, Outcome};
    use ledger::terms::{Cents, Index, LedgerId, Name, OrderNumber, Timestamp};

    use super::*;

    /// Three catalogs see the same product sold out and each proposes: the stock is filled up once.
    #[test]
    fn a_sold_out_product_is_restocked_once_by_any_number_of_catalogs() {
        let (name, price) = (Name::new("tux").unwrap(), Cents::new(100).unwrap());
        let restock_to = Quantity::new(100);
        let products = vec![Definition { name, price, stock: 0, restock_to }];
        let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(0));
        let open = Command::Open(Shop { ledger_id, first_order_number, products });
        let mut ledger = Ledger::new(Windows::default());
        let decide = |ledger: &mut Ledger, command| {
            let request = Request { key: None, deadline: None, certificate: None, command };
            ledger.apply(ledger.applied().next(), Timestamp(1), &request).outcome
        };
        decide(&mut ledger, open);
        let sold_out = ledger.product("tux").unwrap();
        let proposals = [(); 3].map(|()| proposal(&sold_out, sold_out.restock_to.unwrap()));
        let outcomes = proposals.map(|proposal| decide(&mut ledger, proposal));
        let [done, unchanged] = [Accepted::Done, Accepted::Unchanged].map(Outcome::Accepted);
        assert_eq!(outcomes, [done, unchanged.clone(), unchanged]);
        assert_eq!(ledger.product("tux").map(|product| product.stock), Some(100));
        assert_eq!(ledger.applied(), Index(4));
    }
}
