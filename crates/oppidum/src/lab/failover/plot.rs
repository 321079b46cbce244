//! The failover's picture: the latency of requests over time, with the faults, the returns and the
//! elections marked.

use std::time::{Duration, Instant};

use crate::lab::chart::frame::{Area, Axis, SMALL};
use crate::lab::chart::scale::Scale;
use crate::lab::chart::{
    Anchor, BLUE, Canvas, GREEN, INK, MarkShape, ORANGE, PURPLE, VERMILLION, WIDTH, width,
};
use crate::lab::elections::Election;
use crate::load::report::{Kind, RequestResult, Sample};

use super::fault::InjectedFault;

/// The height of the picture, in pixels.
const HEIGHT: f64 = 544.0;

/// The width of the column that each mark stands for, in pixels.
const COLUMN: f64 = 3.0;

/// The rows of text above the plot: the process that is hit, and the new leader.
const ROWS: [f64; 2] = [78.0, 94.0];

/// Elections that are closer to each other than this share a text, in pixels.
const TOGETHER: f64 = 60.0;

/// The data of the picture.
#[derive(Debug)]
pub(super) struct FailoverPlot<'a> {
    pub(super) began: Instant,
    pub(super) samples: &'a [Sample],
    pub(super) faults: &'a [InjectedFault],
    pub(super) elections: &'a [Election],
    /// The latency without a fault.
    pub(super) usual: Duration,
}

/// Draws the picture.
pub(super) fn draw(plot: &FailoverPlot<'_>, subtitle: &str) -> String {
    let mut canvas = Canvas::new(HEIGHT, "Latency of requests during faults", subtitle);
    let area = Area { left: 66.0, right: WIDTH - 20.0, top: 110.0, bottom: HEIGHT - 134.0 };
    // Look-ups come at the end, after the last fault.
    let shown = || plot.samples.iter().filter(|sample| sample.kind != Kind::Lookup);
    let millis = |sample: &Sample| sample.took.as_secs_f64() * 1_000.0;
    let since = |at: Instant| at.saturating_duration_since(plot.began).as_secs_f64();
    let end = shown().map(|sample| since(sample.began)).fold(1.0, f64::max);
    let promised = plot.faults.iter().map(|fault| fault.within + plot.usual);
    let promised = promised.max().unwrap_or_default().as_secs_f64() * 1_000.0;
    let most = shown().map(millis).fold(promised.max(10.0), f64::max);
    let x = Scale::even(0.0, end, area.left, area.right);
    let y = Scale::by_factors(0.1, 10_f64.powf(most.log10().ceil()), area.bottom, area.top);
    let label = "time from the first request to its answer, ms";
    area.draw(
        &mut canvas,
        Axis { scale: x, label: "time since the first request, s" },
        Axis { scale: y, label },
    );
    marks(&mut canvas, plot, area, |at| x.at(since(at)));
    for fault in plot.faults {
        let at = y.at((fault.within + plot.usual).as_secs_f64() * 1_000.0);
        let from = x.at(since(fault.injected));
        let to = x.at(since(fault.ended));
        canvas.line((from, at), (to, at), INK, 2.0, "");
    }
    let orders: fn(Kind) -> bool = |kind| kind == Kind::Order;
    let queries: fn(Kind) -> bool = |kind| kind != Kind::Order;
    for (is, colour, shape) in
        [(queries, ORANGE, MarkShape::Square), (orders, BLUE, MarkShape::Dot)]
    {
        let own =
            shown().filter(|sample| is(sample.kind) && sample.result != RequestResult::Failed);
        let own = own.map(|sample| (x.at(since(sample.began)), millis(sample)));
        for (at, slowest) in slowest(own) {
            canvas.mark(shape, (at, y.at(slowest)), 1.7, colour, "");
        }
    }
    for sample in shown().filter(|sample| sample.result == RequestResult::Failed) {
        let at = (x.at(since(sample.began)), y.at(millis(sample)));
        canvas.mark(MarkShape::Cross, at, 4.0, VERMILLION, "");
    }
    legend(&mut canvas, plot.faults);
    canvas.finish()
}

/// The slowest request of each column.
fn slowest(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut columns = std::collections::BTreeMap::new();
    for (at, millis) in points {
        // To thousandths of a pixel, so that columns can be compared.
        let column = format!("{:09.3}", (at / COLUMN).floor() * COLUMN);
        let (_, most) = columns.entry(column).or_insert((at, millis));
        *most = most.max(millis);
    }
    columns.into_values().collect()
}

