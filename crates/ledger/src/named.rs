//! Things with a product's name: found in one step, and listed in the order of their names.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::Bound;

use crate::terms::Name;

/// One thing for each name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T> {
    /// The hash is the same in every run, for nothing here may depend on luck; and it may be known,
    /// for who names products is the operator.
    things: HashMap<Name, T, BuildHasherDefault<DefaultHasher>>,
    /// The same names, in order.
    names: BTreeSet<Name>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { things: HashMap::default(), names: BTreeSet::new() }
    }
}

impl<T> Named<T> {
    /// Puts a thing in its place; the one that was there goes.
    pub fn put(&mut self, name: Name, thing: T) {
        if self.things.insert(name.clone(), thing).is_none() {
            self.names.insert(name);
        }
    }

    /// What has this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.things.get(name)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        self.things.get_mut(name)
    }

    /// What has this name, with the name as it is kept.
    pub fn entry(&self, name: &str) -> Option<(&Name, &T)> {
        self.things.get_key_value(name)
    }

    /// Everything with a name above `after`, or at all, in name order.
    pub fn list(&self, after: Option<&str>) -> impl Iterator<Item = (&Name, &T)> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.names.range::<str, _>((from, Bound::Unbounded));
        range.filter_map(|name| self.things.get_key_value(name))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.things.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_found_by_name_and_listed_in_order_once_each() {
        let mut named = Named::default();
        assert!(named.is_empty());
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
        *named.get_mut("fox").unwrap() = 5;
        assert_eq!((named.get("fox"), named.get("wolf")), (Some(&5), None));
        assert_eq!(
            named.entry("bear").map(|(name, thing)| (name.as_str(), *thing)),
            Some(("bear", 2))
        );
    }
}
