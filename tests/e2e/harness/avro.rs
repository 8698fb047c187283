//! Avro as a foreign client has it: schemas from the registry by its HTTP API, apache-avro for the
//! bytes. Messages are JSON values here; decimals are strings without trailing zeros.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::http;
use super::namespace::Namespace;

/// The registry, with what it has said so far.
pub(crate) struct Registry {
    url: String,
    schemas: RefCell<HashMap<u32, Rc<Schema>>>,
}

impl Registry {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        Self::at(&namespace.stack.registry)
    }

    /// The one that answers there.
    pub(crate) fn at(url: &str) -> Self {
        Self { url: url.to_owned(), schemas: RefCell::default() }
    }

    /// The id and schema that a subject has now.
    pub(crate) fn latest(&self, subject: &str) -> (u32, Rc<Schema>) {
        let url = format!("{}/subjects/{subject}/versions/latest", self.url);
        let answer: Value = serde_json::from_str(&http::get(&url).unwrap()).unwrap();
        let id = u32::try_from(answer["id"].as_u64().unwrap()).unwrap();
        (id, self.schema(id))
    }

    /// How many versions a subject has had.
    pub(crate) fn version(&self, subject: &str) -> u64 {
        let url = format!("{}/subjects/{subject}/versions/latest", self.url);
        let answer: Value = serde_json::from_str(&http::get(&url).unwrap()).unwrap();
        answer["version"].as_u64().unwrap()
    }

    fn schema(&self, id: u32) -> Rc<Schema> {
        if let Some(schema) = self.schemas.borrow().get(&id) {
            return Rc::clone(schema);
        }
        let url = format!("{}/schemas/ids/{id}", self.url);
        let answer: Value = serde_json::from_str(&http::get(&url).unwrap()).unwrap();
        let schema = Rc::new(Schema::parse_str(answer["schema"].as_str().unwrap()).unwrap());
        self.schemas.borrow_mut().insert(id, Rc::clone(&schema));
        schema
    }

    /// Reads a value in the wire format: the record's full name and its fields.
    #[track_caller]
    pub(crate) fn decode(&self, value: &[u8]) -> (String, Value) {
        assert_eq!(value.first(), Some(&0), "the registry's wire format");
        let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
        let schema = self.schema(id);
        let mut rest = &value[5..];
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let datum = reader.read_value(&mut rest).unwrap();
        assert!(rest.is_empty(), "{} bytes are left over", rest.len());
        let Schema::Record(record) = &*schema else { panic!("no record: {schema:?}") };
        (record.name.fullname(None), to_json(datum))
    }
}

/// Writes a record in the wire format. Fields that are not named take their default.
pub(crate) fn encode(id: u32, schema: &Schema, fields: &[(&str, Avro)]) -> Vec<u8> {
    let Schema::Record(record) = schema else { panic!("no record: {schema:?}") };
    let fields = record.fields.iter().map(|field| {
        let given = fields.iter().find(|(name, _)| *name == field.name);
        let value = match given {
            Some((_, value)) => value.clone(),
            None => match field.default.as_ref().expect("a field with a default") {
                Value::String(text) => Avro::String(text.clone()),
                other => {
                    assert!(other.is_null(), "{other}");
                    Avro::Null
                }
            },
        };
        let value = match &field.schema {
            Schema::Union(_) => {
                let branch = u32::from(value != Avro::Null);
                Avro::Union(branch, Box::new(value))
            }
            _ => value,
        };
        (field.name.clone(), value)
    });
    let mut bytes = vec![0];
    bytes.extend_from_slice(&id.to_be_bytes());
    let datum = GenericDatumWriter::builder(schema)
        .build()
        .unwrap()
        .write_value_to_vec(Avro::Record(fields.collect()))
        .unwrap();
    bytes.extend(datum);
    bytes
}

/// An amount as decimal(28, 8).
pub(crate) fn money(text: &str) -> Avro {
    let mut amount: Decimal = text.parse().unwrap();
    amount.rescale(8);
    Avro::Decimal(amount.mantissa().to_be_bytes().into())
}

fn to_json(value: Avro) -> Value {
    match value {
        Avro::Null => Value::Null,
        Avro::Boolean(yes) => json!(yes),
        Avro::Int(number) => json!(number),
        Avro::Long(number) | Avro::TimestampMicros(number) => json!(number),
        Avro::String(text) | Avro::Enum(_, text) => json!(text),
        Avro::Uuid(id) => json!(id.to_string()),
        Avro::Union(_, inner) => to_json(*inner),
        Avro::Fixed(_, bytes) | Avro::Bytes(bytes) => {
            json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        Avro::Decimal(decimal) => {
            let bytes = Vec::<u8>::try_from(&decimal).unwrap();
            let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
            let start = if negative { -1 } else { 0 };
            let units = bytes.iter().fold(start, |sum: i128, byte| (sum << 8) | i128::from(*byte));
            json!(Decimal::from_i128_with_scale(units, 8).normalize().to_string())
        }
        Avro::Map(map) => {
            json!(map.into_iter().map(|(key, it)| (key, to_json(it))).collect::<Map<_, _>>())
        }
        Avro::Record(fields) => {
            json!(fields.into_iter().map(|(key, it)| (key, to_json(it))).collect::<Map<_, _>>())
        }
        other => panic!("no field of ours: {other:?}"),
    }
}
