//! What travels with a command beside its content: headers first, a JSON body's fields second.

use uuid::Uuid;

use crate::kernel::codec::BodyMetadata;
use crate::kernel::message::Headers;
use crate::kernel::time::Timestamp;

/// The longest value of one metadata header, in bytes: they are copied to every event.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// The most bytes of all `meta_<name>` headers together.
pub const FREE_BYTES_MAX: usize = 16_384;

/// The namespace of ids that are derived by hashing (UUIDv5).
pub const ID_NAMESPACE: Uuid = Uuid::from_u128(0x6d69_6c6c_7261_4365_8000_6964_732e_7631);

/// The metadata of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata<'r> {
    /// `ce_id`: the command id as the client wrote it.
    pub command_id: Option<&'r str>,
    /// `ce_time`: the client's clock.
    pub time: Option<Timestamp>,
    /// `ce_time` as the client wrote it.
    pub time_text: Option<&'r str>,
    /// Echoed on the result.
    pub reply_to: Option<&'r str>,
    /// Who wishes it.
    pub actor: Option<&'r str>,
    /// What it belongs to.
    pub correlation_id: Option<&'r str>,
    /// What caused it.
    pub causation_id: Option<&'r str>,
    /// Where it was sent from.
    pub ip_address: Option<&'r str>,
    /// The version that the stream must have.
    pub expected_version: Option<u64>,
    /// W3C trace context.
    pub traceparent: Option<&'r str>,
    /// `meta_<name>`: free metadata, handed on to the events.
    pub free: Vec<(&'r str, &'r str)>,
}

/// A metadata field that cannot be used.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMetadata {
    /// Its name.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl<'r> Metadata<'r> {
    /// Reads headers, then fills the gaps from the body. What can be used is used even if
    /// something else cannot, so that a refusal still reaches whoever waits for it.
    #[must_use]
    pub fn read(headers: &'r Headers, body: &'r BodyMetadata) -> (Self, Option<BadMetadata>) {
        let mut metadata = Self::default();
        let mut bad = None;
        let mut free_bytes = 0;
        for (name, value) in headers.raw() {
            // An empty header is as good as none.
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            let free = name.starts_with(b"meta_");
            if !free && !is_known(name) {
                continue;
            }
            let name = std::str::from_utf8(name).unwrap_or_default();
            if free {
                free_bytes += name.len() + value.len();
            }
            let outcome = text(name, value).and_then(|value| {
                if free_bytes > FREE_BYTES_MAX {
                    let reason = format!("meta_ headers are over {FREE_BYTES_MAX} bytes together");
                    return Err(BadMetadata { field: name.to_owned(), reason });
                }
                metadata.set(name, value)
            });
            bad = bad.or(outcome.err());
        }
        for (name, value) in body {
            if !value.is_empty() && !metadata.has(name) {
                let outcome = text(name, value.as_bytes()).and_then(|v| metadata.set(name, v));
                bad = bad.or(outcome.err());
            }
        }
        (metadata, bad)
    }

    /// The command's id: the client's, hashed if it is no UUID; else the one derived from its
    /// first place.
    #[must_use]
    pub fn command_id_or(&self, derived: impl FnOnce() -> Uuid) -> Uuid {
        match self.command_id {
            Some(text) => Uuid::parse_str(text)
                .unwrap_or_else(|_| Uuid::new_v5(&ID_NAMESPACE, text.as_bytes())),
            None => derived(),
        }
    }

    /// About how many bytes it adds to an event's headers.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        let texts = [
            self.time_text,
            self.correlation_id,
            self.causation_id,
            self.actor,
            self.ip_address,
            self.traceparent,
        ];
        let free = self.free.iter().map(|(name, value)| name.len() + value.len() + 8);
        texts.iter().flatten().map(|text| text.len() + 24).sum::<usize>() + free.sum::<usize>()
    }

    fn has(&self, name: &str) -> bool {
        match name {
            "ce_id" => self.command_id.is_some(),
            "ce_time" => self.time_text.is_some(),
            "reply_to" => self.reply_to.is_some(),
            "actor" => self.actor.is_some(),
            "correlation_id" => self.correlation_id.is_some(),
            "causation_id" => self.causation_id.is_some(),
            "ip_address" => self.ip_address.is_some(),
            "expected_version" => self.expected_version.is_some(),
            "traceparent" => self.traceparent.is_some(),
            _ => false,
        }
    }

    fn set(&mut self, name: &'r str, value: &'r str) -> Result<(), BadMetadata> {
        let field = match name {
            "ce_id" => &mut self.command_id,
            "reply_to" => &mut self.reply_to,
            "actor" => &mut self.actor,
            "correlation_id" => &mut self.correlation_id,
            "causation_id" => &mut self.causation_id,
            "ip_address" => &mut self.ip_address,
            "traceparent" => &mut self.traceparent,
            "ce_time" => {
                let time = Timestamp::parse_rfc3339(value)
                    .ok_or_else(|| invalid(name, "not an RFC 3339 time", value))?;
                self.time = Some(time);
                &mut self.time_text
            }
            "expected_version" => {
                let version =
                    value.parse().map_err(|_| invalid(name, "not a whole number from 0", value))?;
                self.expected_version = Some(version);
                return Ok(());
            }
            _ => {
                self.free.push((name, value));
                return Ok(());
            }
        };
        *field = Some(value);
        Ok(())
    }
}

