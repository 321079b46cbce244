//! Parses systemd units: the part of the format that the units of `deploy/systemd` use.
//!
//! An unknown setting is an error: a setting that the stand-in does not carry out is not tested.

use anyhow::{Context, Result, bail};

/// Settings that change nothing in a sandbox with one user and no network to wait for.
const WITHOUT_EFFECT: [&str; 7] = [
    "Description",
    "Documentation",
    "Wants",
    "After",
    "StartLimitIntervalSec",
    "WantedBy",
    "TimeoutStartSec",
];

/// Settings that shut a process in. The stand-in does not carry them out: `cargo xtask packages`
/// runs the units under a real systemd.
pub(crate) const HARDENING: [&str; 24] = [
    "CapabilityBoundingSet",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "RemoveIPC",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
];

/// The settings of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(crate) struct Unit {
    /// True if the process says when it is ready.
    pub(crate) notifies: bool,
    /// The longest silence of a process that notifies.
    pub(crate) watchdog_seconds: Option<u64>,
    pub(crate) exec_start: Vec<String>,
    pub(crate) exec_reload: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Each file, and whether it may be missing.
    pub(crate) environment_files: Vec<(String, bool)>,
    pub(crate) user: Option<String>,
    pub(crate) working_directory: Option<String>,
    pub(crate) state_directory: Option<String>,
    pub(crate) state_directory_mode: Option<String>,
    pub(crate) umask: Option<String>,
    pub(crate) limit_nofile: Option<String>,
    pub(crate) scheduled_as_batch: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) read_only_system: bool,
    pub(crate) restart_on_failure: bool,
    pub(crate) restart_seconds: u64,
    pub(crate) restart_prevented_by: Vec<i32>,
    pub(crate) stop_seconds: u64,
}

/// The file and the instance of a unit: `oppidum-order@123` is `oppidum-order@.service` and `123`.
pub(crate) fn file_of(name: &str) -> (String, String) {
    let name = name.strip_suffix(".service").unwrap_or(name);
    match name.split_once('@') {
        Some((template, instance)) => (format!("{template}@.service"), instance.to_owned()),
        None => (format!("{name}.service"), String::new()),
    }
}

/// Parses a unit for an instance.
pub(crate) fn parse(text: &str, instance: &str) -> Result<Unit> {
    let mut unit = Unit { restart_seconds: 0, stop_seconds: 90, ..Unit::default() };
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';', '[']) {
            continue;
        }
        let (name, value) = line.split_once('=').with_context(|| format!("no setting: {line}"))?;
        set(&mut unit, name, &value.replace("%i", instance))
            .with_context(|| format!("the unit says {line}"))?;
    }
    if unit.exec_start.is_empty() {
        bail!("the unit has no ExecStart");
    }
    Ok(unit)
}

fn set(unit: &mut Unit, name: &str, value: &str) -> Result<()> {
    let whole = || Some(value.to_owned());
    match name {
        "ExecStart" => unit.exec_start = words(value),
        "ExecReload" => unit.exec_reload = words(value),
        "Environment" => unit.environment.extend(variables(value)?),
        "EnvironmentFile" => {
            let file = value.strip_prefix('-');
            unit.environment_files.push((file.unwrap_or(value).to_owned(), file.is_some()));
        }
        "User" => unit.user = whole(),
        "WorkingDirectory" => unit.working_directory = whole(),
        "StateDirectory" => unit.state_directory = whole(),
        "StateDirectoryMode" => unit.state_directory_mode = whole(),
        "UMask" => unit.umask = whole(),
        "LimitNOFILE" => unit.limit_nofile = whole(),
        "CPUSchedulingPolicy" if value == "batch" => unit.scheduled_as_batch = true,
        "NoNewPrivileges" => unit.no_new_privileges = value == "yes",
        "ProtectSystem" if value == "strict" => unit.read_only_system = true,
        "Restart" if value == "on-failure" => unit.restart_on_failure = true,
        "RestartSec" => unit.restart_seconds = value.parse()?,
        "RestartPreventExitStatus" => {
            for code in value.split_whitespace() {
                unit.restart_prevented_by.push(code.parse()?);
            }
        }
        "TimeoutStopSec" => unit.stop_seconds = value.parse()?,
        "Type" if value == "notify" => unit.notifies = true,
        "WatchdogSec" => unit.watchdog_seconds = Some(value.parse()?),
        "WatchdogSignal" if value == "SIGKILL" => {}
        name if WITHOUT_EFFECT.contains(&name) || HARDENING.contains(&name) => {}
        _ => bail!("the stand-in for systemd does not know it"),
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Parses `NAME=VALUE` lines, as an environment file has them.
pub(crate) fn variables(text: &str) -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (name, value) = line.split_once('=').with_context(|| format!("no variable: {line}"))?;
        variables.push((name.to_owned(), value.trim_matches('"').to_owned()));
    }
    Ok(variables)
}

