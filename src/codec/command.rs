//! What all commands have in common: a value's bytes -> fields, checked and typed -> a command.
//!
//! Each typed read also feeds the content hash, so that what the hash covers is what the command
//! is made of: aggregate id, type and normalised fields. Absent, null and default are the same; a
//! field that holds nothing adds nothing, so that a field which is added later changes no hash.

use ring::digest;

use super::avro;
use super::fields::{Fields, Value};
use super::schemas::{Lookup, Schemas};
use crate::domain::money::{Amount, Currency};
use crate::kernel::codec::{BadCommand, BodyMetadata, Decoded, Undecoded};
use crate::kernel::stream::{ID_BYTES_MAX, is_aggregate_id};
use crate::kernel::time::Timestamp;

/// The longest value that is read.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// The metadata fields of a JSON body and the headers that they stand for.
const METADATA: [(&str, &str); 9] = [
    ("actor", "actor"),
    ("causation_id", "causation_id"),
    ("ce_time", "ce_time"),
    ("command_id", "ce_id"),
    ("correlation_id", "correlation_id"),
    ("expected_version", "expected_version"),
    ("ip_address", "ip_address"),
    ("reply_to", "reply_to"),
    ("traceparent", "traceparent"),
];

/// One kind of command: its short name, and how it is made of fields.
pub type Entry<C> = (&'static str, fn(&mut Extract<'_, '_>) -> Result<C, FieldError>);

/// How one aggregate's commands look.
pub struct Shape<C: 'static> {
    /// The namespace of their records: `millrace.banking.account`.
    pub namespace: &'static str,
    /// The field that names the aggregate: `account_id`.
    pub id_field: &'static str,
    /// All field names, sorted, so that reading need not copy them.
    pub field_names: &'static [&'static str],
    /// Every command.
    pub commands: &'static [Entry<C>],
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `MissingField` or `InvalidField`.
    pub code: &'static str,
    /// Which field.
    pub field: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// Reads a command's value.
///
/// # Errors
/// As [`crate::kernel::codec::Codec::decode_command`].
pub fn decode<C>(
    shape: &Shape<C>,
    schemas: &Schemas,
    key_id: Option<&str>,
    value: Option<&[u8]>,
) -> Result<Decoded<C>, Undecoded> {
    let undecodable = |reason: String| bad(key_id, "Undecodable", None, reason);
    let value = value.unwrap_or_default();
    if value.len() > VALUE_BYTES_MAX {
        let reason = format!("the value has {} bytes, more than {VALUE_BYTES_MAX}", value.len());
        return Err(bad(key_id, "TooLarge", None, reason));
    }
    match value.first() {
        Some(&avro::MAGIC) => {
            let Some((id, datum)) = avro::split(value) else {
                return Err(undecodable("the value ends within its schema id".to_owned()));
            };
            let writer = match schemas.lookup(id) {
                Lookup::Known(writer) => writer,
                Lookup::Unknown => return Err(Undecoded::UnknownSchema(id)),
                Lookup::Missing => {
                    let reason = format!("the registry has no schema with the id {id}");
                    return Err(bad(key_id, "UnknownSchema", None, reason));
                }
            };
            // Read in place: fields are large, and moving them costs more than reading them.
            let mut fields = Fields::default();
            let flat = writer.flat.as_ref().and_then(|flat| fields.read_flat(flat, datum));
            if flat.is_none() {
                fields = Fields::from_avro(&writer.schema, datum, shape.field_names)
                    .map_err(undecodable)?;
            }
            let name = writer.record.strip_prefix(shape.namespace);
            let name = name.and_then(|name| name.strip_prefix('.'));
            let body = Body { fields: &fields, json: false, metadata: BodyMetadata::new() };
            body.finish(shape, key_id, name, &writer.record)
        }
        Some(b'{') => {
            let fields = Fields::from_json(value, shape.field_names).map_err(undecodable)?;
            let mut body = Body { fields: &fields, json: true, metadata: BodyMetadata::new() };
            let problem = body.take_metadata().err();
            match (problem, body.json_type()) {
                (Some(error), _) | (None, Err(error)) => Err(body.bad_field(shape, key_id, error)),
                (None, Ok(name)) => body.finish(shape, key_id, Some(&name), &name),
            }
        }
        Some(_) => {
            Err(undecodable("the value is neither Avro (0x00 first) nor a JSON object".to_owned()))
        }
        None => Err(undecodable("the value is empty".to_owned())),
    }
}

