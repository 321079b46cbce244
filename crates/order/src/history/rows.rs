//! The rows of a block on disk: one row or, for a large block, a head and pieces.
//!
//! A batch of thousands of orders is one block of half a megabyte. A look-up of one of these orders
//! reads and checks a piece of some 16 KB instead of the whole block. The head holds the block's
//! header, and where each piece begins with its checksum. Head and pieces together are the bytes of
//! the block as it is sent to others.
//!
//! # Layout of a head, version 2
//!
//! A row of version 1 is a block as it is.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | 4 | CRC-32 of the version and of everything after this |
//! | 109 | the first bytes of the block |
//! | 12 each | a piece: the next free order number before it; its CRC-32 |

use bytes::Bytes;
use ledger::block::{
    BLOCK_VERSION, EncodedBlock, HEADER_BYTES, Header, Order, find_order, read_header,
};
use ledger::codec::DecodeError;
use ledger::key_summary::KeyedWindows;
use ledger::terms::{Index, OrderNumber};

/// The version byte of a head.
const HEAD_VERSION: u8 = 2;

/// A piece has at most this many bytes, and a smaller block is not cut. With its key such a piece
/// fills four pages of 4 KB almost completely.
const PIECE_BYTES: usize = 16_000;

/// The offsets in a head of the block's first bytes and of the pieces.
const BLOCK: usize = 5;
const PIECES: usize = BLOCK + HEADER_BYTES;

/// A block in the form in which it is written.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) first: OrderNumber,
    pub(crate) index: Index,
    /// The content of the row: the block, or a head.
    pub(crate) row: Bytes,
    /// The pieces of a head.
    pub(crate) pieces: Vec<Bytes>,
    /// The windows of the keys in the block.
    pub(crate) keys: KeyedWindows,
}

/// The content of a row.
#[derive(Clone, Debug)]
pub(crate) enum Stored<'a> {
    /// A block.
    Whole(&'a [u8]),
    /// The head of one.
    Head(Head<'a>),
}

/// The head of a block that is stored in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Head<'a> {
    header: Header,
    /// The first bytes of the block.
    block: &'a [u8],
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    first: OrderNumber,
    crc: u32,
}

impl Row {
    /// The rows of a block.
    pub(crate) fn new(block: &EncodedBlock<Bytes>) -> Self {
        Self::cut(block, PIECE_BYTES)
    }

    fn cut(block: &EncodedBlock<Bytes>, bytes_max: usize) -> Self {
        let header = block.header();
        let first = header.first_order_number;
        let index = header.index;
        let bytes = block.bytes();
        let keys = block.keyed().clone();
        if bytes.len() <= bytes_max {
            return Self { first, index, row: bytes.clone(), pieces: Vec::new(), keys };
        }
        let mut row = vec![HEAD_VERSION, 0, 0, 0, 0];
        let mut pieces = Vec::new();
        row.extend_from_slice(&bytes[..HEADER_BYTES]);
        let mut begin = HEADER_BYTES;
        for cut in block.cuts(bytes_max) {
            let piece = bytes.slice(begin..cut.end);
            row.extend_from_slice(&cut.first_order_number.0.to_le_bytes());
            row.extend_from_slice(&crc32fast::hash(&piece).to_le_bytes());
            pieces.push(piece);
            begin = cut.end;
        }
        let crc = checksum(&row[BLOCK..]);
        row[1..BLOCK].copy_from_slice(&crc.to_le_bytes());
        Self { first, index, row: row.into(), pieces, keys }
    }
}

/// The checksum of a head: it covers the version, so that no block passes for a head.
fn checksum(rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[HEAD_VERSION]);
    hasher.update(rest);
    hasher.finalize()
}

impl<'a> Stored<'a> {
    /// Reads a row. A head is checked here; a block only when it is opened.
    pub(crate) fn read(row: &'a [u8]) -> Result<Self, DecodeError> {
        match row.first() {
            Some(&BLOCK_VERSION) => Ok(Self::Whole(row)),
            Some(&HEAD_VERSION) => Ok(Self::Head(Head::read(row)?)),
            Some(other) => Err(DecodeError::Version(*other)),
            None => Err(DecodeError::Short),
        }
    }
}

impl<'a> Head<'a> {
    fn read(row: &'a [u8]) -> Result<Self, DecodeError> {
        let (Some(covered), Some(block)) = (row.get(BLOCK..), row.get(BLOCK..PIECES)) else {
            return Err(DecodeError::Short);
        };
        if row[1..BLOCK] != checksum(covered).to_le_bytes() {
            return Err(DecodeError::Checksum);
        }
        let (header, _) = read_header(block)?;
        let (pieces, rest) = row[PIECES..].as_chunks::<12>();
        if !rest.is_empty() {
            return Err(DecodeError::Trailing(rest.len()));
        }
        let piece = |bytes: &[u8; 12]| {
            let (first, crc) = bytes.split_first_chunk::<8>()?;
            let crc = u32::from_le_bytes(*crc.first_chunk()?);
            Some(Piece { first: OrderNumber(u64::from_le_bytes(*first)), crc })
        };
        let pieces = pieces.iter().filter_map(piece).collect();
        Ok(Self { header, block, pieces })
    }

