//! Window: the recent frames of a source. A watcher with an older cursor starts over.

use std::collections::VecDeque;
use std::sync::Arc;

use ledger::change::Change;
use ledger::terms::Index;

use crate::limits::{WINDOW_FRAMES_MAX, WINDOW_PRODUCTS_MAX};

/// The products that changed in `(after, index]`: the latest value of each, in name order. Empty:
/// no product changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The index before the frame's first.
    pub after: Index,
    /// The frame's last index.
    pub index: Index,
    /// The latest value of each product that changed in the frame.
    pub products: Arc<[Change]>,
}

/// Frames that tile `(start, end]`, oldest first. At most [`WINDOW_FRAMES_MAX`] frames with at most
/// [`WINDOW_PRODUCTS_MAX`] products in total.
#[derive(Clone, Debug, Default)]
pub struct Window {
    start: Index,
    end: Index,
    products: usize,
    frames: VecDeque<Arc<Frame>>,
}

impl Window {
    /// An empty window that ends at `index`.
    pub fn at(index: Index) -> Self {
        Self { start: index, end: index, ..Self::default() }
    }

    /// Adds the products that changed up to `index`. An index at or before the end is ignored.
    pub fn push(&mut self, index: Index, products: Arc<[Change]>) {
        if index <= self.end {
            return;
        }
        self.products += products.len();
        self.frames.push_back(Arc::new(Frame { after: self.end, index, products }));
        self.end = index;
        while WINDOW_FRAMES_MAX < self.frames.len() || WINDOW_PRODUCTS_MAX < self.products {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.products -= oldest.products.len();
            self.start = oldest.index;
        }
    }

    /// The frames after `cursor`, at most `max`; None when the window begins after `cursor`.
    pub fn after(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>> {
        if cursor < self.start {
            return None;
        }
        // Most watchers lack no frame or only the last one, and need no search over thousands.
        let lacking = self.frames.iter().rev().take(2).filter(|frame| cursor < frame.index).count();
        let first = match lacking {
            0 | 1 => self.frames.len() - lacking,
            _ => self.frames.partition_point(|frame| frame.index <= cursor),
        };
        Some(self.frames.range(first..).take(max).cloned().collect())
    }

    /// The last index of the window.
    pub fn end(&self) -> Index {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_gets_what_it_missed_or_starts_over() {
        let mut window = Window::at(Index(10));
        assert_eq!(window.after(Index(10), 9), Some(Vec::new()));
        assert_eq!(window.after(Index(9), 9), None);
        for index in [11, 12, 12, 15] {
            window.push(Index(index), [].into());
        }
        let ends = |cursor| {
            let frames = window.after(Index(cursor), 9).unwrap_or_default();
            frames.iter().map(|frame| (frame.after.0, frame.index.0)).collect::<Vec<_>>()
        };
        assert_eq!(ends(10), [(10, 11), (11, 12), (12, 15)]);
        assert_eq!(ends(13), [(12, 15)]);
        assert_eq!(ends(15), []);
        assert_eq!(ends(99), []);
    }

    #[test]
    fn a_window_is_bounded() {
        let mut window = Window::at(Index(0));
        for index in 1..=10_000 {
            window.push(Index(index), [].into());
        }
        assert_eq!(window.after(Index(10_000 - 4_096), 1).map(|frames| frames.len()), Some(1));
        assert_eq!(window.after(Index(10_000 - 4_097), 1), None);
    }

    #[test]
    fn a_window_is_bounded_in_products_and_goes_on_sliding() {
        let name = ledger::terms::Name::new("fox").unwrap();
        let price = ledger::terms::Cents::new(1).unwrap();
        let fox = Change { name, price, stock: 1, restock_to: None, version: Index(1) };
        let many: Arc<[Change]> = vec![fox; WINDOW_PRODUCTS_MAX / 4].into();
        let mut window = Window::at(Index(0));
        for index in 1..=20 {
            window.push(Index(index), many.clone());
        }
        let reaches = |cursor: u64| window.after(Index(cursor), 99).map(|frames| frames.len());
        assert_eq!((reaches(16), reaches(15)), (Some(4), None), "only the last four are kept");
    }
}
