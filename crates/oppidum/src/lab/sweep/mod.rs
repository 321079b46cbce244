//! `oppidum lab sweep`: latency by the share of orders, with and without a cache.
//!
//! The clients measure each point, on a local cluster of its own, so that no point slows the next
//! one down. Connections open before the measurement, and every order is confirmed at the end.

mod plot;

mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::cli::lab::Sweep;
use crate::cli::values::DialectName;
use crate::http::Client;
use crate::inspect;
use crate::lab::cluster::{self, ClusterSpec};
use crate::lab::files;
use crate::lab::progress::ProgressLine;
use crate::load;
use crate::load::report::{Kind, LatencySummary, Report, print_failures};
use crate::load::workload::{LoadProgress, LoadedShop, Workload};
use crate::shop;
use crate::signals::Interrupt;
use table::Row;

/// How often the bar is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// The store that the sweep measures.
enum SweepTarget {
    /// A new cluster for each point.
    Own,
    /// A running store, whose cache is `on`, `off` or `unknown`.
    There { url: String, shop: LoadedShop, cache: &'static str },
}

/// One point of the sweep.
#[derive(Clone, Copy)]
struct Point<'a> {
    /// `on`, `off` or `unknown`.
    cache: &'a str,
    /// The probability that a query is followed by a trade.
    p: f64,
}

impl Point<'_> {
    /// The name in the progress bar and in failures.
    fn name(self) -> String {
        format!("cache {}, p = {}", self.cache, self.p)
    }
}

/// Measures, writes the files, and reports the effect of the cache.
pub(super) async fn run(flags: &Sweep, interrupt: &Interrupt) -> Result<bool, Stop> {
    let out = &flags.crowd.out;
    files::create_folder(out)?;
    let target = match &flags.url {
        None => SweepTarget::Own,
        Some(url) => interrupt.unless(there(url, flags.dialect.as_deref())).await?,
    };
    let settings: Vec<&str> = match &target {
        SweepTarget::Own => vec!["on", "off"],
        SweepTarget::There { cache, .. } => vec![cache],
    };
    // Both cache settings in turn at each p: load on this machine then affects both alike.
    let at = |p: f64| settings.iter().map(move |&cache| Point { cache, p });
    let points: Vec<Point<'_>> = flags.p.iter().flat_map(|p| at(*p)).collect();
    let each = u64::from(flags.crowd.clients) * flags.requests;
    let progress = ProgressLine::of(each * u64::try_from(points.len()).unwrap_or(1));
    let mut rows = Vec::new();
    let mut sum = [Report::default(), Report::default()];
    let mut failures = vec![];
    let mut done = 0;
    for point in points {
        let report = measure(flags, &target, point, done, &progress, interrupt).await?;
        done += each;
        rows.extend(table::rows(point.cache, point.p, &report));
        sum[usize::from(point.cache == "off")].add(&report);
        let what = point.name();
        failures.extend(report.failures.iter().map(|why| format!("{what}: {why}")));
        if report.orders != report.confirmed {
            let Report { orders, confirmed, .. } = report;
            failures.push(format!("{what}: {confirmed} of {orders} orders were confirmed"));
        }
    }
    drop(progress);
    let csv = table::write(&rows);
    let read = table::read(&csv).ok_or_else(|| Stop::Defect("the table cannot be read".into()))?;
    let subtitle = format!(
        "{} clients, {} requests of each at each point, seed {}; measured at the clients",
        flags.crowd.clients, flags.requests, flags.crowd.seed
    );
    let written = files::write(out, "sweep.csv", &csv)?;
    let drawn = files::write(out, "sweep.svg", &plot::draw(&read, &subtitle))?;
    show(&rows);
    print_failures(&failures);
    answer!("\nwritten: {}, {}", written.display(), drawn.display());
    let [on, off] = &sum;
    answer!("{}", worth(on, off, flags.url.is_none()));
    let queries = [Kind::QueryHit, Kind::QueryMiss, Kind::Query];
    let measured = [on, off].iter().any(|report| report.spread(&queries).is_some());
    Ok(failures.is_empty() && measured)
}

