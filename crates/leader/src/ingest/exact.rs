//! Decimal numbers, read to their last digit.
//!
//! Arrow's parser cuts off what a column has no room for, where its casts round, and counts digits in a byte: it takes
//! a one with 256 zeros for nothing. Here what is written is what counts: digits behind those that a decimal column
//! has are rounded, half away from zero as casts do; anything else that cannot be held is no number of the column's.

use arrow::datatypes::{ArrowNativeType, ArrowNativeTypeOp, Decimal128Type, DecimalType};

/// The number as so many units of a scale, rounded; `None` when it is none, or larger than the precision allows.
pub(super) fn decimal<T: DecimalType>(text: &str, precision: u8, scale: i8) -> Option<T::Native> {
    let (units, _) = Written::parse(text)?.units::<T>(precision, scale)?;
    Some(units)
}

/// A whole number, however it is written: `12`, `12.0`, `1.2e1`.
pub(super) fn whole<N: TryFrom<i128>>(text: &str) -> Option<N> {
    let (number, is_exact) = Written::parse(text)?.units::<Decimal128Type>(38, 0)?;
    is_exact.then(|| N::try_from(number).ok())?
}

/// A number in its parts.
#[derive(Debug, Clone, Copy)]
struct Written<'a> {
    is_negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Written<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (is_negative, text) = signed(text.as_bytes());
        let (digits, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&text[..at], exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
            Some(point) => (&digits[..point], &digits[point + 1..]),
            None => (digits, &[][..]),
        };
        let mut all = whole.iter().chain(fraction);
        let is_empty = whole.is_empty() && fraction.is_empty();
        (!is_empty && all.all(u8::is_ascii_digit)).then_some(Self {
            is_negative,
            whole,
            fraction,
            exponent,
        })
    }

    /// How many units of a scale it is, rounded, and whether nothing had to be rounded.
    fn units<T: DecimalType>(self, precision: u8, scale: i8) -> Option<(T::Native, bool)> {
        let written = self.whole.iter().chain(self.fraction);
        let mut digits = written
            .map(|byte| byte - b'0')
            .skip_while(|digit| *digit == 0);
        let Some(first) = digits.next() else {
            return Some((T::Native::ZERO, true));
        };
        let zeros = self.whole.len() + self.fraction.len() - 1 - digits.clone().count();
        // So many digits, from the first one that counts, are of whole units.
        let kept = i64::try_from(self.whole.len())
            .ok()?
            .saturating_add(self.exponent);
        let kept = kept.saturating_add(scale.into());
        let kept = kept.saturating_sub(i64::try_from(zeros).ok()?);
        if kept > i64::from(precision) {
            return None;
        }
        if kept < 0 {
            // Less than a tenth of one.
            return Some((T::Native::ZERO, false));
        }
        let mut digits = std::iter::once(first).chain(digits);
        let (mut units, ten) = (T::Native::ZERO, T::Native::usize_as(10));
        for _ in 0..kept {
            let digit = T::Native::usize_as(digits.next().unwrap_or(0).into());
            units = units.mul_wrapping(ten).add_wrapping(digit);
        }
        let next = digits.next().unwrap_or(0);
        let is_exact = next == 0 && digits.all(|digit| digit == 0);
        if next >= 5 {
            units = units.add_wrapping(T::Native::ONE);
        }
        if self.is_negative {
            units = units.neg_wrapping();
        }
        T::is_valid_decimal_precision(units, precision).then_some((units, is_exact))
    }
}

/// Whether a minus stands before it, and what stands behind the sign.
fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', text @ ..] => (true, text),
        [b'+', text @ ..] => (false, text),
        _ => (false, text),
    }
}

