//! The store's operator at work: who leads.
//!
//! These commands go to the leader's internal listener, which they find through a frontend.

use std::time::Duration;

use tonic::Code;
use wire::exit::Stop;
use wire::net;
use wire::proto::TransferTo;
use wire::proto::control_client::ControlClient;

use crate::inspect;

/// How long a connection to the leader may take.
const CONNECT: Duration = Duration::from_secs(2);

/// `oppidum ctl transfer`. False: the leader says why it cannot be done.
#[expect(clippy::print_stdout, reason = "this is the program's answer")]
pub(crate) async fn transfer(url: &str, to: u64) -> Result<bool, Stop> {
    let store = inspect::fetch(url).await?;
    let leader = store.processes.iter().find(|p| p.id.is_some() && p.id == store.leader);
    let Some(leader) = leader else {
        println!("no replica leads just now: see `oppidum status`");
        return Ok(false);
    };
    let (id, address) = (store.leader.unwrap_or(0), &leader.address);
    let no = |why: String| Stop::Setup(format!("replica {id} at {address} cannot be asked: {why}"));
    let channel = net::channel(address, CONNECT).await.map_err(|error| no(error.to_string()))?;
    match ControlClient::new(channel).transfer(TransferTo { to }).await {
        Ok(done) => {
            let pause = Duration::from_micros(done.into_inner().pause_us);
            match pause.is_zero() {
                true => println!("{to} leads already"),
                false => println!("{to} leads; orders waited for {:.0} ms", millis(pause)),
            }
            Ok(true)
        }
        Err(status) if status.code() == Code::FailedPrecondition => {
            println!("{}", status.message());
            Ok(false)
        }
        Err(status) => Err(no(status.message().to_owned())),
    }
}

fn millis(pause: Duration) -> f64 {
    pause.as_secs_f64() * 1_000.0
}
