//! Formats: what any version wrote is read for ever, and no bytes make a decoder panic.
//!
//! `golden/*.hex` hold bytes written by each released version. They are never rewritten; a new
//! version adds its own. Damage behind the checksums is tested in `sealed.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has found something"
)]

use std::fmt::Write as _;

use ledger::api_key::{Actor, ApiKeyDigest, ApiKeyId, Principal, RequestRate, Scopes};
use ledger::block::Block;
use ledger::certificate_actor::{ActorRole, CERTIFICATE_NAME_BYTES_MAX, CertificateActor};
use ledger::codec::DecodeError;
use ledger::command::{Batch, Command, Definition, Line, NewApiKey, Request, Shop, Side};
use ledger::key_summary::KeySummary;
use ledger::ledger::{Ledger, Windows};
use ledger::operator_action::{OperatorAction, ReplicaAddress};
use ledger::state::State;
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

/// Batches with at least one command of each kind.
fn batches() -> Vec<Batch> {
    let name = |text: &str| Name::new(text).unwrap();
    let quantity = |pieces| Quantity::new(pieces).unwrap();
    let plain = |command| Request { key: None, deadline: None, certificate: None, command };
    let product = |text: &str, stock, restock_to| Definition {
        name: name(text),
        price: Cents::new(2_999).unwrap(),
        stock,
        restock_to,
    };
    let shop = Shop {
        ledger_id: LedgerId([0xab; 16]),
        first_order_number: OrderNumber(1_903),
        products: vec![product("bear", 2, None), product("füchse", 0, Some(quantity(100)))],
    };
    let line =
        |text: &str, pieces, side| Line { name: name(text), quantity: quantity(pieces), side };
    let place = |key: Option<Key>, lines| Request {
        key,
        deadline: Some(Timestamp(9_000)),
        certificate: None,
        command: Command::Place(lines),
    };
    let client = || Key::new(Origin::Client, "mine");
    let requests = vec![
        place(client(), vec![line("bear", 1, Side::Buy)]),
        place(client(), vec![line("bear", 1, Side::Buy)]),
        place(client(), vec![line("bear", 2, Side::Buy)]),
        place(Key::new(Origin::Frontend, "0f"), vec![line("bear", 1_000_000, Side::Buy)]),
        place(None, vec![line("bear", 7, Side::Sell), line("owl", 1, Side::Buy)]),
        plain(Command::Place(Vec::new())),
        plain(Command::Define(product("owl", 3, None))),
        plain(Command::Define(product("owl", 3, None))),
        plain(Command::SetPrice { name: name("owl"), price: Cents::new(1).unwrap() }),
        plain(Command::RestockBy { name: name("bear"), quantity: quantity(5) }),
        plain(Command::RestockTo { name: name("füchse"), quantity: quantity(100) }),
        plain(Command::RestockTo { name: name("füchse"), quantity: quantity(100) }),
        plain(Command::Attach { incarnation: 77, name: name("catalog 127.0.0.1:2319") }),
        plain(Command::Detach { incarnation: 78, term: 3 }),
        Request { deadline: Some(Timestamp(1)), ..plain(Command::Place(Vec::new())) },
    ];
    vec![
        Batch {
            at: Timestamp(8_000),
            settled: Index(0),
            requests: vec![plain(Command::Open(shop))],
        },
        Batch { at: Timestamp(8_500), settled: Index(4), requests },
    ]
}

