//! Files of the hot cache: bytes as a disk may give them back, and, when the first byte is odd, with
//! a trailer that fits the rest.

use std::io::Write;

use slipstream_cache::CheckedFile;
use twox_hash::XxHash3_64;

const BLOCK_BYTES: usize = 64 << 10;
const MAGIC: &[u8; 8] = b"SLIPHOT1";
/// The extent's length and its SHA-256.
const SOURCE_BYTES: usize = 8 + 32;

pub(crate) fn run(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let mut bytes = data.to_vec();
    if choice & 1 == 1 {
        end(&mut bytes);
    }
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&bytes).expect("written");
    let Ok(open) = CheckedFile::open(file.path().to_owned()) else {
        return;
    };
    let length = open.payload_bytes();
    assert!(length <= bytes.len() as u64);
    let mut whole = vec![0; usize::try_from(length).expect("as long as the file")];
    if open.read_at(0, &mut whole).is_ok() {
        assert_eq!(whole, bytes[..whole.len()]);
    }
    // A piece that begins and ends within blocks.
    let piece = u64::from(*choice).min(length)..length.saturating_sub(1).max(u64::from(*choice));
    let mut part = vec![0; usize::try_from(piece.end - piece.start).unwrap_or(0)];
    let _ = open.read_at(piece.start, &mut part);
    assert!(open.read_at(u64::MAX, &mut [0]).is_err());
}

/// Takes what is there for a payload, the last hashes of which may be wrong by the first byte.
fn end(bytes: &mut Vec<u8>) {
    let length = bytes.len() as u64;
    let mut end: Vec<u8> = bytes
        .chunks(BLOCK_BYTES)
        .flat_map(|block| XxHash3_64::oneshot(block).to_le_bytes())
        .collect();
    if bytes.first().is_some_and(|first| first & 1 == 1)
        && let Some(first) = end.first_mut()
    {
        *first ^= 1;
    }
    end.extend_from_slice(&length.to_le_bytes());
    end.extend_from_slice(&[0; SOURCE_BYTES]);
    end.extend_from_slice(&XxHash3_64::oneshot(&end).to_le_bytes());
    end.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&end);
}
