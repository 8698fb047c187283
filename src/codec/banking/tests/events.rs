//! Events: what is written reads back, in every version.

use proptest::prelude::*;

use super::*;
use crate::kernel::stream::Kind;

#[test]
fn every_event_reads_back_here_and_in_apaches_library() {
    let codec = codec();
    for (event, full_name) in events().into_iter().zip(EVENTS) {
        let mut value = b"before".to_vec();
        let written = codec.encode_event(&event, &mut value).unwrap();
        assert_eq!(written.full_name, full_name);
        assert!(full_name.ends_with(&format!(".{}", event.name())));
        let value = &value[6..];
        let fields = serde_json::to_value(&event).unwrap();
        assert_eq!(payload::account_event(event.name(), fields).as_ref(), Ok(&event));
        assert_eq!(codec.decode_event(value), Ok(event));
        let place = compiled::current(full_name).unwrap();
        let schema = apache_avro::Schema::parse_str(compiled::all()[place].source.text).unwrap();
        let reader =
            apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
        let record = reader.read_value(&mut &value[5..]).unwrap();
        assert!(record.validate(&schema));
    }
}

#[test]
fn every_event_is_written_as_its_schema_says() {
    let codec = codec();
    for event in events() {
        let mut value = Vec::new();
        let written = codec.encode_event(&event, &mut value).unwrap();
        let own = &compiled::all()[compiled::current(written.full_name).unwrap()];
        let mut by_schema = Vec::new();
        let (id, _) = avro::split(&value).unwrap();
        avro::encode(id, &own.schema, &event, &mut by_schema).unwrap();
        assert_eq!(value, by_schema, "{}", event.name());
    }
}

#[test]
fn events_that_cannot_be_read_say_why() {
    let codec = codec();
    let mut value = Vec::new();
    codec.encode_event(&events()[1], &mut value).unwrap();
    let corrupt =
        |value: &[u8]| matches!(codec.decode_event(value), Err(CodecError::Corrupt { .. }));
    assert!(corrupt(&value[..value.len() - 1]));
    assert!(corrupt(&[&value[..], &[0]].concat()));
    assert!(corrupt(b"{}"));
    assert!(corrupt(b""));
    assert!(corrupt(&to_avro(EXAMPLES[1])));
    value[1..5].copy_from_slice(&4_000_u32.to_be_bytes());
    assert_eq!(codec.decode_event(&value), Err(CodecError::UnknownSchema(4_000)));
    codec.schemas.mark_missing(4_000);
    assert_eq!(codec.decode_event(&value), Err(CodecError::UnknownSchema(4_000)));
    let blind = AccountCodec::new(Arc::default());
    let mut nothing = Vec::new();
    assert!(blind.encode_event(&events()[1], &mut nothing).is_err());
    assert!(nothing.is_empty());
}

#[test]
fn a_newer_version_of_an_event_is_read_as_far_as_it_is_known() {
    let codec = codec();
    let place = compiled::current(EVENTS[1]).unwrap();
    let text = compiled::all()[place].source.text.replace(
        r#""fields": ["#,
        r#""fields": [{"name": "channel", "type": "string", "default": ""},"#,
    );
    codec.schemas.add_writer(77, &text).unwrap();
    let mut value = Vec::new();
    codec.encode_event(&events()[1], &mut value).unwrap();
    value[1..5].copy_from_slice(&77_u32.to_be_bytes());
    value.splice(5..5, *b"\x06app");
    assert_eq!(codec.decode_event(&value), Ok(events()[1].clone()));
}

#[test]
fn every_stored_version_reads_as_todays_event() {
    let golden = include_str!("../golden.txt");
    let codec = codec();
    let mut read = std::collections::BTreeSet::new();
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap();
        let (record, version, hex, expected) = (word(), word(), word(), word());
        let version: u16 = version.parse().unwrap();
        let place = compiled::all()
            .iter()
            .position(|one| one.source.record == record && one.source.version == version);
        let mut value = vec![0, 0, 0, 0, u8::try_from(place.unwrap() + 1).unwrap()];
        value.extend(
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()),
        );
        let event = codec.decode_event(&value).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), expected, "{record} {version}");
        read.insert((record, version));
    }
    let stored = SOURCES.iter().filter(|source| source.kind == Kind::Events);
    assert_eq!(read, stored.map(|source| (source.record, source.version)).collect());
}

proptest! {
    #[test]
    fn whatever_was_deposited_reads_back(
        units in -(10_i128.pow(28) - 1)..10_i128.pow(28),
        user_id in ".*",
        reference in prop::option::of(".*"),
    ) {
        let amount = Amount::from_units(units).unwrap();
        let event = Event::MoneyDeposited(MoneyDeposited {
            user_id,
            currency: Currency::USD,
            amount,
            balance_after: amount.negated(),
            reference,
        });
        let codec = codec();
        let mut value = Vec::new();
        codec.encode_event(&event, &mut value).unwrap();
        prop_assert_eq!(codec.decode_event(&value), Ok(event));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        value in prop::collection::vec(any::<u8>(), 0..200),
        id in 0_u8..30,
    ) {
        let codec = codec();
        let _ = codec.decode_command(None, Some(&value));
        let avro = [&[0, 0, 0, 0, id], &value[..]].concat();
        let _ = codec.decode_command(Some("a"), Some(&avro));
        let _ = codec.decode_event(&avro);
        let _ = codec.decode_result(&avro);
    }
}
