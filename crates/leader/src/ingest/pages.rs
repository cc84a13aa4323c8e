//! Headers of Parquet pages, from strangers.
//!
//! Parquet's reader makes room for as many bytes as a header says that its page has once it is decompressed,
//! keeps them, with zeros where there was less, and passes over lists of booleans that it does not know one by
//! one, though they take no bytes. So a header of some bytes asks for two gigabytes, or for minutes, and is
//! looked at before it is read. It has to be what every writer writes: the fields of the format by their
//! numbers, upwards, with their types. Then what is looked at here is what is read there.

use std::io::{self, Read};

use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;

use self::Kind::{Binary, Bool, Int32, Int64, Struct};

/// Bytes of a page once it is decompressed. Writers begin another one after about one mebibyte; a page has one
/// value at least, however large.
const PAGE_BYTES_MAX: i64 = 512 << 20;
/// What a page may have beyond what its codec can make of it.
const PAGE_BYTES_FREE: i64 = 64 << 10;
/// Structures within structures; Parquet's reader goes as deep.
const DEPTH_MAX: u8 = 64;

/// The type of a field, where it is known.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Bool,
    Int32,
    Int64,
    Binary,
    Struct(&'static [Self]),
}

// From 1 on, as in `parquet.thrift`.
const STATISTICS: &[Kind] = &[Binary, Binary, Int64, Int64, Binary, Binary, Bool, Bool];
const DATA_PAGE: &[Kind] = &[Int32, Int32, Int32, Int32, Struct(STATISTICS)];
const DICTIONARY_PAGE: &[Kind] = &[Int32, Int32, Bool];
const DATA_PAGE_V2: &[Kind] = &[
    Int32,
    Int32,
    Int32,
    Int32,
    Int32,
    Int32,
    Bool,
    Struct(STATISTICS),
];
const PAGE: &[Kind] = &[
    Int32,
    Int32,
    Int32,
    Int32,
    Struct(DATA_PAGE),
    Struct(&[]),
    Struct(DICTIONARY_PAGE),
    Struct(DATA_PAGE_V2),
];
const UNCOMPRESSED_PAGE_SIZE: u8 = 2;
const COMPRESSED_PAGE_SIZE: u8 = 3;

// The types of Thrift's compact protocol.
const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const INT16: u8 = 4;
const INT32: u8 = 5;
const INT64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

impl Kind {
    fn is(self, kind: u8) -> bool {
        match self {
            Self::Bool => is_bool(kind),
            Self::Int32 => kind == INT32,
            Self::Int64 => kind == INT64,
            Self::Binary => kind == BINARY,
            Self::Struct(_) => kind == STRUCT,
        }
    }
}

/// How many bytes at most the codecs of a file can make of one.
pub(super) fn expansion(metadata: &ParquetMetaData) -> i64 {
    let columns = metadata
        .row_groups()
        .iter()
        .flat_map(|group| group.columns());
    let of_each = columns.map(|column| match column.compression() {
        Compression::UNCOMPRESSED => 1,
        // A copy of at most 64 bytes takes three.
        Compression::SNAPPY => 32,
        Compression::LZ4 | Compression::LZ4_RAW => 256,
        Compression::GZIP(_) => 1_040,
        // Zstandard's runs: a block of 128 KiB takes four bytes. Brotli knows no limit.
        _ => 32 << 10,
    });
    of_each.max().unwrap_or(1)
}

/// Looks at the header of a page, in a file whose codecs can make `expansion` bytes of one.
///
/// # Errors
/// When it is none, ends before its end, or asks for too much.
pub(super) fn check_header(reader: impl Read, expansion: i64) -> io::Result<()> {
    let mut header = Header { reader };
    let (mut uncompressed, mut compressed) = (0, 0);
    header.known(PAGE, DEPTH_MAX, &mut |field, value| match field {
        UNCOMPRESSED_PAGE_SIZE => uncompressed = i64::from(value),
        COMPRESSED_PAGE_SIZE => compressed = i64::from(value),
        _ => {}
    })?;
    let possible = compressed.saturating_mul(expansion);
    let most = possible.saturating_add(PAGE_BYTES_FREE).min(PAGE_BYTES_MAX);
    if uncompressed > most {
        return Err(garbled(&format!(
            "a page of {compressed} bytes has {uncompressed} when it is decompressed, and {most} are the most"
        )));
    }
    Ok(())
}

