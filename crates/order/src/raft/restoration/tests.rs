//! Restorations of a small history: at every block, of damaged blocks, beside other folders.

use std::collections::BTreeSet;

use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
use ledger::outcome::{Accepted, Outcome};
use ledger::state::State;
use ledger::terms::{Cents, Index, Key, LedgerId, Name, Origin, Quantity, Timestamp};
use openraft::{EntryPayload, RaftLogReader};

use super::*;
use crate::config::Settings;
use crate::config::tests::three;
use crate::identity::Identity;
use crate::raft::EPOCH;

/// Entry 1 opens the shop, 5 is lost between blocks, the others are orders; two of one entry, and
/// one that is refused.
fn history() -> (Vec<EncodedBlock>, Vec<State>) {
    let name = |text: &str| Name::new(text).unwrap();
    let bear = Definition {
        name: name("bear"),
        price: Cents::new(1).unwrap(),
        stock: 5,
        restock_to: None,
    };
    let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(7));
    let open = Command::Open(Shop { ledger_id, first_order_number, products: vec![bear] });
    let order = |pieces| {
        let quantity = Quantity::new(pieces).unwrap();
        Command::Place(vec![Line { name: name("bear"), quantity, side: Side::Buy }])
    };
    let entries = [
        (1, vec![open]),
        (2, vec![order(1)]),
        (3, vec![order(1), order(1)]),
        (4, vec![order(9)]),
        (6, vec![order(1)]),
    ];
    let mut ledger = Ledger::new(Windows::default());
    let (mut blocks, mut states) = (Vec::new(), Vec::new());
    for (index, commands) in entries {
        let keyed = |(number, command)| Request {
            key: Key::new(Origin::Client, &format!("{index}-{number}")),
            deadline: None,
            certificate: None,
            command,
        };
        let requests = commands.into_iter().enumerate().map(keyed).collect();
        let batch = Batch { at: Timestamp(1_000 * index), settled: Index(0), requests };
        blocks.extend(ledger.apply_entry(Index(index), 1, &batch).block);
        states.push(ledger.state());
    }
    (blocks, states)
}

fn bytes(block: &EncodedBlock) -> Bytes {
    block.bytes().clone().into()
}

fn replica() -> RestoredReplica {
    let members = BTreeSet::from([123, 345, 456]);
    RestoredReplica { id: 123, store: "test".into(), members, address: "here:1".into() }
}

fn restoration(place: &Path, blocks: &[EncodedBlock]) -> Restoration {
    let mut restoration = Restoration::begin(place).unwrap();
    for block in blocks {
        restoration.take(bytes(block)).unwrap();
    }
    restoration
}

/// Kind: a restore that is not the store as it was.
#[tokio::test]
async fn a_restore_at_every_block_equals_a_replay_up_to_it() {
    let (blocks, states) = history();
    for (count, expected) in (1..).zip(&states) {
        let data = tempfile::tempdir().unwrap();
        let place = data.path().join("order-123");
        let restoration = restoration(&place, &blocks[..count]);
        let series = restoration.new_series(None, OrderNumber(0)).unwrap();
        assert!(!place.exists(), "nothing is there before the end");
        let term = restoration.next_epoch(0).unwrap();
        assert_eq!(term, EPOCH);
        restoration.finish(&replica(), &series, term).await.unwrap();
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1, "no draft is left");

        let (kept, durable) = Blocks::open(&place.join("history/blocks.redb")).unwrap();
        let mut ledger = kept.restore(&durable, Windows::default()).unwrap();
        assert_eq!(ledger.state(), *expected);
        let mut log = LogStore::open(&place.join("log"), None).unwrap();
        let index = expected.applied.0;
        let entries = log.try_get_log_entries(index + 1..index + 9).await.unwrap();
        let [first, members] = &entries[..] else { panic!("{entries:?}") };
        assert!(matches!(members.payload, EntryPayload::Membership(_)));
        let EntryPayload::Normal(payload) = &first.payload else { panic!("{first:?}") };
        let entry = ledger.apply_bytes(Index(index + 1), term, &payload.0).unwrap();
        let done = Outcome::Accepted(Accepted::Done);
        assert_eq!(entry.outcomes, [done.clone(), done]);
        assert_eq!(ledger.next_order_number(), series.first());
    }
}

#[tokio::test]
async fn a_restored_folder_is_of_the_replica_and_rejects_the_former_members() {
    let data = tempfile::tempdir().unwrap();
    let place = data.path().join("order-123");
    let restoration = restoration(&place, &history().0);
    let series = restoration.new_series(Some(OrderNumber(11)), OrderNumber(0)).unwrap();
    assert!(series.is_continued());
    let given_out = OrderNumber(5_000_000_000_000);
    let later = restoration.new_series(None, given_out).unwrap().first();
    assert!(given_out < later, "an earlier restore has the numbers before {later}");
    assert_eq!(restoration.next_epoch(4 * EPOCH + 7).unwrap(), 5 * EPOCH);
    restoration.finish(&replica(), &series, EPOCH).await.unwrap();
    let record = identity_file::read(&place.join("identity.toml")).unwrap().unwrap();
    assert_eq!(record.removed, BTreeSet::from([345, 456]));
    assert_eq!((record.members, record.id), (BTreeSet::from([123]), 123));
    assert_eq!(record.ledger, Some(LedgerId([1; 16]).to_string()));
    let settings = Settings { data: place, id: 123, cluster: "test".into(), ..three() };
    let members = crate::membership::Members::new(&settings);
    assert!(Identity::open(&settings, members).is_ok());
}

