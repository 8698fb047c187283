//! What the handlers need goes away and comes back: nothing is lost, the process says what it waits
//! for, and goes on by itself.

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer as _};

use crate::harness::commands::{command_with_id, deposit, new_id};
use crate::harness::kafka::{Message, Producer};
use crate::harness::log::Answers;
use crate::harness::namespace::{Namespace, texts};
use crate::harness::serve::Serve;
use crate::harness::{await_some, services};
use crate::load::{Measured, accounts, exactly_once, under_load};

const PACE: Duration = Duration::from_millis(50);
const CALM: Duration = Duration::from_secs(2);
/// Three times the transaction timeout.
const BROKER_AWAY: Duration = Duration::from_secs(45);
const REGISTRY_AWAY: Duration = Duration::from_secs(5);
/// How long the work may take to go on once everything is back; the broker itself needs some.
const RESUMED_WITHIN: Duration = Duration::from_secs(30);
/// Some 0.25 s on an idle machine, 11 s were seen beside the start of another stack.
const FENCED_MAX: Duration = Duration::from_secs(20);
const FENCED_WATCHED: Duration = Duration::from_secs(8);

/// Waits until the handlers' state is that one, and gives what they say.
fn await_state(serve: &Serve, state: &str) -> String {
    await_some(&format!("the state {state}"), Duration::from_secs(40), || {
        let found = serve.component("handler.banking").unwrap_or_default();
        match found["state"] == state {
            true => Ok(found["detail"].as_str().unwrap_or_default().to_owned()),
            false => Err(found.to_string()),
        }
    })
}

fn all(namespace: &Namespace) -> Vec<i32> {
    (0..namespace.partitions).collect()
}

#[test]
fn a_broker_that_was_held_still_is_waited_for() {
    let namespace = Namespace::as_declared();
    let serve = Serve::ready(&namespace, "handler");
    let (back, measured) = under_load(&namespace, PACE, || {
        std::thread::sleep(CALM);
        let paused = services::pause("kafka");
        let since = Instant::now();
        let detail = await_state(&serve, "waiting");
        println!("  broker held still: /readyz after {:.1?}: waiting: {detail}", since.elapsed());
        says_what_is_missing(&namespace);
        std::thread::sleep(BROKER_AWAY.saturating_sub(since.elapsed()));
        drop(paused);
        let back = Instant::now();
        await_state(&serve, "ready");
        std::thread::sleep(CALM);
        back
    });
    resumed("held still", &namespace, &measured, back);
    serve.terminate();
}

#[test]
fn a_broker_that_was_killed_is_waited_for() {
    let namespace = Namespace::as_declared();
    let serve = Serve::ready(&namespace, "handler");
    let (back, measured) = under_load(&namespace, PACE, || {
        std::thread::sleep(CALM);
        let killed = services::kill_for_a_while("kafka");
        let since = Instant::now();
        says_what_is_missing(&namespace);
        std::thread::sleep(CALM.saturating_sub(since.elapsed()));
        drop(killed);
        let back = Instant::now();
        await_state(&serve, "ready");
        std::thread::sleep(CALM);
        back
    });
    assert!(serve.log().contains("Kafka client"), "the log says so:\n{}", serve.log());
    resumed("killed", &namespace, &measured, back);
    serve.terminate();
}

