//! The command line for leadership, damage and the audit trail.

use std::time::Duration;

use clap::Args;

use super::keys::lifetime;
use super::values::Url;

/// `oppidum ctl transfer`
#[derive(Debug, Args)]
#[command(after_help = "Example, before the machine of 456 is switched off:\n  \
    oppidum ctl transfer --to 345\n\n\
    Exit codes: 0 it leads; 1 the leader says why it cannot; 2 no store there, or no leader.")]
pub(crate) struct Transfer {
    /// The next leader
    #[arg(long, value_name = "ID")]
    pub(crate) to: u64,
    /// The store.
    #[command(flatten)]
    pub(crate) url: Url,
}

/// `oppidum ctl repair`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  oppidum ctl repair --id 123\n\n\
    Exit codes: 0 nothing is damaged any more; 1 something cannot be repaired; 2 it could not be \
    asked.")]
pub(crate) struct Repair {
    /// The replica, which must be running
    #[arg(long, value_name = "ID")]
    pub(crate) id: u64,
    /// The store.
    #[command(flatten)]
    pub(crate) url: Url,
}

/// `oppidum ctl trail`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum ctl trail\n  \
    oppidum ctl trail --since 24h --orders\n  \
    oppidum ctl trail --since 90d --json | jq 'select(.actor == \"operator anna\")'\n\n\
    An actor is an operator or a catalog by its certificate, or an API key; `-`: neither. \
    Members, transfers and repairs are listed from the first command about API keys on, when they \
    were begun. Repetitions are left out, except of actions that may have been done twice; so are \
    proposals of catalogs that came too late.\n\
    Exit codes: 0 listed, also if there is nothing; 1 a replica sent a bad history; 2 no replica \
    could be asked.")]
pub(crate) struct Trail {
    /// How far back: 90d, 24h, 30m
    #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "7d")]
    pub(crate) since: Duration,
    /// Also list orders, and refused ones
    #[arg(long)]
    pub(crate) orders: bool,
    /// Print JSON: one object for each line
    #[arg(long)]
    pub(crate) json: bool,
    /// The store.
    #[command(flatten)]
    pub(crate) url: Url,
}
