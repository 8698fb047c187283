//! The auditor's own reading of the log: bytes of a record -> a fact with named fields.
//!
//! Values are read as generic Avro by the schema that they were written with; nothing of the typed
//! codecs, and nothing of what the projections read key and headers by, is used here.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use chrono::DateTime;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::cell::{canonical, hash, money_text};
use crate::kernel::message::Record;

/// How many decimals money is compared with.
const SCALE: u32 = 8;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// There is none.
    Null,
    /// Text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// Money, in hundred-millionths.
    Money(i128),
    /// A moment, in microseconds since 1970.
    Moment(i64),
    /// Yes or no.
    Flag(bool),
}

/// One event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The aggregate id.
    pub stream: String,
    /// Its number in the stream.
    pub sequence: u64,
    /// Its place in the partition.
    pub offset: i64,
    /// Its id.
    pub event_id: Uuid,
    /// The last part of its type: `MoneyDeposited`.
    pub name: String,
    /// The version of its schema.
    pub schema_version: u16,
    /// When it happened.
    pub at: i64,
    /// The command that it follows from.
    pub command_id: Uuid,
    /// What it belongs to; empty if nothing is said.
    pub correlation_id: String,
    /// What caused it; empty if nothing is said.
    pub causation_id: String,
    /// Its fields, in the order of its schema.
    pub fields: Vec<(String, Field)>,
}

impl Fact {
    /// A field, if it is there and not null.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let found = self.fields.iter().find(|(found, _)| found == name);
        found.map(|(_, field)| field).filter(|field| **field != Field::Null)
    }

    /// A text field.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.field(name) {
            Some(Field::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A field with money.
    #[must_use]
    pub fn money(&self, name: &str) -> Option<i128> {
        match self.field(name) {
            Some(Field::Money(units)) => Some(*units),
            _ => None,
        }
    }

    /// A field with a moment.
    #[must_use]
    pub fn moment(&self, name: &str) -> Option<i64> {
        match self.field(name) {
            Some(Field::Moment(micros)) => Some(*micros),
            _ => None,
        }
    }

    /// The fields as JSON in its canonical form, decimals as text.
    #[must_use]
    pub fn payload(&self) -> String {
        let json = |field: &Field| match field {
            Field::Null => Json::Null,
            Field::Text(text) => Json::from(text.as_str()),
            Field::Whole(number) => Json::from(*number),
            Field::Money(units) => Json::from(money_text(*units)),
            Field::Moment(micros) => Json::from(*micros),
            Field::Flag(flag) => Json::from(*flag),
        };
        let fields = self.fields.iter().map(|(name, field)| (name.clone(), json(field)));
        canonical(&Json::Object(fields.collect::<Map<_, _>>()))
    }
}

/// Takes an event's key apart: id, a zero byte, the sequence in eight bytes.
#[must_use]
pub fn stream_and_sequence(key: &[u8]) -> Option<(&str, u64)> {
    let zero = key.len().checked_sub(9)?;
    let id = std::str::from_utf8(&key[..zero]).ok()?;
    let number = key.get(zero + 1..)?.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    (key[zero] == 0 && !id.is_empty()).then_some((id, number))
}

/// What tells a record from another of the same key.
#[must_use]
pub fn content(record: &Record) -> u128 {
    let mut bytes = record.value.as_deref().unwrap_or_default().to_vec();
    for name in ["ce_id", "ce_type", "ce_time"] {
        bytes.push(0);
        bytes.extend_from_slice(record.headers.get(name).unwrap_or_default());
    }
    hash(&bytes)
}

/// The schemas that events were written with, by their ids.
#[derive(Debug, Default)]
pub struct Writers {
    by_id: HashMap<u32, Writer>,
}

#[derive(Debug)]
struct Writer {
    schema: Schema,
    record: String,
    /// Of each field, the decimals of its money.
    scales: Vec<Option<u32>>,
}

impl Writers {
    /// Learns what an id stands for.
    ///
    /// # Errors
    /// The text is no schema of a record.
    pub fn add(&mut self, id: u32, text: &str) -> Result<(), String> {
        let schema = Schema::parse_str(text).map_err(|error| error.to_string())?;
        let Schema::Record(record) = &schema else {
            return Err("the schema is not a record".to_owned());
        };
        let scales = record.fields.iter().map(|field| scale_of(&field.schema)).collect();
        let name = record.name.to_string();
        self.by_id.insert(id, Writer { schema: schema.clone(), record: name, scales });
        Ok(())
    }

