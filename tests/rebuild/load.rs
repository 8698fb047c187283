//! Commands that keep coming: deposits, withdrawals and transfers between a few accounts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use uuid::Uuid;

use crate::harness::commands::{command_with_id, create, deposit, new_id, transfer, withdraw};
use crate::harness::kafka::{Message, Producer};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;

/// How many accounts there are.
pub(crate) const ACCOUNTS: usize = 30;

/// One command for each account, and their ids.
fn round(number: usize) -> (Vec<Uuid>, Vec<Message>) {
    let commands = (0..ACCOUNTS).map(|account| {
        let to = format!("acc-{}", (account + 1) % ACCOUNTS);
        let body = match (number + account) % 4 {
            0 | 1 => deposit("12.34"),
            2 => withdraw("3.21"),
            _ => transfer(&to, "1.5"),
        };
        let id = new_id();
        (id, command_with_id(&format!("acc-{account}"), id, &body))
    });
    commands.unzip()
}

/// Opens the accounts, and moves money so many times in each; waits until all is decided.
pub(crate) fn open(namespace: &Namespace, rounds: usize) {
    let producer = Producer::new(&namespace.stack);
    let (mut ids, mut commands) = (Vec::new(), Vec::new());
    for account in 0..ACCOUNTS {
        ids.push(new_id());
        let body = create(&format!("eve-{account}"), "checking", "5000.00");
        commands.push(command_with_id(&format!("acc-{account}"), ids[account], &body));
    }
    producer.send(&namespace.topic("commands"), &commands);
    let mut answers = Answers::new(namespace);
    answers.await_count(&ids, 1);
    for number in 0..rounds {
        let (more, commands) = round(number);
        producer.send(&namespace.topic("commands"), &commands);
        ids.extend(more);
    }
    answers.await_count(&ids, 1);
}

/// Sends until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Uuid>>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Some 100 commands a second for ten seconds, then 30: a slow machine shall not make it long.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let producer = Producer::new(&namespace.stack);
        let topic = namespace.topic("commands");
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, sending) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (ids, commands) = round(number);
                producer.send(&topic, &commands);
                sending.lock().unwrap().extend(ids);
                let pause = if number < 40 { 250 } else { 1_000 };
                std::thread::sleep(Duration::from_millis(pause));
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// Ends it, and waits until all is decided; gives how many commands it sent.
    pub(crate) fn end(mut self, namespace: &Namespace) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("the load runs to its end");
        let sent = self.sent.lock().unwrap();
        Answers::new(namespace).await_count(&sent, 1);
        sent.len()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
