//! The command line of `oppidum conform`.

use clap::Args;

use crate::roles::DialectName;

/// `oppidum conform`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  oppidum conform --dialect stock\n  \
    oppidum conform --url http://127.0.0.1:8080 --dialect toy --json > score.json\n\n\
    The store need not be empty, but nobody else should be trading. It must sell two products, \
    one of them with 60 pieces (in the stock dialect fewer do: pieces are sold to it). In the \
    stock dialect the stock is left as it was found. Exit codes: 0 every check was passed or \
    skipped; 1 not so; 2 no store there.")]
pub(crate) struct Conform {
    /// The store's public address [default: `http://127.0.0.1:1234`]
    #[arg(long)]
    pub(crate) url: Option<String>,
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
