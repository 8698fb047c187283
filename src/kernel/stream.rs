//! A stream is one aggregate's events. How streams, topics and partitions are named and numbered.
//!
//! | thing | form |
//! |---|---|
//! | aggregate | `banking.account` (kebab-case), `banking.account` in Avro (snake_case) |
//! | topic | `[namespace.]<domain>.<aggregate>.<kind>` |
//! | partition | Java's murmur2 of the aggregate id, modulo the partition count |
//! | event key | id bytes, 0x00, sequence as u64 big-endian |
//! | event id | UUIDv8: 82 bits of the stream's hash, 40 bits of sequence |

use std::fmt;

use ring::digest;
use uuid::Uuid;

/// The longest aggregate id that is taken, in bytes.
pub const ID_BYTES_MAX: usize = 256;

/// The key of the position record in a snapshots topic. No aggregate id can be this, since ids hold
/// no NUL ([`is_aggregate_id`]).
pub const POSITION_KEY: &[u8] = b"\0position";

/// Whether text can name an aggregate: 1 to 256 bytes, no NUL (which no database's text holds).
#[must_use]
pub fn is_aggregate_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID_BYTES_MAX && !text.contains('\0')
}

/// The name of a kind of aggregate, in kebab-case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateName {
    /// The domain, for example `banking`.
    pub domain: &'static str,
    /// The aggregate within its domain, for example `account-opening`.
    pub aggregate: &'static str,
}

impl AggregateName {
    /// The topic of that kind, without a namespace: `banking.account.events`.
    #[must_use]
    pub fn topic(self, kind: Kind) -> String {
        format!("{}.{}.{}", self.domain, self.aggregate, kind.as_str())
    }

    /// The namespace of its Avro records: `millrace.banking.account_opening`.
    #[must_use]
    pub fn record_namespace(self) -> String {
        format!("millrace.{}.{}", self.domain, self.aggregate.replace('-', "_"))
    }

    /// The aggregate in snake_case, as SQL and code write it.
    #[must_use]
    pub fn snake_case(self) -> String {
        self.aggregate.replace('-', "_")
    }
}

impl fmt::Display for AggregateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.domain, self.aggregate)
    }
}

/// What a topic of an aggregate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Wishes, from anybody.
    Commands,
    /// Facts: the event store.
    Events,
    /// State at a sequence, and the owner's position.
    Snapshots,
    /// One answer a command.
    Results,
    /// What could not be understood, untouched.
    DeadLetters,
    /// When to wake a process manager.
    Timers,
}

impl Kind {
    /// The last part of the topic's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Events => "events",
            Self::Snapshots => "snapshots",
            Self::Results => "results",
            Self::DeadLetters => "dead-letters",
            Self::Timers => "timers",
        }
    }
}

/// A prefix that keeps several installations apart on one set of services; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// Checks a namespace: lower-case letters and digits, a letter first, at most 40 characters.
    ///
    /// # Errors
    /// Says what a namespace looks like if `text` is none.
    pub fn new(text: &str) -> Result<Self, String> {
        let legal = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.len() <= 40;
        if legal {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("namespace {text:?} must be lower-case letters and digits, letter first"))
        }
    }

    /// The name of a topic, subject, group or transactional id: `test1.banking.account.events`.
    #[must_use]
    pub fn dotted(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) }
    }

    /// The name of a Postgres schema or ClickHouse database: `test1_banking`.
    #[must_use]
    pub fn underscored(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}_{name}", self.0) }
    }

    /// The prefix itself; empty if there is none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of an event: id, 0x00, sequence.
#[must_use]
pub fn event_key(id: &str, sequence: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.len() + 9);
    key.extend_from_slice(id.as_bytes());
    key.push(0);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// Takes an event's key apart into id and sequence; `None` if it is not one.