fn is_bool(kind: u8) -> bool {
    matches!(kind, TRUE | FALSE)
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

struct Header<R> {
    reader: R,
}

impl<R: Read> Header<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(garbled("a page header has a number that is too long"))
    }

    fn signed(&mut self) -> io::Result<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn pass(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.reader.by_ref().take(count), &mut io::sink())?;
        if passed < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// A structure whose first fields are known; `see` is given its numbers.
    fn known(
        &mut self,
        fields: &[Kind],
        depth: u8,
        see: &mut dyn FnMut(u8, i32),
    ) -> io::Result<()> {
        let mut last = 0_u8;
        loop {
            let byte = self.byte()?;
            let (step, kind) = (byte >> 4, byte & 0x0F);
            if kind == STOP {
                return Ok(());
            }
            let field = last.checked_add(step).filter(|_| step > 0);
            last = field
                .ok_or_else(|| garbled("this is no page header: its fields are in no order"))?;
            let Some(known) = fields.get(usize::from(last) - 1) else {
                self.unknown(kind, depth)?;
                continue;
            };
            if !known.is(kind) {
                return Err(garbled(&format!(
                    "this is no page header: field {last} has another type"
                )));
            }
            match known {
                Kind::Struct(fields) => self.known(fields, depth - 1, &mut |_, _| {})?,
                Kind::Int32 => {
                    // Parquet's reader cuts a larger one off.
                    let value = i32::try_from(self.signed()?)
                        .map_err(|_| garbled("a page header has a number that is too large"))?;
                    see(last, value);
                }
                Kind::Int64 => drop(self.number()?),
                Kind::Bool | Kind::Binary => self.unknown(kind, depth)?,
            }
        }
    }

    /// A value of which only the type is known.
    fn unknown(&mut self, kind: u8, depth: u8) -> io::Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(garbled("a page header is nested too deep"));
        };
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.pass(1),
            INT16 | INT32 | INT64 => self.number().map(drop),
            DOUBLE => self.pass(8),
            UUID => self.pass(16),
            BINARY => {
                let length = self.number()?;
                self.pass(length)
            }
            LIST | SET => {
                let byte = self.byte()?;
                let (count, kind) = (byte >> 4, byte & 0x0F);
                let count = match count {
                    15 => self.number()?,
                    count => u64::from(count),
                };
                self.many(count, &[kind], depth)
            }
            MAP => match self.number()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.many(count, &[kinds >> 4, kinds & 0x0F], depth)
                }
            },
            STRUCT => loop {
                let byte = self.byte()?;
                if byte & 0x0F == STOP {
                    return Ok(());
                }
                if byte >> 4 == 0 {
                    self.number()?;
                }
                self.unknown(byte & 0x0F, depth)?;
            },
            _ => Err(garbled("a page header has a value of no type")),
        }
    }

    /// As many of some values. Nothing in the format is a list of booleans here.
    fn many(&mut self, count: u64, kinds: &[u8], depth: u8) -> io::Result<()> {
        if count > 0 && kinds.iter().any(|kind| is_bool(*kind)) {
            return Err(garbled("a page header has a list of booleans"));
        }
        for _ in 0..count {
            for kind in kinds {
                self.unknown(*kind, depth)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field: its distance from the last one, and its type.
    const fn field(step: u8, kind: u8) -> u8 {
        step << 4 | kind
    }

    fn number(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7F {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// A data page of `size` bytes with statistics, and what stands before its end.
    fn header(size: u64, more: &[u8]) -> Vec<u8> {
        let int = field(1, INT32);
        let mut bytes = vec![int, 0, int];
        bytes.extend(number(size * 2));
        bytes.extend([int, 40, field(2, STRUCT)]);
        bytes.extend([int, 8, int, 0, int, 6, int, 6]);
        bytes.extend([
            field(1, STRUCT),
            field(3, INT64),
            2,
            field(2, BINARY),
            1,
            b'x',
            0,
            0,
        ]);
        bytes.extend(more);
        bytes.push(STOP);
        bytes
    }

    #[test]
    fn headers_of_every_writer_pass() {
        let id: Vec<u8> = (0..16).collect();
        let nested = [
            &[field(15, STRUCT), field(1, TRUE), field(1, UUID)][..],
            &id,
            &[STOP],
        ]
        .concat();
        for more in [
            &[][..],
            // What a later version of the format may add.
            &[field(15, LIST), 0x25, 2, 4],
            &[field(15, MAP), 1, 0x85, 1, b'k', 2],
            &nested,
            &[field(15, LIST), 0],
        ] {
            let bytes = header(1 << 20, more);
            check_header(&bytes[..], 1 << 20).expect("it is one");
            for length in 0..bytes.len() {
                assert!(check_header(&bytes[..length], 1 << 20).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn what_asks_for_too_much_is_refused() {
        let booleans = [&[field(15, LIST), 0xF1][..], &number(i32::MAX as u64)].concat();
        let pairs = [&[field(15, MAP)][..], &number(i32::MAX as u64), &[0x11]].concat();
        let nested = [&[field(15, LIST), 0x19, 0xF2][..], &number(1 << 30)].concat();
        for (bytes, reason) in [
            (header(1 << 30, &[]), "are the most"),
            (header(1 << 31, &[]), "too large"),
            // Of 20 bytes.
            (header((64 << 10) + 641, &[]), "are the most"),
            (header(9, &booleans), "list of booleans"),
            (header(9, &pairs), "list of booleans"),
            (header(9, &nested), "list of booleans"),
            (header(9, &[field(0, INT32), 4, 0]), "in no order"),
            (
                header(
                    9,
                    &[&[field(10, STRUCT)][..], &[field(1, STRUCT); 70]].concat(),
                ),
                "too deep",
            ),
            (vec![field(1, STRUCT), 0, 0], "another type"),
        ] {
            let error = check_header(&bytes[..], 32).expect_err(reason);
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
    }
}
