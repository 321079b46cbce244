//! The names of the rows: what `--only` takes, and what the page calls them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The rows, in the order in which they are measured and their targets stand on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    /// Orders on one hot product, 64 connections.
    #[value(name = "hot-64")]
    #[serde(rename = "hot-64")]
    Hot64,
    /// Orders on one hot product, 256 connections: the greatest rate.
    #[value(name = "hot-256")]
    #[serde(rename = "hot-256")]
    Hot256,
    /// One hot product against 10 and 10,000.
    Products,
    /// One client by itself, against a sync and two round trips.
    Alone,
    /// Product queries that hit the cache.
    Query,
    /// Orders of a sold-out product.
    SoldOut,
    /// Batches of 1,000 orders.
    Batch,
    /// Latency at half of the greatest rate, open loop.
    Latency,
    /// Twice the greatest rate, open loop.
    Overload,
    /// Twice the greatest rate, with a core of its own for the load.
    OverloadApart,
    /// What catalogs and caches cost, 64 connections.
    #[value(name = "settling-64")]
    #[serde(rename = "settling-64")]
    Settling64,
    /// What catalogs and caches cost, one client.
    #[value(name = "settling-1")]
    #[serde(rename = "settling-1")]
    Settling1,
    /// What API keys cost.
    ApiKeys,
    /// What certificates between the processes cost.
    Certificates,
    /// The same job by `PostgreSQL`, if it is installed.
    #[value(name = "postgresql")]
    #[serde(rename = "postgresql")]
    PostgreSql,
    /// The same job by Redis, if it is installed.
    Redis,
    /// The store after many orders; needs --growth N.
    Growth,
    /// A replica returns after missing many orders; needs --return N.
    Return,
    /// The leader is killed; needs --failover N.
    Failover,
    /// The leader is killed, with certificates between the processes; needs --failover N.
    FailoverCertificates,
    /// The leader is frozen; needs --failover N --freeze.
    Freeze,
}

impl Name {
    /// The name for `--only`.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Hot64 => "hot-64",
            Self::Hot256 => "hot-256",
            Self::Products => "products",
            Self::Alone => "alone",
            Self::Query => "query",
            Self::SoldOut => "sold-out",
            Self::Batch => "batch",
            Self::Latency => "latency",
            Self::Overload => "overload",
            Self::OverloadApart => "overload-apart",
            Self::Settling64 => "settling-64",
            Self::Settling1 => "settling-1",
            Self::ApiKeys => "api-keys",
            Self::Certificates => "certificates",
            Self::PostgreSql => "postgresql",
            Self::Redis => "redis",
            Self::Growth => "growth",
            Self::Return => "return",
            Self::Failover => "failover",
            Self::FailoverCertificates => "failover-certificates",
            Self::Freeze => "freeze",
        }
    }

    /// The rows that are measured by default.
    pub(crate) fn usual() -> Vec<Self> {
        let rare =
            [Self::Growth, Self::Return, Self::Failover, Self::FailoverCertificates, Self::Freeze];
        Self::every().into_iter().filter(|name| !rare.contains(name)).collect()
    }

    /// All rows.
    pub(crate) fn every() -> Vec<Self> {
        Self::value_variants().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_same_name_on_the_command_line_on_the_page_and_in_the_file() {
        for name in Name::value_variants() {
            let value = name.to_possible_value().expect("every row can be asked for");
            assert_eq!(value.get_name(), name.text());
            let json = serde_json::to_value(name).expect("a name can be written");
            assert_eq!(json.as_str(), Some(name.text()));
        }
        assert!(!Name::usual().contains(&Name::Growth));
    }
}
