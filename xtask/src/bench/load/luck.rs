//! Random numbers that are the same in every run, so that all runs send the same requests.

/// A number drawn for a place: well mixed, and the same in every run. (The finalizer of
/// `SplitMix64`: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
/// 2014.)
pub(crate) fn draw(place: u64) -> u64 {
    let mut mixed = place.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number below `end`, which is at least 1, drawn for a place.
pub(crate) fn below(end: u64, place: u64) -> u64 {
    // The bias is below 2^-40 for the ranges of a few million that are used.
    draw(place) % end.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_and_reach_everywhere() {
        assert_eq!(draw(7), draw(7));
        let mut hit = [0_u32; 10];
        for place in 0..1_000 {
            hit[usize::try_from(below(10, place)).expect("a number below 10")] += 1;
        }
        assert!(hit.iter().all(|count| 50 < *count), "{hit:?}");
    }
}
