//! `oppidum demo`: the store's story, told as it happens, from nothing, in under a minute. At a
//! terminal the store then stays open for whoever wants to break it.

mod scene;

mod counter;

mod command;

mod prompt;

use std::io::IsTerminal;

use wire::exit::Stop;

use crate::cli_lab::Demo;
use crate::lab::interrupt::Interrupt;
use crate::lab::stage::{self, LEADERS, Set, Stage};
use crate::lab::tell;
use scene::{CUSTOMERS, Scene};

/// Tells it. True: at the end everything was as it must be.
pub(crate) async fn run(flags: Demo) -> Result<bool, Stop> {
    let interrupt = Interrupt::listen()?;
    let prompt = flags.prompt || (!flags.no_prompt && std::io::stdin().is_terminal());
    tell(
        "The store opens: three replicas of one ledger, a catalog and a frontend, each a process.",
    );
    // Nothing is sold out while somebody looks on.
    let stock = Some(1_000_000);
    let set =
        Set { dialect: "toy", stock, frontends: 1, catalogs: 1, cache: "5".into(), log: LEADERS };
    stage::with(&set, &interrupt, async |stage| tale(stage, &flags, prompt).await).await
}

async fn tale(stage: &Stage, flags: &Demo, prompt: bool) -> Result<bool, Stop> {
    let (leader, part) = (stage.leader().await?, flags.part);
    let name = format!("order-{leader}");
    for process in stage.names() {
        let leads = if process == name { "  it leads" } else { "" };
        tell(format!("  {process:<12} pid {}{leads}", stage.pid(&process).unwrap_or(0)));
    }
    let scene = Scene::open(stage, flags.seed).await?;
    tell(format!("\n{CUSTOMERS} customers come to {}.", scene.url));
    scene.count(part).await;
    tell(format!("\nThe leader, {leader}, is killed before your eyes."));
    scene.kill(&name).await;
    scene.count(part).await;
    tell(format!("\n{leader} returns, and asks the others for what it missed."));
    scene.restart(&name).await?;
    scene.count(part).await;
    if prompt {
        tell("\nThe customers go on; now you. Try: kill, freeze, restart, buy whale 2, status,");
        tell("verify, help. Ctrl-D ends it.");
        prompt::converse(&scene).await?;
    }
    tell("\nThe customers close and look every order up.");
    tell("Every replica's history is read and replayed.");
    let well = scene.close().await?;
    match well {
        true => tell("\nNo order was lost, doubled or altered. Your own: oppidum up"),
        false => tell("\nSomething is not as it must be: see above."),
    }
    Ok(well)
}
