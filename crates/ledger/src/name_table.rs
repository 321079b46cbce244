//! Name table: values by product name, found in one step and listed in name order.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use crate::hash_index::HashIndex;
use crate::terms::Name;

/// One value for each name. A value is never removed, and keeps its row.
#[derive(Clone, Debug)]
pub struct NameTable<T> {
    /// From a name's hash to its row. The hash is the same in every run, since nothing here may be
    /// random. Attackers cannot exploit that: only the operator names products.
    index: HashIndex,
    rows: Vec<(Name, T)>,
    /// The same names, in order.
    names: BTreeSet<Name>,
}

/// The position of a value, for as long as the table exists; access by row needs no search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(usize);

/// The hash of a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameHash(u128);

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self { index: HashIndex::default(), rows: Vec::new(), names: BTreeSet::new() }
    }
}

impl<T> NameTable<T> {
    /// Inserts a value, or replaces the value of the same name, and returns its row.
    pub fn put(&mut self, name: Name, value: T) -> Row {
        let hash = NameHash::new(name.as_str());
        if let Some(row) = self.find(name.as_str(), hash) {
            if let Some((_, old)) = self.at_mut(row) {
                *old = value;
            }
            return row;
        }
        let row = self.rows.len();
        self.index.put(hash.0, u64::try_from(row).unwrap_or(u64::MAX), |_| false);
        self.names.insert(name.clone());
        self.rows.push((name, value));
        Row(row)
    }

    /// The value with this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.at(self.row(name)?).map(|(_, value)| value)
    }

    /// The row of this name.
    pub fn row(&self, name: &str) -> Option<Row> {
        self.find(name, NameHash::new(name))
    }

    /// The row of a name with this hash.
    pub(crate) fn find(&self, name: &str, hash: NameHash) -> Option<Row> {
        let has_name = |low| self.nth(low).is_some_and(|(own, _)| own.as_str() == name);
        let low = self.index.find(hash.0, has_name)?;
        usize::try_from(low).ok().map(Row)
    }

    /// The bucket where the search for this hash begins, for [`crate::prefetch`].
    pub(crate) fn first_bucket(&self, hash: NameHash) -> u64 {
        self.index.first_bucket(hash.0)
    }

    /// A part of the row that the search for this hash reads first, for [`crate::prefetch`].
    pub(crate) fn first_row(&self, hash: NameHash) -> u64 {
        let row = self.index.find(hash.0, |_| true).and_then(|low| self.nth(low));
        row.map_or(0, |(name, _)| u64::try_from(name.as_str().len()).unwrap_or(0))
    }

    /// The name and the value in a row.
    pub fn at(&self, row: Row) -> Option<(&Name, &T)> {
        self.rows.get(row.0).map(|(name, value)| (name, value))
    }

    /// The name and the value in a row, with mutable access to the value.
    pub fn at_mut(&mut self, row: Row) -> Option<(&Name, &mut T)> {
        self.rows.get_mut(row.0).map(|(name, value)| (&*name, value))
    }

    /// All values with names above `after`, or all values, in name order.
    pub fn list(&self, after: Option<&str>) -> impl Iterator<Item = (&Name, &T)> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.names.range::<str, _>((from, Bound::Unbounded));
        range.filter_map(|name| self.at(self.row(name.as_str())?))
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if the table is empty.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The content of the row with this low half of its number. A table has far fewer than 2^32
    /// rows, so the low half is the whole number.
    fn nth(&self, low: u32) -> Option<&(Name, T)> {
        self.rows.get(usize::try_from(low).ok()?)
    }
}

impl NameHash {
    /// Hashes a name.
    pub(crate) fn new(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(u128::from(hasher.finish()) << 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_listed_once_each_in_name_order() {
        let mut named = NameTable::default();
        assert!(named.is_empty());
        // Names of up to 23 bytes are stored inline, longer names on the heap.
        for long in [23, 24, 128].map(|length| "x".repeat(length)) {
            let mut named = NameTable::default();
            let row = named.put(Name::new(&long).unwrap(), 1);
            assert_eq!(named.clone().at(row), Some((&Name::new(&long).unwrap(), &1)));
            assert_eq!((named.get(&long), named.get(&long[1..])), (Some(&1), None));
        }
        for (text, thing) in [("fox", 1), ("bear", 2), ("zebra", 3), ("fox", 4)] {
            named.put(Name::new(text).unwrap(), thing);
        }
        let listed = |after: Option<&str>| {
            named.list(after).map(|(name, thing)| (name.to_string(), *thing)).collect::<Vec<_>>()
        };
        let all = [("bear".to_owned(), 2), ("fox".to_owned(), 4), ("zebra".to_owned(), 3)];
        assert_eq!(listed(None), all);
        assert_eq!((listed(Some("bear")), listed(Some("c"))), (all[1..].into(), all[1..].into()));
        assert_eq!((listed(Some("zebra")), named.len()), (Vec::new(), 3));
        let fox = named.row("fox").unwrap();
        *named.at_mut(fox).unwrap().1 = 5;
        assert_eq!((named.get("fox"), named.get("wolf")), (Some(&5), None));
        // A row keeps its value when others are added.
        let row = named.row("bear").unwrap();
        named.put(Name::new("ant").unwrap(), 6);
        *named.at_mut(row).unwrap().1 += 10;
        assert_eq!(named.at(row).map(|(name, thing)| (name.as_str(), *thing)), Some(("bear", 12)));
        assert_eq!((named.put(Name::new("bear").unwrap(), 7), named.row("wolf")), (row, None));
        assert_eq!(named.get("bear"), Some(&7));
    }

    #[test]
    fn every_one_of_200_000_names_is_found_even_when_hashes_collide() {
        let mut named = NameTable::default();
        let texts: Vec<_> = (0..200_000_u32).map(|number| format!("toy {number}")).collect();
        let hashes: BTreeSet<_> = texts.iter().map(|text| NameHash::new(text).0 >> 97).collect();
        assert!(hashes.len() < texts.len(), "no two names share the bits of a tag");
        for (number, text) in (0..).zip(&texts) {
            assert_eq!(named.put(Name::new(text).unwrap(), number), Row(number));
        }
        let rows = texts.iter().map(String::as_str).chain(["wolf", ""]).map(|name| named.row(name));
        let expected = (0..texts.len()).map(|row| Some(Row(row))).chain([None, None]);
        assert!(rows.eq(expected));
    }
}
