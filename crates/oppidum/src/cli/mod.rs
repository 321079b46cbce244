//! The command line: every command and flag, with its help text.

pub(crate) mod backup;

pub(crate) mod ca;

pub(crate) mod clients;

pub(crate) mod keys;

pub(crate) mod lab;

pub(crate) mod members;

pub(crate) mod operator;

pub(crate) mod values;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::failpoints::{Faults, Mutants};
use backup::{Backup, Restore};
use ca::Ca;
use clients::Clients;
use keys::{ApiKeys, Init};
use lab::{Demo, Lab};
use members::{Member, Recover, Replace};
use operator::{Repair, Trail, Transfer};
use values::{DialectName, Url};

/// A store that stays open.
///
/// Clients query products, buy and sell, and look orders up over HTTP. Three replicas hold one
/// ledger; kill any process, the leader included, and clients notice only a short delay.
#[derive(Debug, Parser)]
#[command(name = "oppidum", version, max_term_width = 100)]
#[command(after_help = "Begin with:\n  \
    oppidum demo               see all of it in a quarter of a minute\n  \
    oppidum up                 start a whole store on this machine\n  \
    curl http://127.0.0.1:1234/products\n  \
    oppidum load --clients 5   let five customers loose on it\n  \
    oppidum status             the leader, and the lag of each replica\n  \
    oppidum verify             are all replicas the same, is every order there once\n\n\
    Exit codes: 0 yes, 1 no (a mismatch, a refusal), 2 it could not be done.")]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts a whole store on this machine: three replicas, catalogs, frontends
    Up(Up),
    /// Makes the first API key of a new store, which begins closed
    Init(Init),
    /// Runs one order replica
    Order(Order),
    /// Runs one catalog
    Catalog(Catalog),
    /// Runs one frontend: the public HTTP API
    Frontend(Frontend),
    /// Interactive client: queries, buys and looks orders up from a menu
    #[command(after_help = "Example:\n  oppidum client --url http://127.0.0.1:8080\n\n\
        Q asks for a product, B buys, O looks an order up; Ctrl-D ends it.")]
    Client(Url),
    /// Runs simulated customers: queries, trades, and a check of every order at the end
    Load(Load),
    /// Shows every process: the leader, indexes, digests
    Status(Status),
    /// Checks that all replicas hold the same, complete and consistent history
    #[command(after_help = "Example:\n  oppidum verify && echo all is well\n\n\
        It reads every replica's whole history. Exit codes: 0 identical and consistent; \
        1 not, with the first violation; 2 not every replica could be asked.")]
    Verify(Url),
    /// Prints one replica's orders as JSON
    Dump(Dump),
    /// Manages products, API keys, certificates, replicas, leadership and backups; shows the audit
    /// trail
    Ctl(Ctl),
    /// Experiments, each with numbers and a picture
    Lab(Lab),
    /// Plays a failover demo: orders, a killed leader, its return, the verified history
    Demo(Demo),
    /// Scores any store that speaks the classic API, from outside
    Conform(Conform),
    /// Writes man pages and shell completions into a folder
    #[command(hide = true)]
    Generate(Generate),
}

/// The flags of every process.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// What to write to stderr: error, warn, info, debug, or `tracing` directives
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How to write it: `text`, or `json`, one object for each line [default: text]
    #[arg(long, value_name = "text|json")]
    pub(crate) log_format: Option<String>,
    /// All replicas of the store: ID=HOST:PORT,… [default: the toy store's three on this machine]
    #[arg(long, value_name = "LIST")]
    pub(crate) orders: Option<String>,
    /// Mutual TLS between the processes: the folder of ca.pem and of this process's certificate and
    /// key, which may be renewed while it runs
    #[arg(long, value_name = "DIR")]
    pub(crate) tls: Option<String>,
    /// Only check the settings, the certificates and the data folder, and print the settings:
    /// nothing is started, locked or written. Exit codes: 0 it could start; 2 it could not
    #[arg(long)]
    pub(crate) check: bool,
    /// Stop when stdin is closed: `oppidum up` uses it so that no process outlives it
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