fn bad(
    aggregate_id: Option<&str>,
    code: &'static str,
    field: Option<&str>,
    reason: String,
) -> Undecoded {
    Undecoded::Bad(Box::new(BadCommand {
        code,
        field: field.map(str::to_owned),
        reason,
        aggregate_id: aggregate_id.map(str::to_owned),
        body: BodyMetadata::new(),
    }))
}

/// A value that has been taken apart into fields.
struct Body<'f, 'a> {
    fields: &'f Fields<'a>,
    json: bool,
    metadata: BodyMetadata,
}

impl<'f> Body<'f, '_> {
    /// Takes what is readable, then names the first field that is not.
    fn take_metadata(&mut self) -> Result<(), FieldError> {
        let mut problem = Ok(());
        for (field, header) in METADATA {
            let text = match self.fields.get(field) {
                None => continue,
                Some(Value::Text(text)) => text.as_ref().to_owned(),
                Some(Value::Integer(number)) if field == "expected_version" && *number >= 0 => {
                    number.to_string()
                }
                Some(_) => {
                    problem = problem.and(Err(FieldError::invalid(field, "must be a string")));
                    continue;
                }
            };
            self.metadata.push((header, text));
        }
        problem
    }

    fn json_type(&self) -> Result<String, FieldError> {
        match self.fields.get("type") {
            Some(Value::Text(name)) => Ok(name.as_ref().to_owned()),
            Some(_) => Err(FieldError::invalid("type", "must be a string")),
            None => Err(FieldError::missing("type")),
        }
    }

    fn finish<C>(
        self,
        shape: &Shape<C>,
        key_id: Option<&str>,
        name: Option<&str>,
        shown_name: &str,
    ) -> Result<Decoded<C>, Undecoded> {
        let aggregate_id = match self.aggregate_id(shape.id_field, key_id) {
            Ok(id) => id,
            Err(error) => return Err(self.bad(key_id, error)),
        };
        let entry = shape.commands.iter().find(|(known, _)| Some(*known) == name);
        let Some((type_name, make)) = entry else {
            let error = FieldError {
                code: "UnknownType",
                field: "type",
                reason: format!("{shown_name:?} is no command of {}", shape.namespace),
            };
            return Err(self.bad(Some(aggregate_id), error));
        };
        let mut hash = ContentHash::new();
        hash.add(type_name, aggregate_id.as_bytes());
        let mut extract =
            Extract { fields: self.fields, json: self.json, aggregate_id, hash: &mut hash };
        match make(&mut extract) {
            Ok(command) => Ok(Decoded {
                command,
                content_hash: hash.finish(),
                type_name,
                body: self.metadata,
                aggregate_id: key_id.is_none().then(|| aggregate_id.to_owned()),
            }),
            Err(error) => Err(self.bad(Some(aggregate_id), error)),
        }
    }

    /// The id that the key says, or the body if there is no key. Both must agree.
    fn aggregate_id<'k>(
        &self,
        field: &'static str,
        key_id: Option<&'k str>,
    ) -> Result<&'k str, FieldError>
    where
        'f: 'k,
    {
        let invalid_key = |reason: String| FieldError { code: "InvalidKey", field, reason };
        let fields: &'f Fields<'_> = self.fields;
        match (key_id, fields.get(field)) {
            (_, Some(value)) if !matches!(value, Value::Text(_)) => {
                Err(FieldError::invalid(field, "must be a string"))
            }
            (Some(key), Some(Value::Text(id))) if id.as_ref() != key => {
                Err(FieldError::invalid(field, "is not the record's key"))
            }
            (Some(key), _) => Ok(key),
            (None, Some(Value::Text(id))) => {
                if is_aggregate_id(id) {
                    Ok(id)
                } else {
                    Err(invalid_key(wrong_id(id)))
                }
            }
            (None, _) => {
                Err(invalid_key("is missing, and the record has no key either".to_owned()))
            }
        }
    }

    fn bad_field<C>(self, shape: &Shape<C>, key_id: Option<&str>, error: FieldError) -> Undecoded {
        let id = self.aggregate_id(shape.id_field, key_id).ok().or(key_id);
        self.bad(id, error)
    }

    fn bad(self, aggregate_id: Option<&str>, error: FieldError) -> Undecoded {
        Undecoded::Bad(Box::new(BadCommand {
            code: error.code,
            field: Some(error.field.to_owned()),
            reason: error.reason,
            aggregate_id: aggregate_id.map(str::to_owned),
            body: self.metadata,
        }))
    }
}

