//! What a run is made of: how many of whom, for how long, and what is broken on purpose.

use std::time::Duration;

use ledger::command::Definition;
use ledger::terms::{Cents, Name, OrderNumber};
use order::Shop;
use order::raft::writer::Pace;

use ground::disk::Lies;
use ground::luck::Luck;

/// Ids of replicas, lowest first: the first three, or all.
pub const IDS: [u64; 5] = [123, 345, 456, 567, 678];

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything else follows from.
    pub seed: u64,
    /// How many replicas: 3 or 5.
    pub replicas: usize,
    /// How many catalogs.
    pub catalogs: usize,
    /// How many frontends.
    pub frontends: usize,
    /// How many customers ask replicas themselves.
    pub customers: usize,
    /// How many in a hundred orders of shoppers have no key.
    pub keyless: u64,
    /// How long faults go on, in steps.
    pub chaos: u64,
    /// The mean time between two faults, in steps.
    pub every: u64,
    /// What the chaos may do.
    pub faults: Faults,
    /// What is broken on purpose.
    pub broken: Broken,
}

/// Which faults there are.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Processes are killed.
    pub kills: bool,
    /// The power goes, on any subset of the replicas.
    pub power: bool,
    /// Lines are cut.
    pub cuts: bool,
    /// Disks stall.
    pub stalls: bool,
    /// Clocks on walls jump.
    pub jumps: bool,
    /// Snapshots are made and logs purged.
    pub purges: bool,
    /// Folders are replaced by older copies of themselves.
    pub older_copies: bool,
}

impl Faults {
    /// All of them.
    pub const ALL: Self = Self {
        kills: true,
        power: true,
        cuts: true,
        stalls: true,
        jumps: true,
        purges: true,
        older_copies: true,
    };
    /// None of them.
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

/// What is broken on purpose, to see that it is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// The disks lie about syncs.
    pub lies: Lies,
    /// A leader that restarts leads on without an election.
    pub restore: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut luck = Luck::new(seed, "plan");
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
            broken: Broken::default(),
        }
    }

    /// The ids of the replicas.
    pub fn ids(&self) -> Vec<u64> {
        IDS[..self.replicas].to_vec()
    }
}

/// The shop of every run, small enough to run out.
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

/// The names of the products, and of one that there is not.
pub const NAMES: [&str; 5] = ["bear", "fox", "hare", "owl", "yeti"];

/// How often a history is written: sooner than a real one, so that a short run has many of them.
pub const PACE: Pace = Pace { every: Duration::from_millis(40), bytes: 64 << 20 };
