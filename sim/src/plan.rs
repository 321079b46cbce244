//! The plan of a run: the number of processes, the duration, and the faults.

use std::time::Duration;

use ledger::command::Definition;
use ledger::terms::{Cents, Name, OrderNumber};
use order::Shop;
use order::history::write_demand::WritePace;

use ground::disk::DiskMutants;
use ground::rng::Rng;

/// Ids of replicas, lowest first: the first three, or all.
pub const IDS: [u64; 5] = [123, 345, 456, 567, 678];

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of every random choice.
    pub seed: u64,
    /// The number of replicas: 3 or 5.
    pub replicas: usize,
    /// The number of catalogs.
    pub catalogs: usize,
    /// The number of frontends.
    pub frontends: usize,
    /// The number of customers that talk to replicas directly.
    pub customers: usize,
    /// The percentage of the shoppers' orders without a key.
    pub keyless: u64,
    /// How long faults go on, in steps.
    pub chaos: u64,
    /// The mean time between two faults, in steps.
    pub every: u64,
    /// The faults that may happen.
    pub faults: Faults,
    /// The rules that are broken on purpose.
    pub broken: BrokenRules,
}

/// The kinds of faults that may happen.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Processes are killed.
    pub kills: bool,
    /// The power goes, on any subset of the replicas.
    pub power: bool,
    /// Links are cut.
    pub cuts: bool,
    /// Disks stall.
    pub stalls: bool,
    /// Wall clocks jump.
    pub jumps: bool,
    /// Snapshots are made and logs purged.
    pub purges: bool,
    /// Folders are replaced by older copies of themselves.
    pub older_copies: bool,
}

impl Faults {
    /// All faults.
    pub const ALL: Self = Self {
        kills: true,
        power: true,
        cuts: true,
        stalls: true,
        jumps: true,
        purges: true,
        older_copies: true,
    };
    /// No faults.
    pub const NONE: Self = Self {
        kills: false,
        power: false,
        cuts: false,
        stalls: false,
        jumps: false,
        purges: false,
        older_copies: false,
    };
}

/// Rules broken on purpose, to show that the checker detects each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokenRules {
    /// The disks report syncs that they did not make.
    pub lies: DiskMutants,
    /// A restarted leader leads on without an election.
    pub restore: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut luck = Rng::new(seed, "plan");
        Self {
            seed,
            replicas: if luck.percent(20) { 5 } else { 3 },
            catalogs: luck.one(&[0, 0, 1, 2]),
            frontends: luck.one(&[0, 0, 1, 2]),
            customers: luck.one(&[1, 2, 3, 5]),
            chaos: luck.between(2_000, 5_000),
            every: luck.one(&[120, 250, 500]),
            keyless: luck.one(&[0, 30]),
            faults: Faults::ALL,
            broken: BrokenRules::default(),
        }
    }

    /// The ids of the replicas.
    pub fn ids(&self) -> Vec<u64> {
        IDS[..self.replicas].to_vec()
    }
}

/// The shop of every run, small enough to sell out.
///
/// # Panics
///
/// Never: the names and prices are within their limits.
pub fn shop() -> Shop {
    let product = |(name, cents, stock): (&str, u64, u64)| Definition {
        name: Name::new(name).expect("a short name"),
        price: Cents::new(cents).expect("a small price"),
        stock,
        restock_to: None,
    };
    let products = [("bear", 2_999, 3), ("fox", 1_250, 40), ("hare", 450, 0), ("owl", 990, 5_000)];
    Shop { first_order_number: OrderNumber(0), products: products.map(product).to_vec() }
}

/// The names of the products, and one that does not exist.
pub const NAMES: [&str; 5] = ["bear", "fox", "hare", "owl", "yeti"];

/// How often a history is written: sooner than in production, so that a short run has many writes.
pub const PACE: WritePace = WritePace { every: Duration::from_millis(40), bytes: 64 << 20 };
