//! Money: exact amounts and the currencies they are in. Text or bytes <-> [`Amount`].
//!
//! An amount has at most eight decimals and 28 digits in all. Nothing here rounds, and nothing
//! overflows: what does not fit is refused.
//!
//! | written to | form |
//! |---|---|
//! | text (JSON) | decimal string without exponent and without trailing zeros: `"150.5"` |
//! | binary (Avro, snapshots) | big-endian two's complement at scale 8, as short as it can be |

use std::fmt;

use rust_decimal::Decimal;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// How many decimals an amount is kept with.
pub const SCALE: u32 = 8;
/// The most digits that an amount has, decimals included.
pub const DIGITS_MAX: u32 = 28;

const UNITS_PER_ONE: i128 = 10_i128.pow(SCALE);
const UNITS_END: i128 = 10_i128.pow(DIGITS_MAX);

/// The powers of ten, by their exponent.
const TENS: [u128; DIGITS_MAX as usize] = {
    let mut tens = [1; DIGITS_MAX as usize];
    let mut exponent = 1;
    while exponent < tens.len() {
        tens[exponent] = tens[exponent - 1] * 10;
        exponent += 1;
    }
    tens
};

/// An exact number of some currency's units. Always held at scale 8.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(Decimal);

/// Why something is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The text is not a plain decimal number.
    #[error("is not a decimal number such as \"150.00\"")]
    NotANumber,
    /// It is finer than the eighth decimal.
    #[error("has more than 8 decimals")]
    TooFine,
    /// It has more than 20 digits before the point.
    #[error("has more than 20 digits before the point")]
    TooLarge,
    /// There are no bytes at all.
    #[error("has no bytes")]
    Empty,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// A whole number of the currency's units, for limits and fees.
    #[must_use]
    pub fn whole(number: i32) -> Self {
        Self(Decimal::from_i128_with_scale(i128::from(number) * UNITS_PER_ONE, SCALE))
    }

    /// The amount of so many hundred-millionths; `None` beyond 28 digits.
    #[must_use]
    pub fn from_units(units: i128) -> Option<Self> {
        (-UNITS_END < units && units < UNITS_END)
            .then(|| Self(Decimal::from_i128_with_scale(units, SCALE)))
    }

    /// How many hundred-millionths it is.
    #[must_use]
    pub fn units(self) -> i128 {
        // ZERO is the one amount that is not held at scale 8; its mantissa is right all the same.
        self.0.mantissa()
    }

    /// Takes a decimal number without rounding it.
    ///
    /// # Errors
    /// It is finer or larger than an amount can be.
    pub fn from_decimal(number: Decimal) -> Result<Self, AmountError> {
        let (mut mantissa, mut scale) = (number.mantissa(), number.scale());
        while scale > SCALE {
            if mantissa % 10 != 0 {
                return Err(AmountError::TooFine);
            }
            mantissa /= 10;
            scale -= 1;
        }
        mantissa
            .checked_mul(10_i128.pow(SCALE - scale))
            .and_then(Self::from_units)
            .ok_or(AmountError::TooLarge)
    }

    /// Reads plain decimal text: a sign or none, digits, and perhaps a point with more digits.
    /// Zeros at the end are fine, however many.
    ///
    /// # Errors
    /// It is not that, or it is finer or larger than an amount can be.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !numeric(whole) || !numeric(fraction) {
            return Err(AmountError::NotANumber);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > SCALE as usize {
            return Err(AmountError::TooFine);
        }
        let padding = std::iter::repeat_n(b'0', SCALE as usize - fraction.len());
        let mut units: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()).chain(padding) {
            units = units * 10 + i128::from(digit - b'0');
            if units >= UNITS_END {
                return Err(AmountError::TooLarge);
            }
        }
        let signed = if digits.len() < text.len() { -units } else { units };
        Self::from_units(signed).ok_or(AmountError::TooLarge)
    }

    /// Reads big-endian two's complement at scale 8, of any length and however sign-extended.
    ///
    /// # Errors
    /// There are no bytes, or too many that matter.
    pub fn from_be_bytes(bytes: &[u8]) -> Result<Self, AmountError> {
        let first = *bytes.first().ok_or(AmountError::Empty)?;
        let fill = if first & 0x80 == 0 { 0 } else { 0xff };
        let extra = bytes.len().saturating_sub(16);
        let (padding, rest) = bytes.split_at(extra);
        let flipped = rest.first().is_some_and(|byte| (byte ^ fill) & 0x80 != 0);
        if flipped || padding.iter().any(|byte| *byte != fill) {
            return Err(AmountError::TooLarge);
        }
        let mut whole = [fill; 16];
        whole[16 - rest.len()..].copy_from_slice(rest);
        Self::from_units(i128::from_be_bytes(whole)).ok_or(AmountError::TooLarge)
    }

    /// Writes big-endian two's complement at scale 8 into `buffer` and returns the part that is
    /// needed: as few bytes as hold the number and its sign, at least one.
    #[must_use]
    pub fn to_be_bytes(self, buffer: &mut [u8; 16]) -> &[u8] {
        let units = self.units();
        *buffer = units.to_be_bytes();
        let repeated = if units < 0 { units.leading_ones() } else { units.leading_zeros() };
        // All bits that are the sign's, but for one.
        let spare = (repeated as usize).saturating_sub(1) / 8;
        &buffer[spare.min(15)..]
    }

    /// The number itself, at scale 8.
    #[must_use]
    pub fn decimal(self) -> Decimal {
        Decimal::from_i128_with_scale(self.units(), SCALE)
    }

    /// Adds; `None` beyond 28 digits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::from_units(self.units() + other.units())
    }

    /// Subtracts; `None` beyond 28 digits.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Self::from_units(self.units() - other.units())
    }

    /// The same amount in the other direction.
    #[must_use]
    pub fn negated(self) -> Self {
        Self(Decimal::from_i128_with_scale(-self.units(), SCALE))
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.units() == 0
    }

    /// Whether it is more than nothing.
    #[must_use]
    pub fn is_positive(self) -> bool {
        self.units() > 0
    }

    /// Whether it is less than nothing.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.units() < 0
    }

    /// How many decimals it needs.
    #[must_use]
    pub fn decimals(self) -> u32 {
        let units = self.units();
        // Nearly every amount is that small, and dividing it is ten times as fast.
        i64::try_from(units)
            .map_or_else(
                |_| (0..SCALE).find(|decimals| units % 10_i128.pow(SCALE - decimals) == 0),
                |units| (0..SCALE).find(|decimals| units % 10_i64.pow(SCALE - decimals) == 0),
            )
            .unwrap_or(SCALE)
    }

    /// Whether it has at most that many digits before the point.
    #[must_use]
    pub fn fits_whole_digits(self, digits: u32) -> bool {
        let end = TENS.get((digits + SCALE) as usize);
        digits + SCALE >= DIGITS_MAX || end.is_none_or(|end| self.units().unsigned_abs() < *end)
    }

    /// Writes it with at least that many decimals, more if it needs them: `150.00`.
    #[must_use]
    pub fn to_text(self, decimals: u32) -> String {
        let decimals = decimals.min(SCALE).max(self.decimals());
        let units = self.units().unsigned_abs();
        let one = UNITS_PER_ONE.unsigned_abs();
        let sign = if self.is_negative() { "-" } else { "" };
        let whole = units / one;
        if decimals == 0 {
            return format!("{sign}{whole}");
        }
        let fraction = (units % one) / 10_u128.pow(SCALE - decimals);
        format!("{sign}{whole}.{fraction:0width$}", width = decimals as usize)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(0))
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.to_text(0))
        } else {
            serializer.serialize_bytes(self.to_be_bytes(&mut [0; 16]))
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            // Text in JSON, bytes in Avro (whose reader calls itself readable): it says which.
            deserializer.deserialize_any(AmountVisitor)
        } else {
            deserializer.deserialize_bytes(AmountVisitor)
        }
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal number as text or as two's complement bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
        Amount::parse(text).map_err(|error| E::custom(format_args!("{text:?} {error}")))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Amount, E> {
        Amount::from_be_bytes(bytes).map_err(|error| E::custom(format_args!("the amount {error}")))
    }
}