/// Measures one point.
async fn measure(
    flags: &Sweep,
    target: &SweepTarget,
    point: Point<'_>,
    done: u64,
    progress: &ProgressLine,
    interrupt: &Interrupt,
) -> Result<Report, Stop> {
    let crowd = &flags.crowd;
    let workload = Workload::quiet(crowd.clients, flags.requests, point.p, crowd.seed);
    let tally = Arc::new(LoadProgress::default());
    let what = point.name();
    progress.show(&format!("{what}: opening"), done);
    let run = async |urls: &[String], shop: &LoadedShop| {
        let closing = CancellationToken::new();
        let customers = load::run_customers(urls, shop, workload, &closing, &tally);
        tokio::pin!(customers);
        let mut tick = tokio::time::interval(REDRAW_INTERVAL);
        loop {
            tokio::select! {
                report = &mut customers => return report,
                _ = tick.tick() => {
                    progress.show(&what, done + tally.requests.load(Ordering::Relaxed));
                }
            }
        }
    };
    match target {
        SweepTarget::There { url, shop, .. } => {
            interrupt.unless(run(std::slice::from_ref(url), shop)).await
        }
        SweepTarget::Own => {
            let cache =
                if point.cache == "on" { flags.cache.to_string() } else { "off".to_owned() };
            let spec = ClusterSpec { cache, ..ClusterSpec::new("stock") };
            cluster::with(&spec, interrupt, async |cluster| {
                let shop = load::fetch_shop(&cluster.url()).await?;
                run(&cluster.urls(), &shop).await
            })
            .await
        }
    }
}

/// Inspects a running store. Another implementation may lack `/status` or a list of products: then
/// the sweep uses the products of the built-in shop.
async fn there(url: &str, dialect: Option<&str>) -> Result<SweepTarget, Stop> {
    let alive = Client::new(url)?.get("/products").await;
    alive.map_err(|why| Stop::Setup(format!("no store answers at {url}: {why}")))?;
    let ours = inspect::readable(url).await.unwrap_or_default();
    let frontend = ours.processes.iter().find(|process| process.cache.is_some());
    let cache = match frontend.and_then(|process| process.cache.as_ref()) {
        Some(cache) if cache.capacity == 0 => "off",
        Some(_) => "on",
        None => "unknown",
    };
    let shop = match (load::fetch_shop(url).await, dialect) {
        (Ok(shop), None) => shop,
        (Ok(shop), Some(dialect)) => LoadedShop { toy: is_toy(dialect)?, ..shop },
        (Err(_), dialect) => {
            let dialect = dialect.unwrap_or("stock");
            let toy = is_toy(dialect)?;
            let (built_in, _) = shop::load(dialect, shop::Age::New)?;
            let names = built_in.products.iter().map(|product| product.name.as_str().to_owned());
            note!("{url} lists no products: taking those of the {dialect} shop");
            LoadedShop { toy, names: names.collect() }
        }
    };
    Ok(SweepTarget::There { url: url.to_owned(), shop, cache })
}

fn is_toy(dialect: &str) -> Result<bool, Stop> {
    let known = dialect.parse::<DialectName>();
    let known = known.map_err(|why| Stop::Setup(format!("--dialect: {why}")))?;
    Ok(known.0.name() == "toy")
}

/// Prints the table.
fn show(rows: &[Row]) {
    answer!(
        "{:<8} {:>5}  {:<12} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "cache",
        "p",
        "ms",
        "n",
        "mean",
        "p50",
        "p95",
        "p99"
    );
    for Row { cache, p, kind, spread } in rows {
        let name = table::ROWS.iter().find(|(known, ..)| known == kind).map_or("", |row| row.1);
        let head = format!("{cache:<8} {p:>5}  {name:<12}");
        match spread {
            Some(LatencySummary { n, mean, p50, p95, p99 }) => {
                answer!("{head} {n:>8} {mean:>9.3} {p50:>9.3} {p95:>9.3} {p99:>9.3}");
            }
            None => answer!("{head} {:>8}", "n=0"),
        }
    }
}