/// The times of the watch protocol.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchTimes {
    /// How long a process may answer by itself, in ms [default: 500]; the same in the whole store
    #[arg(long, value_name = "MS")]
    pub(crate) lease_ms: Option<String>,
    /// How often a source sends a beat, in ms [default: 100]
    #[arg(long, value_name = "MS")]
    pub(crate) beat_ms: Option<String>,
    /// How far a clock may drift, in per mille [default: 50]
    #[arg(long, value_name = "N")]
    pub(crate) drift_per_mille: Option<String>,
    /// The rules that a failpoint breaks.
    #[command(flatten)]
    pub(crate) mutants: Mutants,
}

/// `oppidum up`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  oppidum up\n  oppidum up --dialect toy --ephemeral --port 8080\n  \
    oppidum up --ports auto --frontends 2 --catalogs 2 --shop my-shop.toml\n\n\
    Then kill one of the pids it prints with `kill -9` and go on ordering. Ctrl-C ends everything."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Up {
    /// The classic API to speak: stock (transactions, buy and sell) or toy (orders)
    #[arg(long)]
    pub(crate) dialect: Option<String>,
    /// The shop to open: stock, toy, or a TOML or JSON file [default: as the dialect]
    #[arg(long, value_name = "FILE")]
    pub(crate) shop: Option<String>,
    /// The public port of the first frontend; the next ones follow [default: 1234]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// `fixed`: the documented ports; `auto`: free ports
    #[arg(long, value_enum, default_value = "fixed")]
    pub(crate) ports: PortChoice,
    /// The folder of the data folders [default: ./oppidum-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// Keep nothing: the data folders are in a temporary folder, removed at the end
    #[arg(long, conflicts_with = "data")]
    pub(crate) ephemeral: bool,
    /// How many frontends
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) frontends: u16,
    /// How many catalogs; with none, frontends ask the leader
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=16))]
    pub(crate) catalogs: u16,
    /// How many products each frontend's cache holds; 0 or `off`: no cache [default: 5]
    #[arg(long, value_name = "N")]
    pub(crate) cache: Option<String>,
    /// Leaders hand over to a replica with a higher id that is back, without waiting for a failure
    #[arg(long)]
    pub(crate) preempt: bool,
    /// The processes talk in plaintext, without certificates: any program of this machine can then
    /// pass for one of them
    #[arg(long)]
    pub(crate) open_internal: bool,
    /// Whether to restart a process that died
    #[arg(long, value_enum, default_value = "always")]
    pub(crate) restart: Restart,
    /// `off`: no line for each request
    #[arg(long, value_name = "on|off")]
    pub(crate) access_log: Option<String>,
    /// What the processes write: error, warn, info, debug
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Stop when stdin is closed, so that no process outlives an experiment
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

/// The ports that `up` chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PortChoice {
    /// The documented ports.
    Fixed,
    /// Free ports.
    Auto,
}

/// The action of `up` when a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// Restarts the process.
    Always,
    /// Leaves the process down.
    Never,
}

/// `oppidum order`
#[derive(Debug, Args)]
#[command(after_help = "Example, three replicas by hand, each in its own terminal:\n  \
    oppidum order --id 123\n  oppidum order --id 345\n  oppidum order --id 456\n\n\
    Any order of starting works. Each keeps its folder, ./oppidum-data/order-ID.")]
