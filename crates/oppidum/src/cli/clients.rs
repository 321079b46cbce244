//! The command line for the limits of a frontend for its clients.

use clap::Args;

/// The limits of a frontend for its clients.
#[derive(Clone, Debug, Args)]
pub(crate) struct Clients {
    /// What GET /status shows on the public port: `short` to all clients, `full` to clients on
    /// loopback [default: short]
    #[arg(long, value_name = "full|short")]
    pub(crate) public_status: Option<String>,
    /// How many connections one address may hold; 0: no limit [default: 128]
    #[arg(long, value_name = "N")]
    pub(crate) connections_per_address: Option<String>,
    /// How many requests per second one address may send without an API key; twice as many may come
    /// at once; 0: no limit [default: 1000]
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_address: Option<String>,
    /// Addresses of gateways, and networks of gateways alone: no limit of connections, and none of
    /// requests unless `--customer-address` is set; `loopback`: the addresses of this machine
    #[arg(long, value_name = "ADDRESS,…")]
    pub(crate) gateways: Option<String>,
    /// How gateways name the address of a customer, whose limits then apply: `unknown` (they do
    /// not), in the header `x-forwarded-for` or `forwarded`, or by `proxy-protocol` version 2. Only
    /// name what each gateway writes itself [default: unknown]
    #[arg(long, value_name = "HOW")]
    pub(crate) customer_address: Option<String>,
    /// How long an idle connection is kept, in seconds [default: 75]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle_seconds: Option<String>,
    /// How long to go on answering after SIGTERM, so that gateways notice: 0 to 60 [default: 0]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<String>,
}
