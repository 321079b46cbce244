//! One injected fault: which process is hit, how, for how long, and how the store recovers.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use wire::exit::Stop;

use crate::cli::lab::{Failover, Victim};
use crate::lab::cluster::LocalCluster;

/// The most that a replica's death may add to a request's latency (P6).
const DEATH_DELAY: Duration = Duration::from_millis(100);

/// The most that a frozen replica may add.
const FREEZE_DELAY: Duration = Duration::from_secs(1);

/// The most that a dead or frozen catalog or frontend may add: a lease and its margin.
const LEASE_DELAY: Duration = Duration::from_millis(555);

/// A fault that was injected.
#[derive(Clone, Debug)]
pub(super) struct InjectedFault {
    /// The process: `order-456`, `catalog-1`, `frontend-2`.
    pub(super) victim: String,
    /// Whether it was the leader.
    pub(super) led: bool,
    /// Whether it was frozen, not killed.
    pub(super) frozen: bool,
    /// The time of the fault.
    pub(super) injected: Instant,
    /// The time at which the process was restarted or resumed.
    pub(super) ended: Instant,
    /// The most that the fault may add to a request's latency before clients notice it.
    pub(super) within: Duration,
}

impl InjectedFault {
    /// True for a frontend: its clients must move to another one, which is no fault of the store.
    pub(super) fn moves_clients(&self) -> bool {
        self.victim.starts_with("frontend")
    }
}

/// Injects a fault, waits, restarts or resumes the process, and waits until the store is healthy.
pub(super) async fn inject(
    cluster: &LocalCluster,
    flags: &Failover,
    rng: &mut StdRng,
) -> Result<InjectedFault, Stop> {
    let leader = format!("order-{}", cluster.leader().await?);
    let victim = choose(flags.kill, &cluster.names(), &leader, rng)?;
    let led = victim == leader;
    let injected = Instant::now();
    if !cluster.inject_fault(&victim, flags.freeze).await {
        return Err(Stop::Setup(format!("{victim} cannot be killed or frozen: it does not run")));
    }
    tokio::time::sleep(flags.restart_after).await;
    let ended = Instant::now();
    let back = if flags.freeze { cluster.thaw(&victim) } else { cluster.restart(&victim) };
    if !back {
        return Err(Stop::Setup(format!("{victim} cannot be restarted")));
    }
    cluster.whole().await?;
    let within = flags.within.unwrap_or_else(|| promised(&victim, flags.freeze));
    Ok(InjectedFault { victim, led, frozen: flags.freeze, injected, ended, within })
}

fn choose(kill: Victim, names: &[String], leader: &str, rng: &mut StdRng) -> Result<String, Stop> {
    let is = |name: &&String| match kill {
        Victim::Leader => name.as_str() == leader,
        Victim::Follower => name.starts_with("order") && name.as_str() != leader,
        Victim::Random => true,
        Victim::Frontend => name.starts_with("frontend"),
        Victim::Catalog => name.starts_with("catalog"),
    };
    let victims: Vec<&String> = names.iter().filter(is).collect();
    if victims.is_empty() {
        return Err(Stop::Setup("no process matches --kill".into()));
    }
    Ok(victims[rng.random_range(0..victims.len())].clone())
}

fn promised(victim: &str, frozen: bool) -> Duration {
    match (victim.starts_with("order"), frozen) {
        (true, false) => DEATH_DELAY,
        (true, true) => FREEZE_DELAY,
        (false, _) => LEASE_DELAY,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_fault_hits_its_target_and_the_same_seed_hits_the_same() {
        let names = ["order-123", "order-345", "order-456", "catalog-1", "frontend-1"];
        let names = names.map(str::to_owned);
        let choose = |kill, seed| {
            let rng = &mut StdRng::seed_from_u64(seed);
            (0..20).map(|_| choose(kill, &names, "order-345", rng).unwrap()).collect::<Vec<_>>()
        };
        assert!(choose(Victim::Leader, 1).iter().all(|name| name == "order-345"));
        let followers = choose(Victim::Follower, 1);
        assert!(followers.iter().all(|name| name == "order-123" || name == "order-456"));
        assert!(choose(Victim::Catalog, 1).iter().all(|name| name == "catalog-1"));
        assert_eq!(choose(Victim::Random, 7), choose(Victim::Random, 7));
        assert!(names.iter().all(|name| choose(Victim::Random, 7).contains(name)));
    }

    #[test]
    fn the_promised_limit_depends_on_the_process_and_the_fault() {
        assert_eq!(promised("order-456", false), DEATH_DELAY);
        assert_eq!(promised("order-456", true), FREEZE_DELAY);
        assert_eq!(promised("catalog-1", false), LEASE_DELAY);
    }
}
