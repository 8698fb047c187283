//! What the loops ask of an encoding, without knowing which one it is.

use super::decider::Decider;
use super::result::{Accepted, CommandResult};

/// Bytes <-> messages of one kind of aggregate.
pub trait Codec<D: Decider>: Send + Sync + 'static {
    /// Reads a command. `key_id` is the aggregate id from the record's key, if it has one;
    /// otherwise the body must name it.
    ///
    /// # Errors
    /// [`Undecoded`]: what is wrong, or which schema must be looked up first.
    fn decode_command(
        &self,
        key_id: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Decoded<D::Command>, Undecoded>;

    /// Appends an event's wire form to `value` and says what it is.
    ///
    /// # Errors
    /// A field cannot be represented: a bug, reported as a FAILED result.
    fn encode_event(&self, event: &D::Event, value: &mut Vec<u8>) -> Result<EventType, CodecError>;

    /// Reads an event of any version that was ever written.
    ///
    /// # Errors
    /// [`CodecError::UnknownSchema`] if the registry must be asked; else the bytes are corrupt.
    fn decode_event(&self, value: &[u8]) -> Result<D::Event, CodecError>;

    /// Appends a result's wire form to `value`.
    ///
    /// # Errors
    /// A field cannot be represented: a bug.
    fn encode_result(&self, result: &CommandResult, value: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads a result.
    ///
    /// # Errors
    /// As [`Codec::decode_event`].
    fn decode_result(&self, value: &[u8]) -> Result<CommandResult, CodecError>;

    /// Reads what is remembered of an accepted command; `None` if [`Codec::decode_result`] must
    /// look at it. A start reads millions of results, nearly all of such.
    fn decode_accepted<'v>(&self, _value: &'v [u8]) -> Option<Accepted<'v>> {
        None
    }
}

/// What an event is called on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    /// The full record name: `millrace.banking.account.MoneyDeposited`.
    pub full_name: &'static str,
    /// The version of its schema, from 1.
    pub schema_version: u16,
}

/// A command that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<C> {
    /// The command.
    pub command: C,
    /// The aggregate that the body names, if no key says whose it is.
    pub aggregate_id: Option<String>,
    /// Its short type name, for logs and dead letters.
    pub type_name: &'static str,
    /// SHA-256 over aggregate id, type and normalised fields.
    pub content_hash: [u8; 32],
    /// Metadata that stood in the body (JSON only).
    pub body: BodyMetadata,
}

/// Metadata fields of a JSON body, by their header's name (`command_id` as `ce_id`).
pub type BodyMetadata = Vec<(&'static str, String)>;

/// Why a command was not understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Undecoded {
    /// The command is bad: it is refused, and its bytes are kept as a dead letter.
    Bad(Box<BadCommand>),
    /// Nobody here has seen that schema yet: the registry must say whether it exists.
    UnknownSchema(u32),
}

/// What is wrong with a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BadCommand {
    /// `Undecodable`, `UnknownType`, `UnknownSchema`, `MissingField`, `InvalidField`, `InvalidKey`
    /// or `TooLarge`.
    pub code: &'static str,
    /// The field, if it is about one.
    pub field: Option<String>,
    /// Where and why, for people.
    pub reason: String,
    /// The aggregate id, as far as it is known.
    pub aggregate_id: Option<String>,
    /// Metadata that stood in the body, as far as it could be read.
    pub body: BodyMetadata,
}

/// Why bytes could not be read or written.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The schema id is not known here; the registry may know it.
    #[error("schema id {0} is not known here")]
    UnknownSchema(u32),
    /// The bytes are not what they should be.
    #[error("cannot decode {what}: {reason}")]
    Corrupt {
        /// The thing that was read.
        what: &'static str,
        /// Where and why.
        reason: String,
    },
    /// The value does not fit its schema.
    #[error("cannot encode {what}: {reason}")]
    Unencodable {
        /// The thing that was written.
        what: &'static str,
        /// Where and why.
        reason: String,
    },
}
