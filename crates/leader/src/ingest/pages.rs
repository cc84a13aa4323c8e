//! Headers of Parquet pages, from strangers.
//!
//! Parquet's reader makes room for as many bytes as a header says that its page has once it is decompressed, and
//! keeps them, with zeros where there was less. So a header of some bytes asks for two gigabytes, and is looked at
//! before it is read.

use std::io::{self, Read};

use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;

use super::thrift::Kind::{self, Binary, Bool, Int32, Int64, Seen, Struct};
use super::thrift::{Thrift, garbled};

/// Bytes of a page once it is decompressed. Writers begin another one after about one mebibyte; a page has one
/// value at least, however large.
const PAGE_BYTES_MAX: i64 = 512 << 20;
/// What a page may have beyond what its codec can make of it.
const PAGE_BYTES_FREE: i64 = 64 << 10;
// From 1 on, as in `parquet.thrift`.
pub(super) const STATISTICS: &[Kind] = &[Binary, Binary, Int64, Int64, Binary, Binary, Bool, Bool];
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
    Seen(&Int32),
    Seen(&Int32),
    Int32,
    Struct(DATA_PAGE),
    Struct(&[]),
    Struct(DICTIONARY_PAGE),
    Struct(DATA_PAGE_V2),
];
const UNCOMPRESSED_PAGE_SIZE: i16 = 2;
const COMPRESSED_PAGE_SIZE: i16 = 3;

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
    let (mut uncompressed, mut compressed) = (0, 0);
    let header = Thrift::new(reader).check(PAGE, &mut |field, value| {
        match field {
            UNCOMPRESSED_PAGE_SIZE => uncompressed = i64::from(value),
            COMPRESSED_PAGE_SIZE => compressed = i64::from(value),
            _ => {}
        }
        Ok(())
    });
    header
        .map_err(|error| io::Error::new(error.kind(), format!("the header of a page: {error}")))?;
    let possible = compressed.saturating_mul(expansion);
    let most = possible.saturating_add(PAGE_BYTES_FREE).min(PAGE_BYTES_MAX);
    if uncompressed > most {
        return Err(garbled(&format!(
            "a page of {compressed} bytes has {uncompressed} when it is decompressed, and {most} are the most"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::thrift::written::{field, number};
    use super::super::thrift::{BINARY, INT32, INT64, LIST, MAP, STOP, STRUCT, TRUE, UUID};
    use super::*;

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
