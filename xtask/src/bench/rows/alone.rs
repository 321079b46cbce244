//! One client by itself: an order's latency against the costs that cannot be avoided.

use std::time::Duration;

use anyhow::Result;

use super::orders::side;
use crate::bench::floor::{round_trips, syncs};
use crate::bench::legs::walk;
use crate::bench::load::Spread;
use crate::bench::report::{Aim, Row};
use crate::bench::turns::median;
use crate::bench::{Bench, ratio};

/// An order needs one sync to disk, and two round trips: client and frontend, leader and follower.
pub(super) fn measure(bench: &mut Bench) -> Result<Row> {
    bench.both()?;
    let length = (bench.times.length / 5).min(Duration::from_secs(1));
    let folder = bench.folder.0.clone();
    let (store, _, times) = bench.both()?;
    let cpu = || store.cpu();
    let side = side("an order", 1, store, &cpu);
    let mut columns: [Vec<Spread>; 5] = Default::default();
    let (mut server, mut bare) = (Vec::new(), Vec::new());
    for turn in 1..=times.runs {
        let run = side.run(times)?;
        server.push(run.server_us);
        let walked = walk(&folder, length)?;
        bare.push(walked.server_us);
        let measured = [
            run.latency,
            walked.latency,
            syncs(&folder, true, length)?,
            syncs(&folder, false, length)?,
            round_trips(length)?,
        ];
        let [order, legs, appends, overwrites, trip] = measured.map(|spread| spread.p50);
        println!(
            "run {turn} of {}: an order {order:.3} ms; its legs {legs:.3} ms; a sync \
             {appends:.3} ms appending, {overwrites:.3} ms overwriting; a round trip {trip:.3} ms",
            times.runs
        );
        for (column, spread) in columns.iter_mut().zip(measured) {
            column.push(spread);
        }
    }
    let how = "In turns, on the same disk: an order of the only client; its ten legs and three \
               syncs, by threads that do nothing else; a record synced, appending and \
               overwriting; a record sent over loopback and back.";
    let names =
        ["an order", "its legs, bare", "a sync, appending", "a sync, overwriting", "a round trip"];
    let mut row = Row::new("One client by itself", how, &names);
    let line = |measure: fn(&Spread) -> f64| {
        columns.each_ref().map(|column| median(column.iter().map(measure)))
    };
    row.line("median, ms", &line(|spread| spread.p50));
    row.line("99th percentile, ms", &line(|spread| spread.p99));
    let (server, bare) = (median(server), median(bare));
    row.notes.push(format!(
        "CPU of what serves: {server:.0} µs per order; of the bare legs, without the client: \
         {bare:.0} µs."
    ));
    let [order, legs, appends, overwrites, trip] = line(|spread| spread.p50);
    row.notes.push(format!(
        "The legs alone take {:.2} of what the target allows with a sync that appends.",
        ratio(legs, 2.0 * (appends + 2.0 * trip))
    ));
    for (what, sync) in [("appending", appends), ("overwriting", overwrites)] {
        let what = format!("median against a sync, {what}, and two round trips");
        row.aims.push(Aim::at_most(&what, 2.0, " ×", ratio(order, sync + 2.0 * trip)));
    }
    Ok(row)
}
