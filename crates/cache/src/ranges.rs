//! Which requests bring some ranges of an object.

use std::ops::Range;

/// Two wanted ranges are fetched by one request when no more than this lies between them, or
/// than [`GAP_DIVISOR`] of what is wanted. A request costs a store some ten milliseconds, in which
/// a connection carries about as much.
const GAP_BYTES_MIN: u64 = 16 << 10;
/// All gaps together stay below this part of the wanted bytes.
const GAP_DIVISOR: u64 = 16;
/// A request for more is cut, so that several connections share it.
const REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Long requests are cut at multiples of this from their beginning: blocks stay whole.
const CUT_BYTES: u64 = 64 << 10;

/// Requests that bring all of the wanted ranges. `wanted` is in order, and no two of them overlap.
pub(crate) fn requests(wanted: &[Range<u64>]) -> Vec<Range<u64>> {
    let total: u64 = wanted.iter().map(|range| range.end - range.start).sum();
    let mut spare = total / GAP_DIVISOR;
    // The narrowest gaps are closed first: each saves a request for the fewest bytes.
    let mut gaps: Vec<(u64, usize)> = wanted
        .windows(2)
        .enumerate()
        .map(|(at, pair)| (pair[1].start - pair[0].end, at))
        .collect();
    gaps.sort_unstable();
    let mut is_closed = vec![false; wanted.len()];
    for (gap, at) in gaps {
        if gap > GAP_BYTES_MIN && gap > spare {
            break;
        }
        spare = spare.saturating_sub(gap);
        is_closed[at] = true;
    }
    let mut requests: Vec<Range<u64>> = Vec::new();
    let mut continues = false;
    for (range, closes) in wanted.iter().zip(is_closed) {
        match requests.last_mut() {
            Some(last) if continues => last.end = range.end,
            _ => requests.push(range.clone()),
        }
        continues = closes;
    }
    requests.into_iter().flat_map(cut).collect()
}

/// A long request as several of about equal length.
fn cut(request: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let length = request.end - request.start;
    let pieces = length.div_ceil(REQUEST_BYTES_MAX).max(1);
    let piece = length.div_ceil(pieces).next_multiple_of(CUT_BYTES);
    (0..length.div_ceil(piece)).map(move |number| {
        let start = request.start + number * piece;
        start..(start + piece).min(request.end)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_ranges_come_together_and_far_ones_apart() {
        assert_eq!(requests(&[0..10, 20..30]), [0..30]);
        let far = [0..10_000, 1_000_000..1_010_000];
        assert_eq!(requests(&far), far);
        assert_eq!(requests(&[]), Vec::<Range<u64>>::new());
    }

    #[test]
    fn a_wide_gap_is_closed_when_much_is_wanted_around_it() {
        let mib = 1_u64 << 20;
        assert_eq!(
            requests(&[0..2 * mib, 2 * mib + 100_000..4 * mib]),
            [0..4 * mib]
        );
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = requests(&[0..20 << 20]);
        assert_eq!(long.len(), 3);
        assert!(long.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!((long[0].start, long[2].end), (0, 20 << 20));
    }

    proptest! {
        #[test]
        fn requests_bring_all_that_is_wanted_and_little_else(
            pieces in proptest::collection::vec((0_u64..3_000_000, 1_u64..3_000_000), 1..40),
        ) {
            let mut at = 0;
            let wanted: Vec<Range<u64>> = pieces
                .iter()
                .map(|(gap, length)| {
                    let start = at + gap;
                    at = start + length;
                    start..at
                })
                .collect();
            let found = requests(&wanted);
            prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for range in &wanted {
                let covered: u64 = found
                    .iter()
                    .map(|request| {
                        let start = request.start.max(range.start);
                        request.end.min(range.end).saturating_sub(start)
                    })
                    .sum();
                prop_assert_eq!(covered, range.end - range.start);
            }
            let bytes = |ranges: &[Range<u64>]| -> u64 { ranges.iter().map(|r| r.end - r.start).sum() };
            let spare = bytes(&wanted) / GAP_DIVISOR + wanted.len() as u64 * GAP_BYTES_MIN;
            prop_assert!(bytes(&found) <= bytes(&wanted) + spare);
        }
    }
}
