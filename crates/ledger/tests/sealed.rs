//! Damage behind the checksums: changed bytes with valid checksums and digests. No disk makes
//! these, but a faulty or hostile writer might.
//!
//! A decoder may reject or decode them; what it decodes must encode to the same bytes. So two
//! replicas never hold different values for the same bytes, and no byte is ignored.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has found something"
)]

mod kit;

use kit::{WINDOWS, bears, cents, command, name, open_steps, opening, plain, product, run};
use ledger::block::{Block, EncodedBlock, HEADER_BYTES, find_order};
use ledger::codec::DecodeError;
use ledger::command::{Batch, CATALOGS_MAX, Command, LINES_MAX, Line, Side};
use ledger::command::{SHOP_PRODUCTS_MAX, Shop};
use ledger::key_summary::KeySummary;
use ledger::ledger::{Ledger, Windows};
use ledger::restore::Restoring;
use ledger::state::State;
use ledger::terms::{Index, LedgerId, Name, OrderNumber, Timestamp};
use ledger::windows::PerOwner;
use proptest::prelude::*;

/// Where the parts of a block and of a state begin.
const CRC: usize = 1;
const SEALED: usize = 5;
const BLOCK_ORDERS: usize = 37;
const BLOCK_COUNT: usize = 41;
const BLOCK_PREVIOUS: usize = 45;
const BLOCK_DIGEST: usize = 77;
const BLOCK_RECORDS: usize = 109;
const STATE_OPEN: usize = 29;
const STATE_PRODUCTS: usize = 134;

fn seal(bytes: &mut [u8]) {
    if SEALED <= bytes.len() {
        let crc = crc32fast::hash(&bytes[SEALED..]);
        bytes[CRC..SEALED].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Also computes a block's digest, over the digest before, five numbers and the records.
fn seal_block(bytes: &mut [u8]) {
    if BLOCK_RECORDS <= bytes.len() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[BLOCK_PREVIOUS..BLOCK_DIGEST]);
        hasher.update(&bytes[SEALED..BLOCK_ORDERS]);
        hasher.update(&bytes[BLOCK_COUNT..BLOCK_PREVIOUS]).update(&[0; 4]);
        hasher.update(&bytes[BLOCK_RECORDS..]);
        let digest = hasher.finalize();
        bytes[BLOCK_DIGEST..BLOCK_RECORDS].copy_from_slice(digest.as_bytes());
    }
    seal(bytes);
}

/// Decodes bytes in all three formats: each rejects them, or its value encodes to the same bytes.
fn refused_or_same(bytes: &[u8]) {
    let batch = Batch::decode(bytes);
    // A ledger reads a batch in place, and must reject the same bytes.
    let applied = Ledger::new(WINDOWS).apply_bytes(Index(1), 1, bytes);
    assert_eq!(batch.as_ref().err(), applied.err().as_ref());
    if let Ok(batch) = batch {
        // Both versions have the same layout.
        assert_eq!(batch.encode()[1..], bytes[1..]);
    }
    let mut sealed = bytes.to_vec();
    seal(&mut sealed);
    if let Ok(state) = State::decode(&sealed) {
        assert_eq!(state.encode(), sealed);
        // A ledger can hold every state that is decoded.
        let key_counts = state.key_counts.as_ref().map(|_| PerOwner::default());
        let lone = State { keys_after: state.applied, key_counts, ..state.clone() };
        assert_eq!(
            Restoring::from_chain(WINDOWS, lone.clone())
                .finish_with(kit::sealed(&[]))
                .unwrap()
                .state(),
            lone
        );
    }
    if let Ok(summary) = KeySummary::decode(&sealed) {
        assert_eq!(summary.encode(), sealed);
    }
    seal_block(&mut sealed);
    if let Ok(block) = Block::decode(&sealed) {
        assert_eq!(block.encode(), sealed);
        assert_eq!(Block::peek(&sealed), Ok(block.header));
    }
}