#[must_use]
pub fn parse_event_key(key: &[u8]) -> Option<(&str, u64)> {
    let (rest, sequence) = key.split_last_chunk::<8>()?;
    let (&zero, id) = rest.split_last()?;
    let id = std::str::from_utf8(id).ok()?;
    (zero == 0).then_some((id, u64::from_be_bytes(*sequence)))
}

/// 128 bits that stand for a stream: the start of SHA-256 over domain, aggregate and id.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamHash(pub u128);

impl StreamHash {
    /// Hashes a stream's full name.
    #[must_use]
    pub fn new(name: AggregateName, id: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(name.domain.as_bytes());
        context.update(b".");
        context.update(name.aggregate.as_bytes());
        context.update(b"\0");
        context.update(id.as_bytes());
        let hash = context.finish();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_ref()[..16]);
        Self(u128::from_be_bytes(bytes))
    }

    /// The id of the stream's event with that sequence (below 2^40).
    #[must_use]
    pub fn event_id(self, sequence: u64) -> Uuid {
        let hash = self.0 >> (128 - 82);
        let sequence = u128::from(sequence) & ((1 << 40) - 1);
        // UUIDv8: 48 bits, version, 12 bits, variant, 62 bits.
        let high = hash >> 22;
        let low = hash & ((1 << 22) - 1);
        let bits = ((high >> 12) << 80)
            | (8 << 76)
            | ((high & 0xfff) << 64)
            | (0b10 << 62)
            | (low << 40)
            | sequence;
        Uuid::from_u128(bits)
    }

    /// The sequence of the event that `id` names, if it is one of this stream's.
    #[must_use]
    pub fn sequence_of(self, id: Uuid) -> Option<u64> {
        let sequence = id.as_u128() & ((1 << 40) - 1);
        let sequence = u64::try_from(sequence).ok()?;
        (self.event_id(sequence) == id).then_some(sequence)
    }
}

/// The partition of an aggregate id: what Java's default partitioner gives for that key.
#[must_use]
pub fn partition_of(id: &str, partition_count: i32) -> i32 {
    let positive = murmur2(id.as_bytes()) & 0x7fff_ffff;
    let count = partition_count.max(1).unsigned_abs();
    i32::try_from(positive % count).unwrap_or_default()
}

/// Kafka's murmur2 (seed 0x9747b28c), as `org.apache.kafka.common.utils.Utils` computes it.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AggregateName = AggregateName { domain: "banking", aggregate: "account" };

    #[test]
    fn hashes_as_kafkas_java_client_does() {
        // From Kafka's own UtilsTest.testMurmur2.
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (input, expected) in cases {
            assert_eq!(murmur2(input).cast_signed(), expected, "{input:?}");
        }
    }

    #[test]
    fn an_events_key_comes_apart_again() {
        assert_eq!(parse_event_key(&event_key("acc-1", 7)), Some(("acc-1", 7)));
        assert_eq!(parse_event_key(&event_key("a\0b", u64::MAX)), Some(("a\0b", u64::MAX)));
        assert_eq!(parse_event_key(b"acc-1"), None);
    }

    #[test]
    fn an_event_id_is_a_version_8_uuid_that_knows_its_sequence() {
        let stream = StreamHash::new(ACCOUNT, "acc-1");
        let id = stream.event_id(42);
        assert_eq!(id.get_version_num(), 8);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(stream.sequence_of(id), Some(42));
        assert_eq!(StreamHash::new(ACCOUNT, "acc-2").sequence_of(id), None);
        assert_ne!(stream.event_id(43), id);
    }

    #[test]
    fn a_namespace_is_a_prefix() {
        let namespace = Namespace::new("test1").unwrap();
        assert_eq!(namespace.dotted(&ACCOUNT.topic(Kind::Events)), "test1.banking.account.events");
        assert_eq!(namespace.underscored("banking"), "test1_banking");
        assert_eq!(Namespace::default().underscored("banking"), "banking");
        assert!(Namespace::new("Test.1").is_err());
    }
}