/// The id of a command that came without one: its place, so that a redelivery is the same command.
#[must_use]
pub fn derived_id(topic_id: Uuid, partition: i32, offset: i64) -> Uuid {
    Uuid::new_v5(&topic_id, format!("{partition}:{offset}").as_bytes())
}

fn is_known(name: &[u8]) -> bool {
    matches!(
        name,
        b"ce_id"
            | b"ce_time"
            | b"reply_to"
            | b"actor"
            | b"correlation_id"
            | b"causation_id"
            | b"ip_address"
            | b"expected_version"
            | b"traceparent"
    )
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, BadMetadata> {
    let field = || name.chars().take(100).collect();
    if value.len() > VALUE_BYTES_MAX {
        let reason = format!("is {} bytes; at most {VALUE_BYTES_MAX} are taken", value.len());
        return Err(BadMetadata { field: field(), reason });
    }
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(BadMetadata { field: field(), reason: "is not UTF-8 without NUL".to_owned() }),
    }
}

fn invalid(name: &str, reason: &str, value: &str) -> BadMetadata {
    let shown: String = value.chars().take(64).collect();
    BadMetadata { field: name.to_owned(), reason: format!("{reason}: {shown:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_wins_over_the_body() {
        let mut headers = Headers::default();
        headers.push("actor", "teller-1");
        headers.push("meta_branch", "zurich");
        headers.push("unrelated", [0xff]);
        let body = vec![("actor", "somebody".to_owned()), ("reply_to", "me".to_owned())];
        let (metadata, bad) = Metadata::read(&headers, &body);
        assert_eq!(bad, None);
        assert_eq!(metadata.actor, Some("teller-1"));
        assert_eq!(metadata.reply_to, Some("me"));
        assert_eq!(metadata.free, [("meta_branch", "zurich")]);
    }

    #[test]
    fn what_cannot_be_used_is_named_and_the_rest_is_kept() {
        let cases: [(&str, &[u8]); 5] = [
            ("expected_version", b"-1"),
            ("expected_version", b"seven"),
            ("ce_time", b"yesterday"),
            ("actor", b"\xff\xfe"),
            ("meta_note", &[b'x'; VALUE_BYTES_MAX + 1]),
        ];
        for (name, value) in cases {
            let mut headers = Headers::default();
            headers.push(name, value);
            headers.push("reply_to", "me");
            let none = Vec::new();
            let (metadata, bad) = Metadata::read(&headers, &none);
            assert_eq!(bad.map(|bad| bad.field).as_deref(), Some(name));
            assert_eq!(metadata.reply_to, Some("me"));
        }
    }

    #[test]
    fn an_id_is_the_clients_or_its_hash_or_its_place() {
        let topic_id = Uuid::from_u128(1);
        let with = |id: Option<&'static str>| Metadata { command_id: id, ..Metadata::default() };
        let uuid = "6f1c8d6e-6c0f-4e52-9c2b-0a4d8d5f1a11";
        let place = derived_id(topic_id, 3, 9);
        assert_eq!(with(Some(uuid)).command_id_or(|| place).to_string(), uuid);
        let hashed = with(Some("order-17")).command_id_or(|| place);
        assert_eq!(hashed, with(Some("order-17")).command_id_or(Uuid::nil));
        assert_ne!(hashed, with(Some("order-18")).command_id_or(|| place));
        assert_eq!(with(None).command_id_or(|| place), Uuid::new_v5(&topic_id, b"3:9"));
        assert_ne!(place, derived_id(topic_id, 3, 10));
    }
}
