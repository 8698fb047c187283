//! The fields of a command before anybody knows what they mean: JSON or Avro -> names and values.
//!
//! What can be borrowed from the input is. A name that stands twice in one object is an error.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::flat::Flat;

/// Up to so many fields are compared pairwise; beyond it a set is cheaper.
const PAIRWISE_MAX: usize = 16;
/// The most values in one command, however deep.
const VALUES_MAX: u32 = 100_000;

/// A record's or an object's fields, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields<'a>(SmallVec<[(Cow<'a, str>, Value<'a>); 8]>);

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing: the same as a field that is not there.
    Null,
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number. Nobody may want its value: money is never a number.
    Number,
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes (Avro only).
    Bytes(Cow<'a, [u8]>),
    /// A list.
    List(Vec<Value<'a>>),
    /// Another set of fields.
    Record(Box<Fields<'a>>),
}

impl<'a> Fields<'a> {
    /// Reads a JSON object, all of it. `known` are the names that need not be copied, sorted.
    ///
    /// # Errors
    /// Says where it is no JSON object, or which name stands twice.
    pub fn from_json(text: &'a [u8], known: &'static [&'static str]) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let left = Cell::new(VALUES_MAX);
        let fields = FieldsSeed(Reading { known, left: &left }).deserialize(&mut reader);
        let fields = fields.map_err(|error| error.to_string())?;
        reader.end().map_err(|error| error.to_string())?;
        Ok(fields)
    }

    /// Reads an Avro record that was written with `schema`, all of it.
    ///
    /// # Errors
    /// Says what does not fit the schema, or that bytes are left over.
    pub fn from_avro(
        schema: &serde_avro_fast::Schema,
        datum: &'a [u8],
        known: &'static [&'static str],
    ) -> Result<Self, String> {
        let left = Cell::new(VALUES_MAX);
        super::avro::decode_seed(schema, datum, FieldsSeed(Reading { known, left: &left }))
    }

    /// Reads a record of plain fields into the room of these; `None` if the general reader must
    /// look at it.
    pub fn read_flat(&mut self, flat: &'a Flat, datum: &'a [u8]) -> Option<()> {
        self.0.clear();
        flat.read(datum, |name, value| self.0.push((name, value)))
    }

    /// The field of that name, if it is there and holds something.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
            .filter(|value| **value != Value::Null)
    }

    fn twice(&self) -> Option<&str> {
        let names = || self.0.iter().map(|(name, _)| name.as_ref());
        if self.0.len() <= PAIRWISE_MAX {
            names()
                .enumerate()
                .find(|(index, name)| names().take(*index).any(|earlier| earlier == *name))
                .map(|(_, name)| name)
        } else {
            let mut seen = HashSet::with_capacity(self.0.len());
            names().find(|name| !seen.insert(*name))
        }
    }
}

/// What every part of one reading shares.
#[derive(Clone, Copy)]
struct Reading<'b> {
    /// The names that need not be copied, sorted.
    known: &'static [&'static str],
    /// How many values may still come. A list's elements may take no bytes at all in Avro, so the
    /// bytes of a command do not bound what it holds.
    left: &'b Cell<u32>,
}

impl Reading<'_> {
    fn count<E: de::Error>(self) -> Result<(), E> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(E::custom(format_args!("it holds more than {VALUES_MAX} values"))),
        }
    }
}

struct FieldsSeed<'b>(Reading<'b>);
struct NameSeed(&'static [&'static str]);
struct ValueSeed<'b>(Reading<'b>);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key_seed(NameSeed(self.0.known))? {
            self.0.count()?;
            let value = map.next_value_seed(ValueSeed(self.0))?;
            fields.0.push((name, value));
        }
        match fields.twice() {
            None => Ok(fields),
            Some(name) => Err(de::Error::custom(format_args!("the field {name:?} stands twice"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(match self.0.binary_search(&name) {
            Ok(place) => Cow::Borrowed(self.0[place]),
            Err(_) => Cow::Owned(name.to_owned()),
        })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Value::Number, Value::Integer))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Number)
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Value::Bytes(Cow::Borrowed(bytes)))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Value::Bytes(Cow::Owned(bytes.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(ValueSeed(self.0))? {
            self.0.count()?;
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        FieldsSeed(self.0).visit_map(map).map(|fields| Value::Record(Box::new(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_no_bytes_is_bounded_all_the_same() {
        let text = r#"{"type":"record","name":"R","fields":[{"name":"x","type":
            {"type":"array","items":{"type":"array","items":"null"}}}]}"#;
        let schema = crate::codec::avro::parse(text).unwrap().schema;
        // A thousand lists of a thousand nulls each, in about four bytes a list.
        let mut datum = vec![0xd0, 0x0f];
        for _ in 0..1_000 {
            datum.extend([0xd0, 0x0f, 0]);
        }
        datum.push(0);
        let error = Fields::from_avro(&schema, &datum, &[]).unwrap_err();
        assert!(error.contains("values"), "{error}");
    }

    #[test]
    fn reads_an_object_and_borrows_what_it_can() {
        let fields = Fields::from_json(br#"{"a":"x","b":null,"c":[1,{"d":1.5}],"e":"\n"}"#, &[]);
        let fields = fields.unwrap();
        assert_eq!(fields.get("a"), Some(&Value::Text(Cow::Borrowed("x"))));
        assert_eq!(fields.get("b"), None);
        assert_eq!(fields.get("z"), None);
        assert!(matches!(fields.get("c"), Some(Value::List(list)) if list.len() == 2));
        assert_eq!(fields.get("e"), Some(&Value::Text(Cow::Borrowed("\n"))));
    }

    #[test]
    fn refuses_a_name_that_stands_twice_at_any_depth_and_in_any_number() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"\u0061":2}]}"#] {
            let error = Fields::from_json(text.as_bytes(), &[]).unwrap_err();
            assert!(error.contains("\"a\" stands twice"), "{error}");
        }
        let many: Vec<String> = (0..50_000).map(|index| format!("\"f{index}\":0")).collect();
        let once = format!("{{{}}}", many.join(","));
        assert!(Fields::from_json(once.as_bytes(), &[]).is_ok());
        let twice = format!("{{{},\"f7\":0}}", many.join(","));
        assert!(Fields::from_json(twice.as_bytes(), &[]).is_err());
    }

    #[test]
    fn refuses_what_is_no_object_or_goes_on_after_it() {
        for text in ["{", "{}x", "{} {}", "[]", "{\"a\":\u{7f}}", "{\"a\":NaN}"] {
            assert!(Fields::from_json(text.as_bytes(), &[]).is_err(), "{text}");
        }
        assert!(Fields::from_json(b"{\"a\":\"\xff\"}", &[]).is_err());
        assert!(Fields::from_json(b"{} \n", &[]).is_ok());
        let deep = "{\"a\":".repeat(10_000);
        assert!(Fields::from_json(deep.as_bytes(), &[]).is_err());
    }
}
