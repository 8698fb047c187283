//! Rows in ClickHouse's own binary form (`RowBinaryWithNamesAndTypes`): values -> bytes.
//!
//! The header names every column with its type, so that the server refuses a block that does not
//! fit its table.

use uuid::Uuid;

use crate::kernel::time::Timestamp;

/// Rows that are being put together, column by column in the order of the header.
#[derive(Clone, Debug, Default)]
pub struct Block {
    bytes: Vec<u8>,
    rows: usize,
    scratch: Vec<u8>,
}

impl Block {
    /// Starts with the header.
    #[must_use]
    pub fn new(columns: &[(&str, &str)], capacity: usize) -> Self {
        let mut block = Self { bytes: Vec::with_capacity(capacity), ..Self::default() };
        block.length(columns.len());
        for (name, _) in columns {
            block.text(name);
        }
        for (_, kind) in columns {
            block.text(kind);
        }
        block
    }

    /// How many rows are complete.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The finished bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Counts a row whose columns are all written.
    pub const fn end_row(&mut self) {
        self.rows += 1;
    }

    /// A `String` or `LowCardinality(String)`.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A `String` of any bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// A `String` that holds `value` as JSON.
    ///
    /// # Errors
    /// The value has no JSON form.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<(), serde_json::Error> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let written = serde_json::to_writer(&mut scratch, value);
        self.length(scratch.len());
        self.bytes.extend_from_slice(&scratch);
        self.scratch = scratch;
        written
    }

    /// A `UUID`.
    pub fn uuid(&mut self, id: Uuid) {
        let (high, low) = id.as_u64_pair();
        self.bytes.extend_from_slice(&high.to_le_bytes());
        self.bytes.extend_from_slice(&low.to_le_bytes());
    }

    /// A `DateTime64(6)`.
    pub fn time(&mut self, moment: Timestamp) {
        self.int64(moment.0);
    }

    /// A `Decimal(38, 8)`, in hundred-millionths.
    pub fn decimal(&mut self, units: i128) {
        self.bytes.extend_from_slice(&units.to_le_bytes());
    }

    /// A `Nullable(Decimal(38, 8))`, in hundred-millionths.
    pub fn optional_decimal(&mut self, units: Option<i128>) {
        self.bytes.push(u8::from(units.is_none()));
        if let Some(units) = units {
            self.decimal(units);
        }
    }

    /// A `UInt64`.
    pub fn uint64(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// An `Int64`.
    pub fn int64(&mut self, number: i64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// An `Int32`.
    pub fn int32(&mut self, number: i32) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// A `UInt32`.
    pub fn uint32(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// A `UInt8`.
    pub fn uint8(&mut self, number: u8) {
        self.bytes.push(number);
    }

    /// A `UInt16`.
    pub fn uint16(&mut self, number: u16) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// A length in the form that ClickHouse calls VarUInt (LEB128).
    fn length(&mut self, mut length: usize) {
        while length >= 0x80 {
            self.bytes.push((length & 0x7f).to_le_bytes()[0] | 0x80);
            length >>= 7;
        }
        self.bytes.push(length.to_le_bytes()[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_form_that_clickhouse_reads() {
        let mut block = Block::new(&[("a", "String"), ("b", "UInt16")], 0);
        block.text("xy");
        block.uint16(0x0102);
        block.end_row();
        assert_eq!(block.rows(), 1);
        let expected = b"\x02\x01a\x01b\x06String\x06UInt16\x02xy\x02\x01";
        assert_eq!(block.into_bytes(), expected);
    }

    #[test]
    fn long_texts_have_longer_lengths() {
        let mut block = Block::default();
        block.text(&"x".repeat(300));
        assert_eq!(&block.into_bytes()[..3], [0xac, 0x02, b'x']);
    }

    #[test]
    fn a_value_is_written_as_json_with_its_length() {
        let mut block = Block::default();
        block.json(&[1, 2]).unwrap();
        assert_eq!(block.into_bytes(), b"\x05[1,2]");
    }
}