pub(crate) struct Order {
    /// The id of this replica
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Where to listen [default: its address in --orders]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// The folder that holds the replicas' folders [default: ./oppidum-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// The name of the store: replicas of another store are refused [default: oppidum]
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// The shop that the first leader opens: stock, toy, or a TOML or JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) shop: Option<String>,
    /// Hand leadership to a healthy replica with a higher id, without waiting for a failure
    #[arg(long)]
    pub(crate) preempt: bool,
    /// A new store begins open: requests without an API key may query and order
    #[arg(long)]
    pub(crate) open: bool,
    /// Wait to be added to an existing store: for a new replica with an empty folder
    #[arg(long)]
    pub(crate) join: bool,
    /// Free disk space to keep, in MB: below it orders are refused [default: 64, or a tenth of a
    /// smaller disk]
    #[arg(long, value_name = "MB")]
    pub(crate) reserve_mb: Option<String>,
    /// The failpoints of this replica.
    #[command(flatten)]
    pub(crate) faults: Faults,
    /// The times of the watch protocol.
    #[command(flatten)]
    pub(crate) times: WatchTimes,
    /// The flags of every process.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `oppidum catalog`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  oppidum catalog\n  oppidum catalog --listen 127.0.0.1:2320\n\n\
    It finds the replicas by itself, whenever they come, and keeps nothing on disk."
)]
pub(crate) struct Catalog {
    /// Where to listen [default: 127.0.0.1:2319]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Catalogs to watch instead of the leader: for many frontends at a remote site
    #[arg(long, value_name = "HOST:PORT,…")]
    pub(crate) upstream: Option<String>,
    /// How often to look for sold-out products [default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) restock_seconds: Option<String>,
    /// The times of the watch protocol.
    #[command(flatten)]
    pub(crate) times: WatchTimes,
    /// The flags of every process.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `oppidum frontend`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum frontend\n  \
    oppidum frontend --host 127.0.0.1 --port 8080 --cache off --dialect toy\n\n\
    Without --host it listens on every network.")]
pub(crate) struct Frontend {
    /// The public address [default: 0.0.0.0]
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The public port [default: 1234]
    #[arg(long)]
    pub(crate) port: Option<String>,
    /// Where the operator reads /metrics and /status [default: 127.0.0.1:6789]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) internal: Option<String>,
    /// The catalogs; the frontend watches any of them [default: 127.0.0.1:2319]
    #[arg(long, value_name = "HOST:PORT,…")]
    pub(crate) catalogs: Option<String>,
    /// How many products the cache holds; 0 or `off`: no cache [default: 5]
    #[arg(long, value_name = "N")]
    pub(crate) cache: Option<String>,
    /// The classic API to speak: stock or toy [default: stock]
    #[arg(long)]
    pub(crate) dialect: Option<String>,
    /// `off`: no line for each request
    #[arg(long, value_name = "on|off")]
    pub(crate) access_log: Option<String>,
    /// Speak TLS on the public port: the folder of cert.pem and key.pem, which may be renewed while
    /// the frontend runs
    #[arg(long, value_name = "DIR")]
    pub(crate) public_tls: Option<String>,
    /// The limits for clients.
    #[command(flatten)]
    pub(crate) clients: Clients,
    /// The times of the watch protocol.
    #[command(flatten)]
    pub(crate) times: WatchTimes,
    /// The flags of every process.
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `oppidum load`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum load\n  \
    oppidum load --clients 5 --requests 100 -p 0.8 --quiet\n\n\
    Exit codes: 0 every request was answered and every order confirmed; 1 not so; \
    2 no store there.")]
pub(crate) struct Load {
    /// The store.
    #[command(flatten)]
    pub(crate) url: Url,
    /// How many requests each client makes
    #[arg(long, default_value_t = 100)]
    pub(crate) requests: u64,
    /// The probability that a query is followed by a trade
    #[arg(short = 'p', long = "trades", default_value_t = 0.5)]
    pub(crate) p: f64,
    /// How many clients there are at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) clients: u16,
    /// The seed of the clients' choices
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print only the summary
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// `oppidum status`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum status\n  \
    oppidum status --json --url http://127.0.0.1:8080\n\n\
    Exit codes: 0 there is a leader; 1 there is none; 2 no store there.")]
pub(crate) struct Status {
    /// The store.
    #[command(flatten)]
    pub(crate) url: Url,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `oppidum dump`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  oppidum dump --id 456 > order456_database.json")]
pub(crate) struct Dump {
    /// The replica
    #[arg(long)]
    pub(crate) id: u64,
    /// The store.
    #[command(flatten)]
    pub(crate) url: Url,
}

/// `oppidum ctl`
#[derive(Debug, Args)]
pub(crate) struct Ctl {
    /// The object to manage.
    #[command(subcommand)]
    pub(crate) on: CtlOn,
}

/// The objects that the operator manages.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlOn {
    /// Products: list, define, price, restock
    #[command(subcommand)]
    Product(Product),
    /// API keys: issue, list, rotate, revoke; what requests without one may do
    #[command(subcommand)]
    Key(ApiKeys),
    /// The store's certificate authority: make it, issue certificates, list them
    #[command(subcommand)]
    Ca(Ca),
    /// Replicas: list, add, remove, while the store is open
    #[command(subcommand)]
    Member(Member),
    /// Replaces a replica whose disk is lost with a new one
    Replace(Replace),
    /// Recovers a store from one stopped replica, when a majority is lost for good
    Recover(Recover),
    /// Backs up the running store to a folder; lists and verifies backups
    Backup(Backup),
    /// Makes a replica from a backup, when the store is lost
    Restore(Restore),
    /// Hands leadership to another replica, without a failed request
    Transfer(Transfer),
    /// Reads a replica's whole history, and repairs damaged blocks with the copies of other
    /// replicas
    Repair(Repair),
    /// Lists who changed what: products, API keys, replicas
    Trail(Trail),
}

/// The operator's work on products.
#[derive(Debug, Subcommand)]
pub(crate) enum Product {
    #[command(after_help = "Example:\n  oppidum ctl product list")]
    /// Lists every product
    List(Url),
    #[command(after_help = "Example:\n  \
        oppidum ctl product define fox --price 12.50 --quantity 100 --restock-to 100")]
    /// Adds a product that does not exist yet
    Define {
        /// Its name
        name: String,
        /// Its price, such as 15.99
        #[arg(long)]
        price: String,
        /// Its stock
        #[arg(long, default_value_t = 0,
            value_parser = clap::value_parser!(u64).range(0..=ledger::terms::STOCK_MAX))]
        quantity: u64,
        /// Fill the stock up to this number when the product is sold out
        #[arg(long)]
        restock_to: Option<u64>,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
    #[command(after_help = "Example:\n  oppidum ctl product price fox 11.99")]
    /// Changes a price
    Price {
        /// The product
        name: String,
        /// The new price, such as 15.99
        price: String,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
    #[command(after_help = "Example:\n  oppidum ctl product restock fox 50")]
    /// Adds to the stock
    Restock {
        /// The product
        name: String,
        /// How many pieces arrive
        quantity: u64,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
}

/// `oppidum conform`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum conform --dialect stock\n  \
    oppidum conform --url http://127.0.0.1:8080 --dialect toy --json > score.json\n\n\
    The store need not be empty, but no other client should trade. It must sell two products, \
    one of them with 60 pieces (in the stock dialect fewer do: pieces are sold to it). In the \
    stock dialect the stock is left as it was found. Exit codes: 0 every check was passed or \
    skipped; 1 not so; 2 no store there.")]
pub(crate) struct Conform {
    /// The store's public address.
    #[command(flatten)]
    pub(crate) url: Url,
    /// The classic API that the store claims to speak: stock or toy
    #[arg(long)]
    pub(crate) dialect: DialectName,
    /// A product to trade in; repeat it for a second one [default: the one with the highest stock]
    #[arg(long, value_name = "NAME")]
    pub(crate) product: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `oppidum generate`
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The folder for `man` and `completions`
    pub(crate) to: std::path::PathBuf,
}
