//! Many things, some of them at a time: all of a part is looked at before the first of it is used.
//!
//! Where each use would wait for memory, all of a part can wait together (`places`).

/// So many are a part: what is read for them stays near.
const PART: usize = 64;

/// Gives out all that comes, part by part.
pub(crate) fn in_parts<T>(all: impl Iterator<Item = T>, mut each: impl FnMut(&[T])) {
    let most = all.size_hint().1.map_or(PART, |most| most.min(PART));
    let (mut all, mut part) = (all, Vec::with_capacity(most));
    loop {
        part.clear();
        part.extend(all.by_ref().take(PART));
        if part.is_empty() {
            return;
        }
        each(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_once_in_its_order_and_in_full_parts() {
        for count in [0, 1, PART, PART + 1, 3 * PART] {
            let (mut came, mut sizes) = (Vec::new(), Vec::new());
            in_parts(0..count, |part| {
                came.extend_from_slice(part);
                sizes.push(part.len());
            });
            assert_eq!(came, (0..count).collect::<Vec<_>>());
            let (last, full) =
                sizes.split_last().map_or((&0, &[][..]), |(last, full)| (last, full));
            assert!(full.iter().all(|size| *size == PART) && *last <= PART, "{sizes:?}");
        }
    }
}