/// Vertical lines, with a text above each where there is space.
fn marks(canvas: &mut Canvas, plot: &FailoverPlot<'_>, area: Area, place: impl Fn(Instant) -> f64) {
    let mut lines = Vec::new();
    for fault in plot.faults {
        let name = fault.victim.trim_start_matches("order-").to_owned();
        lines.push((0, place(fault.injected), name, VERMILLION, ""));
        lines.push((1, place(fault.ended), String::new(), GREEN, "7 3"));
    }
    // Leaders that follow each other closely share a text.
    let mut words: Option<(f64, usize)> = None;
    for election in plot.elections {
        let at = place(election.at);
        let leader = election.leader.to_string();
        match words {
            Some((from, first)) if at - from < TOGETHER => {
                let label: &mut String = &mut lines[first].2;
                *label = format!("{}, {leader} lead", label.trim_end_matches(" leads"));
                lines.push((1, at, String::new(), PURPLE, "2 2"));
            }
            _ => {
                words = Some((at, lines.len()));
                lines.push((1, at, format!("{leader} leads"), PURPLE, "2 2"));
            }
        }
    }
    lines.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut free = [0.0; ROWS.len()];
    for (row, at, words, colour, dash) in lines {
        canvas.line((at, area.top - 6.0), (at, area.bottom), colour, 1.2, dash);
        let half = width(&words, SMALL) / 2.0;
        let middle = at.clamp(half + 4.0, WIDTH - half - 4.0);
        if !words.is_empty() && free[row] <= middle - half {
            free[row] = middle + half + 6.0;
            canvas.text((middle, ROWS[row]), SMALL, Anchor::Middle, INK, &words);
        }
    }
}

fn legend(canvas: &mut Canvas, faults: &[InjectedFault]) {
    let entry = |canvas: &mut Canvas, place: (f64, f64), words: &str| {
        canvas.text((place.0 + 26.0, place.1 + 4.0), 12.0, Anchor::Start, INK, words);
        place
    };
    let [left, middle, right] = [66.0, 330.0, 560.0];
    let [first, second, third] = [76.0, 52.0, 28.0].map(|above| HEIGHT - above);
    let (x, y) = entry(canvas, (left, first), "slowest order of each moment");
    canvas.mark(MarkShape::Dot, (x + 10.0, y), 3.0, BLUE, "");
    let (x, y) = entry(canvas, (left, second), "slowest query of each moment");
    canvas.mark(MarkShape::Square, (x + 10.0, y), 3.0, ORANGE, "");
    for (place, words, colour, dash) in [
        ((middle, first), "a fault is injected", VERMILLION, ""),
        ((middle, second), "it comes back", GREEN, "7 3"),
        ((right, first), "a leader is elected", PURPLE, "2 2"),
    ] {
        let (x, y) = entry(canvas, place, words);
        canvas.line((x + 10.0, y - 9.0), (x + 10.0, y + 9.0), colour, 1.6, dash);
    }
    let (x, y) = entry(canvas, (right, second), "a request that failed");
    canvas.mark(MarkShape::Cross, (x + 10.0, y), 4.0, VERMILLION, "");
    let mut within: Vec<u128> = faults.iter().map(|fault| fault.within.as_millis()).collect();
    within.sort_unstable();
    within.dedup();
    let within: Vec<String> = within.iter().map(u128::to_string).collect();
    let words = format!("promised: at most {} ms more than usual", within.join(" or "));
    let (x, y) = entry(canvas, (left, third), &words);
    canvas.line((x, y), (x + 20.0, y), INK, 2.0, "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_returns_and_elections_are_marked_without_overlapping_texts() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let sample = |ms| Sample {
            began: at(ms),
            took: Duration::from_millis(3),
            kind: Kind::Order,
            result: RequestResult::Done,
            moved: 0,
            put_off: 0,
        };
        let samples: Vec<_> = (0..1_000).map(|n| sample(10 * n)).collect();
        let fault = |ms| InjectedFault {
            victim: "order-456".into(),
            led: true,
            frozen: false,
            injected: at(ms),
            ended: at(ms + 1_000),
            within: Duration::from_millis(100),
        };
        let faults = [fault(2_000), fault(2_100), fault(6_000)];
        let elections = [(2_010, 123), (2_050, 345), (6_010, 456)];
        let elections = elections.map(|(ms, leader)| Election { at: at(ms), leader });
        let plot = FailoverPlot {
            began,
            samples: &samples,
            faults: &faults,
            elections: &elections,
            usual: Duration::from_millis(3),
        };
        let svg = draw(&plot, "test");
        assert_eq!(svg.matches(">456</text>").count(), 2, "the second one has no room");
        assert_eq!(svg.matches(">123, 345 lead</text>").count(), 1);
        assert_eq!(svg.matches(">456 leads</text>").count(), 1);
        assert!(svg.contains(">promised: at most 100 ms more than usual</text>"));
        let dots = svg.matches("r=\"1.7\"").count();
        assert!((200..=260).contains(&dots), "one for each column: {dots}");
    }
}