/// The summary, from all points with the cache on, or unknown, and all with the cache off.
fn worth(on: &Report, off: &Report, own: bool) -> String {
    const ALL: [Kind; 3] = [Kind::QueryHit, Kind::QueryMiss, Kind::Query];
    let Some(with) = on.spread(&ALL) else {
        return match off.spread(&ALL) {
            None => "Nothing was measured.".into(),
            Some(LatencySummary { mean, .. }) if own => format!(
                "What the cache is worth was not measured: nothing came back with it on. \
                 Without it a query took {mean:.3} ms in the mean."
            ),
            Some(LatencySummary { mean, .. }) => format!(
                "What a cache is worth cannot be said of a store without one; a query took \
                 {mean:.3} ms in the mean."
            ),
        };
    };
    let single = match (on.spread(&[Kind::QueryHit]), on.spread(&[Kind::QueryMiss])) {
        (Some(hit), Some(miss)) => format!(
            "What the cache was worth: a hit took {:.3} ms in the mean and a miss {:.3} ms, {:.1} \
             times as long (in the median {:.3} and {:.3} ms, {:.1} times); {:.0} % of the \
             queries were hits",
            hit.mean,
            miss.mean,
            miss.mean / hit.mean,
            hit.p50,
            miss.p50,
            miss.p50 / hit.p50,
            100.0 * count(hit.n) / count(with.n)
        ),
        (Some(hit), None) => format!(
            "What the cache was worth: every query was a hit, of {:.3} ms in the mean",
            hit.mean
        ),
        (None, Some(miss)) => format!(
            "The cache was worth nothing: no query was a hit, a miss took {:.3} ms",
            miss.mean
        ),
        (None, None) => {
            return format!(
                "What the cache is worth cannot be said: the store does not tell hits from \
                 misses (no Cache-Status); a query took {:.3} ms in the mean.",
                with.mean
            );
        }
    };
    match off.spread(&ALL) {
        Some(without) => format!(
            "{single}. All queries together took {:.3} ms with it and {:.3} ms without, {:.2} \
             times as long (in the median {:.3} and {:.3} ms, {:.2} times).",
            with.mean,
            without.mean,
            without.mean / with.mean,
            with.p50,
            without.p50,
            without.p50 / with.p50
        ),
        None => format!("{single}. What queries cost without it was not measured."),
    }
}

/// Counts of requests are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn count(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(hits: u64, hit: f64, misses: u64, miss: f64) -> Report {
        let mut report = Report::default();
        for _ in 0..hits {
            report.took(Kind::QueryHit, Duration::from_secs_f64(hit / 1_000.0));
        }
        for _ in 0..misses {
            report.took(Kind::QueryMiss, Duration::from_secs_f64(miss / 1_000.0));
        }
        report
    }

    #[test]
    fn the_summary_claims_only_what_was_measured() {
        let sentence = worth(&report(50, 0.1, 50, 0.3), &report(0, 0.0, 100, 0.4), true);
        for part in ["3.0 times as long", "50 % of the queries", "2.00 times as long"] {
            assert!(sentence.contains(part), "no {part:?} in {sentence}");
        }
        let none = Report::default();
        assert_eq!(worth(&none, &none, true), "Nothing was measured.");
        let sentence = worth(&report(0, 0.0, 9, 0.3), &none, false);
        assert!(
            sentence.contains("no query was a hit") && sentence.contains("not measured"),
            "{sentence}"
        );
        let sentence = worth(&none, &report(0, 0.0, 9, 0.3), false);
        assert!(sentence.contains("store without one"), "{sentence}");
    }
}
