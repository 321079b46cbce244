//! Backups of a small history into a storage that fails at every call.

use std::collections::BTreeMap;

use ledger::command::{Batch, Definition, Line, Request, Shop, Side};
use ledger::command::{Command, NewApiKey};
use ledger::ledger::{Ledger, Windows};
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};

use super::super::memory_storage::MemoryStorage;
use super::super::verification::{VerifiedBackup, verify};
use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// A store that runs, and what a replica of it sends.
struct Replica {
    ledger: Ledger,
    blocks: Vec<(u64, Bytes)>,
}

impl Replica {
    /// The shop opens at 1, with many bears.
    fn open() -> Self {
        let bear = Definition {
            name: Name::new("bear").unwrap(),
            price: Cents::new(1).unwrap(),
            stock: 1_000,
            restock_to: None,
        };
        let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(7));
        let shop = Shop { ledger_id, first_order_number, products: vec![bear] };
        let mut replica = Self { ledger: Ledger::new(Windows::default()), blocks: Vec::new() };
        replica.apply(Command::Open(shop));
        replica
    }

    fn apply(&mut self, command: Command) {
        let index = self.ledger.applied().next();
        let key = Key::new(Origin::Client, &index.0.to_string());
        let request = Request { key, deadline: None, certificate: None, command };
        let at = Timestamp(1_000 * index.0);
        let batch = Batch { at, settled: Index(index.0 - 1), requests: vec![request] };
        let block = self.ledger.apply_entry(index, 1, &batch).block.unwrap();
        self.blocks.push((index.0, block.bytes().clone().into()));
    }

    fn order(&mut self, orders: u64) {
        for pieces in 1..=orders {
            let quantity = Quantity::new(pieces).unwrap();
            let line = Line { name: Name::new("bear").unwrap(), quantity, side: Side::Buy };
            self.apply(Command::Place(vec![line]));
        }
    }

    fn head(&self) -> HistoryHead {
        HistoryHead {
            id: 123,
            ledger_id: self.ledger.ledger_id().unwrap().0.to_vec().into(),
            applied_index: self.ledger.applied().0,
            digest: self.ledger.digest().0.to_vec().into(),
            state: self.ledger.state().encode().into(),
            store: "shop".into(),
            members: [(123, "here:1".to_owned())].into(),
            ..HistoryHead::default()
        }
    }

    /// A whole backup; each block is a file, so that there are many file boundaries.
    fn back_up(
        &self,
        storage: &Arc<MemoryStorage>,
        now: Duration,
    ) -> Result<BackedUp, BackupError> {
        let mut writer = BackupWriter::begin(storage.clone(), "writer", now)?;
        let head = self.head();
        writer.open(&head)?;
        let end = writer.end();
        for (_, block) in self.blocks.iter().filter(|(index, _)| end < *index) {
            writer.take(block.clone())?;
            writer.flush()?;
        }
        let done = writer.finish(&head, now)?;
        writer.retain(&UtcSecond::of(now.saturating_sub(HOUR)))?;
        writer.release()?;
        Ok(done)
    }
}

type Files = BTreeMap<String, Vec<u8>>;

fn storage(files: &Files) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::failing(files, (0, false)))
}

fn backed_up(replica: &Replica, files: &Files, now: Duration) -> Files {
    let storage = storage(files);
    replica.back_up(&storage, now).unwrap();
    storage.files.lock().clone()
}

fn points(files: &Files) -> Vec<&String> {
    files.keys().filter(|name| name.starts_with(POINTS)).collect()
}

