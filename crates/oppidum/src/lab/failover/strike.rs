//! One accident: who is struck, how, for how long, and how the store is made whole again.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use wire::exit::Stop;

use crate::cli_lab::{Failover, Victim};
use crate::lab::stage::Stage;

/// The most that P6 allows a replica's death to add to what requests take.
const DEATH: Duration = Duration::from_millis(100);

/// The most that a replica which falls silent adds.
const SILENCE: Duration = Duration::from_secs(1);

/// The most that a catalog or a frontend adds which dies or falls silent: a lease and its margin.
const LEASE: Duration = Duration::from_millis(555);

/// An accident that happened.
#[derive(Clone, Debug)]
pub(super) struct Strike {
    /// Who: `order-456`, `catalog-1`, `frontend-2`.
    pub(super) victim: String,
    /// Whether it led.
    pub(super) led: bool,
    /// Frozen, or killed.
    pub(super) frozen: bool,
    /// When.
    pub(super) struck: Instant,
    /// When it was started again, or let go on.
    pub(super) mended: Instant,
    /// The most that it may add to what requests take, for clients not to notice.
    pub(super) within: Duration,
}

impl Strike {
    /// Its clients have to go to another frontend: that is no fault of the store.
    pub(super) fn moves_clients(&self) -> bool {
        self.victim.starts_with("frontend")
    }
}

/// Strikes, waits, mends, and waits until the store is whole again.
pub(super) async fn strike(
    stage: &Stage,
    flags: &Failover,
    luck: &mut StdRng,
) -> Result<Strike, Stop> {
    let leader = format!("order-{}", stage.leader().await?);
    let victim = choose(flags.kill, &stage.names(), &leader, luck)?;
    let led = victim == leader;
    let struck = Instant::now();
    let hit = match flags.freeze {
        true => stage.freeze(&victim),
        false => stage.kill(&victim).await,
    };
    if !hit {
        return Err(Stop::Setup(format!("{victim} cannot be struck: it does not run")));
    }
    tokio::time::sleep(flags.restart_after).await;
    let mended = Instant::now();
    let back = match flags.freeze {
        true => stage.thaw(&victim),
        false => stage.restart(&victim),
    };
    if !back {
        return Err(Stop::Setup(format!("{victim} cannot be brought back")));
    }
    stage.whole().await?;
    let within = flags.within.unwrap_or_else(|| promised(&victim, flags.freeze));
    Ok(Strike { victim, led, frozen: flags.freeze, struck, mended, within })
}

fn choose(kill: Victim, names: &[String], leader: &str, luck: &mut StdRng) -> Result<String, Stop> {
    let is = |name: &&String| match kill {
        Victim::Leader => name.as_str() == leader,
        Victim::Follower => name.starts_with("order") && name.as_str() != leader,
        Victim::Random => true,
        Victim::Frontend => name.starts_with("frontend"),
        Victim::Catalog => name.starts_with("catalog"),
    };
    let victims: Vec<&String> = names.iter().filter(is).collect();
    if victims.is_empty() {
        return Err(Stop::Setup("there is nobody to strike".into()));
    }
    Ok(victims[luck.random_range(0..victims.len())].clone())
}

fn promised(victim: &str, frozen: bool) -> Duration {
    match (victim.starts_with("order"), frozen) {
        (true, false) => DEATH,
        (true, true) => SILENCE,
        (false, _) => LEASE,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_right_ones_are_struck_and_the_same_seed_strikes_the_same() {
        let names = ["order-123", "order-345", "order-456", "catalog-1", "frontend-1"];
        let names = names.map(str::to_owned);
        let choose = |kill, seed| {
            let luck = &mut StdRng::seed_from_u64(seed);
            (0..20).map(|_| choose(kill, &names, "order-345", luck).unwrap()).collect::<Vec<_>>()
        };
        assert!(choose(Victim::Leader, 1).iter().all(|name| name == "order-345"));
        let followers = choose(Victim::Follower, 1);
        assert!(followers.iter().all(|name| name == "order-123" || name == "order-456"));
        assert!(choose(Victim::Catalog, 1).iter().all(|name| name == "catalog-1"));
        assert_eq!(choose(Victim::Random, 7), choose(Victim::Random, 7));
        assert!(names.iter().all(|name| choose(Victim::Random, 7).contains(name)));
    }

    #[test]
    fn the_promise_depends_on_who_is_struck_and_how() {
        assert_eq!(promised("order-456", false), DEATH);
        assert_eq!(promised("order-456", true), SILENCE);
        assert_eq!(promised("catalog-1", false), LEASE);
    }
}
