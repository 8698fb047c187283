//! Commands in, each one's result out: what a client has that waits for its own answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::harness::avro::Registry;
use crate::harness::commands::{command_with_id, create, new_id};
use crate::harness::kafka::{Producer, Reader};
use crate::harness::namespace::Namespace;

const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What a client learns of its command.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) token: String,
    pub(crate) version: u64,
    pub(crate) outcome: String,
}

type Waiting = Arc<Mutex<HashMap<Uuid, Sender<Told>>>>;

/// Sends commands for accounts and hears their results.
pub(crate) struct Desk {
    producer: Producer,
    topic: String,
    waiting: Waiting,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    pub(crate) fn open(namespace: &Namespace) -> Self {
        let reader = Reader::new(namespace, &namespace.topic("results"));
        let (waiting, stop) = (Waiting::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (waiting, stop) = (Arc::clone(&waiting), Arc::clone(&stop));
            let registry = namespace.stack.registry.clone();
            std::thread::spawn(move || {
                let registry = Registry::at(&registry);
                while !stop.load(Ordering::Relaxed) {
                    let Some(record) = reader.poll(Duration::from_millis(50)) else { continue };
                    let key = std::str::from_utf8(record.key.as_deref().unwrap()).unwrap();
                    let client = waiting.lock().unwrap().remove(&Uuid::parse_str(key).unwrap());
                    let Some(client) = client else { continue };
                    let (_, fields) = registry.decode(record.value.as_deref().unwrap());
                    let text = |name: &str| fields[name].as_str().unwrap().to_owned();
                    let told = Told {
                        token: text("consistency_token"),
                        version: fields["version"].as_u64().unwrap(),
                        outcome: text("outcome"),
                    };
                    let _ = client.send(told);
                }
            })
        };
        let producer = Producer::with(&namespace.stack, &[("enable.idempotence", "true")]);
        Self { producer, topic: namespace.topic("commands"), waiting, stop, thread: Some(thread) }
    }

    fn start(&self, account: &str, body: &Value) -> Receiver<Told> {
        let (id, (give, take)) = (new_id(), channel());
        self.waiting.lock().unwrap().insert(id, give);
        self.producer.send_off(&self.topic, &command_with_id(account, id, body));
        take
    }

    /// Sends a command and waits for its result.
    #[track_caller]
    pub(crate) fn send(&self, account: &str, body: &Value) -> Told {
        self.start(account, body).recv_timeout(ANSWERED_WITHIN).expect("a result")
    }

    /// Sends a command that must be accepted.
    #[track_caller]
    pub(crate) fn accepted(&self, account: &str, body: &Value) -> Told {
        let told = self.send(account, body);
        assert_eq!(told.outcome, "ACCEPTED", "{account}: {body}");
        told
    }

    /// Opens accounts, each of a customer of its own.
    pub(crate) fn open_accounts(&self, accounts: &[String]) {
        let asked: Vec<_> = accounts
            .iter()
            .map(|account| {
                self.start(account, &create(&format!("of-{account}"), "checking", "100"))
            })
            .collect();
        for take in asked {
            assert_eq!(take.recv_timeout(ANSWERED_WITHIN).expect("a result").outcome, "ACCEPTED");
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