/// A batch, a block and a state, with many kinds of content.
fn samples() -> Vec<Vec<u8>> {
    let line = |number, side| Line { name: name(number), quantity: kit::pieces(3), side };
    let pair = vec![line(0, Side::Buy), line(1, Side::Sell)];
    let incarnation = 7;
    let requests = vec![
        plain(opening()),
        kit::keyed("ann", bears(2)),
        kit::keyed("ann", bears(2)),
        kit::keyed("bob", bears(9)),
        plain(Command::Place(pair)),
        plain(Command::Define(product(name(2), 3))),
        plain(Command::SetPrice { name: name(2), price: cents(1) }),
        plain(Command::RestockTo { name: name(0), quantity: kit::pieces(4) }),
        plain(Command::Attach { incarnation, name: name(3) }),
        plain(Command::Attach { incarnation: 9, name: name(3) }),
        plain(Command::Detach { incarnation: 8, term: 3 }),
    ];
    let mut ledger = Ledger::new(Windows::default());
    let batch = Batch { at: Timestamp(5), settled: Index(1), requests };
    let written = batch.encode();
    let block = ledger.apply_entry(Index(4), 3, &batch).block.unwrap();
    vec![written, block.bytes().clone(), ledger.state().encode()]
}

/// A state and a key summary of a ledger in which two principals have keys, both of version 3.
fn samples_of_principals() -> [Vec<u8>; 2] {
    let mut ledger = Ledger::new(Windows::default());
    let orders = [(1, bears(2)), (2, bears(1)), (2, bears(9))].into_iter().enumerate();
    let orders = orders.map(|(key, (who, order))| kit::sent_by(who, &key.to_string(), order));
    let requests = [plain(opening()), kit::issue(1), kit::issue(2)].into_iter().chain(orders);
    let batch = Batch { at: Timestamp(5), settled: Index(1), requests: requests.collect() };
    ledger.apply_entry(Index(4), 3, &batch);
    assert_eq!(ledger.key_counts().principals.len(), 2);
    [ledger.state().encode(), ledger.key_summary().encode()]
}

/// All samples.
fn all_samples() -> impl Iterator<Item = Vec<u8>> {
    samples().into_iter().chain(samples_of_principals())
}

#[test]
fn this_file_seals_blocks_and_states_as_their_writers_do() {
    let [_, block, state]: [Vec<u8>; 3] = samples().try_into().unwrap();
    let (mut sealed_block, mut sealed_state) = (block.clone(), state.clone());
    seal_block(&mut sealed_block);
    seal(&mut sealed_state);
    assert_eq!((sealed_block, sealed_state), (block, state));
}

#[test]
fn a_flipped_bit_under_a_valid_checksum_is_rejected_or_preserved() {
    for sample in all_samples() {
        for bit in SEALED * 8..sample.len() * 8 {
            let mut bytes = sample.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refused_or_same(&bytes);
        }
    }
}

#[test]
fn bytes_cut_under_a_valid_checksum_are_rejected() {
    for (number, sample) in samples().into_iter().enumerate() {
        for end in 0..sample.len() {
            let mut bytes = sample[..end].to_vec();
            refused_or_same(&bytes);
            match number {
                0 => assert!(Batch::decode(&bytes).is_err(), "cut at {end}"),
                1 => {
                    seal_block(&mut bytes);
                    assert!(Block::decode(&bytes).is_err(), "cut at {end}");
                }
                _ => {
                    seal(&mut bytes);
                    assert!(State::decode(&bytes).is_err(), "cut at {end}");
                }
            }
        }
    }
}