/// An ISO 4217 currency that has a minor unit (`XAU` has none and is unknown here).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: [u8; 3],
    decimals: u8,
}

impl Currency {
    /// The US dollar, which a new account is in unless it says otherwise.
    pub const USD: Self = Self { code: *b"USD", decimals: 2 };

    /// Looks a code up; `None` if it is unknown or not in upper case.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        if &bytes == b"USD" {
            return Some(Self::USD);
        }
        if !bytes.iter().all(u8::is_ascii_uppercase) {
            return None;
        }
        let decimals = iso_currency::Currency::from_code(code)?.exponent()?;
        let decimals = u8::try_from(decimals).ok()?;
        (u32::from(decimals) <= SCALE).then_some(Self { code: bytes, decimals })
    }

    /// The three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.code).unwrap_or_default()
    }

    /// How many decimals an amount in it has at most.
    #[must_use]
    pub fn decimals(self) -> u32 {
        u32::from(self.decimals)
    }

    /// Writes an amount with all of the currency's decimals: `150.00`.
    #[must_use]
    pub fn format(self, amount: Amount) -> String {
        amount.to_text(self.decimals())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CodeVisitor;

        impl Visitor<'_> for CodeVisitor {
            type Value = Currency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an ISO 4217 currency code in upper case")
            }

            fn visit_str<E: de::Error>(self, code: &str) -> Result<Currency, E> {
                Currency::parse(code)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(code), &self))
            }
        }

        deserializer.deserialize_str(CodeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap()
    }

    #[test]
    fn reads_plain_decimals_and_nothing_else() {
        assert_eq!(amount("150.00"), amount("150"));
        assert_eq!(amount("-0.00000001").units(), -1);
        assert_eq!(amount("1.5000000000000000"), amount("1.5"));
        assert_eq!(amount("99999999999999999999.99999999").units(), UNITS_END - 1);
        for text in ["", "-", "1.", ".5", "1e3", "+1", " 1", "1,5", "NaN", "--1", "0x1", "١"] {
            assert_eq!(Amount::parse(text), Err(AmountError::NotANumber), "{text:?}");
        }
        assert_eq!(Amount::parse("0.000000001"), Err(AmountError::TooFine));
        assert_eq!(Amount::parse("100000000000000000000"), Err(AmountError::TooLarge));
        assert_eq!(Amount::parse(&"9".repeat(500)), Err(AmountError::TooLarge));
    }

    #[test]
    fn writes_text_with_the_decimals_asked_for() {
        assert_eq!(amount("150").to_text(2), "150.00");
        assert_eq!(amount("-0.5").to_text(2), "-0.50");
        assert_eq!(amount("0.125").to_text(2), "0.125");
        assert_eq!(Amount::ZERO.to_text(0), "0");
        assert_eq!(Currency::parse("JPY").unwrap().format(amount("700")), "700");
    }

    #[test]
    fn bytes_are_as_short_as_they_can_be() {
        let bytes = |text: &str| amount(text).to_be_bytes(&mut [0; 16]).to_vec();
        assert_eq!(bytes("0"), [0]);
        assert_eq!(bytes("-0.00000001"), [0xff]);
        assert_eq!(bytes("0.00000127"), [0x7f]);
        assert_eq!(bytes("0.00000128"), [0x00, 0x80]);
        assert_eq!(bytes("-0.00000128"), [0x80]);
        assert_eq!(bytes("-0.00000129"), [0xff, 0x7f]);
    }

    #[test]
    fn long_bytes_are_read_if_they_only_extend_the_sign() {
        let mut long = vec![0xff; 40];
        assert_eq!(Amount::from_be_bytes(&long), Ok(amount("-0.00000001")));
        long[0] = 0xfe;
        assert_eq!(Amount::from_be_bytes(&long), Err(AmountError::TooLarge));
        let mut flipped = vec![0; 17];
        flipped[1] = 0x80;
        assert_eq!(Amount::from_be_bytes(&flipped), Err(AmountError::TooLarge));
        assert_eq!(Amount::from_be_bytes(&[]), Err(AmountError::Empty));
        assert_eq!(Amount::from_be_bytes(&[0x7f; 16]), Err(AmountError::TooLarge));
    }

    #[test]
    fn arithmetic_ends_at_28_digits() {
        let most = Amount::from_units(UNITS_END - 1).unwrap();
        assert_eq!(most.checked_add(Amount::from_units(1).unwrap()), None);
        assert_eq!(most.negated().checked_sub(most), None);
        assert_eq!(most.checked_sub(most), Some(Amount::ZERO));
        assert!(amount("999").fits_whole_digits(3));
        assert!(!amount("1000").fits_whole_digits(3));
        assert!(!amount("-1000").fits_whole_digits(3));
    }

    #[test]
    fn a_currency_has_a_minor_unit_and_capital_letters() {
        assert_eq!(Currency::parse("USD"), Some(Currency::USD));
        assert_eq!(Currency::parse("EUR").map(Currency::decimals), Some(2));
        assert_eq!(Currency::parse("JPY").map(Currency::decimals), Some(0));
        assert_eq!(Currency::parse("BHD").map(Currency::decimals), Some(3));
        for code in ["usd", "XXX", "XAU", "ZZZ", "", "US", "USDX", "€", "U\0D"] {
            assert_eq!(Currency::parse(code), None, "{code:?}");
        }
    }

    proptest! {
        #[test]
        fn every_form_reads_back(units in -(UNITS_END - 1)..UNITS_END, decimals in 0_u32..=8) {
            let amount = Amount::from_units(units).unwrap();
            prop_assert_eq!(Amount::parse(&amount.to_text(decimals)), Ok(amount));
            prop_assert_eq!(Amount::from_be_bytes(amount.to_be_bytes(&mut [0; 16])), Ok(amount));
            prop_assert_eq!(Amount::from_decimal(amount.decimal()), Ok(amount));
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
            let binary = postcard::to_stdvec(&amount).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Amount>(&binary).unwrap(), amount);
        }
    }
}
