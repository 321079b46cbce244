//! The command line for backups.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::keys::lifetime;
use super::values::Url;
use crate::backup::UtcSecond;

/// `oppidum ctl backup`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  \
    oppidum ctl backup --to /backup/shop\n  \
    oppidum ctl backup --to /backup/shop --every 15m --keep 14d\n  \
    oppidum ctl backup list --from /backup/shop\n  \
    oppidum ctl backup verify --from /backup/shop\n\n\
    A backup reads a follower while the store is open, and writes what the folder lacks. Blocks \
    are never removed: every restore needs all of them. Orders and digests of API keys are in a \
    backup: protect it. The CA and the root key are not.\n\
    Exit codes: 0 done; 1 the backup is damaged; 2 it could not be done.")]
pub(crate) struct Backup {
    /// What to do with a backup that exists.
    #[command(subcommand)]
    pub(crate) on: Option<BackupOn>,
    /// The folder of the backup; the folder above it must exist
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) to: Option<String>,
    /// Go on, and back up this often: 15m, 1h
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) every: Option<Duration>,
    /// Remove restore points that are older: 14d [default: keep all]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) keep: Option<Duration>,
    /// The store.
    #[command(flatten)]
    pub(crate) url: Url,
}

/// What to do with a backup that exists.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupOn {
    #[command(after_help = "Example:\n  oppidum ctl backup list --from /backup/shop")]
    /// Lists the restore points
    List(BackupFrom),
    #[command(after_help = "Example:\n  oppidum ctl backup verify --from /backup/shop\n\n\
        It needs no store. Exit codes: 0 intact; 1 damaged, with the file; 2 it cannot be read.")]
    /// Checks every file, the chain of blocks, every outcome and every state
    Verify(BackupFrom),
}

/// The folder of a backup.
#[derive(Debug, Args)]
pub(crate) struct BackupFrom {
    /// The folder of the backup
    #[arg(long, value_name = "DIR")]
    pub(crate) from: String,
}

/// `oppidum ctl restore`
#[derive(Debug, Args)]
#[command(after_help = "Examples, with every process of the lost store stopped:\n  \
    oppidum ctl restore --from /backup/shop --data /var/lib/oppidum --id 123\n  \
    oppidum ctl restore --from /backup/shop --at 2026-11-28T14:30:00Z --id 123\n\n\
    The command makes the folder of one replica, the only one of its store. It says what is lost, \
    and asks before it writes the folder. Add other replicas with empty folders, under new ids. \
    An existing folder is never overwritten.\n\
    Exit codes: 0 restored; 1 not confirmed, or the backup is damaged; 2 it could not be done.")]
pub(crate) struct Restore {
    /// The backup.
    #[command(flatten)]
    pub(crate) from: BackupFrom,
    /// To the last entry at or before this time, in UTC [default: all of the backup]
    #[arg(long, value_name = "TIME", conflicts_with = "index")]
    pub(crate) at: Option<UtcSecond>,
    /// To the last entry up to this one
    #[arg(long, value_name = "N")]
    pub(crate) index: Option<u64>,
    /// The folder for the replica's folder [default: ./oppidum-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// The id of the replica
    #[arg(long)]
    pub(crate) id: u64,
    /// The number of the next order [default: above an estimate of the numbers of lost orders]
    #[arg(long, value_name = "N")]
    pub(crate) orders_from: Option<u64>,
    /// The name of the store, instead of typing it: for scripts
    #[arg(long, value_name = "NAME")]
    pub(crate) yes: Option<String>,
}
