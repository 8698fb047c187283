//! Avro's binary form in the registry's wire format: 0x00, schema id (u32 big-endian), datum.
//!
//! A decimal of scale 8 is handed over as its plain bytes, so that amounts read and write
//! themselves: on the wire it is the same, and nobody in between rounds. Decimals of other scales
//! (foreign writers) arrive as text.

use serde::{Deserialize, Serialize};
use serde_avro_fast::Schema;
use serde_avro_fast::de::read::SliceRead;
use serde_avro_fast::de::{DeserializerConfig, DeserializerState};
use serde_avro_fast::schema::{LogicalType, RegularType, SchemaMut};
use serde_avro_fast::ser::{SerializerConfig, SerializerState};

use super::compact::Compact;
use super::flat::Flat;
use crate::domain::money;

/// The first byte of every value in the wire format.
pub const MAGIC: u8 = 0;
/// The bytes in front of the datum.
const HEADER_BYTES: usize = 5;
/// The most elements of an array or a map. They may take no bytes at all, so this bounds the work.
const ELEMENTS_MAX: usize = 100_000;
/// The deepest that a datum may be nested.
const DEPTH_MAX: usize = 32;

/// Takes a value apart into schema id and datum; `None` if it is not in the wire format.
#[must_use]
pub fn split(value: &[u8]) -> Option<(u32, &[u8])> {
    let (header, datum) = value.split_first_chunk::<HEADER_BYTES>()?;
    let [magic, a, b, c, d] = *header;
    (magic == MAGIC).then_some((u32::from_be_bytes([a, b, c, d]), datum))
}

/// A schema, ready for use.
#[derive(Debug)]
pub struct Parsed {
    /// The full name of its record.
    pub record: String,
    /// For reading and writing.
    pub schema: Schema,
    /// For reading its fields faster, if they are all plain.
    pub flat: Option<Flat>,
}

/// Parses a schema for reading and writing.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse(text: &str) -> Result<Parsed, String> {
    let mut schema: SchemaMut = text.parse().map_err(|error| format!("{error}"))?;
    let RegularType::Record(record) = &schema.root().type_ else {
        return Err("the schema is not a record".to_owned());
    };
    let record = record.name.fully_qualified_name().to_owned();
    for node in schema.nodes_mut() {
        let ours = matches!(&node.logical_type,
            Some(LogicalType::Decimal(decimal)) if decimal.scale == money::SCALE);
        if ours && matches!(node.type_, RegularType::Bytes | RegularType::Fixed(_)) {
            node.logical_type = None;
        }
    }
    let flat = Flat::of(&schema);
    let schema = schema.freeze().map_err(|error| format!("{error}"))?;
    Ok(Parsed { record, schema, flat })
}

/// Appends the wire form of `message`. On an error `value` is as it was.
///
/// # Errors
/// Says which field does not fit the schema.
pub fn encode<T: Serialize>(
    id: u32,
    schema: &Schema,
    message: &T,
    value: &mut Vec<u8>,
) -> Result<(), String> {
    let start = value.len();
    value.push(MAGIC);
    value.extend_from_slice(&id.to_be_bytes());
    // Cheap: no allocation unless fields stand in another order than the schema's.
    let mut config = SerializerConfig::new(schema);
    let mut state = SerializerState::from_writer(&mut *value, &mut config);
    let outcome = message.serialize(Compact(state.serializer()));
    outcome.map_err(|error| {
        value.truncate(start);
        error.to_string()
    })
}

/// Reads a datum that was written with `schema`, all of it.
///
/// # Errors
/// Says what does not fit, or that bytes are left over.
pub fn decode<'de, T: Deserialize<'de>>(schema: &Schema, datum: &'de [u8]) -> Result<T, String> {
    decode_seed(schema, datum, std::marker::PhantomData)
}

/// As [`decode`], with a seed.
///
/// # Errors
/// As [`decode`].
pub fn decode_seed<'de, S: serde::de::DeserializeSeed<'de>>(
    schema: &Schema,
    datum: &'de [u8],
    seed: S,
) -> Result<S::Value, String> {
    let mut config = DeserializerConfig::new(schema);
    config.max_seq_size = ELEMENTS_MAX;
    config.allowed_depth = DEPTH_MAX;
    let mut state = DeserializerState::with_config(SliceRead::new(datum), config);
    let message = seed.deserialize(state.deserializer()).map_err(|error| error.to_string())?;
    let mut rest = state.into_reader();
    let left = std::io::BufRead::fill_buf(&mut rest).map_or(0, <[u8]>::len);
    if left == 0 {
        Ok(message)
    } else {
        Err(format!("{left} bytes are left over after the record"))
    }
}
