//! Values as the auditor compares them: rows of cells -> what differs, and a digest of each row.
//!
//! Money is a whole number of hundred-millionths and moments are microseconds, on both sides: a
//! store's own type never decides whether two values are equal.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use ring::digest;
use serde_json::Value;
use uuid::Uuid;

/// How many decimals money is kept with.
const SCALE: usize = 8;

/// The longest text that a difference shows.
const SHOWN_MAX: usize = 400;

/// One value of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// There is none.
    Null,
    /// Text; JSON too, in its canonical form.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// Money, in hundred-millionths.
    Money(i128),
    /// A moment, in microseconds since 1970.
    Moment(i64),
    /// An id.
    Id(Uuid),
    /// Yes or no.
    Flag(bool),
}

/// One row: its cells in the order of its table's columns.
pub type Row = Vec<Cell>;

impl Cell {
    /// Text, or none.
    #[must_use]
    pub fn text(text: Option<&str>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.to_owned()))
    }

    /// A moment, or none.
    #[must_use]
    pub fn moment(micros: Option<i64>) -> Self {
        micros.map_or(Self::Null, Self::Moment)
    }

    /// A database's own text of a number, which may have any number of decimals.
    #[must_use]
    pub fn money(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::Null };
        parse_money(text).map_or_else(|| Self::Text(text.to_owned()), Self::Money)
    }

    /// A count.
    #[must_use]
    pub fn count(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// The number that it is, if it is one.
    #[must_use]
    pub const fn whole(&self) -> Option<i64> {
        if let Self::Whole(number) = self { Some(*number) } else { None }
    }

    /// What a difference shows of it; `None` is a null.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        (*self != Self::Null).then(|| shortened(self.to_string()))
    }

    fn feed(&self, bytes: &mut Vec<u8>) {
        let mut put = |kind: u8, value: &[u8]| {
            bytes.push(kind);
            bytes.extend_from_slice(&value.len().to_le_bytes());
            bytes.extend_from_slice(value);
        };
        match self {
            Self::Null => put(0, &[]),
            Self::Text(text) => put(1, text.as_bytes()),
            Self::Whole(number) => put(2, &number.to_le_bytes()),
            Self::Money(units) => put(3, &units.to_le_bytes()),
            Self::Moment(micros) => put(4, &micros.to_le_bytes()),
            Self::Id(id) => put(5, id.as_bytes()),
            Self::Flag(flag) => put(6, &[u8::from(*flag)]),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Text(text) => f.write_str(text),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Money(units) => f.write_str(&money_text(*units)),
            Self::Moment(micros) => match DateTime::<Utc>::from_timestamp_micros(*micros) {
                Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
                None => write!(f, "{micros} us"),
            },
            Self::Id(id) => write!(f, "{id}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// At most so many characters, and a sign that there are more.
fn shortened(text: String) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Hundred-millionths of a plain decimal number; `None` if it is finer, too large or no number.
#[must_use]
pub fn parse_money(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > SCALE || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let units: i128 = format!("{whole}{fraction:0<SCALE$}").parse().ok()?;
    Some(if digits.len() < text.len() { -units } else { units })
}

/// A plain decimal number without zeros at its end.
#[must_use]
pub fn money_text(units: i128) -> String {
    let sign = if units < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", units.unsigned_abs(), width = SCALE + 1);
    let (whole, fraction) = digits.split_at(digits.len() - SCALE);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// JSON in one form: sorted, and without what is null, which is the same as absent.
#[must_use]
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> =
                fields.iter().filter(|(_, value)| !value.is_null()).collect();
            let parts: Vec<String> = fields
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(values) => {
            let parts: Vec<String> = values.iter().map(canonical).collect();
            format!("[{}]", parts.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// A number of rows in any order, in a few bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many rows there are.
    pub rows: u64,
    sum: u128,
}

impl Digest {
    /// Adds a row. Two different sets of rows have the same digest by a chance of 1 in 2^128.
    pub fn add(&mut self, row: &[Cell]) {
        let mut bytes = Vec::with_capacity(256);
        for cell in row {
            cell.feed(&mut bytes);
        }
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash(&bytes));
    }
}

/// 128 bits of SHA-256.
#[must_use]
pub fn hash(bytes: &[u8]) -> u128 {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut first = [0; 16];
    first.copy_from_slice(&digest.as_ref()[..16]);
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_and_written_exactly() {
        for (text, units) in [
            ("150.50", 15_050_000_000),
            ("-0.00000001", -1),
            ("0", 0),
            ("700", 70_000_000_000),
            ("1.1000000000", 110_000_000),
        ] {
            assert_eq!(parse_money(text), Some(units), "{text}");
        }
        for text in ["", "-", "1e5", "NaN", "0.000000001", "1.2.3"] {
            assert_eq!(parse_money(text), None, "{text}");
        }
        assert_eq!(money_text(15_050_000_000), "150.5");
        assert_eq!(money_text(-1), "-0.00000001");
        assert_eq!(money_text(0), "0");
    }

    #[test]
    fn json_has_one_form_in_which_null_is_absent() {
        let one: Value = serde_json::from_str(r#"{"b":null,"a":[1,{"y":"\"","x":null}]}"#).unwrap();
        assert_eq!(canonical(&one), r#"{"a":[1,{"y":"\""}]}"#);
    }

    #[test]
    fn a_digest_sees_every_cell_and_no_order() {
        let rows = [vec![Cell::Whole(1), Cell::Null], vec![Cell::Text("a".to_owned()), Cell::Null]];
        let of = |rows: &[Row]| {
            let mut digest = Digest::default();
            rows.iter().for_each(|row| digest.add(row));
            digest
        };
        let [first, second] = rows.clone();
        assert_eq!(of(&rows), of(&[second.clone(), first.clone()]));
        assert_ne!(of(&rows), of(&[first.clone(), second.clone(), second]));
        assert_ne!(of(&[first]), of(&[vec![Cell::Null, Cell::Whole(1)]]));
    }

    #[test]
    fn a_long_text_is_shown_in_part() {
        let shown = Cell::Text("ü".repeat(1_000)).shown().unwrap();
        assert_eq!(shown.chars().count(), SHOWN_MAX + 3);
    }
}