    /// The header of the block.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The first bytes of the block, which the pieces continue.
    pub(crate) fn block(&self) -> &'a [u8] {
        self.block
    }

    /// The number of pieces.
    pub(crate) fn pieces(&self) -> u64 {
        self.pieces.len() as u64
    }

    /// The piece that holds the order with this number, if any does.
    pub(crate) fn place(&self, number: OrderNumber) -> Option<u64> {
        let after = self.pieces.partition_point(|piece| piece.first <= number);
        after.checked_sub(1).map(|place| place as u64)
    }

    /// An order from the piece with this number.
    pub(crate) fn order(
        &self,
        place: u64,
        piece: &[u8],
        number: OrderNumber,
    ) -> Result<Option<Order>, DecodeError> {
        let known = usize::try_from(place).ok().and_then(|place| self.pieces.get(place));
        if known.map(|known| known.crc) != Some(crc32fast::hash(piece)) {
            return Err(DecodeError::Checksum);
        }
        find_order(&self.header, piece, number)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
    use ledger::ledger::{Ledger, Windows};
    use ledger::terms::{Cents, Key, LedgerId, Name, Origin, Quantity, Timestamp};

    use super::*;

    /// The second block of a shop, with `orders` orders from number 7 on.
    pub(crate) fn block(orders: u64) -> EncodedBlock<Bytes> {
        let name = Name::new("bear").unwrap();
        let bear = Definition {
            name: name.clone(),
            price: Cents::new(1).unwrap(),
            stock: 1_000_000,
            restock_to: None,
        };
        let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(7));
        let shop = Shop { ledger_id, first_order_number, products: vec![bear] };
        let plain = |command| Request { key: None, deadline: None, certificate: None, command };
        let mut ledger = Ledger::new(Windows::default());
        ledger.apply(Index(1), Timestamp(1), &plain(Command::Open(shop)));
        let order = |number: u64| {
            let quantity = Quantity::new(1).unwrap();
            let lines = vec![Line { name: name.clone(), quantity, side: Side::Buy }];
            let key = Key::new(Origin::Client, &format!("key-{number}"));
            Request { key, ..plain(Command::Place(lines)) }
        };
        let requests = (0..orders).map(order).collect();
        let batch = Batch { at: Timestamp(9), settled: Index(1), requests };
        ledger.apply_entry(Index(3), 2, &batch).block.unwrap().held_by()
    }

    fn head(row: &Row) -> Result<Head<'_>, DecodeError> {
        match Stored::read(&row.row)? {
            Stored::Head(head) => Ok(head),
            Stored::Whole(_) => panic!("the block is not in pieces"),
        }
    }

    fn find(row: &Row, number: u64) -> Result<Option<Order>, DecodeError> {
        let head = head(row)?;
        let place = head.place(OrderNumber(number)).unwrap();
        head.order(place, &row.pieces[usize::try_from(place).unwrap()], OrderNumber(number))
    }

    #[test]
    fn a_small_block_is_stored_whole() {
        let block = block(20);
        let row = Row::new(&block);
        assert_eq!((row.first, row.index, row.pieces.len()), (OrderNumber(7), Index(3), 0));
        assert!(
            matches!(Stored::read(&row.row), Ok(Stored::Whole(bytes)) if bytes == block.bytes())
        );
    }

    #[test]
    fn a_large_block_is_stored_in_pieces_and_each_order_is_in_one_piece() {
        let block = block(1_000);
        let row = Row::new(&block);
        assert!(row.row.len() < 300 && 2 < row.pieces.len());
        assert!(row.pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let head = head(&row).unwrap();
        assert_eq!((head.header(), head.pieces()), (block.header(), row.pieces.len() as u64));
        assert_eq!(
            [&[head.block()], &row.pieces.iter().map(Bytes::as_ref).collect::<Vec<_>>()[..]]
                .concat()
                .concat(),
            *block.bytes()
        );
        for number in 7..1_007 {
            assert_eq!(find(&row, number), Ok(block.order(OrderNumber(number))));
        }
        assert_eq!(find(&row, 1_007), Ok(None));
        assert_eq!(head.place(OrderNumber(6)), None);
    }

    #[test]
    fn a_flipped_bit_in_a_head_or_a_piece_is_never_served() {
        let row = Row::cut(&block(9), 100);
        for bit in 0..row.row.len() * 8 {
            let mut bytes = row.row.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(find(&Row { row: bytes.into(), ..row.clone() }, 7).is_err(), "bit {bit}");
        }
        for bit in 0..row.pieces[0].len() * 8 {
            let mut bytes = row.pieces[0].to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut other = row.clone();
            other.pieces[0] = bytes.into();
            assert_eq!(find(&other, 7), Err(DecodeError::Checksum), "bit {bit}");
        }
        for length in 0..row.row.len() {
            let short = Row { row: row.row.slice(..length), ..row.clone() };
            assert!(find(&short, 7).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_bytes_of_version_2_never_change() {
        let block = block(3);
        let row = Row::cut(&block, 100);
        let [one, two] = row.pieces.as_slice() else { panic!("{} pieces", row.pieces.len()) };
        let covered = [
            &block.bytes()[..HEADER_BYTES],
            &7_u64.to_le_bytes(),
            &crc32fast::hash(one).to_le_bytes(),
            &9_u64.to_le_bytes(),
            &crc32fast::hash(two).to_le_bytes(),
        ]
        .concat();
        let crc = crc32fast::hash(&[&[2], &covered[..]].concat()).to_le_bytes();
        assert_eq!(row.row, [&[2][..], &crc, &covered].concat());
        assert_eq!([&block.bytes()[..HEADER_BYTES], one, two].concat(), *block.bytes());
    }
}
