//! What events of all aggregates have in common: an event's struct <-> its bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::schemas::Schemas;
use super::{avro, compiled};
use crate::kernel::codec::{CodecError, EventType};

/// A record that is written in its current version.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    /// Its full name.
    pub full_name: &'static str,
    /// Its place among the compiled-in schemas.
    pub place: Option<usize>,
}

impl Current {
    /// Finds the current version of that record.
    #[must_use]
    pub fn of(full_name: &'static str) -> Self {
        Self { full_name, place: compiled::current(full_name) }
    }

    /// Appends an event's wire form. On an error `value` is as it was.
    ///
    /// # Errors
    /// Its schema is not registered, or a field does not fit it.
    pub fn encode<T: Serialize>(
        &self,
        schemas: &Schemas,
        event: &T,
        value: &mut Vec<u8>,
    ) -> Result<EventType, CodecError> {
        let full_name = self.full_name;
        let unencodable = |reason: String| CodecError::Unencodable { what: full_name, reason };
        let Some((own, id)) = self.place.and_then(|own| Some((own, schemas.own_id(own)?))) else {
            let reason = "its schema has no id yet: run `millrace schemas register`".to_owned();
            return Err(unencodable(reason));
        };
        let compiled = &compiled::all()[own];
        avro::encode(id, &compiled.schema, event, value).map_err(unencodable)?;
        Ok(EventType { full_name, schema_version: compiled.source.version })
    }
}

/// Reads one event of an aggregate. `read` knows the short names; it answers `None` for a name that
/// it does not know.
///
/// # Errors
/// As [`crate::kernel::codec::Codec::decode_event`].
pub fn decode<E>(
    schemas: &Schemas,
    namespace: &'static str,
    value: &[u8],
    read: impl FnOnce(&str, Datum<'_>) -> Option<Result<E, CodecError>>,
) -> Result<E, CodecError> {
    let corrupt = |reason: String| CodecError::Corrupt { what: namespace, reason };
    let Some((id, datum)) = avro::split(value) else {
        return Err(corrupt("it is not in the registry's wire format".to_owned()));
    };
    let writer = schemas.writer(id)?;
    let name = writer.record.strip_prefix(namespace).and_then(|name| name.strip_prefix('.'));
    read(name.unwrap_or_default(), Datum { namespace, schema: &writer.schema, datum })
        .unwrap_or_else(|| Err(corrupt(format!("{} is no event of it", writer.record))))
}

/// A datum with the schema that it was written with. Fields that a newer writer has added are
/// passed over.
#[derive(Clone, Copy)]
pub struct Datum<'a> {
    namespace: &'static str,
    schema: &'a serde_avro_fast::Schema,
    datum: &'a [u8],
}

impl Datum<'_> {
    /// Reads it.
    ///
    /// # Errors
    /// The bytes do not fit the schema, or the schema does not fit `T`.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, CodecError> {
        let what = self.namespace;
        avro::decode(self.schema, self.datum).map_err(|reason| CodecError::Corrupt { what, reason })
    }
}
