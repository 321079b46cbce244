//! A walk over all stored bytes, by seed: flipped bits and truncated files. With any damage, a
//! replica returns the true value or an error.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use ledger::ledger::{Ledger, Windows};
use ledger::shop::ShopState;
use ledger::terms::{Index, OrderNumber};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use order::history::FILE;
use order::history::block_source::{BlockSource, NoSource};
use order::history::open_error::OpenError;
use order::history::view::View;
use order::raft::log_store::LogStore;
use order::raft::state_machine::StateMachine;
use order::raft::types::{Entry, Vote};

use crate::history::{SLOW, apply, entries, open};
use crate::kit::{FIRST, append, buy, buy_each, entry, killed, log_id};

/// The number of damages of each kind.
const TRIES: usize = 200;

/// Pseudo-random numbers from a seed.
struct Lot(u64);

impl Lot {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// Damaged copies of a file: flipped bits in written parts, and truncations.
fn damages(whole: &[u8], seed: u64) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let written: Vec<usize> = (0..whole.len()).filter(|place| whole[*place] != 0).collect();
    let mut lot = Lot(seed);
    (0..2 * TRIES).map(move |number| {
        let mut bytes = whole.to_vec();
        if number % 2 == 0 {
            let place = written[lot.below(written.len())];
            let bit = lot.below(8);
            bytes[place] ^= 1 << bit;
            (format!("bit {bit} of byte {place} flipped"), bytes)
        } else {
            let length = lot.below(whole.len());
            bytes.truncate(length);
            (format!("cut after {length} bytes"), bytes)
        }
    })
}

fn newest(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "wal")).max().unwrap()
}

/// [P1] With the durable mark of the history, a damaged log has the same entries and the same vote,
/// or is rejected, with a torn tail or not.
#[tokio::test]
async fn test_13_a_damaged_log_is_the_same_or_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), None).unwrap();
    let mut expected: Vec<Entry> = Vec::new();
    for index in 0..20 {
        if index % 7 == 0 {
            log.save_vote(&Vote::new(index + 1, 1)).await.unwrap();
        }
        expected.push(entry(index, buy(&format!("key-{index}"))));
        append(&mut log, vec![expected[expected.len() - 1].clone()]).await;
    }
    let seen = log.on_disk().now();
    assert_eq!((seen.last, seen.vote), (Some(log_id(1, 19)), Some(Vote::new(15, 1))));
    let left = killed(folder.path());
    let path = newest(left.path());
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut same) = (0, 0);
    for (what, bytes) in damages(&whole, 13) {
        fs::write(&path, &bytes).unwrap();
        match LogStore::open(left.path(), None) {
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
                refused += 1;
            }
            Ok(log) if seen.check(log.on_disk().now(), left.path()).is_err() => refused += 1,
            Ok(mut log) => {
                assert_eq!(log.try_get_log_entries(0..).await.unwrap(), expected, "{what}");
                assert_eq!(log.read_vote().await.unwrap(), seen.vote, "{what}");
                same += 1;
            }
        }
        // Files that opening has added are not part of the next damage.
        for file in fs::read_dir(left.path()).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|end| end == "wal") && file != path {
                fs::remove_file(file).unwrap();
            }
        }
    }
    assert!(TRIES < refused, "{refused} refused, {same} the same");
}

/// A damaged history returns each order as it was, or an error; never another order, and never that
/// there is none.
#[tokio::test]
async fn test_13_a_damaged_history_returns_the_truth_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=40)).await;
    // And one block that is stored in pieces.
    let many = buy_each((0..300).map(|number| format!("many-{number}")));
    apply(&mut machine, vec![entry(41, many)]).await;
    view.flush().await.unwrap();
    // Every thirtieth order of the large block.
    let numbers = FIRST..view.read(ShopState::next_order_number).0;
    let numbers = numbers.filter(|number| *number < FIRST + 20 || number % 30 == 0);
    let numbers = numbers.collect::<Vec<_>>().into_iter();
    let expected: Vec<_> = numbers.clone().map(|n| view.order(OrderNumber(n)).unwrap()).collect();
    let state = view.read_ledger(|ledger| (ledger.state(), ledger.key_summary()));
    drop((machine, view));
    let path = folder.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut opened_count, mut stopped) = (0, 0, 0);
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut wrong = Vec::new();
    for (what, bytes) in damages(&whole, 1_313) {
        fs::write(&path, &bytes).unwrap();
        let look = || {
            let opened =
                StateMachine::open(folder.path(), Windows::default(), SLOW, Arc::new(NoSource));
            let Ok((_, view)) = opened else { return None };
            let orders = numbers.clone().map(|number| view.order(OrderNumber(number)));
            let state = view.read_ledger(|ledger| (ledger.state(), ledger.key_summary()));
            Some((state, orders.collect::<Vec<_>>()))
        };
        match catch_unwind(AssertUnwindSafe(look)) {
            // The database found an impossible value: a replica's process ends there.
            Err(_) => stopped += 1,
            Ok(None) => refused += 1,
            Ok(Some((found, orders))) => {
                opened_count += 1;
                if found != state {
                    wrong.push(format!("{what}: another state"));
                }
                for (order, expected) in orders.into_iter().zip(&expected) {
                    if order.is_ok_and(|order| order != *expected) {
                        wrong.push(format!("{what}: another order than {expected:?}"));
                    }
                }
            }
        }
    }
    std::panic::set_hook(silent);
    eprintln!("{refused} refused, {stopped} stopped, {opened_count} opened");
    assert_eq!(wrong, Vec::<String>::new());
    assert!(0 < refused && 0 < opened_count);
}

