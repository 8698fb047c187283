//! Records as the loops see them: bytes with headers, in and out, detached from any client.

use smallvec::SmallVec;

use super::stream::Kind;

/// Headers in their order, held in one buffer. Names are UTF-8, values are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    buffer: Vec<u8>,
    /// For each header: the end of its name, the end of its value, and whether it has a value.
    ends: SmallVec<[(u32, u32, bool); 16]>,
}

impl Headers {
    /// Makes room for that many bytes of names and values.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buffer: Vec::with_capacity(bytes), ends: SmallVec::new() }
    }

    /// Adds a header behind the others; the same name may stand several times.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.push_optional(name, Some(value.as_ref()));
    }

    /// Adds a header that may be null.
    pub fn push_optional(&mut self, name: &str, value: Option<&[u8]>) {
        self.buffer.extend_from_slice(name.as_bytes());
        let name_end = self.end();
        self.buffer.extend_from_slice(value.unwrap_or_default());
        self.ends.push((name_end, self.end(), value.is_some()));
    }

    fn end(&self) -> u32 {
        // Kafka's own limit on a record is far below 4 GiB.
        u32::try_from(self.buffer.len()).unwrap_or(u32::MAX)
    }

    /// Every header with its value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, value_end, present)| {
            let (name_end, value_end) = (name_end as usize, value_end as usize);
            let name = std::str::from_utf8(&self.buffer[start..name_end]).unwrap_or_default();
            let value = present.then(|| &self.buffer[name_end..value_end]);
            start = value_end;
            (name, value)
        })
    }

    /// The value of the last header of that name, if there is one and it is not null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().filter(|(found, _)| *found == name).last().and_then(|(_, value)| value)
    }

    /// As [`Headers::get`], if it is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of all names and values together.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        self.buffer.len()
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
    }
}