/// A batch with every command about API keys, and with requests that came with one.
fn about_api_keys() -> Batch {
    let id = |text: &str| ApiKeyId::new(text.as_bytes()).unwrap();
    let webshop = Principal::new("webshop").unwrap();
    let plain = |command| Request { key: None, deadline: None, certificate: None, command };
    let issue = |text: &str, scopes, note: &str| {
        let (digest, note) = (ApiKeyDigest([0xcd; 16]), note.to_owned());
        let (principal, ends) = (webshop.clone(), Some(Timestamp(9_000_000)));
        let rate = RequestRate::new(500, 1_000).filter(|_| !note.is_empty());
        Command::IssueApiKey(NewApiKey {
            id: id(text),
            digest,
            principal,
            scopes,
            ends,
            rate,
            note,
        })
    };
    let by = |number: &str, command| {
        let actor = Some(Actor::new(&webshop, id("7f3kq2mw")));
        let key = Key::new(Origin::Client, number).unwrap().sent_by(actor);
        Request { key: Some(key), deadline: None, certificate: None, command }
    };
    let line = Line {
        name: Name::new("bear").unwrap(),
        quantity: Quantity::new(1).unwrap(),
        side: Side::Buy,
    };
    let requests = vec![
        plain(issue("7f3kq2mw", Scopes::ALL, "the first, für alle")),
        plain(Command::SetAnonymousScopes(Scopes::QUERY)),
        by("1", Command::Place(vec![line.clone()])),
        by("2", issue("00000000", Scopes::ORDER, "")),
        by("3", Command::RevokeApiKey { id: id("00000000"), ends: Some(Timestamp(8_900)) }),
        plain(Command::RevokeApiKey { id: id("00000001"), ends: None }),
        plain(Command::Place(vec![line])),
        by("4", Command::Attach { incarnation: 1, name: Name::new("catalog").unwrap() }),
    ];
    Batch { at: Timestamp(8_700), settled: Index(7), requests }
}

/// A batch with every action of an operator, and with requests that came with a certificate.
fn about_operators() -> Batch {
    let holder = |role, name| CertificateActor::new(role, name);
    let plain = |command| Request { key: None, deadline: None, certificate: None, command };
    let anna = |key: &str, command| Request {
        key: Key::new(Origin::Client, key),
        certificate: holder(ActorRole::Operator, "anna"),
        ..plain(command)
    };
    let address = ReplicaAddress::new("10.0.0.4:1115").unwrap();
    let webshop = Principal::new("webshop").unwrap();
    let actor = Actor::new(&webshop, ApiKeyId::new(b"7f3kq2mw").unwrap());
    let (bear, quantity) = (Name::new("bear").unwrap(), Quantity::new(9).unwrap());
    let mut of_both = anna("5", Command::RestockBy { name: bear.clone(), quantity });
    of_both.key = of_both.key.map(|key| key.sent_by(Some(actor)));
    let act = Command::OperatorAction;
    let requests = vec![
        anna("1", act(OperatorAction::AddReplica { id: 567, address })),
        anna("1", act(OperatorAction::RemoveReplica { id: 567 })),
        anna("3", act(OperatorAction::RemoveReplica { id: u64::MAX })),
        anna("4", act(OperatorAction::TransferLead { to: 345 })),
        plain(act(OperatorAction::Repair { id: 345 })),
        plain(act(OperatorAction::Recover { id: 123 })),
        of_both,
        Request {
            certificate: holder(ActorRole::Catalog, &"c".repeat(CERTIFICATE_NAME_BYTES_MAX)),
            ..plain(Command::RestockTo { name: bear, quantity })
        },
    ];
    Batch { at: Timestamp(8_800), settled: Index(8), requests }
}

/// A batch that announces a restore, and begins a new series of order numbers.
fn about_series() -> Batch {
    let plain = |command| Request { key: None, deadline: None, certificate: None, command };
    let requests = vec![
        plain(Command::OperatorAction(OperatorAction::Restore { id: 123 })),
        plain(Command::Reopen { next_number: OrderNumber(2_000_000) }),
    ];
    Batch { at: Timestamp(8_900), settled: Index(0), requests }
}

/// The block of that batch, and the state after it, in a store without API keys.
fn history_with_series() -> (State, Block) {
    let mut ledger = Ledger::new(Windows::default());
    for (batch, index) in batches().into_iter().zip([3, 7]) {
        ledger.apply_entry(Index(index), 3, &batch);
    }
    let entry = ledger.apply_entry(Index(9), 1_000_000_000, &about_series());
    (ledger.state(), entry.block.unwrap().block())
}

/// The block of that batch, after that about API keys.
fn block_about_operators() -> Block {
    let mut ledger = Ledger::new(Windows::default());
    let batches = batches().into_iter().chain([about_api_keys()]);
    for (batch, index) in batches.zip([3, 7, 8]) {
        ledger.apply_entry(Index(index), 3, &batch);
    }
    ledger.apply_entry(Index(9), 3, &about_operators()).block.unwrap().block()
}

