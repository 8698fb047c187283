//! A stop and a start in between change nothing: state, versions and remembered answers go on.

use std::time::Duration;

use uuid::Uuid;

use crate::harness::commands::{command_with_id, create, deposit, new_id, withdraw};
use crate::harness::judge;
use crate::harness::kafka::{Message, Producer};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;

const ACCOUNTS: usize = 40;

#[test]
fn a_stop_under_load_loses_nothing_and_repeats_nothing() {
    let namespace = Namespace::new();
    let topic = namespace.topic("commands");
    let producer = Producer::new(&namespace.stack);
    let mut ids = Vec::new();
    let mut sent: Vec<Message> = Vec::new();
    for round in 0..100 {
        for account in 0..ACCOUNTS {
            let body = match round {
                0 => create(&format!("gil-{account}"), "CHECKING", "100.00"),
                _ if round % 3 == 0 => withdraw("0.50"),
                _ => deposit("0.25"),
            };
            ids.push(new_id());
            sent.push(command_with_id(&format!("acc-{account}"), ids[ids.len() - 1], &body));
        }
    }
    let serve = Serve::ready(&namespace, "");
    let mut answers = Answers::new(&namespace);
    producer.send(&topic, &sent[..ACCOUNTS]);
    answers.await_count(&ids[..ACCOUNTS], 1);
    let (early, late) = sent[ACCOUNTS..].split_at(sent.len() / 2);
    producer.send(&topic, early);
    // In the middle of the work: it is asked to stop as soon as the first answers are there.
    answers.await_count(&ids[ACCOUNTS..=ACCOUNTS], 1);
    std::thread::scope(|scope| {
        scope.spawn(|| producer.send(&topic, late));
        serve.terminate();
    });
    let serve = Serve::ready(&namespace, "");
    answers.await_count(&ids, 1);
    serve.terminate();

    // Now everything is at rest. The third life must know it all from the log.
    let before = judge::log_is_sound(&namespace);
    assert_eq!(before.len(), sent.len());
    let serve = Serve::ready(&namespace, "");
    producer.send(&topic, &[sent[0].clone(), sent[sent.len() - 1].clone()]);
    for id in [ids[0], ids[ids.len() - 1]] {
        let repeat = answers.nth(id, 2);
        assert!(repeat.is_duplicate() && repeat.is_accepted(), "remembered: {repeat:?}");
    }
    let other = command_with_id("acc-0", ids[0], &deposit("9"));
    producer.send(&topic, &[other]);
    assert_eq!(answers.nth(ids[0], 3).text("code"), Some("IdempotencyConflict"));
    let more: Vec<Uuid> = (0..ACCOUNTS).map(|_| new_id()).collect();
    for (account, id) in more.iter().enumerate() {
        producer.send(&topic, &[command_with_id(&format!("acc-{account}"), *id, &deposit("1"))]);
    }
    answers.await_count(&more, 1);
    for id in &more {
        assert_eq!(answers.all(*id)[0].fields["version"], 101, "the version goes on");
    }
    let all = judge::log_is_sound(&namespace);
    assert_eq!(all.len(), before.len() + ACCOUNTS);
    judge::results_match_log(&answers.into_all(), &all);
    judge::read_models_equal_log(&namespace, &all);
    serve.terminate();
}

#[test]
fn a_stop_is_quick_at_any_moment_of_a_start() {
    let namespace = Namespace::new();
    let producer = Producer::new(&namespace.stack);
    let mut answers = Answers::new(&namespace);
    // Told to stop while it connects, joins or restores.
    for wait in [0, 50, 100, 200, 400] {
        let serve = Serve::start(&namespace, "");
        serve.wait_listening();
        std::thread::sleep(Duration::from_millis(wait));
        serve.terminate();
    }
    // Told to stop while its groups wait for a dead member's session to run out.
    for wait in [300, 1_200] {
        Serve::ready(&namespace, "").kill();
        let serve = Serve::start(&namespace, "");
        serve.wait_listening();
        std::thread::sleep(Duration::from_millis(wait));
        serve.terminate();
    }
    let serve = Serve::ready(&namespace, "");
    let id = new_id();
    let opening = command_with_id("acc-1", id, &create("kay", "CHECKING", "100"));
    producer.send(&namespace.topic("commands"), &[opening]);
    assert!(answers.first(id).is_accepted());
    judge::read_models_equal_log(&namespace, &judge::log_is_sound(&namespace));
    serve.terminate();
}
