//! Commands that nobody can digest: each is answered once and kept once, and the partition goes on.

use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use crate::harness::commands::{command_with_id, new_id};
use crate::harness::kafka::{Message, Producer, read_all};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::load::{accounts, under_load};

const PACE: Duration = Duration::from_millis(50);
const OTHERS_MAX: Duration = Duration::from_secs(2);
/// Over what is taken, under what the topic takes.
const TOO_LARGE: usize = 3 * 1024 * 1024;
/// The largest command that is taken, so near that its event is over a producer's batch.
const LARGEST: usize = 1024 * 1024 - 200;
const ROUNDS: usize = 3;

/// Bytes, code of the refusal.
fn poison() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (vec![0xff; 400], "Undecodable"),
        (b"{\"type\":\"Deposit\",\"amount\":\"1\"".to_vec(), "Undecodable"),
        (vec![0, 0, 0], "Undecodable"),
        (vec![b'['; 100_000], "Undecodable"),
        (
            format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000)).into_bytes(),
            "Undecodable",
        ),
        (vec![b'{'; TOO_LARGE], "TooLarge"),
    ]
}

#[test]
fn poison_is_answered_once_kept_once_and_passed_over() {
    let namespace = Namespace::as_declared();
    let serve = Serve::ready(&namespace, "handler");
    let producer = Producer::new(&namespace.stack);
    let topic = namespace.topic("commands");
    let own = accounts(namespace.partitions)[1].clone();
    let (name, largest) = (&own[0], &own[1]);
    let mut bad: Vec<(Uuid, &str)> = Vec::new();
    let wide = new_id();
    let (from, measured) = under_load(&namespace, PACE, || {
        let from = Instant::now();
        for _ in 0..ROUNDS {
            for (value, code) in poison() {
                let id = new_id();
                let message = Message { partition: Some(1), ..Message::new(name, value) };
                producer.send(&topic, &[message.header("ce_id", id.to_string())]);
                bad.push((id, code));
            }
        }
        let reference = "x".repeat(LARGEST - 200);
        let deposit = json!({"type": "Deposit", "amount": "1", "reference": reference});
        producer.send(&topic, &[command_with_id(largest, wide, &deposit)]);
        std::thread::sleep(Duration::from_secs(2));
        from
    });
    let mut answers = Answers::new(&namespace);
    let ids: Vec<Uuid> = bad.iter().map(|(id, _)| *id).chain([wide]).collect();
    answers.await_count(&ids, 1);
    let all = answers.into_all();
    for (id, code) in &bad {
        let own = &all[&id.to_string()];
        assert_eq!(own.len(), 1, "one answer: {own:?}");
        assert_eq!(own[0].text("code"), Some(*code), "{:?}", own[0]);
    }
    assert_eq!(all[&wide.to_string()].len(), 1);
    let letters = read_all(&namespace, &namespace.topic("dead-letters"));
    for (id, code) in &bad {
        let own = letters.iter().filter(|one| one.header("ce_id") == Some(&id.to_string()));
        let codes: Vec<_> = own.map(|one| one.header("error_code")).collect();
        assert_eq!(codes, [Some(*code)], "one dead letter of {id}");
    }
    let slowest = measured.slowest(&[0, 1, 2, 3], from, Instant::now());
    println!("  {} poisonous commands: slowest good command {slowest:.2?}", bad.len());
    assert!(slowest < OTHERS_MAX, "{slowest:?}");
    let component = serve.component("handler.banking").unwrap();
    assert_eq!(component["state"], "ready", "{component}");
    serve.terminate();
    drop(measured);
}