/// Kind: a folder that is overwritten, or that an interrupted restore has left.
#[tokio::test]
async fn a_folder_is_never_overwritten_and_what_an_interrupted_restore_left_is_cleared() {
    let (blocks, _) = history();
    let data = tempfile::tempdir().unwrap();
    let place = data.path().join("order-123");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("mine"), "mine").unwrap();
    let Err(Stop::Setup(why)) = Restoration::begin(&place) else { panic!() };
    assert!(why.contains("is not empty, and nothing is overwritten"), "{why}");
    fs::remove_file(place.join("mine")).unwrap();

    let interrupted = restoration(&place, &blocks);
    let Err(Stop::Setup(why)) = Restoration::begin(&place) else { panic!() };
    assert!(why.contains("in use"), "{why}");
    drop(interrupted);
    let draft = data.path().join("order-123.restoring");
    assert!(!draft.exists(), "what was not finished is removed");
    // Unless the process was killed.
    fs::create_dir_all(draft.join("history")).unwrap();
    fs::write(draft.join("history/blocks.redb"), "half a file").unwrap();

    let mut again = restoration(&place, &blocks[..2]);
    assert_eq!(again.shop().next_order_number(), OrderNumber(8), "nothing of it is believed");
    // The folder is taken while the restore runs.
    let series = again.new_series(None, OrderNumber(0)).unwrap();
    fs::write(place.join("mine"), "mine").unwrap();
    again.take(bytes(&blocks[2])).unwrap();
    assert!(again.finish(&replica(), &series, EPOCH).await.is_err());
    assert_eq!(fs::read_to_string(place.join("mine")).unwrap(), "mine");
    assert!(!draft.exists());
}

/// Kind: a block of another history, or with a forged outcome.
#[test]
fn a_block_that_the_rules_do_not_give_is_rejected() {
    let (blocks, _) = history();
    let data = tempfile::tempdir().unwrap();
    let mut restoration = restoration(&data.path().join("order-123"), &blocks[..1]);
    let mut rejects = |bytes: Bytes, words: &str| match restoration.take(bytes) {
        Err(RestorationError::Block(why)) => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}"),
    };
    rejects(bytes(&blocks[2]), "the block of entry 3 does not follow on that of entry 1");
    rejects(bytes(&blocks[0]), "does not follow");
    let mut flipped = blocks[1].bytes().clone();
    *flipped.last_mut().unwrap() ^= 1;
    rejects(flipped.into(), "checksum");
    let mut forged = blocks[1].block();
    forged.records[0].outcome = Outcome::Accepted(Accepted::Unchanged);
    forged.header.orders = 0;
    forged.header.digest = forged.compute_digest();
    rejects(forged.encode().into(), "is not what the rules give");
}

/// Kind: a number that was never given out, taken for a lost order.
#[tokio::test]
async fn a_number_between_two_series_is_given_to_no_order() {
    let (mut blocks, _) = history();
    let mut ledger = Ledger::new(Windows::default());
    for block in &blocks {
        ledger.apply_bytes(block.header().index, 1, &block.batch()).unwrap();
    }
    let next_number = OrderNumber(100);
    let plain = |command| Request { key: None, deadline: None, certificate: None, command };
    let bear = Line {
        name: Name::new("bear").unwrap(),
        quantity: Quantity::new(1).unwrap(),
        side: Side::Sell,
    };
    let order = plain(Command::Place(vec![bear]));
    for requests in [vec![order.clone(), plain(Command::Reopen { next_number })], vec![order]] {
        let batch = Batch { at: Timestamp(9_000), settled: Index(0), requests };
        blocks.extend(ledger.apply_entry(ledger.applied().next(), 1, &batch).block);
    }
    let folder = tempfile::tempdir().unwrap();
    let (kept, _) = Blocks::open(&folder.path().join("blocks.redb")).unwrap();
    let rows: Vec<Row> = blocks.iter().map(|block| Row::new(&block.clone().held_by())).collect();
    kept.write(&rows, None).unwrap();
    let found = |number| kept.order_given(OrderNumber(number)).unwrap().is_some();
    assert!((7..12).all(found) && found(100));
    assert!(!(12..100).any(found));
    // With the block that begins the series, its absence would be a lost order.
    let (kept, _) = Blocks::open(&folder.path().join("others.redb")).unwrap();
    kept.write(&rows[..5], None).unwrap();
    kept.write(&rows[6..], None).unwrap();
    assert!(kept.order_given(OrderNumber(50)).is_err());
}
