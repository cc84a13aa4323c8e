//! The frame around every object of the log: what it is, and that it is whole.
//!
//! ```text
//! 8 bytes        magic: kind and format version
//! n bytes        body
//! 32 bytes       SHA-256 of magic and body
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use slipstream_model::Digest;

const MAGIC_BYTES: usize = 8;
const DIGEST_BYTES: usize = 32;

/// What is wrong with an object's frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too short to be anything.
    #[error("it is cut short: {0} bytes are less than a frame takes")]
    Truncated(usize),
    /// Another kind of object, or a version that this program does not know.
    #[error("it begins with {found:?} where {expected:?} is expected")]
    WrongMagic {
        /// What the caller asked for.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Some byte is not what was written.
    #[error("its checksum does not match: bytes were changed or lost")]
    WrongChecksum,
}

/// Puts a body into its frame.
pub fn seal(magic: &[u8; MAGIC_BYTES], body: &[u8]) -> Bytes {
    let mut object = BytesMut::with_capacity(MAGIC_BYTES + body.len() + DIGEST_BYTES);
    object.put_slice(magic);
    object.put_slice(body);
    let digest = Digest::of(&object);
    object.put_slice(digest.as_bytes());
    object.freeze()
}

/// Takes the body out of its frame, without copying.
///
/// # Errors
/// When the object is not whole or not of this kind.
pub fn open(magic: &[u8; MAGIC_BYTES], object: &Bytes) -> Result<Bytes, FrameError> {
    let Some(body_end) = object
        .len()
        .checked_sub(DIGEST_BYTES)
        .filter(|end| *end >= MAGIC_BYTES)
    else {
        return Err(FrameError::Truncated(object.len()));
    };
    if &object[..MAGIC_BYTES] != magic {
        return Err(FrameError::WrongMagic {
            expected: magic.escape_ascii().to_string(),
            found: object[..MAGIC_BYTES].escape_ascii().to_string(),
        });
    }
    if Digest::of(&object[..body_end]).as_bytes() != &object[body_end..] {
        return Err(FrameError::WrongChecksum);
    }
    Ok(object.slice(MAGIC_BYTES..body_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let object = seal(b"SLPTEST1", b"a body");
        assert_eq!(
            open(b"SLPTEST1", &object),
            Ok(Bytes::from_static(b"a body"))
        );
        for position in 0..object.len() {
            let mut damaged = object.to_vec();
            damaged[position] ^= 1;
            assert!(
                open(b"SLPTEST1", &damaged.into()).is_err(),
                "byte {position}"
            );
            assert!(
                open(b"SLPTEST1", &object.slice(..position)).is_err(),
                "cut at {position}"
            );
        }
    }
}