/// One that is too large for this type is so large that it does not matter how large.
fn exponent(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = signed(text);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let value = digits.iter().fold(0_i64, |value, byte| {
        value
            .saturating_mul(10)
            .saturating_add(byte.wrapping_sub(b'0').into())
    });
    is_number.then_some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Decimal32Type, Decimal256Type, i256};
    use proptest::prelude::*;

    use super::*;

    fn cents(text: &str) -> Option<i128> {
        decimal::<Decimal128Type>(text, 10, 2)
    }

    #[test]
    fn digits_without_room_are_rounded_half_away_from_zero() {
        for (text, expected) in [
            ("59.969999999999999", 5_997),
            ("59.964999999999999", 5_996),
            ("0.005", 1),
            ("-0.005", -1),
            ("-0.00499", 0),
            ("2.9e-2", 3),
            ("4e-3", 0),
            ("5e-4", 0),
            ("1e-99999999999999999999", 0),
            ("+1.", 100),
            (".5", 50),
            ("000.5000", 50),
            ("1e2", 10_000),
            ("0.00000001e8", 100),
            ("0e99999999999999999999", 0),
            ("99999999.994", 9_999_999_999),
        ] {
            assert_eq!(cents(text), Some(expected), "{text}");
        }
        assert_eq!(decimal::<Decimal128Type>("2.9", 10, 0), Some(3));
        assert_eq!(decimal::<Decimal32Type>("1250", 3, -2), Some(13));
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let zeros = format!("1{}", "0".repeat(256));
        for text in [
            "99999999.995",
            "100000000",
            "1e65536",
            "1e99999999999999999999",
            &zeros,
            &format!("{zeros}.0"),
        ] {
            assert_eq!(cents(text), None, "{text}");
        }
        let most = "9".repeat(76);
        let found = decimal::<Decimal256Type>(&most, 76, 0);
        assert_eq!(found, i256::from_string(&most));
        assert_eq!(decimal::<Decimal256Type>(&format!("{most}.5"), 76, 0), None);
        assert_eq!(decimal::<Decimal256Type>(&format!("{most}0"), 76, 0), None);
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in [
            "", "-", ".", "-.", "e5", "1e", "1e+", "1e5.", "1.2.3", "--1", "1_0", " 1", "1 ",
            "NaN", "0x1", "١",
        ] {
            assert_eq!(cents(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        for (text, expected) in [
            ("2.0", Some(2)),
            ("1e3", Some(1_000)),
            ("1.5e1", Some(15)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("2.00000000001", None),
            ("2.5", None),
            ("1e-3", None),
            ("1e-99999", None),
            ("1e65536", None),
        ] {
            assert_eq!(whole::<i64>(text), expected, "{text}");
        }
        assert_eq!(whole::<u64>("18446744073709551615"), Some(u64::MAX));
        assert_eq!(whole::<u64>("-1"), None);
        assert_eq!(whole::<i64>(&format!("1{}", "0".repeat(256))), None);
        assert_eq!(whole::<i64>(&format!("1{}e-256", "0".repeat(256))), Some(1));
    }

    proptest! {
        #[test]
        fn numbers_come_back_however_they_are_written(
            units in -9_999_999_999_i128..=9_999_999_999,
            more in 0..30_usize,
            exponent in -37..40_i32,
        ) {
            let zeros = "0".repeat(more);
            let (sign, digits) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
            let texts = [
                format!("{sign}{zeros}{}.{:02}{zeros}", digits / 100, digits % 100),
                format!("{sign}{digits}{zeros}e-{}", more + 2),
                format!("{sign}0.{zeros}{digits:010}e{}", more + 8),
            ];
            for text in texts {
                prop_assert_eq!(cents(&text), Some(units), "{}", text);
            }
            let shifted = format!("{units}e{exponent}");
            let expected = match u32::try_from(exponent) {
                Ok(exponent) => 10_i128.checked_pow(exponent + 2).and_then(|by| units.checked_mul(by)),
                Err(_) => {
                    let by = 10_i128.pow(exponent.unsigned_abs());
                    let hundredfold = units * 100;
                    let rest = (hundredfold % by).abs();
                    let away = if rest * 2 >= by { units.signum() } else { 0 };
                    Some(hundredfold / by + away)
                }
            };
            let expected = expected.filter(|units| units.abs() < 10_i128.pow(10));
            let expected = if units == 0 { Some(0) } else { expected };
            prop_assert_eq!(cents(&shifted), expected, "{}", shifted);
        }
    }
}
