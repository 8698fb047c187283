//! Watches the results come: when each became visible, whatever the brokers go through meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::namespace::Namespace;

/// A committed result that was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) partition: i32,
    pub(crate) id: Uuid,
}

/// A consumer that belongs to no group has stood still for minutes after a broker's pause: one that
/// hears nothing for so long is replaced.
const SILENCE_MAX: Duration = Duration::from_secs(3);

fn config(namespace: &Namespace) -> ClientConfig {
    let mut config = namespace.stack.kafka();
    config
        .set("group.id", format!("{}.watch", namespace.name))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.queue.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "1000");
    config
}

fn open(config: &ClientConfig, topic: &str, next: &[i64]) -> BaseConsumer {
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(next) {
        list.add_partition_offset(topic, partition, Offset::Offset(*offset)).unwrap();
    }
    consumer.assign(&list).unwrap();
    consumer
}

/// Reads the results topic on a thread of its own, from the start.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let topic = namespace.topic("results");
        let config = config(namespace);
        let mut next: Vec<i64> =
            vec![0; usize::try_from(namespace.partitions).expect("some partitions")];
        let mut consumer = open(&config, &topic, &next);
        let stop = Arc::new(AtomicBool::new(false));
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let thread = {
            let (stop, arrivals) = (Arc::clone(&stop), Arc::clone(&arrivals));
            std::thread::spawn(move || {
                let mut heard = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let polled = consumer.poll(Duration::from_millis(50));
                    // An error is a broker that is away: it comes back.
                    let Some(Ok(message)) = polled else {
                        if heard.elapsed() > SILENCE_MAX {
                            consumer = open(&config, &topic, &next);
                            heard = Instant::now();
                        }
                        continue;
                    };
                    heard = Instant::now();
                    let partition = message.partition();
                    next[usize::try_from(partition).unwrap()] = message.offset() + 1;
                    let key = std::str::from_utf8(message.key().unwrap()).unwrap();
                    let id = Uuid::parse_str(key).unwrap();
                    arrivals.lock().unwrap().push(Arrival { at: heard, partition, id });
                }
            })
        };
        Self { stop, arrivals, thread: Some(thread) }
    }

    /// Everything seen so far.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }

    /// How many results have come so far.
    pub(crate) fn count(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }

    /// How many answers each command id has.
    pub(crate) fn answers(&self) -> HashMap<Uuid, usize> {
        let mut counts = HashMap::new();
        for arrival in self.arrivals.lock().unwrap().iter() {
            *counts.entry(arrival.id).or_default() += 1;
        }
        counts
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The longest time without a result between two moments, and when it began.
pub(crate) fn longest_gap(
    arrivals: &[Arrival],
    from: Instant,
    until: Instant,
    which: impl Fn(&Arrival) -> bool,
) -> Duration {
    let mut last = from;
    let mut longest = Duration::ZERO;
    let inside = |arrival: &&Arrival| arrival.at > from && arrival.at < until && which(arrival);
    for arrival in arrivals.iter().filter(inside) {
        longest = longest.max(arrival.at - last);
        last = arrival.at;
    }
    longest.max(until - last)
}
