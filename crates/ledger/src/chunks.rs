//! Processes an iterator in chunks of 64, so that the memory reads of one chunk overlap.
//!
//! Before a chunk is used, everything that it needs is prefetched together (see `hash_index`).

/// Items of a chunk: few enough that all that is prefetched for them stays in the CPU's caches.
const CHUNK: usize = 64;

/// Passes all items to `each`, chunk by chunk.
pub(crate) fn in_chunks<T>(all: impl Iterator<Item = T>, mut each: impl FnMut(&[T])) {
    let most = all.size_hint().1.map_or(CHUNK, |most| most.min(CHUNK));
    let (mut all, mut group) = (all, Vec::with_capacity(most));
    loop {
        group.clear();
        group.extend(all.by_ref().take(CHUNK));
        if group.is_empty() {
            return;
        }
        each(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_passed_once_in_order_and_in_full_chunks() {
        for count in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let (mut came, mut sizes) = (Vec::new(), Vec::new());
            in_chunks(0..count, |group| {
                came.extend_from_slice(group);
                sizes.push(group.len());
            });
            assert_eq!(came, (0..count).collect::<Vec<_>>());
            let (last, full) =
                sizes.split_last().map_or((&0, &[][..]), |(last, full)| (last, full));
            assert!(full.iter().all(|size| *size == CHUNK) && *last <= CHUNK, "{sizes:?}");
        }
    }
}