impl FieldError {
    /// The field is there, but not what it must be.
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self { code: "InvalidField", field, reason: reason.into() }
    }

    /// The field is not there, but must be.
    #[must_use]
    pub fn missing(field: &'static str) -> Self {
        Self { code: "MissingField", field, reason: "is missing".to_owned() }
    }
}

/// Reads fields by name and type, and hashes what it reads.
pub struct Extract<'f, 'a> {
    fields: &'f Fields<'a>,
    json: bool,
    aggregate_id: &'f str,
    hash: &'f mut ContentHash,
}

impl<'f> Extract<'f, '_> {
    /// The aggregate that the command is for.
    #[must_use]
    pub fn aggregate_id(&self) -> &'f str {
        self.aggregate_id
    }

    /// Text that may be absent.
    ///
    /// # Errors
    /// It is no text.
    pub fn optional_text(&mut self, field: &'static str) -> Result<Option<String>, FieldError> {
        let text = self.peek_text(field)?;
        Ok(text.map(|text| {
            self.hash.add(field, text.as_bytes());
            text.to_owned()
        }))
    }

    /// Text beside the content: who sends the same with another one sends the same command.
    ///
    /// # Errors
    /// It is no text.
    pub fn text_beside(&self, field: &'static str) -> Result<Option<String>, FieldError> {
        Ok(self.peek_text(field)?.map(str::to_owned))
    }

    /// Text that must be there; it may be empty.
    ///
    /// # Errors
    /// It is absent or no text.
    pub fn text(&mut self, field: &'static str) -> Result<String, FieldError> {
        self.optional_text(field)?.ok_or_else(|| FieldError::missing(field))
    }

    /// Text with a default. Given or absent, the default is the same content.
    ///
    /// # Errors
    /// It is no text.
    pub fn text_or(
        &mut self,
        field: &'static str,
        default: &'static str,
    ) -> Result<String, FieldError> {
        let text = self.peek_text(field)?.unwrap_or(default);
        if !text.is_empty() {
            self.hash.add(field, text.as_bytes());
        }
        Ok(text.to_owned())
    }

    /// Text that must be there and means the same in any case.
    ///
    /// # Errors
    /// It is absent or no text.
    pub fn caseless_text(&mut self, field: &'static str) -> Result<String, FieldError> {
        let text = self.peek_text(field)?;
        let text = text.ok_or_else(|| FieldError::missing(field))?;
        self.hash.add(field, text.to_ascii_uppercase().as_bytes());
        Ok(text.to_owned())
    }

    /// The id of another aggregate.
    ///
    /// # Errors
    /// It is absent, no text, empty or too long.
    pub fn id(&mut self, field: &'static str) -> Result<String, FieldError> {
        let id = self.text(field)?;
        if is_aggregate_id(&id) { Ok(id) } else { Err(FieldError::invalid(field, wrong_id(&id))) }
    }

    /// The id of another aggregate; empty if it is absent.
    ///
    /// # Errors
    /// It is no text or too long.
    pub fn id_or_empty(&mut self, field: &'static str) -> Result<String, FieldError> {
        let id = self.text_or(field, "")?;
        if id.is_empty() || is_aggregate_id(&id) {
            Ok(id)
        } else {
            Err(FieldError::invalid(field, wrong_id(&id)))
        }
    }

    /// Money, with at most so many digits before the point. It is a string in JSON and bytes in
    /// Avro, never a number.
    ///
    /// # Errors
    /// It is absent, no decimal, or too fine or too large.
    pub fn money(
        &mut self,
        field: &'static str,
        whole_digits_max: u32,
    ) -> Result<Amount, FieldError> {
        let amount = match self.fields.get(field) {
            None => return Err(FieldError::missing(field)),
            Some(Value::Text(text)) => Amount::parse(text),
            Some(Value::Bytes(bytes)) => Amount::from_be_bytes(bytes),
            Some(_) => {
                let reason = "must be a string such as \"150.00\", never a number";
                return Err(FieldError::invalid(field, reason));
            }
        };
        let amount = amount.map_err(|error| FieldError::invalid(field, error.to_string()))?;
        if !amount.fits_whole_digits(whole_digits_max) {
            let reason = format!("has more than {whole_digits_max} digits before the point");
            return Err(FieldError::invalid(field, reason));
        }
        self.hash.add(field, amount.to_be_bytes(&mut [0; 16]));
        Ok(amount)
    }

    /// A currency's code.
    ///
    /// # Errors
    /// It is absent or no such code.
    pub fn currency(&mut self, field: &'static str) -> Result<Currency, FieldError> {
        let code = self.text(field)?;
        Currency::parse(&code).ok_or_else(|| {
            FieldError::invalid(field, "must be an ISO 4217 currency code in upper case")
        })
    }

    /// A moment: RFC 3339 in JSON, microseconds since 1970 in Avro.
    ///
    /// # Errors
    /// It is absent or no such moment.
    pub fn moment(&mut self, field: &'static str) -> Result<Timestamp, FieldError> {
        let moment = match self.fields.get(field) {
            None => return Err(FieldError::missing(field)),
            Some(Value::Text(text)) => Timestamp::parse_rfc3339(text),
            Some(Value::Integer(micros)) if !self.json => Some(Timestamp(*micros)),
            Some(_) => None,
        };
        let moment = moment.ok_or_else(|| {
            FieldError::invalid(field, "must be a moment such as \"2026-11-21T10:15:00Z\"")
        })?;
        self.hash.add(field, &moment.0.to_be_bytes());
        Ok(moment)
    }

    fn peek_text(&self, field: &'static str) -> Result<Option<&'f str>, FieldError> {
        match self.fields.get(field) {
            None => Ok(None),
            // Postgres cannot hold it, so an event must not.
            Some(Value::Text(text)) if text.contains('\0') => {
                Err(FieldError::invalid(field, "must not hold a NUL character"))
            }
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(FieldError::invalid(field, "must be a string")),
        }
    }
}

