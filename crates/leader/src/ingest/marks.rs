//! Where certain bytes stand in a text.

/// Bytes that are looked at together.
const CHUNK: usize = 64;

/// The places of three bytes in a text, in ascending order.
///
/// `memchr3` is made for marks that are far apart: it begins anew behind each. Values of a record are
/// some bytes long, so here a chunk is looked at once, and the marks in it are bits of a number.
#[derive(Debug)]
pub(super) struct Marks<'a> {
    text: &'a [u8],
    marks: [u8; 3],
    /// Where the chunk begins.
    chunk: usize,
    /// The marks in the chunk that were not given yet, the first in the lowest bit.
    found: u64,
}

impl<'a> Marks<'a> {
    /// To look for fewer than three bytes, repeat one.
    pub(super) fn new(text: &'a [u8], marks: [u8; 3]) -> Self {
        let mut all = Self {
            text,
            marks,
            chunk: 0,
            found: 0,
        };
        all.look();
        all
    }

    fn look(&mut self) {
        let rest = &self.text[self.chunk..];
        self.found = match rest.first_chunk::<CHUNK>() {
            Some(chunk) => places(chunk, self.marks),
            None => {
                let mut chunk = [0; CHUNK];
                chunk[..rest.len()].copy_from_slice(rest);
                places(&chunk, self.marks) & ((1 << rest.len()) - 1)
            }
        };
    }

    /// Goes on to the next chunk with a mark; `false` when there is none.
    #[inline(never)]
    fn advance(&mut self) -> bool {
        while self.found == 0 {
            self.chunk += CHUNK;
            if self.chunk >= self.text.len() {
                self.chunk = self.text.len();
                return false;
            }
            self.look();
        }
        true
    }
}

impl Iterator for Marks<'_> {
    type Item = usize;

    // Little is done for each value: a call would be much of it.
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.found == 0 && !self.advance() {
            return None;
        }
        let place = self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(self.chunk + place)
    }
}

/// A bit for each byte that is a mark. The compiler makes vector instructions of the loop.
fn places(chunk: &[u8; CHUNK], [first, second, third]: [u8; 3]) -> u64 {
    /// Brings the lowest bits of eight bytes together in the highest byte of a product.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut is_mark = [0; CHUNK];
    for (is_mark, byte) in is_mark.iter_mut().zip(chunk) {
        *is_mark = u8::from((*byte == first) | (*byte == second) | (*byte == third));
    }
    let (eights, _) = is_mark.as_chunks::<8>();
    let eights = eights.iter().enumerate();
    eights.fold(0, |found, (place, eight)| {
        let bits = u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56;
        found | bits << (8 * place)
    })
}

#[cfg(test)]
mod tests {
    use memchr::memchr3_iter;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_places_are_those_that_memchr_finds(
            text in prop::collection::vec(prop::sample::select(b",\n\"\0a".to_vec()), 0..300),
            marks in prop::sample::select(vec![*b",\n\"", *b",\n\n", *b"\0\n\n"]),
        ) {
            let [first, second, third] = marks;
            let expected: Vec<_> = memchr3_iter(first, second, third, &text).collect();
            let mut found = Marks::new(&text, marks);
            prop_assert_eq!(found.by_ref().collect::<Vec<_>>(), expected);
            prop_assert_eq!(found.next(), None);
        }

        #[test]
        fn marks_may_be_far_apart(gaps in prop::collection::vec(0..200_usize, 0..8)) {
            let text = gaps.iter().map(|gap| "a".repeat(*gap) + ",").collect::<String>();
            let expected: Vec<_> = memchr::memchr_iter(b',', text.as_bytes()).collect();
            let found: Vec<_> = Marks::new(text.as_bytes(), *b",\n\n").collect();
            prop_assert_eq!(found, expected);
        }
    }
}
