//! What one may type: pure words in, commands out.

/// Something that was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `kill -9`.
    Kill(Target),
    /// SIGSTOP.
    Freeze(Target),
    /// SIGCONT; None: whoever is frozen.
    Thaw(Option<Target>),
    /// Started again; None: whoever is down.
    Restart(Option<Target>),
    /// An order.
    Buy {
        /// Of what.
        name: String,
        /// How many.
        quantity: String,
    },
    /// Who leads, who lags.
    Status,
    /// Is everything there once, and everywhere the same?
    Verify,
    /// What one may type.
    Help,
    /// Enough.
    Quit,
    /// An empty line.
    Nothing,
}

/// Whom a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Whoever leads at that moment.
    Leader,
    /// A process by its name.
    Named(String),
}

/// What `help` shows.
pub(super) const HELP: &str = concat!(
    "  kill [ID]      kill -9: a replica (456), catalog-1, frontend-1; without ID the leader\n",
    "  freeze [ID]    stop it in its tracks: it keeps its connections and answers nobody\n",
    "  thaw [ID]      let it go on; without ID whoever is frozen\n",
    "  restart [ID]   start it again; without ID whoever is down\n",
    "  buy NAME N     order something: buy whale 2\n",
    "  status         who leads, who lags\n",
    "  verify         is everything there once, and everywhere the same?\n",
    "  help, quit     this; the end (Ctrl-D)",
);

/// Understands a line. `names` are the processes that there are.
pub(super) fn parse(line: &str, names: &[String]) -> Result<Command, String> {
    let mut words = line.split_whitespace();
    let Some(verb) = words.next() else { return Ok(Command::Nothing) };
    let rest: Vec<&str> = words.collect();
    let whom = || match rest.as_slice() {
        [] => Ok(None),
        [name] => target(name, names).map(Some),
        _ => Err(format!("{verb} takes one process: {verb} 456")),
    };
    let whom_else_leader = || Ok::<_, String>(whom()?.unwrap_or(Target::Leader));
    match verb.to_ascii_lowercase().as_str() {
        "kill" => Ok(Command::Kill(whom_else_leader()?)),
        "freeze" => Ok(Command::Freeze(whom_else_leader()?)),
        "thaw" => Ok(Command::Thaw(whom()?)),
        "restart" => Ok(Command::Restart(whom()?)),
        "buy" => match rest.as_slice() {
            [name, quantity] => {
                Ok(Command::Buy { name: (*name).into(), quantity: (*quantity).into() })
            }
            _ => Err("what, and how many? buy whale 2".into()),
        },
        "status" => Ok(Command::Status),
        "verify" => Ok(Command::Verify),
        "help" | "?" => Ok(Command::Help),
        "quit" | "exit" => Ok(Command::Quit),
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
    fn commands_are_understood_and_what_is_none_is_explained() {
        let names = ["order-123", "order-456", "catalog-1", "frontend-1"].map(str::to_owned);
        let named = |name: &str| Target::Named(name.into());
        let table = [
            ("kill 456", Command::Kill(named("order-456"))),
            ("kill", Command::Kill(Target::Leader)),
            ("KILL leader", Command::Kill(Target::Leader)),
            ("freeze catalog", Command::Freeze(named("catalog-1"))),
            ("thaw", Command::Thaw(None)),
            ("restart order-123", Command::Restart(Some(named("order-123")))),
            ("  buy whale 2 ", Command::Buy { name: "whale".into(), quantity: "2".into() }),
            ("", Command::Nothing),
            ("exit", Command::Quit),
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