fn wrong_id(id: &str) -> String {
    if id.contains('\0') {
        "must not hold a NUL character".to_owned()
    } else {
        format!("must have 1 to {ID_BYTES_MAX} bytes, not {}", id.len())
    }
}

/// Collects what a command's content is, each part with its length in front. Most commands fit into
/// the buffer and are hashed at once.
struct ContentHash {
    buffer: [u8; 256],
    length: usize,
    /// What did not fit any more.
    context: Option<Box<digest::Context>>,
}

impl ContentHash {
    const fn new() -> Self {
        Self { buffer: [0; 256], length: 0, context: None }
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), value] {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.put(&length.to_be_bytes());
            self.put(part);
        }
    }

    #[inline]
    fn put(&mut self, part: &[u8]) {
        let end = self.length + part.len();
        if let Some(room) = self.buffer.get_mut(self.length..end) {
            room.copy_from_slice(part);
            self.length = end;
        } else {
            self.spill(part);
        }
    }

    #[cold]
    fn spill(&mut self, part: &[u8]) {
        let new = || Box::new(digest::Context::new(&digest::SHA256));
        let context = self.context.get_or_insert_with(new);
        context.update(&self.buffer[..self.length]);
        context.update(part);
        self.length = 0;
    }

    fn finish(self) -> [u8; 32] {
        let last = &self.buffer[..self.length];
        let hash = match self.context {
            None => digest::digest(&digest::SHA256, last),
            Some(mut context) => {
                context.update(last);
                context.finish()
            }
        };
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        bytes
    }
}
