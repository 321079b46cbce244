//! `oppidum lab cache`: which products a cache holds over time, and which evicts which.

mod plot;

mod history;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::cli::lab::Cache;
use crate::http::Client;
use crate::lab::cluster::{self, ClusterSpec};
use crate::lab::files;
use crate::load;
use crate::load::report::{Report, print_failures};
use crate::load::workload::Workload;
use crate::signals::Interrupt;
use history::{CacheHistory, CachedSpan, Event};

/// The most rows of a picture.
const ROWS_MAX: usize = 40;

/// The readings of one run.
struct CacheRun {
    before: CacheHistory,
    after: CacheHistory,
    report: Report,
    products: Vec<String>,
}

/// Runs customers, and shows how their requests changed the cache.
pub(super) async fn run(flags: &Cache, interrupt: &Interrupt) -> Result<bool, Stop> {
    let out = &flags.crowd.out;
    files::create_folder(out)?;
    let seen = match &flags.url {
        Some(url) => interrupt.unless(look(url, flags)).await?,
        None => {
            let cache = flags.capacity.to_string();
            let spec = ClusterSpec { cache, ..ClusterSpec::new("stock") };
            cluster::with(&spec, interrupt, async |cluster| look(&cluster.url(), flags).await)
                .await?
        }
    };
    let (events, cut) = history::since(&seen.before, &seen.after);
    print_failures(&seen.report.failures);
    if events.is_empty() {
        answer!("Nothing was measured: nothing happened to the cache.");
        return Ok(false);
    }
    if cut {
        note!("only the last {} events are kept: earlier ones are missing", events.len());
    }
    let before = if cut {
        Vec::new()
    } else {
        seen.before.cache.contents.iter().map(|product| product.name.clone()).collect()
    };
    let spans = history::spans(&before, &events);
    write(flags, &seen, &events, &spans)?;
    Ok(seen.report.failures.is_empty())
}

/// Runs the customers on the store at `url`, and reads its cache before and after.
async fn look(url: &str, flags: &Cache) -> Result<CacheRun, Stop> {
    let mut client = Client::new(url)?;
    let before = ask(&mut client, url).await?;
    if before.cache.capacity == 0 {
        return Err(Stop::Setup(format!("the frontend at {url} has no cache")));
    }
    let shop = load::fetch_shop(url).await?;
    let fits =
        usize::try_from(before.cache.capacity).is_ok_and(|capacity| shop.names.len() <= capacity);
    if fits {
        note!("every product fits into the cache: none will make room for another");
    }
    let workload = Workload::quiet(flags.crowd.clients, flags.requests, flags.p, flags.crowd.seed);
    let workload = Workload { pause: flags.pause, ..workload };
    let closing = CancellationToken::new();
    let urls = [url.to_owned()];
    let report =
        load::run_customers(&urls, &shop, workload, &closing, &std::sync::Arc::default()).await?;
    let after = ask(&mut client, url).await?;
    Ok(CacheRun { before, after, report, products: shop.names.to_vec() })
}

async fn ask(client: &mut Client, url: &str) -> Result<CacheHistory, Stop> {
    let no = |why: String| Stop::Setup(format!("{url} does not tell of its cache: {why}"));
    let reply = client.get("/status/cache").await.map_err(no)?;
    if reply.status != 200 {
        return Err(no(format!("/status/cache was answered {}", reply.status)));
    }
    serde_json::from_slice(&reply.body).map_err(|error| no(error.to_string()))
}

/// Writes the files and prints the summary.
fn write(
    flags: &Cache,
    seen: &CacheRun,
    events: &[Event],
    spans: &[CachedSpan],
) -> Result<(), Stop> {
    let CacheRun { before, after, products, .. } = seen;
    let out = &flags.crowd.out;
    let capacity = after.cache.capacity;
    let grown = |of: fn(&CacheHistory) -> u64| of(after).saturating_sub(of(before));
    let hits = grown(|history| history.cache.hits);
    let misses = grown(|history| history.cache.misses + history.cache.coalesced);
    let evicted = grown(|history| history.cache.evicted);
    let invalidated = grown(|history| history.cache.invalidated);
    let mut shown: Vec<String> = products.clone();
    shown.sort();
    let all = shown.len();
    if ROWS_MAX < all {
        shown.retain(|name| spans.iter().any(|span| span.product == *name));
        shown.truncate(ROWS_MAX);
        note!("{} of {all} products are drawn", shown.len());
    }
    let subtitle = format!(
        "room for {capacity} of {all} products; {hits} hits, {misses} misses, {evicted} \
         evictions, {invalidated} invalidations; {} clients, p = {}",
        flags.crowd.clients, flags.p
    );
    let picture = plot::draw(&subtitle, &shown, spans, events);
    let drawn = files::write(out, "cache.svg", &picture)?;
    let behind = json!({
        "capacity": capacity,
        "products": products,
        "hits": hits,
        "misses": misses,
        "evicted": evicted,
        "invalidated": invalidated,
        "cached": spans,
        "events": events,
    });
    let behind = format!("{behind:#}\n");
    let written = files::write(out, "cache.json", &behind)?;
    let mut last: Vec<&str> = Vec::new();
    if let Some(event) = events.last() {
        last.extend(event.contents.iter().map(String::as_str));
    }
    answer!("written: {}, {}", drawn.display(), written.display());
    answer!("At the end it held {}.", last.join(", "));
    let queries = (hits + misses).max(1);
    answer!(
        "With room for {capacity} of {all} products {hits} of {queries} queries were hits ({} %); \
         {evicted} times a product made room for another, {invalidated} times an order changed \
         one that was cached.",
        100 * hits / queries
    );
    Ok(())
}
