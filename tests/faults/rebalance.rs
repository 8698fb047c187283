//! Partitions change hands again and again under full load: whoever gives one back commits nothing
//! of it afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace::engine::position::Position;

use crate::harness::kafka::read_all;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::load::{exactly_once, partitions_of, under_load, wait_shared};

/// Often enough that every transaction has commands waiting behind it.
const PACE: Duration = Duration::from_millis(4);
const ROUNDS: usize = 6;

#[test]
fn a_partition_that_is_taken_away_in_mid_batch_is_decided_once() {
    let namespace = Namespace::as_declared();
    let stays = Serve::ready(&namespace, "handler");
    let (moves, measured) = under_load(&namespace, PACE, || {
        let mut moves = 0;
        for _ in 0..ROUNDS {
            let comes = Serve::start(&namespace, "handler");
            wait_shared(&namespace, &[&stays, &comes]);
            moves += partitions_of(&comes).len();
            std::thread::sleep(Duration::from_millis(300));
            comes.terminate();
            wait_shared(&namespace, &[&stays]);
        }
        moves
    });
    assert!(moves >= ROUNDS, "each time a partition went to the other and back");
    exactly_once(&namespace, &measured);
    let positions = positions_go_forward(&namespace);
    println!(
        "  {moves} partitions taken away under load and given back, {} commands, {positions} \
         transactions, each behind the one before it",
        measured.sent.len()
    );
    stays.terminate();
}

/// Every transaction's position record: had an owner of the past committed anything, a position
/// would go back or come twice.
fn positions_go_forward(namespace: &Namespace) -> usize {
    let mut last: BTreeMap<i32, Position> = BTreeMap::new();
    let mut count = 0;
    for record in read_all(namespace, &namespace.topic("snapshots")) {
        if record.key.as_deref() != Some(millrace::kernel::stream::POSITION_KEY) {
            continue;
        }
        let position = Position::from_bytes(record.value.as_deref().unwrap()).unwrap();
        let partition = record.place.partition;
        if let Some(before) = last.get(&partition) {
            assert!(before.next_offset <= position.next_offset, "{before:?}, then {position:?}");
            assert_ne!(before.nonce, position.nonce);
        }
        last.insert(partition, position);
        count += 1;
    }
    count
}