/// A length or a count of up to four billion, at any place, is rejected without allocating for it.
#[test]
fn a_count_that_the_bytes_do_not_cover_is_refused() {
    for sample in all_samples() {
        for at in SEALED..sample.len() - 3 {
            for count in [u32::MAX, 1 << 31, 1 << 24] {
                let mut bytes = sample.clone();
                bytes[at..at + 4].copy_from_slice(&count.to_le_bytes());
                refused_or_same(&bytes);
            }
        }
    }
    let [_, mut block, mut state]: [Vec<u8>; 3] = samples().try_into().unwrap();
    block[BLOCK_COUNT..BLOCK_PREVIOUS].copy_from_slice(&u32::MAX.to_le_bytes());
    seal_block(&mut block);
    assert_eq!(Block::decode(&block), Err(DecodeError::Short));
    state[STATE_PRODUCTS..STATE_PRODUCTS + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    seal(&mut state);
    assert_eq!(State::decode(&state), Err(DecodeError::Short));
}

#[test]
fn a_block_that_contradicts_itself_is_refused() {
    let [_, block, _]: [Vec<u8>; 3] = samples().try_into().unwrap();
    let mut trailing = block.clone();
    trailing.push(0);
    seal_block(&mut trailing);
    assert_eq!(Block::decode(&trailing), Err(DecodeError::Trailing(1)));
    let mut miscounted = block.clone();
    miscounted[BLOCK_ORDERS] += 1;
    seal_block(&mut miscounted);
    assert_eq!(Block::decode(&miscounted), Err(DecodeError::Value("orders")));
    for part in [SEALED, BLOCK_COUNT - 8, BLOCK_PREVIOUS, BLOCK_DIGEST, BLOCK_RECORDS] {
        let mut other = block.clone();
        other[part] ^= 1;
        seal(&mut other);
        assert_ne!(Block::decode(&other).unwrap_err(), DecodeError::Checksum);
    }
}

#[test]
fn a_state_that_contradicts_itself_is_refused() {
    let [_, _, bytes]: [Vec<u8>; 3] = samples().try_into().unwrap();
    let state = State::decode(&bytes).unwrap();
    let refused = |change: fn(&mut State)| {
        let mut changed = state.clone();
        change(&mut changed);
        State::decode(&changed.encode()).expect_err("the state contradicts itself")
    };
    let value = DecodeError::Value;
    let products = value("order of products");
    assert_eq!(refused(|state| state.products.swap(0, 1)), products);
    assert_eq!(refused(|state| state.products.insert(1, state.products[0].clone())), products);
    let catalogs = value("order of catalogs");
    assert_eq!(refused(|state| state.attached.swap(0, 1)), catalogs);
    assert_eq!(refused(|state| state.attached.insert(1, state.attached[0].clone())), catalogs);
    let stock = value("stock of a product");
    assert_eq!(refused(|state| state.products[0].1.stock += 1), stock);
    assert_eq!(refused(|state| state.products[0].1.bought_out = u64::MAX), stock);
    let version = value("version of a product");
    assert_eq!(refused(|state| state.products[0].1.version = state.applied.next()), version);
    assert_eq!(refused(|state| state.ledger_id = None), value("products"));
    let many = |state: &mut State| {
        let catalog = |who| (who, Name::new("c").unwrap());
        state.attached = (0..).take(CATALOGS_MAX + 1).map(catalog).collect();
    };
    assert_eq!(refused(many), value("count"));
    let mut closed = bytes.clone();
    closed[STATE_OPEN] = 0;
    seal(&mut closed);
    assert_eq!(State::decode(&closed), Err(value("ledger id")));
    closed[STATE_OPEN] = 2;
    seal(&mut closed);
    assert_eq!(State::decode(&closed), Err(value("open")));
    let mut trailing = bytes;
    trailing.push(0);
    seal(&mut trailing);
    assert_eq!(State::decode(&trailing), Err(DecodeError::Trailing(1)));
}

/// Many of the smallest values: no count is rejected as too great for its bytes.
#[test]
fn the_smallest_values_are_decoded() {
    let reads = |command: Command| {
        let batch = Batch { requests: vec![plain(command); 20], ..Batch::default() };
        assert_eq!(Batch::decode(&batch.encode()).unwrap(), batch);
        let mut ledger = Ledger::new(WINDOWS);
        let block = ledger.apply_entry(Index(1), 1, &batch).block.unwrap();
        assert_eq!(EncodedBlock::open(block.bytes()).unwrap().block(), block.block());
        assert_eq!(State::decode(&ledger.state().encode()).unwrap(), ledger.state());
    };
    let letter = |letter: u8| Name::new(std::str::from_utf8(&[letter]).unwrap()).unwrap();
    let (quantity, side) = (kit::pieces(1), Side::Buy);
    let products = (b'a'..=b'z').map(|name| product(letter(name), 0)).collect();
    let (ledger_id, first_order_number) = (LedgerId([0; 16]), OrderNumber(0));
    reads(Command::Open(Shop { ledger_id, first_order_number, products }));
    reads(Command::Place(Vec::new()));
    reads(Command::Place(vec![Line { name: letter(b'a'), quantity, side }; LINES_MAX]));
    // An order that is refused for its length is kept as it was sent.
    reads(Command::Place(vec![Line { name: letter(b'a'), quantity, side }; LINES_MAX * 2]));
    reads(Command::Attach { incarnation: 0, name: letter(b'a') });
}

#[test]
fn values_above_their_limits_are_rejected() {
    let refused = |command| {
        let requests = vec![plain(command)];
        let batch = Batch { requests, ..Batch::default() };
        Batch::decode(&batch.encode()).expect_err("the value is above its limit")
    };
    let line = Line { name: name(0), quantity: kit::pieces(1), side: Side::Buy };
    let lines = vec![line; LINES_MAX * 2 + 1];
    assert_eq!(refused(Command::Place(lines)), DecodeError::Value("count"));
    let products = vec![product(name(0), 1); SHOP_PRODUCTS_MAX + 1];
    let (ledger_id, first_order_number) = (LedgerId([0; 16]), OrderNumber(0));
    let shop = Command::Open(Shop { ledger_id, first_order_number, products });
    assert_eq!(refused(shop), DecodeError::Value("count"));
    let stock = ledger::terms::STOCK_MAX + 1;
    let define = Command::Define(product(name(0), stock));
    assert_eq!(refused(define), DecodeError::Value("stock"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Blocks, states and batches of random histories decode to what was encoded.
    #[test]
    fn every_encoded_value_is_decoded_unchanged(steps in open_steps(), command in command()) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &steps);
        for block in blocks {
            let bytes = block.encode();
            let read = Block::decode(&bytes).unwrap();
            prop_assert_eq!(read.encode(), bytes);
            prop_assert_eq!(read.header, block.header);
        }
        prop_assert_eq!(State::decode(&ledger.state().encode()).unwrap(), ledger.state());
        let batch = Batch { requests: vec![plain(command)], ..Batch::default() };
        prop_assert_eq!(Batch::decode(&batch.encode()).unwrap(), batch);
    }

    /// However a block is cut, its pieces make up the whole, and each order is found in the last
    /// piece that begins at or before its number.
    #[test]
    fn a_block_is_cut_between_records(steps in open_steps(), bytes_max in 1..400_usize) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &steps);
        for block in kit::sealed(&blocks) {
            let (cuts, whole) = (block.cuts(bytes_max), block.bytes());
            let mut begin = HEADER_BYTES;
            for cut in &cuts {
                prop_assert!(begin < cut.end);
                begin = cut.end;
            }
            prop_assert_eq!(begin, whole.len());
            for order in block.block().orders() {
                let at = cuts.partition_point(|cut| cut.first_order_number <= order.number) - 1;
                let begin = if at == 0 { HEADER_BYTES } else { cuts[at - 1].end };
                let piece = &whole[begin..cuts[at].end];
                let found = find_order(block.header(), piece, order.number);
                prop_assert_eq!(found, Ok(Some(order.clone())));
                prop_assert_eq!(block.order(order.number), Some(order));
            }
            prop_assert_eq!(block.order(ledger.next_order_number()), None);
        }
    }

    /// Pieces of valid bytes, inserted at random places, and sealed.
    #[test]
    fn shuffled_bytes_under_a_valid_checksum_are_rejected_or_preserved(
        pick in 0..5_usize,
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        (taken, left_out) in (0..60_usize, 0..60_usize),
    ) {
        let mut bytes = all_samples().nth(pick).unwrap();
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()).max(SEALED));
        let piece: Vec<u8> = bytes[from..].iter().take(taken).copied().collect();
        let end = (to + left_out).min(bytes.len());
        bytes.splice(to..end, piece);
        refused_or_same(&bytes);
    }

    /// Random bytes after the version.
    #[test]
    fn random_bytes_under_a_valid_checksum_are_rejected_or_preserved(
        mut bytes in proptest::collection::vec(any::<u8>(), 1..400), length in 0..12_u8
    ) {
        bytes[0] = 1;
        // Small values where counts stand, so that the decoders read further.
        for count in [17, BLOCK_COUNT, STATE_PRODUCTS] {
            if count + 4 <= bytes.len() {
                bytes[count..count + 4].copy_from_slice(&[length, 0, 0, 0]);
            }
        }
        refused_or_same(&bytes);
    }
}