/// Another replica's blocks.
struct Other(Arc<View>);

impl BlockSource for Other {
    fn blocks(&self, after: Index, to: Index) -> BoxStream<'static, std::io::Result<Bytes>> {
        let blocks = self.0.blocks(after, to, usize::MAX).unwrap();
        stream::iter(blocks.into_iter().map(|(_, bytes)| Ok(bytes)).collect::<Vec<_>>()).boxed()
    }
}

/// [P8] A history is repaired with the blocks of a replica that has them. A replica without these
/// blocks cannot help, and blocks of another history are rejected.
#[tokio::test]
async fn a_damaged_block_is_repaired_only_with_a_matching_block() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut machine, view) = open(ours.path(), SLOW);
    apply(&mut machine, entries(1..=20)).await;
    view.flush().await.unwrap();
    let (mut other, sound) = open(theirs.path(), SLOW);
    apply(&mut other, entries(1..=30)).await;
    sound.flush().await.unwrap();
    let strangers = tempfile::tempdir().unwrap();
    let (mut stranger, strange) = open(strangers.path(), SLOW);
    let mut story = entries(1..=20);
    story[11] = entry(12, buy("another-key"));
    apply(&mut stranger, story).await;
    strange.flush().await.unwrap();

    let left = killed(ours.path());
    let path = left.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    let places = (0..bytes.len() - 6).filter(|at| bytes[*at..].starts_with(b"key-12"));
    for place in places.collect::<Vec<_>>() {
        bytes[place] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    let opening = |source: Arc<dyn BlockSource>| {
        let (folder, runtime) = (left.path().to_owned(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || {
            StateMachine::open_repairing(&folder, Windows::default(), SLOW, source, &runtime)
        })
    };
    for source in [Arc::new(NoSource) as Arc<dyn BlockSource>, Arc::new(Other(strange))] {
        let Err(error) = opening(source).await.unwrap() else { panic!("opened") };
        assert!(error.to_string().contains("the block of index 12"), "{error}");
    }
    let source: Arc<dyn BlockSource> = Arc::new(Other(sound));
    let (_machine, mended) = opening(source.clone()).await.unwrap().unwrap();
    assert_eq!(mended.read_ledger(Ledger::state), view.read_ledger(Ledger::state));
    for number in FIRST..view.read(ShopState::next_order_number).0 {
        let number = OrderNumber(number);
        assert_eq!(mended.order(number).unwrap(), view.order(number).unwrap());
    }
    let again = mended.repair(source).await.unwrap();
    assert_eq!((again.checked, again.mended.len()), (19, 0));
}

/// [P8] A block that is stored in pieces is repaired, in its head or in any piece.
#[tokio::test]
async fn a_block_in_pieces_is_repaired_at_every_damaged_place() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let many = || buy_each((0..1_000).map(|number| format!("many-{number:03}")));
    let story = || [entries(1..=1), vec![entry(2, many())], entries(3..=6)].concat();
    let (mut machine, view) = open(ours.path(), SLOW);
    apply(&mut machine, story()).await;
    view.flush().await.unwrap();
    let (mut other, sound) = open(theirs.path(), SLOW);
    apply(&mut other, story()).await;
    sound.flush().await.unwrap();
    let source: Arc<dyn BlockSource> = Arc::new(Other(sound));
    let numbers = || (FIRST..view.read(ShopState::next_order_number).0).map(OrderNumber);
    let expected: Vec<_> = numbers().map(|number| view.order(number).unwrap()).collect();

    // In its head: index 2, term 1, log time 1,000; in its first and in its last piece.
    let head = [2_u64, 1, 1_000].map(u64::to_le_bytes).concat();
    for damaged in [head.as_slice(), b"many-000", b"many-999"] {
        let left = killed(ours.path());
        let path = left.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let places = (0..bytes.len() - 24).filter(|at| bytes[*at..].starts_with(damaged));
        let places = places.collect::<Vec<_>>();
        assert!(!places.is_empty());
        for place in places {
            bytes[place] ^= 1;
        }
        fs::write(&path, bytes).unwrap();
        let (folder, runtime) = (left.path().to_owned(), tokio::runtime::Handle::current());
        let theirs = source.clone();
        let opening = tokio::task::spawn_blocking(move || {
            StateMachine::open_repairing(&folder, Windows::default(), SLOW, theirs, &runtime)
        });
        let (_machine, mended) = opening.await.unwrap().unwrap();
        let found: Vec<_> = numbers().map(|number| mended.order(number).unwrap()).collect();
        assert_eq!(found, expected);
        let again = mended.repair(source.clone()).await.unwrap();
        assert_eq!(again.mended, []);
    }
}
