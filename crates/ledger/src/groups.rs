//! Many things, some at a time: all of a group is looked at before the first of it is used.
//!
//! Where each use would wait for memory, all of a group can wait together (`places`).

/// So many are a group: what is read for them stays near.
const GROUP: usize = 64;

/// Gives out all that comes, group by group.
pub(crate) fn in_groups<T>(all: impl Iterator<Item = T>, mut each: impl FnMut(&[T])) {
    let most = all.size_hint().1.map_or(GROUP, |most| most.min(GROUP));
    let (mut all, mut group) = (all, Vec::with_capacity(most));
    loop {
        group.clear();
        group.extend(all.by_ref().take(GROUP));
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
    fn everything_comes_once_in_its_order_and_in_full_groups() {
        for count in [0, 1, GROUP, GROUP + 1, 3 * GROUP] {
            let (mut came, mut sizes) = (Vec::new(), Vec::new());
            in_groups(0..count, |group| {
                came.extend_from_slice(group);
                sizes.push(group.len());
            });
            assert_eq!(came, (0..count).collect::<Vec<_>>());
            let (last, full) =
                sizes.split_last().map_or((&0, &[][..]), |(last, full)| (last, full));
            assert!(full.iter().all(|size| *size == GROUP) && *last <= GROUP, "{sizes:?}");
        }
    }
}
