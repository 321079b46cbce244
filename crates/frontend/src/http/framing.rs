//! Message framing: where the body of a request ends (RFC 9112, sections 6 and 7).
//!
//! A pure state machine over the bytes behind a head. It keeps two requests of one connection
//! apart, so it is strict: each line of a chunked body ends with CRLF, and everything that is not
//! exactly a chunk is malformed. hyper decodes the same bytes again and never sees a byte beyond
//! the end found here.

use crate::limits;

/// The body of one request, as far as its bytes have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes of the body are still to arrive.
    Length(u64),
    /// Chunks, and a trailer.
    Chunked(Chunks),
}

/// The position in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    at: At,
    /// The size of the chunk; while its data arrives, the bytes still missing.
    size: u64,
    /// Bytes in extensions and trailers, which are skipped.
    extra: usize,
}

/// The next element expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    FirstDigit,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a line of the trailer, or of the empty line behind it.
    Trailer,
    TrailerLine,
    TrailerLf,
    LastLf,
    Complete,
    Malformed,
}

impl Framing {
    /// A body of this many bytes.
    pub(crate) fn of_length(bytes: u64) -> Self {
        Self::Length(bytes)
    }

    /// A body in chunks, of which nothing has arrived.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunks { at: At::FirstDigit, size: 0, extra: 0 })
    }

    /// True if the whole body has arrived.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Length(missing) => *missing == 0,
            Self::Chunked(chunks) => chunks.at == At::Complete,
        }
    }

    /// True if the body is malformed: its end cannot be found.
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self, Self::Chunked(chunks) if chunks.at == At::Malformed)
    }

    /// `bytes` have arrived. Returns how many of them belong to the body.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Length(missing) => take(missing, bytes.len()),
            Self::Chunked(chunks) => chunks.advance(bytes),
        }
    }
}

/// Takes as many of the `available` bytes as are missing.
fn take(missing: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*missing).unwrap_or(usize::MAX).min(available);
    *missing -= taken as u64;
    taken
}

impl Chunks {
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            match self.at {
                At::Complete | At::Malformed => break,
                At::Data => {
                    taken += take(&mut self.size, bytes.len() - taken);
                    if self.size == 0 {
                        self.at = At::DataCr;
                    }
                }
                _ => {
                    self.at = self.next(byte);
                    taken += usize::from(self.at != At::Malformed);
                }
            }
        }
        taken
    }

    fn next(&mut self, byte: u8) -> At {
        match (self.at, byte) {
            (At::FirstDigit | At::Size, byte) if byte.is_ascii_hexdigit() => self.digit(byte),
            (At::Size, b';' | b' ' | b'\t') => At::Extension,
            (At::Size | At::Extension, b'\r') => At::SizeLf,
            (At::Extension, byte) if is_text(byte) => self.skip(At::Extension),
            (At::SizeLf, b'\n') if self.size == 0 => At::Trailer,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::FirstDigit,
            (At::Trailer, b'\r') => At::LastLf,
            (At::TrailerLine, b'\r') => At::TrailerLf,
            (At::Trailer | At::TrailerLine, byte) if is_text(byte) => self.skip(At::TrailerLine),
            (At::TrailerLf, b'\n') => At::Trailer,
            (At::LastLf, b'\n') => At::Complete,
            _ => At::Malformed,
        }
    }

    /// The next digit of a size. After a chunk the size is zero again.
    fn digit(&mut self, byte: u8) -> At {
        let digit = char::from(byte).to_digit(16).unwrap_or_default();
        match self.size.checked_mul(16).and_then(|size| size.checked_add(digit.into())) {
            Some(size) => {
                self.size = size;
                At::Size
            }
            None => At::Malformed,
        }
    }

    fn skip(&mut self, next: At) -> At {
        self.extra += 1;
        if self.extra <= limits::HEADER_BYTES_MAX { next } else { At::Malformed }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_with_a_length_has_that_many_bytes() {
        let mut body = Framing::of_length(5);
        assert!(!body.is_complete());
        assert_eq!(body.advance(b"abc"), 3);
        assert_eq!(body.advance(b"defgh"), 2);
        assert!(body.is_complete());
        assert_eq!(body.advance(b"fgh"), 0);
        assert!(Framing::of_length(0).is_complete());
    }

    #[test]
    fn chunks_end_after_their_trailer_wherever_reads_split_them() {
        for body in [
            "0\r\n\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
            "00002\r\n{}\r\n000\r\n\r\n",
            "1;a=b\r\n{\r\n1 ; c=\"d\"\r\n}\r\n0\r\nX-T: 1\r\nY: 2\r\n\r\n",
            "A\r\n0\r\n\r\n0\r\n\r\n\r\n0;x\r\n\r\n",
        ] {
            let bytes = [body.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
            for cut in 0..=body.len() {
                let mut framing = Framing::chunked();
                assert_eq!(framing.advance(&bytes[..cut]), cut, "{body:?}");
                assert_eq!(framing.is_complete(), cut == body.len(), "{body:?}");
                assert_eq!(framing.advance(&bytes[cut..]), body.len() - cut, "{body:?}");
                assert!(framing.is_complete() && !framing.is_malformed(), "{body:?}");
            }
        }
    }

    #[test]
    fn anything_but_an_exact_chunk_is_malformed() {
        let long = format!("2;{}\r\n", "a".repeat(limits::HEADER_BYTES_MAX + 1));
        for body in [
            "\r\n",
            "x",
            "-1\r\n",
            "0x2\r\n",
            "2\n",
            "2\r{}",
            "2\r\n{}0\r\n",
            "2\r\n{}\n",
            "2\r\n{}\r\r",
            "2;a\nb\r\n",
            "2;\0\r\n",
            "0\r\n\n",
            "0\r\nA: b\n",
            "0\r\n\r\r",
            "10000000000000000\r\n",
            long.as_str(),
        ] {
            let mut framing = Framing::chunked();
            let taken = framing.advance(body.as_bytes());
            assert!(framing.is_malformed(), "{body:?}");
            assert!(taken < body.len());
            assert_eq!(framing.advance(b"0\r\n\r\n"), 0, "no further byte belongs to the body");
        }
    }
}
