//! Records of plain fields, read without a visitor in between: datum -> fields.
//!
//! Most commands are such records. Whatever is not as it should be is left to the general reader,
//! which says what is wrong; so both read the same, and only one of them has to explain.

use std::borrow::Cow;

use serde_avro_fast::schema::{LogicalType, RegularType, SchemaKey, SchemaMut};

use super::fields::Value;

/// The layout of a record whose fields are all plain.
#[derive(Clone, Debug)]
pub struct Flat(Vec<Field>);

#[derive(Clone, Debug)]
struct Field {
    name: String,
    plain: Plain,
    /// Which branch is null, if the field may be.
    null: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
enum Plain {
    Text,
    Bytes,
    Long,
    Boolean,
}

impl Flat {
    /// The layout of a schema; `None` if a field is anything but plain, or null or plain.
    #[must_use]
    pub fn of(schema: &SchemaMut) -> Option<Self> {
        let RegularType::Record(record) = &schema.root().type_ else { return None };
        let mut fields: Vec<Field> = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            if fields.iter().any(|other| other.name == field.name) {
                return None;
            }
            let (plain, null) = branches(schema, field.type_)?;
            fields.push(Field { name: field.name.clone(), plain, null });
        }
        Some(Self(fields))
    }

    /// Reads a datum, all of it, and hands out its fields in their order; `None` if anything is
    /// not as it should be.
    pub fn read<'a>(
        &'a self,
        datum: &'a [u8],
        mut sink: impl FnMut(Cow<'a, str>, Value<'a>),
    ) -> Option<()> {
        let mut rest = datum;
        for field in &self.0 {
            let value = match field.null {
                Some(null) => match long(&mut rest)? {
                    branch if branch == null => Value::Null,
                    0 | 1 => field.plain.read(&mut rest)?,
                    _ => return None,
                },
                None => field.plain.read(&mut rest)?,
            };
            sink(Cow::Borrowed(&field.name), value);
        }
        rest.is_empty().then_some(())
    }
}

fn branches(schema: &SchemaMut, key: SchemaKey) -> Option<(Plain, Option<i64>)> {
    let RegularType::Union(union) = &schema.get(key)?.type_ else {
        return Some((plain(schema, key)?, None));
    };
    let [first, second] = *union.variants.as_slice() else { return None };
    let is_null = |key| matches!(schema.get(key).map(|n| &n.type_), Some(RegularType::Null));
    match (is_null(first), is_null(second)) {
        (true, false) => Some((plain(schema, second)?, Some(0))),
        (false, true) => Some((plain(schema, first)?, Some(1))),
        _ => None,
    }
}

fn plain(schema: &SchemaMut, key: SchemaKey) -> Option<Plain> {
    let node = schema.get(key)?;
    match (&node.type_, &node.logical_type) {
        (RegularType::String, None) => Some(Plain::Text),
        (RegularType::Bytes, None) => Some(Plain::Bytes),
        (RegularType::Long, None | Some(LogicalType::TimestampMicros)) => Some(Plain::Long),
        (RegularType::Boolean, None) => Some(Plain::Boolean),
        _ => None,
    }
}

impl Plain {
    fn read<'a>(self, rest: &mut &'a [u8]) -> Option<Value<'a>> {
        Some(match self {
            Self::Text => Value::Text(Cow::Borrowed(text(rest)?)),
            Self::Bytes => Value::Bytes(Cow::Borrowed(bytes(rest)?)),
            Self::Long => Value::Integer(long(rest)?),
            Self::Boolean => Value::Boolean(boolean(rest)?),
        })
    }
}

/// Takes a yes or no off the front.
pub(super) fn boolean(rest: &mut &[u8]) -> Option<bool> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    match first {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Takes text off the front.
pub(super) fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(bytes(rest)?).ok()
}

/// Takes bytes with their length in front off the front.
pub(super) fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(long(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

/// Takes a number off the front.
pub(super) fn long(rest: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    // Nine bytes hold 63 bits. What takes a tenth is left to the general reader.
    for (index, byte) in rest.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    None
}

/// Appends a number.
pub(super) fn put_long(value: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        value.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    value.push(rest.to_le_bytes()[0]);
}

/// Appends text or bytes with their length in front.
pub(super) fn put_bytes(value: &mut Vec<u8>, bytes: &[u8]) {
    put_long(value, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    value.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::super::fields::Fields;
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = r#"{"type":"record","name":"R","fields":[
        {"name":"a","type":["null","string"]},{"name":"b","type":["string","null"]},
        {"name":"c","type":{"type":"bytes","logicalType":"decimal","precision":28,"scale":8}},
        {"name":"d","type":"long"},{"name":"e","type":"boolean"},
        {"name":"f","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

    #[test]
    fn only_plain_fields_make_a_flat_record() {
        for kind in [r#"{"type":"array","items":"long"}"#, r#""int""#, r#"["string","long"]"#] {
            let text = format!(
                r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{kind}}}]}}"#
            );
            assert!(crate::codec::avro::parse(&text).unwrap().flat.is_none(), "{kind}");
        }
    }

    fn both(datum: &[u8]) -> Option<Fields<'_>> {
        use std::sync::LazyLock;
        static PARSED: LazyLock<crate::codec::avro::Parsed> =
            LazyLock::new(|| crate::codec::avro::parse(TEXT).unwrap());
        let general = Fields::from_avro(&PARSED.schema, datum, &["a", "b", "c", "d", "e", "f"]);
        let mut flat = Fields::default();
        flat.read_flat(PARSED.flat.as_ref().unwrap(), datum)?;
        assert_eq!(Ok(&flat), general.as_ref());
        Some(flat)
    }

    proptest! {
        #[test]
        fn reads_as_the_general_reader_does(
            a in any::<Option<String>>(), c in any::<Vec<u8>>(), d in any::<i64>(),
            e in any::<bool>(), f in any::<i64>(), cut in 0_usize..40,
        ) {
            let mut datum = Vec::new();
            put_long(&mut datum, i64::from(a.is_some()));
            if let Some(a) = &a {
                put_bytes(&mut datum, a.as_bytes());
            }
            put_long(&mut datum, i64::from(a.is_none()));
            if let Some(a) = &a {
                put_bytes(&mut datum, a.as_bytes());
            }
            put_bytes(&mut datum, &c);
            put_long(&mut datum, d);
            datum.push(u8::from(e));
            put_long(&mut datum, f);
            // A tenth byte is the general reader's.
            let short = |number: i64| (i64::MIN / 2..=i64::MAX / 2).contains(&number);
            let read = both(&datum);
            prop_assert_eq!(read.is_some(), short(d) && short(f));
            prop_assert!(Fields::from_avro(
                &crate::codec::avro::parse(TEXT).unwrap().schema, &datum, &[]).is_ok());
            let cut = datum.len().saturating_sub(cut + 1);
            prop_assert!(both(&datum[..cut]).is_none());
        }

        #[test]
        fn whatever_it_reads_the_general_reader_reads_too(datum in any::<Vec<u8>>()) {
            both(&datum);
        }
    }
}
