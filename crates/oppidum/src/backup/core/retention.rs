//! Retention: which restore points and states a backup no longer keeps. Blocks are never removed,
//! because every restore needs all of them.

use std::collections::BTreeSet;

use super::restore_point::{index_of, index_of_state, label, state_name};
use super::utc_second::UtcSecond;

/// What is to be removed, in this order: a point never outlives its state.
///
/// The points older than `oldest` go, but for the newest one; then the states that no point needs.
pub(crate) fn expired(points: &[String], states: &[String], oldest: &UtcSecond) -> Vec<String> {
    let oldest = oldest.file_name();
    let newest = newest(points);
    let is_kept = |point: &&String| {
        Some(*point) == newest || label(point).is_none_or(|label| *oldest <= *label)
    };
    let kept: BTreeSet<String> = points
        .iter()
        .filter(is_kept)
        .filter_map(|point| label(point).and_then(index_of).map(state_name))
        .collect();
    let points = points.iter().filter(|point| !is_kept(point));
    // Any other file is not of this backup.
    let is_own = |state: &&String| index_of_state(state).is_some();
    let states = states.iter().filter(is_own).filter(|state| !kept.contains(*state));
    points.chain(states).cloned().collect()
}

/// The point with the most entries; of several, the one that was made last.
pub(crate) fn newest(points: &[String]) -> Option<&String> {
    points.iter().filter(|point| label(point).is_some()).max_by_key(|point| {
        let label = label(point).unwrap_or_default();
        (index_of(label), label)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(day: u32, index: u64) -> String {
        format!("points/2026-11-{day:02}T15-00-00Z-{index}.toml")
    }

    fn expired_on(day: u32, points: &[String], states: &[u64]) -> Vec<String> {
        let states: Vec<String> = states.iter().map(|index| state_name(*index)).collect();
        let oldest = format!("2026-11-{day:02}T15:00:00Z").parse().unwrap();
        expired(points, &states, &oldest)
    }

    #[test]
    fn old_points_go_before_their_states_and_the_newest_stays() {
        let points = [point(1, 10), point(2, 20), point(3, 30)];
        let states = [10, 20, 30];
        assert_eq!(expired_on(1, &points, &states), [""; 0]);
        assert_eq!(expired_on(2, &points, &states), [point(1, 10), state_name(10)]);
        let gone = [point(1, 10), point(2, 20), state_name(10), state_name(20)];
        assert_eq!(expired_on(3, &points, &states), gone);
        assert_eq!(expired_on(9, &points, &states), gone, "the newest stays, however old it is");
    }

    #[test]
    fn a_state_goes_with_the_last_point_that_needs_it() {
        let points = [point(1, 10), point(3, 10), point(4, 20)];
        assert_eq!(expired_on(2, &points, &[10, 20]), [point(1, 10)]);
        // What an interrupted retention, or an interrupted backup, has left.
        assert_eq!(expired_on(1, &points, &[5, 10, 20]), [state_name(5)]);
    }

    #[test]
    fn the_newest_point_has_the_most_entries_also_after_the_clock_went_back() {
        let points = [point(3, 10), point(1, 20), "points/notes.toml".to_owned()];
        assert_eq!(newest(&points), Some(&point(1, 20)));
        assert_eq!(expired_on(9, &points, &[10, 20]), [point(3, 10), state_name(10)]);
        assert_eq!(newest(&points[2..]), None);
    }
}
