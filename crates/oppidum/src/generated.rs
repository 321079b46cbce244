//! `oppidum generate`: man pages and shell completions from the command line, for packages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use wire::exit::Stop;

use crate::cli::{Cli, Generate};

/// Writes a man page for each command, and a completion script for each shell.
pub(crate) fn generate(flags: &Generate) -> Result<bool, Stop> {
    let (man, completions) = (flags.to.join("man"), flags.to.join("completions"));
    write(&man, &completions)
        .map(|()| true)
        .map_err(|error| Stop::Setup(format!("{} cannot be written: {error}", flags.to.display())))
}

fn write(man: &Path, completions: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(man)?;
    std::fs::create_dir_all(completions)?;
    clap_mangen::generate_to(Cli::command(), man)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), "oppidum", completions)?;
    }
    Ok(())
}