/// `millrace status` names the service that does not answer, and exits with 1.
fn says_what_is_missing(namespace: &Namespace) {
    let output = namespace.run(&["status"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    let line = out.lines().find(|line| line.contains("Kafka")).unwrap_or_else(|| panic!("{out}"));
    assert!(line.contains("no answer") || line.contains("no Kafka broker answers"), "{out}");
    println!("  millrace status: {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
}

fn resumed(what: &str, namespace: &Namespace, measured: &Measured, back: Instant) {
    let again = measured.answered_again(&all(namespace), back);
    let slowest = measured.slowest(&all(namespace), measured.sent[0].at, Instant::now());
    println!(
        "  broker {what}: every partition answers again {again:.1?} after it is back, without a \
         restart; slowest command {slowest:.1?}; {} commands, none lost",
        measured.sent.len()
    );
    assert!(again < RESUMED_WITHIN, "{again:?}");
    exactly_once(namespace, measured);
}

#[test]
fn a_producer_that_is_fenced_off_is_replaced() {
    let namespace = Namespace::as_declared();
    let serve = Serve::ready(&namespace, "handler");
    let group = namespace.group("handler.banking");
    let (fenced, measured) = under_load(&namespace, PACE, || {
        std::thread::sleep(CALM);
        // A stranger under our own name, as an owner of the past or the future would be.
        let id = format!("{group}.{}.0", namespace.topic("commands"));
        let stranger: BaseProducer =
            namespace.stack.kafka().set("transactional.id", &id).create().unwrap();
        let at = Instant::now();
        stranger.init_transactions(Duration::from_secs(20)).unwrap();
        std::thread::sleep(FENCED_WATCHED);
        at
    });
    let again = measured.answered_again(&[0], fenced);
    let own = measured.slowest(&[0], fenced, Instant::now());
    let other = measured.slowest(&[1, 2, 3], fenced, Instant::now());
    println!(
        "  producer fenced off: answered again after {again:.2?}, slowest command {own:.2?}, of \
         the other partitions {other:.2?}"
    );
    assert!(own < FENCED_MAX, "{own:?}");
    assert!(serve.log().contains("outcome is open"), "{}", serve.log());
    exactly_once(&namespace, &measured);
    serve.terminate();
}

#[test]
fn without_the_registry_only_an_unknown_schema_waits() {
    let namespace = Namespace::as_declared();
    let serve = Serve::ready(&namespace, "handler");
    let producer = Producer::new(&namespace.stack);
    let topic = namespace.topic("commands");
    let unknown = new_id();
    let ((from, until), measured) = under_load(&namespace, PACE, || {
        std::thread::sleep(CALM);
        let killed = services::kill_for_a_while("registry");
        // On a partition of its own: what stands behind it has to wait with it.
        let other = accounts(namespace.partitions)[3][0].clone();
        let value = [&[0_u8], &999_999_u32.to_be_bytes()[..], b"unknown"].concat();
        let message = Message { partition: Some(3), ..Message::new(&other, value) };
        producer.send(&topic, &[message.header("ce_id", unknown.to_string())]);
        let from = Instant::now();
        std::thread::sleep(REGISTRY_AWAY);
        let detail = await_state(&serve, "waiting");
        println!("  registry gone: /readyz: waiting: {detail}");
        assert!(detail.contains("registry") && detail.contains("999999"), "{detail}");
        let until = Instant::now();
        drop(killed);
        std::thread::sleep(CALM);
        (from, until)
    });
    let mut answers = Answers::new(&namespace);
    assert_eq!(answers.first(unknown).text("code"), Some("UnknownSchema"));
    let own = measured.slowest(&[3], from, until);
    let other = measured.slowest(&[0, 1, 2], from, until);
    println!(
        "  registry gone for {:.1?}: slowest command behind the unknown schema {own:.1?}, on other \
         partitions {other:.2?}",
        until - from
    );
    assert!(other < Duration::from_secs(2), "{other:?}");
    assert!(own > REGISTRY_AWAY / 2, "it waits for the answer: {own:?}");
    serve.terminate();
}

#[test]
fn a_start_without_the_registry_works() {
    let namespace = Namespace::as_declared();
    let killed = services::kill_for_a_while("registry");
    let serve = Serve::ready(&namespace, "handler");
    let id = new_id();
    let name = accounts(namespace.partitions)[0][0].clone();
    Producer::new(&namespace.stack)
        .send(&namespace.topic("commands"), &[command_with_id(&name, id, &deposit("1"))]);
    drop(killed);
    let code = Answers::new(&namespace).first(id);
    assert_eq!(code.text("code"), Some("AccountNotFound"), "it was decided");
    serve.terminate();
}
