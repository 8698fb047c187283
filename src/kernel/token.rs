//! What a reader must have seen of one stream: a result's `consistency_token` <-> [`Token`].
//!
//! Opaque to clients. The event's offset is not known when the result is written, so a token names
//! the stream and its sequence, and the topic by its id: a topic that is made again has another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::stream::is_aggregate_id;

/// The form that is written today: the first part of every token.
pub const FORM: &str = "1";

/// The longest text that can be a token.
const BYTES_MAX: usize = 512;

/// A stream, and how much of it a reader must have seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The id of the topic that holds the stream's events.
    pub topic_id: Uuid,
    /// The stream's partition.
    pub partition: i32,
    /// The last event that must have been seen; 0 asks for nothing.
    pub sequence: u64,
    /// The aggregate's id.
    pub stream: String,
}

/// Why text is no token that can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It never was one.
    #[error("this is no consistency token: give the one of a command's result, unchanged")]
    Malformed,
    /// It has a form that is written no more, or not yet.
    #[error("this consistency token has another form than this program's: ask without it")]
    OtherForm,
}

impl Token {
    /// Reads a result's token.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut parts = text.split('.');
        let form = parts.next().unwrap_or_default();
        let is_form = !form.is_empty() && form.bytes().all(|byte| byte.is_ascii_digit());
        if !is_form || text.len() > BYTES_MAX || form.len() == text.len() {
            return Err(Unreadable::Malformed);
        }
        if form != FORM {
            return Err(Unreadable::OtherForm);
        }
        let rest: Vec<&str> = parts.collect();
        let [topic_id, partition, sequence, stream] = rest[..] else {
            return Err(Unreadable::Malformed);
        };
        Self::read(topic_id, partition, sequence, stream).ok_or(Unreadable::Malformed)
    }

    fn read(topic_id: &str, partition: &str, sequence: &str, stream: &str) -> Option<Self> {
        let stream = String::from_utf8(URL_SAFE_NO_PAD.decode(stream).ok()?).ok()?;
        // Databases count in signed numbers.
        let sequence = u64::try_from(number::<i64>(sequence)?).ok()?;
        // A refusal may name no stream at all; it asks for nothing either.
        (sequence == 0 || is_aggregate_id(&stream)).then_some(Self {
            topic_id: Uuid::try_parse(topic_id).ok()?,
            partition: number(partition)?,
            sequence,
            stream,
        })
    }
}

/// Digits alone: no sign, no blank.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_nonsense_does_not() {
        let id = Uuid::from_u128(7).simple().to_string();
        let stream = URL_SAFE_NO_PAD.encode("acc.1/ü");
        let text = format!("1.{id}.3.42.{stream}");
        let token = Token {
            topic_id: Uuid::from_u128(7),
            partition: 3,
            sequence: 42,
            stream: "acc.1/ü".to_owned(),
        };
        assert_eq!(Token::parse(&text), Ok(token));
        let nul = URL_SAFE_NO_PAD.encode("a\0b");
        for broken in [
            "",
            "1",
            ".",
            "1....",
            "token",
            "x.1.2.3.4",
            &format!("1.{id}.3.42"),
            &format!("1.{id}.3.42."),
            &format!("1.{id}.3.0"),
            &format!("1.{id}.3.42.{stream}.5"),
            &format!("1.{id}.-3.42.{stream}"),
            &format!("1.{id}.3.+42.{stream}"),
            &format!("1.{id}.3.18446744073709551615.{stream}"),
            &format!("1.{id}.3000000000.42.{stream}"),
            &format!("1.{id}x.3.42.{stream}"),
            &format!("1.{id}.3.42.{stream}="),
            &format!("1.{id}.3.42.{nul}"),
            &format!("1.{id}.3.42.{}", "A".repeat(600)),
        ] {
            assert_eq!(Token::parse(broken), Err(Unreadable::Malformed), "{broken:?}");
        }
        let nothing = Token::parse(&format!("1.{id}.0.0.")).unwrap();
        assert_eq!((nothing.sequence, nothing.stream.as_str()), (0, ""));
        let other = text.replacen('1', "2", 1);
        assert_eq!(Token::parse(&other), Err(Unreadable::OtherForm));
    }
}
