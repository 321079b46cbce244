//! The ranges of entries in block files, by their names, and which files hold a history.
//!
//! Every file begins with the entry after the last one that the backup had, so the names show
//! whether one is missing. Two writers that overlap, against their lock, may leave files that do so
//! too: the same entries are the same blocks.

/// The folder of the files.
pub(crate) const BLOCKS: &str = "blocks";

/// The entries that a block file covers, of which some have no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockRange {
    /// The first entry.
    pub(crate) first: u64,
    /// The last entry, which has a block.
    pub(crate) last: u64,
}

impl BlockRange {
    /// The name of the file.
    pub(crate) fn name(self) -> String {
        format!("{BLOCKS}/{:016}-{:016}.blk", self.first, self.last)
    }

    /// The range of a name. `None`: it is the name of something else.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let range = name.strip_prefix(BLOCKS)?.strip_prefix('/')?.strip_suffix(".blk")?;
        let (first, last) = range.split_once('-')?;
        let range = Self { first: first.parse().ok()?, last: last.parse().ok()? };
        (range.first <= range.last && range.name() == name).then_some(range)
    }
}

/// The files that together hold every entry from 1 on without a gap, in order.
pub(crate) fn cover(mut ranges: Vec<BlockRange>) -> Vec<BlockRange> {
    ranges.sort_unstable();
    let mut ranges = ranges.into_iter().peekable();
    let mut chosen: Vec<BlockRange> = Vec::new();
    // The file that reaches furthest of those that begin early enough.
    let mut furthest: Option<BlockRange> = None;
    loop {
        let end = chosen.last().map_or(0, |range| range.last);
        while let Some(range) = ranges.next_if(|range| range.first <= end.saturating_add(1)) {
            furthest = furthest.filter(|furthest| range.last <= furthest.last).or(Some(range));
        }
        match furthest.take_if(|furthest| end < furthest.last) {
            Some(next) => chosen.push(next),
            None => return chosen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let range = |(first, last): &(u64, u64)| BlockRange { first: *first, last: *last };
        let chosen = cover(ranges.iter().map(range).collect());
        chosen.into_iter().map(|range| (range.first, range.last)).collect()
    }

    #[test]
    fn a_name_is_that_of_its_range_and_of_no_other() {
        let range = BlockRange { first: 1, last: 41_200 };
        assert_eq!(range.name(), "blocks/0000000000000001-0000000000041200.blk");
        assert_eq!(BlockRange::parse(&range.name()), Some(range));
        let great = BlockRange { first: 1 << 60, last: u64::MAX };
        assert_eq!(BlockRange::parse(&great.name()), Some(great));
        for odd in [
            "blocks/1-2.blk",
            "blocks/0000000000000002-0000000000000001.blk",
            "blocks/0000000000000001-0000000000000002",
            "0000000000000001-0000000000000002.blk",
            "blocks/+000000000000001-0000000000000002.blk",
            "blocks/",
        ] {
            assert_eq!(BlockRange::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_history_ends_before_a_missing_file() {
        assert_eq!(covered(&[]), []);
        assert_eq!(covered(&[(5, 9), (1, 4)]), [(1, 4), (5, 9)]);
        assert_eq!(covered(&[(2, 4)]), []);
        assert_eq!(covered(&[(1, 4), (6, 9)]), [(1, 4)]);
    }

    #[test]
    fn files_may_overlap_after_two_writers() {
        assert_eq!(covered(&[(1, 4), (5, 6), (5, 9), (7, 8)]), [(1, 4), (5, 9)]);
        assert_eq!(covered(&[(1, 4), (1, 6), (5, 9)]), [(1, 6), (5, 9)]);
        assert_eq!(covered(&[(1, 6), (5, 9), (7, 12)]), [(1, 6), (7, 12)]);
        assert_eq!(covered(&[(1, 9), (2, 3), (4, 12), (10, 11)]), [(1, 9), (4, 12)]);
    }

    /// Kind: a name that no writer gives, and a number that has no next one.
    #[test]
    fn a_file_may_claim_every_entry_there_is() {
        assert_eq!(covered(&[(1, u64::MAX), (5, 9)]), [(1, u64::MAX)]);
    }
}
