//! The operator's commands for leadership and damage: transfer and repair.
//!
//! These commands go to the leader's internal listener, which they find through a frontend.

use std::time::Duration;

use tonic::Code;
use wire::dial;
use wire::exit::Stop;
use wire::proto::control_client::ControlClient;
use wire::proto::{RepairAsk, TransferTo};
use wire::status::StoreStatus;

use crate::inspect;
use crate::internal_plane;
use crate::output::ms;

/// How long a connection to the leader may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A fresh idempotency key of a command, which the log announces once.
pub(crate) fn command_key() -> String {
    format!("operator-{:032x}", rand::random::<u128>())
}

/// `oppidum ctl transfer`. False: the leader denies it, with the reason.
pub(crate) async fn transfer(url: &str, to: u64) -> Result<bool, Stop> {
    let store = inspect::fetch(url).await?;
    let (id, address) = leading(&store)?;
    let no = |why: String| Stop::Setup(format!("replica {id} at {address} cannot be asked: {why}"));
    let route = internal_plane::to_replica(Some(id))?;
    let channel = dial::channel(&route, address, CONNECT_TIMEOUT).await;
    let channel = channel.map_err(|error| no(error.to_string()))?;
    let request = TransferTo { to, key: command_key() };
    match ControlClient::new(channel).transfer(request).await {
        Ok(done) => {
            let pause = Duration::from_micros(done.into_inner().pause_us);
            if pause.is_zero() {
                answer!("{to} leads already");
            } else {
                answer!("{to} leads; orders waited for {}", ms(pause));
            }
            Ok(true)
        }
        Err(status) if status.code() == Code::FailedPrecondition => {
            answer!("{}", status.message());
            Ok(false)
        }
        Err(status) => Err(no(status.message().to_owned())),
    }
}

/// The leader's id and address. Without a leader the transfer is neither done nor denied.
fn leading(store: &StoreStatus) -> Result<(u64, &str), Stop> {
    match store.leading() {
        Some(leader) => Ok((store.leader.unwrap_or(0), &leader.address)),
        None => Err(Stop::Setup(
            "no replica leads just now: see `oppidum status`, and try again".into(),
        )),
    }
}

/// `oppidum ctl repair`. False: some damage cannot be repaired.
pub(crate) async fn repair(url: &str, id: u64) -> Result<bool, Stop> {
    let store = inspect::fetch(url).await?;
    let Some(replica) = store.processes.iter().find(|process| process.id == Some(id)) else {
        return Err(Stop::Setup(format!("there is no replica {id}: see `oppidum status`")));
    };
    let address = &replica.address;
    let no = |why: String| Stop::Setup(format!("replica {id} at {address} cannot be asked: {why}"));
    let route = internal_plane::to_replica(Some(id))?;
    let channel = dial::channel(&route, address, CONNECT_TIMEOUT).await;
    let channel = channel.map_err(|error| no(error.to_string()))?;
    match ControlClient::new(channel).repair(RepairAsk { key: command_key() }).await {
        Ok(done) => {
            let done = done.into_inner();
            let at: Vec<String> = done.mended.iter().map(u64::to_string).collect();
            if at.is_empty() {
                answer!("{} blocks read, none is damaged", done.checked);
            } else {
                answer!("{} blocks read, mended at index {}", done.checked, at.join(", "));
            }
            Ok(true)
        }
        Err(status) if status.code() == Code::DataLoss => {
            answer!("{}", status.message());
            Ok(false)
        }
        Err(status) => Err(no(status.message().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use wire::status::ProcessStatus;

    use super::*;

    /// Kind: the answer "no" where nothing was decided, after which a script does not try
    /// again.
    #[test]
    fn without_a_leader_a_transfer_is_not_decided() {
        let processes = vec![ProcessStatus {
            role: "order".into(),
            id: Some(456),
            address: "a:1".into(),
            ..ProcessStatus::default()
        }];
        let led = StoreStatus { leader: Some(456), processes: processes.clone() };
        assert_eq!(leading(&led).ok(), Some((456, "a:1")));
        let not_led = StoreStatus { leader: None, processes };
        assert!(matches!(leading(&not_led), Err(Stop::Setup(why)) if why.contains("no replica")));
    }
}
