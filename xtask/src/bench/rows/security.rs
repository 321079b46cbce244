//! What API keys, and certificates between the processes, cost an order and a query.

use anyhow::Result;

use super::orders::side;
use crate::bench::Bench;
use crate::bench::load::script::Script;
use crate::bench::report::Figures;
use crate::bench::shop::{HOT, Shop};
use crate::bench::store::{Plane, Store};
use crate::bench::turns::{Side, closed_loop, turns};

const CLIENTS: usize = 64;

/// Orders and cached queries of one store, without an API key and with one.
pub(super) fn api_keys(bench: &mut Bench) -> Result<Figures> {
    let store = Store::start(&bench.root, "keys", Shop::of(10), 1)?;
    let key = store.issue_api_key("storefront")?;
    let cpu = || store.cpu();
    let query = Script::query(&store.address, HOT);
    let bare = side("an order without a key", CLIENTS, &store, &cpu);
    let sides = [
        Side { name: "an order with a key", script: bare.script.clone().with_key(&key), ..bare },
        side("an order without a key", CLIENTS, &store, &cpu),
        Side {
            name: "a query with a key",
            script: query.clone().with_key(&key),
            ledger: None,
            ..side("", CLIENTS, &store, &cpu)
        },
        Side {
            name: "a query without a key",
            script: query,
            ledger: None,
            ..side("", CLIENTS, &store, &cpu)
        },
    ];
    let runs = turns(&bench.times, &sides)?;
    Ok(Figures::ClosedLoop(closed_loop(&runs)))
}

/// Orders of a store with certificates, and of one without.
pub(super) fn certificates(bench: &mut Bench) -> Result<Figures> {
    let secured = Store::start_on(&bench.root, "secured", Shop::of(10), 1, Plane::MutualTls)?;
    let (plain, _, times) = bench.both()?;
    let (secured_cpu, plain_cpu) = (|| secured.cpu(), || plain.cpu());
    let sides = [
        side("with certificates", CLIENTS, &secured, &secured_cpu),
        side("without", CLIENTS, plain, &plain_cpu),
    ];
    let runs = turns(times, &sides)?;
    Ok(Figures::ClosedLoop(closed_loop(&runs)))
}