    /// Makes what reads events; it lives as long as the schemas do.
    #[must_use]
    pub fn decoders(&self) -> Decoders<'_> {
        let by_id = self.by_id.iter();
        Decoders {
            by_id: by_id
                .filter_map(|(id, writer)| {
                    let reader = GenericDatumReader::builder(&writer.schema).build().ok()?;
                    Some((*id, (reader, writer)))
                })
                .collect(),
        }
    }
}

/// Reads events.
pub struct Decoders<'w> {
    by_id: HashMap<u32, (GenericDatumReader<'w>, &'w Writer)>,
}

impl Decoders<'_> {
    /// Reads a record that has a value.
    ///
    /// # Errors
    /// Says what of it cannot be read.
    pub fn read(&self, record: &Record) -> Result<Fact, String> {
        let key = record.key.as_deref().unwrap_or_default();
        let (stream, sequence) =
            stream_and_sequence(key).ok_or("the key is no id with a sequence")?;
        let text = |name: &str| record.headers.text(name);
        let needed = |name: &str| text(name).ok_or_else(|| format!("no header {name}"));
        let id = |name: &str| {
            let text = needed(name)?;
            Uuid::try_parse(text).map_err(|_| format!("the header {name} is {text:?}"))
        };
        let kind = needed("ce_type")?;
        let time = needed("ce_time")?;
        let at = DateTime::parse_from_rfc3339(time)
            .map_err(|_| format!("the header ce_time is {time:?}"))?;
        let version = needed("schema_version")?;
        Ok(Fact {
            stream: stream.to_owned(),
            sequence,
            offset: record.offset,
            event_id: id("ce_id")?,
            name: kind.rsplit('.').next().unwrap_or_default().to_owned(),
            schema_version: version
                .parse()
                .map_err(|_| format!("the header schema_version is {version:?}"))?,
            at: at.timestamp_micros(),
            command_id: text("command_id")
                .and_then(|text| Uuid::try_parse(text).ok())
                .unwrap_or_default(),
            correlation_id: text("correlation_id").unwrap_or_default().to_owned(),
            causation_id: text("causation_id").unwrap_or_default().to_owned(),
            fields: Vec::new(),
        })
    }

    /// Reads a record's value into a fact that was made of its key and headers.
    ///
    /// # Errors
    /// Its schema is not known, is that of another record, or does not fit the bytes.
    pub fn fill(&self, fact: &mut Fact, record: &Record) -> Result<(), String> {
        let value = record.value.as_deref().unwrap_or_default();
        let (header, mut datum) =
            value.split_first_chunk::<5>().ok_or("the value is shorter than its head")?;
        let [0, id @ ..] = *header else {
            return Err("the value is not in the registry's wire format".to_owned());
        };
        let id = u32::from_be_bytes(id);
        let (reader, writer) =
            self.by_id.get(&id).ok_or_else(|| format!("schema id {id} is not known"))?;
        let kind = record.headers.text("ce_type").unwrap_or_default();
        if writer.record != kind {
            return Err(format!("schema id {id} is of {}, the header says {kind}", writer.record));
        }
        let value = reader.read_value(&mut datum).map_err(|error| error.to_string())?;
        if !datum.is_empty() {
            return Err(format!("{} bytes are left over", datum.len()));
        }
        let Value::Record(fields) = value else {
            return Err("the value is no record".to_owned());
        };
        for ((name, value), scale) in fields.into_iter().zip(&writer.scales) {
            let field = plain(value, *scale)
                .ok_or_else(|| format!("the field {name} is of a type that is not compared"))?;
            fact.fields.push((name, field));
        }
        Ok(())
    }
}