/// A command's words, with each `$NAME` replaced by that variable's words, or by none if it is
/// unset.
pub(crate) fn expanded(words: &[String], variables: &[(String, String)]) -> Vec<String> {
    let value = |name: &str| {
        let found = variables.iter().rev().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let words = words.iter().flat_map(|word| match word.strip_prefix('$') {
        Some(name) => value(name).split_whitespace().map(str::to_owned).collect(),
        None => vec![word.clone()],
    });
    words.collect()
}

/// True if a process that ended with this code, or by a signal, is restarted.
pub(crate) fn is_restarted(unit: &Unit, code: Option<i32>) -> bool {
    let failed = code != Some(0);
    let prevented = code.is_some_and(|code| unit.restart_prevented_by.contains(&code));
    unit.restart_on_failure && failed && !prevented
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "# One.\n[Unit]\nDescription=A %i\n[Service]\nEnvironmentFile=-/e/%i.env\n\
                        ExecStart=/bin/oppidum order --id %i\nUser=oppidum\n\
                        Restart=on-failure\nRestartSec=1\nRestartPreventExitStatus=2\n";

    #[test]
    fn an_instance_is_put_where_the_unit_names_it() {
        let unit = parse(UNIT, "123").unwrap();
        assert_eq!(unit.exec_start, ["/bin/oppidum", "order", "--id", "123"]);
        assert_eq!(unit.environment_files, [("/e/123.env".to_owned(), true)]);
        assert_eq!(unit.user.as_deref(), Some("oppidum"));
        assert_eq!(file_of("a@123"), ("a@.service".to_owned(), "123".to_owned()));
        assert_eq!(file_of("a.service"), ("a.service".to_owned(), String::new()));
    }

    #[test]
    fn a_setting_that_the_stand_in_does_not_do_is_an_error() {
        let error = parse(&format!("{UNIT}DynamicUser=yes\n"), "1").unwrap_err();
        assert!(format!("{error:#}").contains("DynamicUser=yes"), "{error:#}");
        assert!(parse("[Service]\n", "1").is_err());
    }

    #[test]
    fn exit_code_2_prevents_a_restart_and_any_other_failure_does_not() {
        let unit = parse(UNIT, "1").unwrap();
        assert!(is_restarted(&unit, Some(1)));
        assert!(is_restarted(&unit, None), "killed by a signal");
        assert!(!is_restarted(&unit, Some(2)));
        assert!(!is_restarted(&unit, Some(0)));
    }

    #[test]
    fn the_units_of_the_repository_are_understood() {
        let folder = crate::root().join("deploy/systemd");
        for file in ["oppidum-order@", "oppidum-catalog", "oppidum-frontend"] {
            let text = std::fs::read_to_string(folder.join(format!("{file}.service"))).unwrap();
            let unit = parse(&text, "123").unwrap();
            assert_eq!(unit.exec_start[0], "oppidum");
            // The disk of a replica may stall for longer than a watchdog would wait.
            let watchdog_seconds = (file != "oppidum-order@").then_some(10);
            assert!(unit.notifies && unit.watchdog_seconds == watchdog_seconds, "{file}");
            assert_eq!(unit.exec_reload, ["/bin/kill", "-HUP", "$MAINPID"]);
            assert!(is_restarted(&unit, Some(1)) && !is_restarted(&unit, Some(2)), "{file}");
        }
    }

    #[test]
    fn a_variable_expands_to_its_words_and_an_unset_variable_to_none() {
        let words = ["order", "$JOIN"].map(str::to_owned);
        let join = [("JOIN".to_owned(), "--join --preempt".to_owned())];
        assert_eq!(expanded(&words, &join), ["order", "--join", "--preempt"]);
        assert_eq!(expanded(&words, &[]), ["order"]);
    }

    #[test]
    fn an_environment_file_is_read_without_its_comments() {
        let text = "# A list.\nA=1=2\n\nB=\"two words\"\n";
        let variables = variables(text).unwrap();
        assert_eq!(variables[0], ("A".to_owned(), "1=2".to_owned()));
        assert_eq!(variables[1], ("B".to_owned(), "two words".to_owned()));
    }
}
