//! The sweep's picture: a small plot for each kind of request, with p to the right, milliseconds
//! upwards, and a line for each cache setting.

use crate::lab::chart::frame::{Area, Axis, SMALL};
use crate::lab::chart::scale::{Scale, round_up};
use crate::lab::chart::{Anchor, BLUE, Canvas, GREEN, GREY, INK, MarkShape, VERMILLION, WIDTH};
use crate::load::report::LatencySummary;

use super::table::{ROWS, Row};

/// The height of a small plot with its heading and axis, in pixels.
const CELL: f64 = 264.0;

/// The height above the first plot.
const HEAD: f64 = 60.0;

/// The styles of the cache settings; a setting that is not listed is not drawn.
const STYLES: [(&str, &str, MarkShape); 3] = [
    ("on", BLUE, MarkShape::Dot),
    ("off", VERMILLION, MarkShape::Square),
    ("unknown", GREEN, MarkShape::Triangle),
];

/// Draws these rows.
pub(super) fn draw(rows: &[Row], subtitle: &str) -> String {
    let mut canvas =
        Canvas::new(HEAD + 3.0 * CELL, "Latency against the share of orders", subtitle);
    for (place, (kind, name, _)) in ROWS.into_iter().enumerate() {
        let own: Vec<&Row> = rows.iter().filter(|row| row.kind == kind).collect();
        plot(&mut canvas, corner(place), kind, name, &own);
    }
    legend(&mut canvas, corner(ROWS.len()), rows);
    canvas.finish()
}

/// The upper left corner of a small plot.
fn corner(place: usize) -> (f64, f64) {
    let column = place % 2;
    let row = place / 2;
    let row = f64::from(u32::try_from(row).unwrap_or(0));
    (if column == 0 { 0.0 } else { WIDTH / 2.0 }, HEAD + CELL * row)
}

fn plot(canvas: &mut Canvas, (left, top): (f64, f64), kind: &str, name: &str, rows: &[&Row]) {
    let area = Area {
        left: left + 62.0,
        right: left + WIDTH / 2.0 - 16.0,
        top: top + 34.0,
        bottom: top + CELL - 48.0,
    };
    canvas.bold((area.left - 46.0, top + 18.0), 13.0, name);
    let ps = rows.iter().map(|row| row.p);
    let (low, high) = ps.fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p), high.max(p)));
    // Points keep away from the axis, so that the texts at them are readable.
    let x = Scale::even(low, high, area.left + 24.0, area.right - 16.0);
    let slowest = rows.iter().filter_map(|row| row.spread).map(|s| s.p95.max(s.mean));
    let slowest = slowest.fold(0.0, f64::max);
    let most = if 0.0 < slowest { round_up(slowest) } else { 1.0 };
    let y = Scale::even(0.0, most, area.bottom, area.top);
    let x_axis = Axis { scale: x, label: "p, the share of queries followed by an order" };
    area.draw(canvas, x_axis, Axis { scale: y, label: "latency, ms" });
    let mut lacking = 0.0;
    for (cache, colour, shape) in STYLES {
        let own: Vec<&&Row> = rows.iter().filter(|row| row.cache == cache).collect();
        let measured = || own.iter().filter_map(|row| Some((row.p, row.spread?)));
        let points = |of: fn(&LatencySummary) -> f64| -> Vec<(f64, f64)> {
            measured().map(|(p, spread)| (x.at(p), y.at(of(&spread)))).collect()
        };
        canvas.path(&points(|spread| spread.p95), colour, 1.0, "2 3");
        canvas.path(&points(|spread| spread.mean), colour, 1.8, "");
        for (p, spread) in measured() {
            let attributes = format!(
                "data-kind=\"{kind}\" data-cache=\"{cache}\" data-p=\"{p}\" data-n=\"{}\"",
                spread.n
            );
            let at = (x.at(p), y.at(spread.mean));
            canvas.mark(shape, at, 3.5, colour, &attributes);
        }
        let nothing: Vec<f64> =
            own.iter().filter(|row| row.spread.is_none()).map(|row| row.p).collect();
        if nothing.is_empty() {
            continue;
        }
        if nothing.len() == own.len() {
            let text = format!("cache {cache}: n=0");
            canvas.text((area.right, top + 18.0 + lacking), SMALL, Anchor::End, colour, &text);
            lacking += 14.0;
            continue;
        }
        let base = area.bottom - if cache == "on" { 20.0 } else { 6.0 };
        for p in nothing {
            canvas.text((x.at(p), base), SMALL, Anchor::Middle, colour, "n=0");
        }
    }
}

fn legend(canvas: &mut Canvas, (left, top): (f64, f64), rows: &[Row]) {
    let left = left + 24.0;
    canvas.bold((left, top + 18.0), 13.0, "how to read it");
    let mut y = top + 46.0;
    for (cache, colour, shape) in STYLES {
        if !rows.iter().any(|row| row.cache == cache) {
            continue;
        }
        canvas.line((left, y - 4.0), (left + 36.0, y - 4.0), colour, 1.8, "");
        canvas.mark(shape, (left + 18.0, y - 4.0), 3.5, colour, "");
        canvas.text((left + 46.0, y), 12.0, Anchor::Start, INK, &format!("cache {cache}: mean"));
        y += 20.0;
        canvas.line((left, y - 4.0), (left + 36.0, y - 4.0), colour, 1.0, "2 3");
        let text = format!("cache {cache}: 95th percentile");
        canvas.text((left + 46.0, y), 12.0, Anchor::Start, INK, &text);
        y += 26.0;
    }
    let words = [
        "n=0: nothing of this kind was measured there.",
        "Each plot has a scale of its own.",
        "The numbers are in sweep.csv.",
    ];
    for line in words {
        canvas.text((left, y), 12.0, Anchor::Start, GREY, line);
        y += 18.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    fn rows() -> Vec<Row> {
        let spread =
            |mean: f64| LatencySummary { n: 9, mean, p50: mean, p95: 2.0 * mean, p99: 3.0 * mean };
        let mut rows = Vec::new();
        for (cache, mean) in [("on", 0.4), ("off", 0.7)] {
            for p in [0.0, 0.5] {
                for (kind, _, _) in ROWS {
                    let lacks = (kind == "query_hit" && cache == "off")
                        || (p == 0.0 && (kind == "order" || kind == "lookup"));
                    let spread = (!lacks).then(|| spread(mean + p));
                    rows.push(Row { cache: cache.into(), p, kind: kind.into(), spread });
                }
            }
        }
        rows
    }

    #[test]
    fn every_measured_point_is_drawn_once_and_missing_ones_are_named() {
        let rows = rows();
        let svg = draw(&rows, "test");
        let measured = rows.iter().filter(|row| row.spread.is_some()).count();
        assert_eq!(svg.matches("data-n=\"9\"").count(), measured);
        assert_eq!(svg.matches(">cache off: n=0<").count(), 1, "no hit without a cache");
        assert_eq!(svg.matches(">n=0<").count(), 4, "no order and no look-up at p = 0");
    }

    #[test]
    fn a_picture_drawn_from_the_file_is_the_same() {
        let rows = rows();
        let read = table::read(&table::write(&rows)).unwrap();
        assert_eq!(draw(&read, "test"), draw(&rows, "test"));
    }
}