/// The state, the key summary and the last block of a ledger to which that batch was applied.
fn history_with_api_keys() -> (State, KeySummary, Block) {
    let mut ledger = Ledger::new(Windows::default());
    for (batch, index) in batches().iter().zip([3, 7]) {
        ledger.apply_entry(Index(index), 3, batch);
    }
    let entry = ledger.apply_entry(Index(8), 3, &about_api_keys());
    (ledger.state(), ledger.key_summary(), entry.block.unwrap().block())
}

/// Encodes a batch as a program of that version did.
fn encoded(batch: &Batch, version: u8) -> Vec<u8> {
    let mut bytes = batch.encode();
    bytes[0] = version;
    bytes
}

/// The state, the key summary and the blocks that a ledger of that version makes of these batches.
fn history(version: u8) -> (State, KeySummary, Vec<Block>) {
    let mut ledger = Ledger::new(Windows::default());
    let entries = batches().into_iter().zip([3, 7]);
    let blocks = entries
        .filter_map(|(batch, index)| {
            ledger.apply_bytes(Index(index), 3, &encoded(&batch, version)).unwrap().block
        })
        .map(|block| block.block())
        .collect();
    (ledger.state(), ledger.key_summary(), blocks)
}

/// Every format that is written to disk, by the name of its golden file.
fn written() -> Vec<(&'static str, Vec<u8>)> {
    let (old_state, old_summary, _) = history(1);
    let (state, summary, blocks) = history(2);
    let batches = batches();
    let with_keys = history_with_api_keys();
    vec![
        ("batch_open_v1", encoded(&batches[0], 1)),
        ("batch_v1", encoded(&batches[1], 1)),
        ("batch_v2", batches[1].encode()),
        ("block_open_v1", blocks[0].encode()),
        ("block_v1", blocks[1].encode()),
        ("state_v1", old_state.encode()),
        ("state_v2", state.encode()),
        ("batch_api_keys_v2", about_api_keys().encode()),
        ("block_api_keys_v1", with_keys.2.encode()),
        ("state_v3", with_keys.0.encode()),
        ("batch_operators_v2", about_operators().encode()),
        ("block_operators_v1", block_about_operators().encode()),
        ("batch_series_v2", about_series().encode()),
        ("block_series_v1", history_with_series().1.encode()),
        ("state_series_v3", history_with_series().0.encode()),
        ("rolls_v1", old_summary.encode()),
        ("rolls_v2", summary.encode()),
        ("rolls_v3", with_keys.1.encode()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(40) {
        for byte in chunk {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"))
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Bytes of each version decode to their values, and a store of that version still gets the same
/// bytes.
#[test]
fn bytes_of_every_version_are_read_and_written() {
    for (name, bytes) in written() {
        let path = golden(name);
        if !path.exists() && std::env::var_os("OPPIDUM_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, hex(&bytes)).unwrap();
        }
        let golden = unhex(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(hex(&golden), hex(&bytes), "{name}");
    }
    let read = |name: &str| unhex(&std::fs::read_to_string(golden(name)).unwrap());
    let (old_state, old_summary, old_blocks) = history(1);
    let (state, summary, blocks) = history(2);
    assert_eq!(old_blocks, blocks);
    assert_eq!(Batch::decode(&read("batch_v2")).unwrap(), batches()[1]);
    assert_eq!(Batch::decode(&read("batch_open_v1")).unwrap(), batches()[0]);
    assert_eq!(Batch::decode(&read("batch_v1")).unwrap(), batches()[1]);
    assert_eq!(Block::decode(&read("block_open_v1")).unwrap(), blocks[0]);
    assert_eq!(Block::decode(&read("block_v1")).unwrap(), blocks[1]);
    assert_eq!(Block::peek(&read("block_v1")).unwrap(), blocks[1].header);
    assert_eq!(State::decode(&read("state_v1")).unwrap(), old_state);
    assert_eq!(State::decode(&read("state_v2")).unwrap(), state);
    assert_eq!(KeySummary::decode(&read("rolls_v1")).unwrap(), old_summary);
    assert_eq!(KeySummary::decode(&read("rolls_v2")).unwrap(), summary);
    assert_ne!(old_state, state);
    let (state, summary, block) = history_with_api_keys();
    assert_eq!(Batch::decode(&read("batch_api_keys_v2")).unwrap(), about_api_keys());
    assert_eq!(Block::decode(&read("block_api_keys_v1")).unwrap(), block);
    assert_eq!(State::decode(&read("state_v3")).unwrap(), state);
    assert_eq!(Batch::decode(&read("batch_operators_v2")).unwrap(), about_operators());
    assert_eq!(Block::decode(&read("block_operators_v1")).unwrap(), block_about_operators());
    assert_eq!(KeySummary::decode(&read("rolls_v3")).unwrap(), summary);
    let (state, block) = history_with_series();
    assert_eq!(Batch::decode(&read("batch_series_v2")).unwrap(), about_series());
    assert_eq!(Block::decode(&read("block_series_v1")).unwrap(), block);
    assert_eq!(State::decode(&read("state_series_v3")).unwrap(), state);
}

/// Every golden file is read, and every format has one.
#[test]
fn every_golden_file_is_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut found: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    found.sort();
    let mut known: Vec<_> = written().iter().map(|(name, _)| format!("{name}.hex")).collect();
    known.sort();
    assert_eq!(found, known);
}

/// A newer version is reported by its number, and nothing after it is read.
#[test]
fn a_newer_version_is_refused_by_name() {
    for (name, mut bytes) in written() {
        bytes[0] = 4;
        let error = if name.starts_with("batch") {
            Batch::decode(&bytes).unwrap_err()
        } else if name.starts_with("block") {
            Block::decode(&bytes).unwrap_err()
        } else if name.starts_with("rolls") {
            KeySummary::decode(&bytes).unwrap_err()
        } else {
            State::decode(&bytes).unwrap_err()
        };
        assert!(matches!(error, DecodeError::Version(4)), "{name}: {error}");
    }
}

/// True if the decoder of its own format rejects the bytes.
fn is_refused(name: &str, bytes: &[u8]) -> bool {
    match name.split('_').next() {
        Some("batch") => Batch::decode(bytes).is_err(),
        Some("block") => Block::decode(bytes).is_err(),
        Some("rolls") => KeySummary::decode(bytes).is_err(),
        _ => State::decode(bytes).is_err(),
    }
}

/// Bytes cut at any place are an error, never a panic, and never another value.
#[test]
fn bytes_that_are_cut_are_refused() {
    for (name, bytes) in written() {
        for end in 0..bytes.len() {
            assert!(is_refused(name, &bytes[..end]), "{name} cut at {end}");
        }
    }
}

/// One flipped bit at any place: the checksums of what is kept on disk detect it.
#[test]
fn a_flipped_bit_is_detected() {
    for (name, bytes) in written() {
        for place in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            match name.split('_').next() {
                // The log has a checksum around every record; here, decoding must only not panic.
                Some("batch") => drop(Batch::decode(&flipped)),
                Some("block") => {
                    assert!(Block::decode(&flipped).is_err(), "{name}: bit {place}");
                }
                _ => assert!(is_refused(name, &flipped), "{name}: bit {place}"),
            }
        }
    }
}

/// Bytes after the end are an error.
#[test]
fn bytes_after_the_end_are_refused() {
    for (name, mut bytes) in written() {
        bytes.push(0);
        assert!(is_refused(name, &bytes), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Random bytes cause no panic, and take no more memory than they can fill.
    #[test]
    fn random_bytes_are_refused_or_read(mut bytes in vec(any::<u8>(), 0..400), first in 0..4_u8) {
        if let Some(version) = bytes.first_mut() {
            *version = first;
        }
        if let Ok(batch) = Batch::decode(&bytes) {
            prop_assert_eq!(encoded(&batch, first), bytes.clone());
        }
        prop_assert!(Block::decode(&bytes).is_err());
        prop_assert!(State::decode(&bytes).is_err());
    }

    /// Pieces of valid bytes, inserted at random places.
    #[test]
    fn shuffled_bytes_never_panic(
        pick in 0..12_usize, from in 0..600_usize, to in 0..600_usize, count in 0..100_usize
    ) {
        let (_, mut bytes) = written().swap_remove(pick);
        let (from, to) = (from % bytes.len(), to % bytes.len());
        let piece: Vec<u8> = bytes[from..].iter().take(count).copied().collect();
        bytes.splice(to..to, piece);
        drop(Batch::decode(&bytes));
        drop(Block::decode(&bytes));
        drop(State::decode(&bytes));
    }
}
