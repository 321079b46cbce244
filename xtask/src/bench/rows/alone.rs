//! One client by itself: an order's latency against the costs that cannot be avoided.

use std::time::Duration;

use anyhow::Result;

use super::orders::side;
use crate::bench::Bench;
use crate::bench::floor::{round_trips, syncs};
use crate::bench::legs::walk;
use crate::bench::load::Spread;
use crate::bench::report::{Alone, Figures};
use crate::bench::turns::{median, median_spread};

/// An order needs one sync to disk, and two round trips: client and frontend, leader and follower.
pub(super) fn measure(bench: &mut Bench) -> Result<Figures> {
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
    let [order, legs, sync_appending, sync_overwriting, round_trip] = columns.map(median_spread);
    let (order_cpu_us, legs_cpu_us) = (median(server), median(bare));
    Ok(Figures::Alone(Alone {
        order,
        legs,
        sync_appending,
        sync_overwriting,
        round_trip,
        order_cpu_us,
        legs_cpu_us,
    }))
}
