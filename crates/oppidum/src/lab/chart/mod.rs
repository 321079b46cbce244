//! Charts as SVG without a library: a canvas, marks that differ in shape and in colour, and frames
//! with axes.
//!
//! A picture is [`WIDTH`] wide, on white, on any page. The colours are those of Okabe and Ito
//! (Color Universal Design, 2008), which colour-blind readers can distinguish; no fact is shown by
//! colour alone.

pub(super) mod frame;

pub(super) mod scale;

use std::fmt::Write as _;

/// The width of a picture, in pixels.
pub(super) const WIDTH: f64 = 800.0;

/// The colour of text and axes.
pub(super) const INK: &str = "#222222";
/// The colour of secondary text.
pub(super) const GREY: &str = "#767676";
/// The colour of grid lines.
pub(super) const PALE: &str = "#e4e4e4";
/// Okabe and Ito's blue.
pub(super) const BLUE: &str = "#0072B2";
/// Okabe and Ito's vermillion.
pub(super) const VERMILLION: &str = "#D55E00";
/// Okabe and Ito's bluish green.
pub(super) const GREEN: &str = "#009E73";
/// Okabe and Ito's reddish purple.
pub(super) const PURPLE: &str = "#CC79A7";
/// Okabe and Ito's sky blue.
pub(super) const SKY: &str = "#56B4E9";
/// Okabe and Ito's orange.
pub(super) const ORANGE: &str = "#E69F00";

/// The average width of a character as a fraction of the text size: an upper bound for plain words
/// in the usual sans-serif fonts.
const CHARACTER: f64 = 0.58;

/// The anchor of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// The start of the text.
    Start,
    /// The middle of the text.
    Middle,
    /// The end of the text.
    End,
}

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkShape {
    /// A full circle.
    Dot,
    /// A full square.
    Square,
    /// An upright cross.
    Cross,
    /// A triangle on its side.
    Triangle,
}

/// An unfinished picture.
#[derive(Debug)]
pub(super) struct Canvas {
    height: f64,
    body: String,
}

impl Canvas {
    /// An empty picture of this height, with a title and a subtitle.
    pub(super) fn new(height: f64, title: &str, subtitle: &str) -> Self {
        let mut canvas = Self { height, body: String::new() };
        let _ = writeln!(canvas.body, "<title>{}</title>", escape(title));
        canvas.rect((0.0, 0.0), (WIDTH, height), "#ffffff");
        canvas.bold((16.0, 26.0), 16.0, title);
        canvas.text((16.0, 45.0), 12.0, Anchor::Start, GREY, subtitle);
        canvas
    }

    /// A full rectangle from its upper left corner.
    pub(super) fn rect(&mut self, at: (f64, f64), size: (f64, f64), fill: &str) {
        let ((x, y), (width, height)) = (at, size);
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" \
             fill=\"{fill}\"/>"
        );
    }

    /// A line; `dash` as in `stroke-dasharray`, empty for a whole one.
    pub(super) fn line(
        &mut self,
        from: (f64, f64),
        to: (f64, f64),
        colour: &str,
        width: f64,
        dash: &str,
    ) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            "<line x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\" \
             stroke=\"{colour}\" stroke-width=\"{width}\"{}/>",
            dashes(dash)
        );
    }

    /// A polyline.
    pub(super) fn path(&mut self, points: &[(f64, f64)], colour: &str, width: f64, dash: &str) {
        if points.len() < 2 {
            return;
        }
        let points = points.iter().map(|(x, y)| format!("{x:.2},{y:.2}"));
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-linejoin=\"round\"{}/>",
            points.collect::<Vec<_>>().join(" "),
            dashes(dash)
        );
    }

    /// A mark around a point; `more` are additional attributes.
    pub(super) fn mark(
        &mut self,
        shape: MarkShape,
        at: (f64, f64),
        size: f64,
        colour: &str,
        more: &str,
    ) {
        let (x, y) = at;
        let space = if more.is_empty() { "" } else { " " };
        let drawn = match shape {
            MarkShape::Dot => {
                format!("<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{size}\" fill=\"{colour}\"")
            }
            MarkShape::Square => format!(
                "<path d=\"M{:.2} {:.2}h{w}v{w}h-{w}z\" fill=\"{colour}\"",
                x - size,
                y - size,
                w = 2.0 * size
            ),
            MarkShape::Cross => format!(
                "<path d=\"M{:.2} {:.2}l{w} {w}m0 -{w}l-{w} {w}\" stroke=\"{colour}\" \
                 stroke-width=\"1.6\" fill=\"none\"",
                x - size,
                y - size,
                w = 2.0 * size
            ),
            MarkShape::Triangle => format!(
                "<path d=\"M{:.2} {:.2}l{w} {h}h-{}z\" fill=\"{colour}\"",
                x,
                y - size,
                2.0 * size,
                w = size,
                h = 2.0 * size
            ),
        };
        let _ = writeln!(self.body, "{drawn}{space}{more}/>");
    }

    /// A text at a point of its baseline.
    pub(super) fn text(
        &mut self,
        at: (f64, f64),
        size: f64,
        anchor: Anchor,
        colour: &str,
        text: &str,
    ) {
        self.words(at, size, anchor, colour, "", text);
    }

    /// A heading.
    pub(super) fn bold(&mut self, at: (f64, f64), size: f64, text: &str) {
        self.words(at, size, Anchor::Start, INK, " font-weight=\"bold\"", text);
    }

    /// A vertical text, read from below, with its middle at a point.
    pub(super) fn upright(&mut self, at: (f64, f64), size: f64, text: &str) {
        let turn = format!(" transform=\"rotate(-90 {:.2} {:.2})\"", at.0, at.1);
        self.words(at, size, Anchor::Middle, INK, &turn, text);
    }

    fn words(
        &mut self,
        (x, y): (f64, f64),
        size: f64,
        anchor: Anchor,
        colour: &str,
        more: &str,
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.2}\" y=\"{y:.2}\" font-size=\"{size}\" text-anchor=\"{anchor}\" \
             fill=\"{colour}\"{more}>{}</text>",
            escape(text)
        );
    }

    /// The whole picture.
    pub(super) fn finish(self) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"Helvetica, Arial, 'DejaVu Sans', \
             sans-serif\">\n{}</svg>\n",
            self.body,
            height = self.height
        )
    }
}

/// The largest width of a text, in pixels.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let count = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    f64::from(count) * size * CHARACTER
}

fn dashes(dash: &str) -> String {
    if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_picture() {
        let mut canvas = Canvas::new(100.0, "a <b> & \"c\"", "");
        canvas.text((1.0, 2.0), 11.0, Anchor::Middle, INK, "<script>");
        let svg = canvas.finish();
        assert!(svg.contains("a &lt;b&gt; &amp; &quot;c&quot;"), "{svg}");
        assert!(svg.contains(">&lt;script&gt;</text>"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
