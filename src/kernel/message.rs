//! Records as the loops see them: bytes with headers, in and out, detached from any client.

use super::stream::Kind;

/// The bytes in front of each header: the length of its name, then that of its value.
const HEAD_BYTES: usize = 8;
/// Kafka writes a length as a variable number of bytes.
const LENGTHS_BYTES_MAX: usize = 10;
/// The length of a value that is not there.
const NULL: u32 = u32::MAX;

/// Headers in their order, held in one buffer: a record is moved several times on its way, and is
/// small so. Names are UTF-8, values are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// For each header: its head, its name, its value.
    buffer: Vec<u8>,
    count: usize,
}

impl Headers {
    /// Makes room for that many bytes of names and values, with what stands in front of each.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buffer: Vec::with_capacity(bytes), count: 0 }
    }

    /// Adds a header behind the others; the same name may stand several times. There are a dozen
    /// for each event, most under constant names: with those, it is a few stores.
    #[inline(always)]
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.push_optional(name, Some(value.as_ref()));
    }

    /// Adds a header that may be null.
    #[inline(always)]
    pub fn push_optional(&mut self, name: &str, value: Option<&[u8]>) {
        // Kafka's own limit on a record is far below 4 GiB.
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(NULL);
        let value_length = value.map_or(NULL, |value| length(value.len()));
        let value = value.unwrap_or_default();
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&length(name.len()).to_ne_bytes());
        head[4..].copy_from_slice(&value_length.to_ne_bytes());
        self.buffer.reserve(HEAD_BYTES + name.len() + value.len());
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(value);
        self.count += 1;
    }

    /// Takes all headers away and keeps their room.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.count = 0;
    }

    /// Every header with its value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.raw().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// As [`Headers::iter`], with the names as bytes: who looks for a few of them need not check
    /// that each is text.
    pub fn raw(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = self.buffer.as_slice();
        std::iter::from_fn(move || {
            let (name_length, after) = rest.split_first_chunk::<4>()?;
            let (value_length, after) = after.split_first_chunk::<4>()?;
            let (name, after) = after.split_at_checked(u32::from_ne_bytes(*name_length) as usize)?;
            let value_length = u32::from_ne_bytes(*value_length);
            let present = value_length != NULL;
            let length = if present { value_length as usize } else { 0 };
            let (value, after) = after.split_at_checked(length)?;
            rest = after;
            Some((name, present.then_some(value)))
        })
    }

    /// The value of the last header of that name, if there is one and it is not null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let name = name.as_bytes();
        self.raw().filter(|(found, _)| *found == name).last().and_then(|(_, value)| value)
    }

    /// As [`Headers::get`], if it is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The most bytes that they take in a record: names and values, and two lengths of up to five
    /// bytes each.
    #[must_use]
    pub const fn byte_count(&self) -> usize {
        self.buffer.len() - self.count * HEAD_BYTES + self.count * LENGTHS_BYTES_MAX
    }
}

/// A record that was read from a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: i64,
    /// Kafka's own time of the record, in milliseconds since 1970 (append time on our topics).
    pub timestamp_ms: i64,
    /// The key; `None` is null.
    pub key: Option<Box<[u8]>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Box<[u8]>>,
    /// The headers.
    pub headers: Headers,
}

impl Record {
    /// Key, value and headers together, in bytes.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        self.key.as_ref().map_or(0, |key| key.len())
            + self.value.as_ref().map_or(0, |value| value.len())
            + self.headers.byte_count()
    }
}

/// A record to be written. The partition is the owner's own unless the action that holds it says
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Which of the aggregate's topics it goes to.
    pub kind: Kind,
    /// The key; `None` only for a dead letter whose source had none.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Headers,
}

impl Outgoing {
    /// Key, value and headers together, in bytes.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + self.headers.byte_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_and_nulls_and_the_last_one_wins() {
        let mut headers = Headers::default();
        headers.push("a", "1");
        headers.push_optional("b", None);
        headers.push("a", "2");
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [("a", Some(&b"1"[..])), ("b", None), ("a", Some(&b"2"[..]))]);
        assert_eq!(headers.text("a"), Some("2"));
        assert_eq!(headers.get("b"), None);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers.byte_count(), 5 + headers.len() * LENGTHS_BYTES_MAX);
    }
}
