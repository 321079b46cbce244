//! The cache's picture: a row for each product, a bar while it is cached, marks for its changes and
//! evictions.

use crate::lab::chart::frame::{Area, Axis};
use crate::lab::chart::scale::Scale;
use crate::lab::chart::{
    Anchor, Canvas, GREY, INK, MarkShape, ORANGE, PALE, SKY, VERMILLION, WIDTH, width,
};

use super::history::{CachedSpan, Event};

/// The height of a product's row, in pixels.
const ROW: f64 = 26.0;

/// The height above the rows.
const HEAD: f64 = 66.0;

/// The height below the rows, for the axis and the legend.
const FOOT: f64 = 86.0;

/// The widest left margin that names may need.
const NAMES_MAX: f64 = 200.0;

/// Draws the timeline of one cache.
pub(super) fn draw(
    subtitle: &str,
    products: &[String],
    spans: &[CachedSpan],
    events: &[Event],
) -> String {
    let count = f64::from(u32::try_from(products.len()).unwrap_or(u32::MAX));
    let height = HEAD + ROW * count + FOOT;
    let mut canvas = Canvas::new(height, "What the cache holds over time", subtitle);
    let names = products.iter().map(|name| width(name, 12.0)).fold(60.0, f64::max);
    let area = Area {
        left: 24.0 + names.min(NAMES_MAX),
        right: WIDTH - 24.0,
        top: HEAD,
        bottom: HEAD + ROW * count,
    };
    let end = events.last().map_or(0, |event| event.at);
    let (unit, label) = match end {
        0..2_000 => (1.0, "time since the first event, ms"),
        _ => (1_000.0, "time since the first event, s"),
    };
    let time = |ms: u64| f64::from(u32::try_from(ms).unwrap_or(u32::MAX)) / unit;
    let x = Scale::even(0.0, time(end), area.left + 4.0, area.right - 8.0);
    for (place, name) in products.iter().enumerate() {
        let middle = middle(place);
        let name: String = name.chars().take(28).collect();
        canvas.text((area.left - 10.0, middle + 4.0), 12.0, Anchor::End, INK, &name);
        canvas.line((area.left, middle), (area.right, middle), PALE, 1.0, "");
    }
    area.draw_x(&mut canvas, Axis { scale: x, label });
    canvas.line((area.left, area.top), (area.left, area.bottom), GREY, 1.0, "");
    let row = |product: &str| products.iter().position(|name| name == product).map(middle);
    for CachedSpan { product, from_ms, to_ms, .. } in spans {
        let Some(middle) = row(product) else { continue };
        let from = x.at(time(*from_ms));
        let to = x.at(time(*to_ms));
        canvas.rect((from, middle - 8.0), ((to - from).max(1.0), 16.0), SKY);
        canvas.line((from, middle - 8.0), (from, middle + 8.0), INK, 1.0, "");
    }
    for event in events {
        let at = x.at(time(event.at));
        let middle = event.product.as_deref().and_then(row);
        match (event.event.as_str(), middle) {
            ("invalidated", Some(middle)) => {
                canvas.mark(MarkShape::Triangle, (at, middle), 5.0, VERMILLION, "");
            }
            ("evicted", Some(middle)) => canvas.mark(MarkShape::Cross, (at, middle), 4.5, INK, ""),
            ("dropped", Some(middle)) => {
                canvas.mark(MarkShape::Square, (at, middle), 3.5, ORANGE, "");
            }
            ("reset", _) => canvas.line((at, area.top), (at, area.bottom), ORANGE, 2.0, "4 3"),
            _ => {}
        }
    }
    legend(&mut canvas, area.bottom + 66.0, events);
    canvas.finish()
}

fn middle(place: usize) -> f64 {
    HEAD + ROW * (f64::from(u32::try_from(place).unwrap_or(u32::MAX)) + 0.5)
}

fn legend(canvas: &mut Canvas, y: f64, events: &[Event]) {
    let mut x = 24.0;
    let mut entry = |canvas: &mut Canvas, words: &str| {
        canvas.text((x + 22.0, y), 12.0, Anchor::Start, INK, words);
        let place = x + 8.0;
        x += 44.0 + width(words, 12.0);
        place
    };
    let at = entry(canvas, "cached");
    canvas.rect((at - 8.0, y - 12.0), (16.0, 16.0), SKY);
    canvas.line((at - 8.0, y - 12.0), (at - 8.0, y + 4.0), INK, 1.0, "");
    let middle = y - 4.0;
    let at = entry(canvas, "invalidated by an order");
    canvas.mark(MarkShape::Triangle, (at, middle), 5.0, VERMILLION, "");
    let at = entry(canvas, "evicted: it made room for another");
    canvas.mark(MarkShape::Cross, (at, middle), 4.5, INK, "");
    let any = |what: &str| events.iter().any(|event| event.event == what);
    if any("dropped") {
        let at = entry(canvas, "dropped: too old");
        canvas.mark(MarkShape::Square, (at, middle), 3.5, ORANGE, "");
    }
    if any("reset") {
        let at = entry(canvas, "all forgotten");
        canvas.line((at, y - 12.0), (at, y + 4.0), ORANGE, 2.0, "4 3");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_a_bar_and_every_event_a_mark() {
        let event = |at, what: &str, product: &str| Event {
            at,
            event: what.into(),
            product: Some(product.into()),
            version: None,
            contents: vec![],
        };
        let events = [
            event(0, "stored", "fox"),
            event(40, "invalidated", "fox"),
            event(90, "evicted", "fox"),
        ];
        let spans = super::super::history::spans(&[], &events);
        let products = ["fox".to_owned(), "owl".to_owned()];
        let svg = draw("test", &products, &spans, &events);
        // The background, the bar of the legend, and one span.
        assert_eq!(svg.matches("<rect ").count(), 3);
        for colour in [VERMILLION, INK] {
            let marks = svg.lines().filter(|line| line.contains("<path") && line.contains(colour));
            assert_eq!(marks.count(), 2, "one in the plot, one in the legend");
        }
        assert!(svg.contains(">owl</text>"), "a product that was never cached has a row, too");
    }
}
