//! `oppidum demo`: opens a store and shows a failover, in under a minute. At a terminal the store
//! then stays open, and the user may kill and freeze its processes.

mod demo_store;

mod counter;

mod command;

mod lines;

mod prompt;

use std::io::IsTerminal;

use wire::exit::Stop;

use crate::cli::lab::Demo;
use crate::lab::cluster::{self, ClusterSpec, LEADERS, LocalCluster};
use crate::shop::{self, product_lines};
use crate::signals::Interrupt;
use demo_store::{CUSTOMERS, DemoStore};

/// Runs the demo. True: at the end all checks held.
pub(crate) async fn run(flags: Demo) -> Result<bool, Stop> {
    let interrupt = Interrupt::listen()?;
    let prompt = flags.prompt || (!flags.no_prompt && std::io::stdin().is_terminal());
    answer!(
        "The store opens: three replicas of one ledger, a catalog and a frontend, each a process."
    );
    let shop = Some(full_shop("toy")?);
    let spec = ClusterSpec { shop, log: LEADERS, ..ClusterSpec::new("toy") };
    cluster::with(&spec, &interrupt, async |cluster| {
        tour(cluster, &flags, prompt, &interrupt).await
    })
    .await
}

/// The text of a built-in shop with a stock that lasts for the whole demo.
fn full_shop(name: &str) -> Result<String, Stop> {
    const STOCK: u64 = 1_000_000;
    let (shop, _) = shop::load(name, shop::Age::New)?;
    let products = shop.products.iter();
    Ok(products.map(|product| product_lines(product.name.as_str(), product.price, STOCK)).collect())
}

async fn tour(
    cluster: &LocalCluster,
    flags: &Demo,
    prompt: bool,
    interrupt: &Interrupt,
) -> Result<bool, Stop> {
    let leader = cluster.leader().await?;
    let part = flags.part;
    let name = format!("order-{leader}");
    for process in cluster.names() {
        let leads = if process == name { "  it leads" } else { "" };
        answer!("  {process:<12} pid {}{leads}", cluster.pid(&process).unwrap_or(0));
    }
    let demo = DemoStore::open(cluster, flags.seed).await?;
    answer!("\n{CUSTOMERS} customers come to {}.", demo.url);
    demo.count(part).await;
    answer!("\nThe leader, {leader}, is killed now.");
    demo.inject_fault(&name, false).await;
    demo.count(part).await;
    answer!("\n{leader} returns, and asks the others for what it missed.");
    demo.restart(&name).await?;
    demo.count(part).await;
    if prompt {
        answer!("\nThe customers go on; now you. Try: kill, freeze, restart, buy whale 2, status,");
        answer!("verify, help. Ctrl-D ends it.");
        prompt::converse(&demo, interrupt).await?;
    }
    answer!("\nThe customers close and look every order up.");
    answer!("Every replica's history is read and replayed.");
    let well = demo.close().await?;
    if well {
        answer!("\nNo order was lost, doubled or altered. Your own: oppidum up");
    } else {
        answer!("\nA check failed: see above.");
    }
    Ok(well)
}
