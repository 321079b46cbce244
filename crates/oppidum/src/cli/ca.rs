//! The command line for the store's own certificate authority.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::keys::lifetime;
use super::values::FreeText;
use crate::ca::subject::{CertificateHost, StoreName};

/// The operator's work on certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    #[command(after_help = "Example, once for a store, on one machine:\n  \
        oppidum ctl ca init --dir ca/\n\n\
        It writes ca.pem and ca.key, which only this user can read, and replaces no file. The CA \
        lasts 10 years.")]
    /// Makes the certificate authority (CA) of a store
    Init {
        /// The folder for its files
        #[arg(long, value_name = "DIR", value_parser = folder)]
        dir: PathBuf,
        /// The name of the store in its certificates: letters a-z, digits, `-`
        #[arg(long, value_name = "NAME", default_value = "oppidum")]
        store: StoreName,
    },
    /// Issues the certificates of processes and people, or renews them
    Issue(IssueCertificate),
    #[command(after_help = "Example:\n  oppidum ctl ca list --dir ca/\n\n\
        Exit codes: 0 all last longer than 14 days; 1 one does not; 2 a file could not be read.")]
    /// Lists the certificates in a folder, and when they end
    List {
        /// The folder of ca.pem
        #[arg(long, value_name = "DIR", value_parser = folder)]
        dir: PathBuf,
    },
}

/// `oppidum ctl ca issue`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    oppidum ctl ca issue --dir ca/ order 123 --host 10.0.0.1\n  \
    oppidum ctl ca issue --dir ca/ order 123 order 345 order 456 catalog main frontend web-1\n  \
    oppidum ctl ca issue --dir ca/ operator anna --for 7d\n\n\
    It writes ROLE-NAME.pem and ROLE-NAME.key. The same command again renews them: it replaces \
    both files. Processes of the store check the role only; curl and Prometheus check the host \
    that they call.")]
pub(crate) struct IssueCertificate {
    /// The folder of ca.pem and ca.key
    #[arg(long, value_name = "DIR", value_parser = folder)]
    pub(crate) dir: PathBuf,
    /// One or more of: order, catalog, frontend, monitor or operator; of order the id of the
    /// replica, else a name: letters a-z, digits, `-`
    #[arg(value_names = ["ROLE", "NAME"], num_args = 2.., required = true)]
    pub(crate) subjects: Vec<String>,
    /// A DNS name or an IP address by which curl or Prometheus calls it; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<CertificateHost>,
    /// How long it lasts: 90d, 24h [default: 90d, of operator 30d]
    #[arg(long = "for", value_name = "TIME", value_parser = lifetime)]
    pub(crate) lifetime: Option<Duration>,
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("it is empty: give a folder, as ca/".into());
    }
    text.parse().map(|FreeText(text)| text.into())
}
