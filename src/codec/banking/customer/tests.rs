//! What is written reads back, and every stored version does.

use super::*;
use crate::codec::banking::{golden, payload};

#[test]
fn every_event_reads_back_and_writes_the_same_bytes() {
    let codec = CustomerCodec::new(Arc::new(Schemas::numbered_from(1)));
    golden::check(include_str!("golden.txt"), SOURCES, |value| {
        let event = codec.decode_event(value).unwrap();
        let mut again = Vec::new();
        let written = codec.encode_event(&event, &mut again).unwrap();
        assert!(written.full_name.ends_with(event.name()));
        let fields = serde_json::to_value(&event).unwrap();
        assert_eq!(payload::customer_event(event.name(), fields).as_ref(), Ok(&event));
        (serde_json::to_string(&event).unwrap(), again)
    });
    assert!(codec.decode_event(b"{}").is_err());
}
