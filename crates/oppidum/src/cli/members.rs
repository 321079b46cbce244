//! The command line for changes of the set of replicas.

use clap::{Args, Subcommand};

use super::values::Url;
use crate::address::Reachable;

/// The operator's work on the set of replicas.
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    #[command(after_help = "Example:\n  oppidum ctl member list\n\n\
        Exit codes: 0 there is a leader; 1 there is none; 2 no store there.")]
    /// Lists the replicas: the leader, the voters, their lag, how many may be down
    List(Url),
    #[command(after_help = "Example, on the new replica's machine and then anywhere:\n  \
        oppidum order --id 567 --join --orders 456=10.0.0.3:1117,567=10.0.0.4:1117\n  \
        oppidum ctl member add --id 567 --address 10.0.0.4:1117\n\n\
        It receives the log first and votes when it has caught up; then this returns. Asked again \
        after a break, it goes on.\n\
        Exit codes: 0 it votes; 1 the leader says why it cannot; 2 no store there.")]
    /// Adds a replica that was started with --join; shows its progress, returns when it votes
    Add {
        /// Its id: one that this store has never used
        #[arg(long)]
        id: u64,
        /// The address at which the other processes reach it
        #[arg(long, value_name = "HOST:PORT")]
        address: Reachable,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
    #[command(after_help = "Example:\n  oppidum ctl member remove --id 123\n\n\
        A leader hands the lead over first. The replica that was removed stops by itself, and its \
        id is never used again.\n\
        Exit codes: 0 it is gone; 1 the leader says why it cannot; 2 no store there.")]
    /// Removes a replica, if the others can go on without it
    Remove {
        /// The replica
        #[arg(long)]
        id: u64,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
}

/// `oppidum ctl replace`
#[derive(Debug, Args)]
#[command(after_help = "Example, when the disk of 123 is lost:\n  \
    oppidum order --id 124 --join --orders 345=10.0.0.2:1116,124=10.0.0.1:1115\n  \
    oppidum ctl replace --id 123 --with 124 --address 10.0.0.1:1115\n\n\
    Adds the new one, waits until it votes, removes the old one. A replica never comes back under \
    its old id with an emptied folder: it has forgotten what it promised.\n\
    Exit codes: 0 it is done; 1 the leader says why it cannot; 2 no store there.")]
pub(crate) struct Replace {
    /// The lost replica
    #[arg(long)]
    pub(crate) id: u64,
    /// The id of the new replica, which was started with --join
    #[arg(long, value_name = "ID")]
    pub(crate) with: u64,
    /// The address at which the other processes reach the new replica
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Reachable,
    /// The store.
    #[command(flatten)]
    pub(crate) url: Url,
}

/// `oppidum ctl recover`
#[derive(Debug, Args)]
#[command(after_help = "Examples, with the replica stopped:\n  \
    oppidum ctl recover --data ./oppidum-data           what each folder there knows\n  \
    oppidum ctl recover --data ./oppidum-data --id 123 --force-new-cluster\n\n\
    Only when a majority of the replicas is lost for good. What was acknowledged and is not in \
    this folder is lost; the command says what, and asks before it acts.\n\
    Exit codes: 0 recovered, or compared; 1 not confirmed; 2 the recovery is impossible.")]
pub(crate) struct Recover {
    /// The folder that holds the replicas' folders [default: ./oppidum-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// The replica; without it, the command compares all replicas of the folder
    #[arg(long)]
    pub(crate) id: Option<u64>,
    /// Make this replica the only one of its store
    #[arg(long, requires = "id")]
    pub(crate) force_new_cluster: bool,
    /// The number of the next order [default: above an estimate of the numbers of lost orders]
    #[arg(long, value_name = "N")]
    pub(crate) orders_from: Option<u64>,
    /// Do not ask for confirmation: for scripts
    #[arg(long)]
    pub(crate) yes: bool,
}
