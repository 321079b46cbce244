//! Frames: a plot's area with its two axes, their labels, and a grid.

use super::scale::{Scale, written};
use super::{Anchor, Canvas, GREY, INK, PALE};

/// The text size of axes, in pixels.
pub(crate) const SMALL: f64 = 11.0;

/// A plot's area inside its axes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    /// The left edge.
    pub(crate) left: f64,
    /// The right edge.
    pub(crate) right: f64,
    /// The upper edge.
    pub(crate) top: f64,
    /// The lower edge.
    pub(crate) bottom: f64,
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis<'a> {
    /// The scale of its values.
    pub(crate) scale: Scale,
    /// Its label, with the unit.
    pub(crate) label: &'a str,
}

impl Area {
    /// Draws the axes and the grid.
    pub(crate) fn draw(&self, canvas: &mut Canvas, x: Axis<'_>, y: Axis<'_>) {
        let Self { left, right, top, bottom } = *self;
        for tick in y.scale.ticks() {
            let at = y.scale.at(tick);
            canvas.line((left, at), (right, at), PALE, 1.0, "");
            canvas.text((left - 6.0, at + 4.0), SMALL, Anchor::End, INK, &written(tick));
        }
        canvas.upright((left - 42.0, f64::midpoint(top, bottom)), SMALL, y.label);
        self.draw_x(canvas, x);
        canvas.line((left, top), (left, bottom), GREY, 1.0, "");
    }

    /// Draws the lower axis alone.
    pub(crate) fn draw_x(&self, canvas: &mut Canvas, x: Axis<'_>) {
        let Self { left, right, bottom, .. } = *self;
        for tick in x.scale.ticks() {
            let at = x.scale.at(tick);
            canvas.line((at, bottom), (at, bottom + 4.0), GREY, 1.0, "");
            canvas.text((at, bottom + 16.0), SMALL, Anchor::Middle, INK, &written(tick));
        }
        canvas.line((left, bottom), (right, bottom), GREY, 1.0, "");
        let middle = f64::midpoint(left, right);
        canvas.text((middle, bottom + 33.0), SMALL, Anchor::Middle, INK, x.label);
    }
}