/// Kind: half a backup that passes for one, or that the next one does not continue.
#[test]
fn a_writer_that_stops_at_any_call_leaves_no_restore_point_and_the_next_one_goes_on() {
    let mut replica = Replica::open();
    replica.order(3);
    let first = backed_up(&replica, &Files::new(), 2 * HOUR);
    let first_points = points(&first).len();
    replica.order(2);
    // The last backup's point and state are too old for this one.
    let now = 4 * HOUR;
    let whole = backed_up(&replica, &first, now);
    assert_eq!((first_points, points(&whole).len()), (1, 1));
    for (before, has_effect) in
        [(Files::new(), true), (Files::new(), false), (first.clone(), true), (first, false)]
    {
        let calls = storage(&before);
        replica.back_up(&calls, now).unwrap();
        let calls = calls.calls.load(std::sync::atomic::Ordering::Relaxed);
        assert!(10 < calls, "{calls}");
        for call in 1..=calls {
            let failing = Arc::new(MemoryStorage::failing(&before, (call, has_effect)));
            replica.back_up(&failing, now).unwrap_err();
            let left = failing.files.lock().clone();
            // What is there is a whole backup of some moment, or none.
            let left_storage = storage(&left);
            match points(&left).len() {
                0 => assert!(verify(&*left_storage).is_err()),
                _ => drop(verify(&*left_storage).unwrap()),
            }
            // A later writer takes the lock over, and completes it.
            let after = backed_up(&replica, &left, now + Duration::from_mins(11));
            let verified = verify(&*storage(&after)).unwrap();
            assert_eq!((verified.entries, verified.orders), (6, 5), "call {call}");
            let blocks = |files: &Files| -> Vec<String> {
                files.keys().filter(|name| name.starts_with("blocks")).cloned().collect()
            };
            assert_eq!(blocks(&after), blocks(&whole), "call {call}: nothing is written twice");
            assert!(!after.contains_key("lock"));
        }
    }
}

/// Kind: damage that is not found, or whose file is not named.
#[test]
fn each_flipped_byte_of_a_backup_is_found_in_its_file() {
    let mut replica = Replica::open();
    replica.order(2);
    let files = backed_up(&replica, &Files::new(), 2 * HOUR);
    assert_eq!(
        verify(&*storage(&files)).unwrap(),
        VerifiedBackup { entries: 3, orders: 2, points: 1 }
    );
    for (name, content) in &files {
        for place in 0..content.len() {
            let mut flipped = files.clone();
            flipped.get_mut(name).unwrap()[place] ^= 1;
            match verify(&*storage(&flipped)) {
                Err(BackupError::Damaged { name: found, .. }) => {
                    assert_eq!(found, *name, "{place}");
                }
                other => panic!("{name} at {place}: {other:?}"),
            }
        }
    }
    for name in files.keys() {
        let mut fewer = files.clone();
        fewer.remove(name);
        let why = verify(&*storage(&fewer)).unwrap_err().to_string();
        let missing = ["no file store.toml", "no restore point", "no file holds", "is missing"];
        assert!(missing.iter().any(|words| why.contains(words)), "{name}: {why}");
    }
}

/// Kind: a state or a point that was written anew, with digests that match.
#[test]
fn a_state_that_does_not_follow_from_the_blocks_is_found() {
    let mut replica = Replica::open();
    replica.order(2);
    let files = backed_up(&replica, &Files::new(), 2 * HOUR);
    let name = points(&files)[0].clone();
    let point: RestorePoint = restore_point::open(&files[&name]).unwrap();
    let state = state_name(3);
    let forge = |change: fn(&mut State)| {
        let mut forged = State::decode(&files[&state]).unwrap();
        change(&mut forged);
        let content = forged.encode();
        let digest = hex(blake3::hash(&content).as_bytes());
        let point = RestorePoint { state: digest, ..point.clone() };
        let mut files = files.clone();
        files.insert(state.clone(), content);
        files.insert(name.clone(), restore_point::seal(&point).unwrap());
        verify(&*storage(&files)).map_err(|error| error.to_string())
    };
    assert!(forge(|_| ()).is_ok());
    assert!(forge(|state| state.settled = Index(2)).is_ok(), "it decides nothing");
    let wrong: [fn(&mut State); 3] = [
        |state| {
            let product = &mut state.products[0].1;
            (product.stock, product.bought_out) = (product.stock - 1, product.bought_out + 1);
        },
        |state| state.next_order_number = OrderNumber(8),
        |state| state.attached.push((7, Name::new("catalog").unwrap())),
    ];
    for change in wrong {
        let why = forge(change).unwrap_err();
        assert!(why.contains("states/0000000000000003.state"), "{why}");
    }
    let other = RestorePoint { orders: 3, ..point };
    let mut files = files.clone();
    files.insert(name.clone(), restore_point::seal(&other).unwrap());
    let why = verify(&*storage(&files)).unwrap_err().to_string();
    assert!(why.contains(&name), "{why}");
}

