//! The command line for API keys.

use std::time::Duration;

use clap::{Args, Subcommand};
use ledger::api_key::{API_KEY_ID_BYTES, ApiKeyId, Principal, REQUEST_RATE_MAX, Scopes};
use ledger::api_key_text::API_KEY_PREFIX;

use super::values::Url;

/// `oppidum init`
#[derive(Debug, Args)]
#[command(after_help = "Example, once for a store, on one machine:\n  \
    oppidum init --data /etc/oppidum\n\n\
    It writes root.key there, which only this user can read, and prints a line for the environment \
    of every replica. The first leader opens the store with it, and requests without an API key \
    may do nothing.")]
pub(crate) struct Init {
    /// The folder for root.key [default: ./oppidum-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
}

/// The operator's work on API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeys {
    #[command(after_help = "Examples:\n  \
        oppidum ctl key issue webshop --as storefront --for 90d > webshop.key\n  \
        oppidum ctl key issue partner --as storefront --rate 500/s > partner.key\n  \
        oppidum ctl key issue nightly --as importer,query --note 'from the warehouse'\n\n\
        SCOPES are names and presets, separated by commas:\n  \
        query order order:any import shop monitor operate keys\n  \
        storefront = query,order     importer = import,order   owner = query,shop,monitor\n  \
        operator = operate,monitor   viewer = monitor,query    root = all of them\n\n\
        The key is the only line on stdout, and is not shown again.\n\
        Exit codes: 0 issued; 1 refused; 2 no store there.")]
    /// Issues an API key of a principal, and prints it
    Issue {
        /// The owner of the key, its orders and its idempotency keys: letters a-z, digits, `-`
        #[arg(value_parser = principal)]
        principal: Principal,
        /// What the key allows
        #[arg(long = "as", value_name = "SCOPES", value_parser = scopes)]
        scopes: Scopes,
        /// How long the key lasts: 90d, 24h, 30m [default: until it is revoked]
        #[arg(long = "for", value_name = "TIME", value_parser = lifetime)]
        lifetime: Option<Duration>,
        /// How many requests per second a frontend takes with all keys of the principal that have
        /// this rate and burst [default: any number]
        #[arg(long, value_name = "N", value_parser = rate)]
        rate: Option<u32>,
        /// How many requests may come at once [default: twice the rate, at most 1000000]
        #[arg(long, value_name = "N", value_parser = requests, requires = "rate")]
        burst: Option<u32>,
        /// A note for people
        #[arg(long, default_value = "")]
        note: String,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
    /// Lists the API keys, and what requests without one may do
    #[command(after_help = "Example:\n  oppidum ctl key list")]
    List(Url),
    #[command(
        after_help = "Example:\n  oppidum ctl key rotate webshop --overlap 24h > new.key\n\n\
        The new key allows what the principal's newest key allows, and lasts as long as that one \
        lasts from its issue. The older keys end after the overlap."
    )]
    /// Issues a new API key of a principal, and ends its others after an overlap
    Rotate {
        /// The principal
        #[arg(value_parser = principal)]
        principal: Principal,
        /// How long the older keys go on
        #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "24h")]
        overlap: Duration,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
    #[command(after_help = "Example:\n  oppidum ctl key revoke 7f3kq2mw\n\n\
        From this index of the log on the key decides nothing, wherever its requests already are.")]
    /// Ends an API key
    Revoke {
        /// The id of the key: its 8 letters after `opk_`
        #[arg(value_parser = key_id)]
        id: ApiKeyId,
        /// End it later: 24h, 30m [default: now]
        #[arg(long = "in", value_name = "TIME", value_parser = lifetime)]
        later: Option<Duration>,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
    #[command(after_help = "Examples:\n  oppidum ctl key anonymous none\n  \
        oppidum ctl key anonymous query\n\n\
        `none` closes a store.")]
    /// Sets what requests without an API key may do
    Anonymous {
        /// The scopes: `none`, or some of query, order, order:any, import, shop, monitor
        #[arg(value_parser = anonymous_scopes)]
        scopes: Scopes,
        /// The store.
        #[command(flatten)]
        url: Url,
    },
}

fn principal(name: &str) -> Result<Principal, String> {
    Principal::new(name).ok_or_else(|| "a principal has 1 to 64 letters a-z, digits or `-`".into())
}

fn scopes(list: &str) -> Result<Scopes, String> {
    let unknown = |name: &str| {
        format!(
            "{name:?} is no scope: there are query, order, order:any, import, shop, monitor, \
             operate, keys, and the presets storefront, importer, owner, operator, viewer, root"
        )
    };
    Scopes::parse(list).map_err(unknown)
}

fn anonymous_scopes(list: &str) -> Result<Scopes, String> {
    let scopes = scopes(list)?;
    if Scopes::ANONYMOUS_MAX.contain(scopes) {
        Ok(scopes)
    } else {
        Err("requests without an API key never operate the store or issue keys".into())
    }
}

fn key_id(text: &str) -> Result<ApiKeyId, String> {
    // Of a whole key only the id is taken.
    let id = text.strip_prefix(API_KEY_PREFIX).and_then(|rest| rest.get(..API_KEY_ID_BYTES));
    ApiKeyId::new(id.unwrap_or(text).as_bytes())
        .ok_or_else(|| "an id has 8 letters: see `oppidum ctl key list`".into())
}

/// Parses a rate such as `500` or `500/s`.
fn rate(text: &str) -> Result<u32, String> {
    requests(text.strip_suffix("/s").unwrap_or(text))
        .map_err(|_| format!("a rate is written as 500 or 500/s, from 1 to {REQUEST_RATE_MAX}"))
}

/// Parses a number of requests.
fn requests(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=REQUEST_RATE_MAX).contains(number));
    number.ok_or_else(|| format!("a number from 1 to {REQUEST_RATE_MAX} is expected"))
}

/// Parses a time such as `90d`, `24h`, `30m` or `45s`, up to ten years.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    const DAY: u64 = 24 * 60 * 60;
    let odd = || format!("a time is written as 90d, 24h, 30m or 45s, up to 3650d, not {text:?}");
    let unit = match text.chars().last() {
        Some('d') => DAY,
        Some('h') => 60 * 60,
        Some('m') => 60,
        Some('s') => 1,
        _ => return Err(odd()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| odd())?;
    let seconds = number.checked_mul(unit).filter(|seconds| (1..=3_650 * DAY).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_parsed_with_their_unit() {
        for (text, seconds) in [("90d", 7_776_000), ("24h", 86_400), ("30m", 1_800), ("45s", 45)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for odd in ["", "d", "90", "-1d", "0s", "1.5h", "3651d", "9999999999999999999d", "1é"] {
            assert!(lifetime(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_rate_is_a_number_per_second() {
        assert_eq!((rate("500"), rate("1/s"), requests("7")), (Ok(500), Ok(1), Ok(7)));
        assert!(requests("7/s").is_err(), "a burst is no rate");
        for odd in ["", "0", "/s", "500/m", "-1", "1.5", "1000001", "99999999999"] {
            assert!(rate(odd).is_err() && requests(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn requests_without_an_api_key_operate_no_store() {
        assert_eq!(
            anonymous_scopes("query,order").map(|it| it.to_string()).as_deref(),
            Ok("query, order")
        );
        assert_eq!(anonymous_scopes("none"), Ok(Scopes::NONE));
        for odd in ["keys", "operate", "root", "operator", "admin"] {
            assert!(anonymous_scopes(odd).is_err(), "{odd}");
        }
    }
}