/// The decimals of a field's money, if it is money.
fn scale_of(schema: &Schema) -> Option<u32> {
    if let Schema::Decimal(decimal) = schema {
        return u32::try_from(decimal.scale).ok();
    }
    let Schema::Union(union) = schema else { return None };
    union.variants().iter().find_map(scale_of)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what no event has is not compared")]
fn plain(value: Value, scale: Option<u32>) -> Option<Field> {
    Some(match value {
        Value::Null => Field::Null,
        Value::Boolean(flag) => Field::Flag(flag),
        Value::Int(number) => Field::Whole(i64::from(number)),
        Value::Long(number) => Field::Whole(number),
        Value::String(text) | Value::Enum(_, text) => Field::Text(text),
        Value::TimestampMicros(micros) => Field::Moment(micros),
        Value::TimestampMillis(millis) => Field::Moment(millis.checked_mul(1_000)?),
        Value::Decimal(decimal) => {
            let bytes = Vec::<u8>::try_from(&decimal).ok()?;
            Field::Money(rescaled(units(&bytes)?, scale?)?)
        }
        Value::Union(_, inner) => plain(*inner, scale)?,
        _ => return None,
    })
}

/// Big-endian two's complement of any length, as Avro and snapshots write money.
#[must_use]
pub fn units(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let extra = bytes.len().saturating_sub(16);
    let (front, rest) = bytes.split_at(extra);
    if front.iter().any(|byte| *byte != fill) {
        return None;
    }
    let mut whole = [fill; 16];
    whole[16 - rest.len()..].copy_from_slice(rest);
    Some(i128::from_be_bytes(whole))
}

fn rescaled(units: i128, scale: u32) -> Option<i128> {
    if scale <= SCALE {
        return units.checked_mul(10_i128.checked_pow(SCALE - scale)?);
    }
    let finer = 10_i128.checked_pow(scale - SCALE)?;
    (units % finer == 0).then(|| units / finer)
}

#[cfg(test)]
mod tests {
    use apache_avro::writer::datum::GenericDatumWriter;

    use super::*;
    use crate::kernel::message::Headers;

    const SCHEMA: &str = r#"{"type": "record", "name": "Paid", "namespace": "millrace.t.x",
        "fields": [
            {"name": "a", "type": {"type": "bytes", "logicalType": "decimal",
                "precision": 28, "scale": 8}},
            {"name": "b", "type": {"type": "bytes", "logicalType": "decimal",
                "precision": 10, "scale": 2}},
            {"name": "c", "type": ["null", "string"], "default": null},
            {"name": "d", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;

    fn record(event_type: &str) -> Record {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let decimal = |bytes: &[u8]| Value::Decimal(bytes.to_vec().into());
        let fields = vec![
            ("a".to_owned(), decimal(&[0xff])),
            ("b".to_owned(), decimal(&[0x00, 0xc8])),
            ("c".to_owned(), Value::Union(1, Box::new(Value::String("x".to_owned())))),
            ("d".to_owned(), Value::TimestampMicros(5)),
        ];
        let mut value = vec![0, 0, 0, 0, 7];
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        writer.write_value(&mut value, Value::Record(fields)).unwrap();
        let mut headers = Headers::default();
        headers.push("ce_id", "0198c0de-0000-8000-8000-000000000001");
        headers.push("ce_type", event_type);
        headers.push("ce_time", "1970-01-01T00:00:01Z");
        headers.push("schema_version", "1");
        let key = [&b"a-1"[..], &[0], &9_u64.to_be_bytes()].concat();
        Record { key: Some(key.into()), value: Some(value.into()), headers, ..Record::default() }
    }

    fn read(writers: &Writers, record: &Record) -> Result<Fact, String> {
        let decoders = writers.decoders();
        let mut fact = decoders.read(record)?;
        decoders.fill(&mut fact, record)?;
        Ok(fact)
    }

    #[test]
    fn an_event_is_read_by_the_schema_it_was_written_with() {
        let mut writers = Writers::default();
        writers.add(7, SCHEMA).unwrap();
        let fact = read(&writers, &record("millrace.t.x.Paid")).unwrap();
        assert_eq!((fact.stream.as_str(), fact.sequence, fact.name.as_str()), ("a-1", 9, "Paid"));
        // Whatever its scale was, money is in hundred-millionths.
        assert_eq!((fact.money("a"), fact.money("b")), (Some(-1), Some(200_000_000)));
        assert_eq!((fact.text("c"), fact.moment("d"), fact.at), (Some("x"), Some(5), 1_000_000));
        assert_eq!(fact.payload(), r#"{"a":"-0.00000001","b":"2","c":"x","d":5}"#);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let mut writers = Writers::default();
        let error = |writers: &Writers, record: &Record| read(writers, record).unwrap_err();
        assert!(error(&writers, &record("millrace.t.x.Paid")).contains("schema id 7"));
        writers.add(7, SCHEMA).unwrap();
        assert!(error(&writers, &record("millrace.t.x.Sent")).contains("millrace.t.x.Paid"));
        let mut long = record("millrace.t.x.Paid");
        long.value = long.value.map(|value| [&value[..], &[0]].concat().into());
        assert!(error(&writers, &long).contains("left over"));
        let mut short = record("millrace.t.x.Paid");
        short.value = Some(Box::from([0, 0]));
        assert!(error(&writers, &short).contains("shorter"));
        assert!(writers.add(8, r#""string""#).is_err());
        assert_eq!(stream_and_sequence(b"a-1"), None);
    }
}