#[test]
fn a_backup_goes_on_where_it_ended_and_says_when_nothing_is_new() {
    let mut replica = Replica::open();
    replica.order(2);
    let storage = storage(&Files::new());
    let first = replica.back_up(&storage, HOUR).unwrap();
    assert_eq!((first.is_new, first.blocks, first.point.orders), (true, 3, 2));
    let again = replica.back_up(&storage, 2 * HOUR).unwrap();
    assert_eq!((again.is_new, again.blocks, &again.point), (false, 0, &first.point));
    // A blank entry is nothing new.
    replica.ledger.skip_entry(Index(9));
    assert!(!replica.back_up(&storage, 2 * HOUR).unwrap().is_new);
    replica.order(1);
    let second = replica.back_up(&storage, 2 * HOUR).unwrap();
    assert_eq!((second.is_new, second.blocks, second.point.orders), (true, 1, 3));
    assert_eq!(verify(&*storage).unwrap(), VerifiedBackup { entries: 10, orders: 3, points: 2 });
}

/// Kind: two stores in one backup.
#[test]
fn a_backup_of_another_store_or_of_another_past_is_not_continued() {
    let mut replica = Replica::open();
    replica.order(2);
    let files = backed_up(&replica, &Files::new(), HOUR);
    let refused = |replica: &Replica| {
        let storage = storage(&files);
        let why = replica.back_up(&storage, 2 * HOUR).unwrap_err().to_string();
        assert_eq!(points(&storage.files.lock()).len(), 1);
        why
    };
    // It was restored to an earlier entry, and went on otherwise.
    let mut other = Replica::open();
    other.order(1);
    let scopes = ledger::api_key::Scopes::QUERY;
    other.apply(Command::SetAnonymousScopes(scopes));
    let why = refused(&other);
    assert!(why.contains("was restored or recovered meanwhile"), "{why}");
    other.order(1);
    let why = refused(&other);
    assert!(why.contains("was restored or recovered meanwhile"), "{why}");
    let mut head = replica.head();
    head.ledger_id = vec![9; 16].into();
    let writer = BackupWriter::begin(storage(&files), "writer", 2 * HOUR).unwrap();
    let why = writer.open(&head).unwrap_err().to_string();
    assert!(why.contains("back it up to another folder"), "{why}");
}

/// Kind: a secret in a file that is copied to other machines.
#[test]
fn a_backup_holds_the_digest_of_an_api_key_alone() {
    use ledger::api_key::{ApiKeyDigest, ApiKeyId, Principal, Scopes};
    let mut replica = Replica::open();
    let text = "opk_7f3kq2mw_0123456789abcdefghjkmnpqrs";
    let digest = *blake3::hash(text.as_bytes()).as_bytes().first_chunk().unwrap();
    replica.apply(Command::IssueApiKey(NewApiKey {
        id: ApiKeyId::new(b"7f3kq2mw").unwrap(),
        digest: ApiKeyDigest(digest),
        principal: Principal::new("webshop").unwrap(),
        scopes: Scopes::ORDER,
        ends: None,
        rate: None,
        note: String::new(),
    }));
    let files = backed_up(&replica, &Files::new(), HOUR);
    let holds = |needle: &[u8]| {
        files.values().any(|content| content.windows(needle.len()).any(|part| part == needle))
    };
    assert!(holds(&digest) && holds(b"webshop"));
    assert!(!holds(&text.as_bytes()[13..]));
}
