//! The commands of the prompt: a pure parser of typed lines.

/// A typed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DemoCommand {
    /// `kill -9`.
    Kill(Target),
    /// SIGSTOP.
    Freeze(Target),
    /// SIGCONT; None: the frozen process.
    Thaw(Option<Target>),
    /// Restarts a process; None: the process that is down.
    Restart(Option<Target>),
    /// Places an order.
    Buy {
        /// The product's name.
        name: String,
        /// The quantity, as typed.
        quantity: String,
    },
    /// Shows the leader and the lag of each replica.
    Status,
    /// Verifies every replica's history.
    Verify,
    /// Shows the commands.
    Help,
    /// Ends the prompt.
    Quit,
    /// An empty line.
    Nothing,
}

/// The process that a command names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The process that leads at that moment.
    Leader,
    /// A process, by its name.
    Named(String),
}

/// The text of `help`.
pub(super) const HELP: &str = concat!(
    "  kill [ID]      kill -9: a replica (456), catalog-1, frontend-1; without ID the leader\n",
    "  freeze [ID]    stop it in its tracks: it keeps its connections and answers no request\n",
    "  thaw [ID]      let it go on; without ID the frozen process\n",
    "  restart [ID]   start it again; without ID the process that is down\n",
    "  buy NAME N     order something: buy whale 2\n",
    "  status         the leader, and the lag of each replica\n",
    "  verify         is everything there once, and everywhere the same?\n",
    "  help, quit     this; the end (Ctrl-D)",
);

/// Parses a line; `names` are the processes of the store.
pub(super) fn parse(line: &str, names: &[String]) -> Result<DemoCommand, String> {
    let mut words = line.split_whitespace();
    let Some(verb) = words.next() else { return Ok(DemoCommand::Nothing) };
    let rest: Vec<&str> = words.collect();
    let whom = || match rest.as_slice() {
        [] => Ok(None),
        [name] => target(name, names).map(Some),
        _ => Err(format!("{verb} takes one process: {verb} 456")),
    };
    let whom_else_leader = || Ok::<_, String>(whom()?.unwrap_or(Target::Leader));
    match verb.to_ascii_lowercase().as_str() {
        "kill" => Ok(DemoCommand::Kill(whom_else_leader()?)),
        "freeze" => Ok(DemoCommand::Freeze(whom_else_leader()?)),
        "thaw" => Ok(DemoCommand::Thaw(whom()?)),
        "restart" => Ok(DemoCommand::Restart(whom()?)),
        "buy" => match rest.as_slice() {
            [name, quantity] => {
                Ok(DemoCommand::Buy { name: (*name).into(), quantity: (*quantity).into() })
            }
            _ => Err("what, and how many? buy whale 2".into()),
        },
        "status" => Ok(DemoCommand::Status),
        "verify" => Ok(DemoCommand::Verify),
        "help" | "?" => Ok(DemoCommand::Help),
        "quit" | "exit" => Ok(DemoCommand::Quit),
        other => Err(format!("{other:?} is no command: type help")),
    }
}

fn target(word: &str, names: &[String]) -> Result<Target, String> {
    if word == "leader" {
        return Ok(Target::Leader);
    }
    let candidates = [word.to_owned(), format!("order-{word}"), format!("{word}-1")];
    let found = candidates.into_iter().find(|name| names.contains(name));
    found.map(Target::Named).ok_or_else(|| {
        format!("there is no process {word:?}: there are {}, and leader", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_commands_are_parsed_and_invalid_ones_are_explained() {
        let names = ["order-123", "order-456", "catalog-1", "frontend-1"].map(str::to_owned);
        let named = |name: &str| Target::Named(name.into());
        let table = [
            ("kill 456", DemoCommand::Kill(named("order-456"))),
            ("kill", DemoCommand::Kill(Target::Leader)),
            ("KILL leader", DemoCommand::Kill(Target::Leader)),
            ("freeze catalog", DemoCommand::Freeze(named("catalog-1"))),
            ("thaw", DemoCommand::Thaw(None)),
            ("restart order-123", DemoCommand::Restart(Some(named("order-123")))),
            ("  buy whale 2 ", DemoCommand::Buy { name: "whale".into(), quantity: "2".into() }),
            ("", DemoCommand::Nothing),
            ("exit", DemoCommand::Quit),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line, &names), Ok(expected), "{line}");
        }
        for (line, part) in [
            ("kill 999", "order-123"),
            ("kill 123 456", "one process"),
            ("buy whale", "buy whale 2"),
            ("dance", "help"),
        ] {
            let why = parse(line, &names).unwrap_err();
            assert!(why.contains(part), "{line}: {why}");
        }
    }
}
