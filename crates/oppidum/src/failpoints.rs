//! Failpoints: faults that tests put into a process, and rules of the watch protocol that they
//! break.
//!
//! The flags exist in builds with debug assertions, as tests are built, and with the feature
//! `failpoints`, with which torture builds the deployed binary. A released build has no such flag.
//! A process with a failpoint always says so in its first lines.

use std::time::Duration;

use clap::Args;
use wire::exit::Stop;
use wire::watch::rules::{Mutant, Rules};

/// The failpoints of a replica.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Faults {
    /// Failpoints: hold-answers, no-timeouts, pretended-room, log-kept=N, flush-delay=MS, switches
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    #[arg(long, hide = true)]
    fault: Vec<String>,
}

impl Faults {
    /// The failpoints in the replica's own type.
    pub(crate) fn parse(&self) -> Result<::order::Faults, Stop> {
        let mut faults = ::order::Faults::default();
        for text in self.texts() {
            let odd = |_| Stop::Setup(format!("fault {text}?"));
            match text.split_once('=') {
                None if text == "hold-answers" => faults.hold_answers = true,
                None if text == "no-timeouts" => faults.no_timeouts = true,
                None if text == "switches" => faults.switches = true,
                None if text == "pretended-room" => faults.simulated_space = true,
                Some(("log-kept", entries)) => {
                    faults.log_kept = Some(entries.parse().map_err(odd)?);
                }
                Some(("flush-delay", millis)) => {
                    let millis = millis.parse().map_err(odd)?;
                    faults.flush_delay = Some(Duration::from_millis(millis));
                }
                _ => return Err(Stop::Setup(format!("there is no fault {text}"))),
            }
        }
        Ok(faults)
    }

    /// The failpoints as text, for the warning.
    pub(crate) fn descriptions(&self) -> Vec<String> {
        self.texts().iter().map(|fault| format!("--fault {fault}")).collect()
    }

    #[cfg(any(debug_assertions, feature = "failpoints"))]
    fn texts(&self) -> &[String] {
        &self.fault
    }

    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    fn texts(&self) -> &[String] {
        let Self {} = self;
        &[]
    }
}

/// The rules of the watch protocol that failpoints break.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Mutants {
    /// Breaks a rule of the watch protocol, given by its name: for tests of the checkers
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    #[arg(long, hide = true)]
    break_rule: Option<Mutant>,
}

impl Mutants {
    /// The broken rules in the process's own type.
    pub(crate) fn rules(&self) -> Rules {
        self.mutant().map_or_else(Rules::default, Rules::without)
    }

    /// The broken rules as text, for the warning.
    pub(crate) fn descriptions(&self) -> Vec<String> {
        self.mutant().iter().map(|mutant| format!("--break-rule {mutant:?}")).collect()
    }

    #[cfg(any(debug_assertions, feature = "failpoints"))]
    fn mutant(&self) -> Option<Mutant> {
        self.break_rule
    }

    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    fn mutant(&self) -> Option<Mutant> {
        let Self {} = self;
        None
    }
}

/// Warns of every failpoint of the process.
pub(crate) fn warn(descriptions: &[String]) {
    for what in descriptions {
        tracing::warn!("{what} breaks this process on purpose: it is for tests, and loses orders");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    /// Kind: a flag of tests in a released build. (The gate runs this with and without.)
    #[test]
    fn a_failpoint_is_accepted_only_in_builds_that_contain_it() {
        let there = cfg!(any(debug_assertions, feature = "failpoints"));
        for flags in [
            &["order", "--id", "1", "--fault", "hold-answers"][..],
            &["order", "--id", "1", "--break-rule", "AcceptedEarly"],
            &["catalog", "--break-rule", "AcceptedEarly"],
            &["frontend", "--break-rule", "AcceptedEarly"],
        ] {
            let taken = Cli::try_parse_from([&["oppidum"], flags].concat()).is_ok();
            assert_eq!(taken, there, "{flags:?}");
        }
    }
}
