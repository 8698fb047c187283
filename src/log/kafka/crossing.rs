//! Sends records to partitions that somebody else owns: outside any transaction, in order,
//! acknowledged before the caller goes on.
//!
//! The producer never gives a message up by itself. Giving up here means: drop it, make a new one,
//! and send everything from the first unacknowledged record again. The target drops repeats by
//! their origin. That is done when nothing was acknowledged for long, too: a client to which a lone
//! broker, back from a pause, has named no broker at all looks for none for minutes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};

use super::convert::to_owned_headers;
use super::{Error, client};
use crate::config;
use crate::kernel::message::Outgoing;

const POLL: Duration = Duration::from_micros(200);
/// How long nothing may be acknowledged before a new producer tries.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A producer for what crosses partitions.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
pub struct CrossingProducer {
    producer: ThreadedProducer<Acknowledgements>,
    acknowledgements: Acknowledgements,
}

#[derive(Clone, Default)]
struct Acknowledgements(Arc<Tally>);

#[derive(Default)]
struct Tally {
    acknowledged: AtomicUsize,
    failed: Mutex<Option<String>>,
}

impl ClientContext for Acknowledgements {
    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        match result {
            Ok(_) => {
                self.0.acknowledged.fetch_add(1, Ordering::AcqRel);
            }
            Err((error, _)) => {
                let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

impl CrossingProducer {
    /// Makes the producer.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn open(kafka: &config::Kafka) -> Result<Self, Error> {
        let acknowledgements = Acknowledgements::default();
        let config = client::crossing_producer(kafka);
        let producer = client::threaded_producer(&config, acknowledgements.clone())?;
        Ok(Self { producer, acknowledgements })
    }

    /// Sends records, each to its topic and partition, in order, and waits until every one is
    /// acknowledged.
    ///
    /// # Errors
    /// One was refused, or `give_up` said so: drop this producer, and send everything again with a
    /// new one.
    pub fn deliver<'r>(
        &self,
        records: impl Iterator<Item = (&'r str, i32, &'r Outgoing)>,
        give_up: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let before = self.acknowledgements.0.acknowledged.load(Ordering::Acquire);
        let (mut last, mut heard) = (before, Instant::now());
        let mut sent = 0;
        for (topic, partition, outgoing) in records {
            self.check(&give_up)?;
            self.send(topic, partition, outgoing, &give_up)?;
            sent += 1;
        }
        loop {
            let now = self.acknowledgements.0.acknowledged.load(Ordering::Acquire);
            if now - before == sent {
                return Ok(());
            }
            if now != last {
                (last, heard) = (now, Instant::now());
            }
            if heard.elapsed() > SILENCE_MAX {
                self.producer.purge(PurgeConfig::default().queue().inflight());
                let waiting = sent - (now - before);
                return Err(Error::Unexpected(format!(
                    "sending commands on: {waiting} of {sent} were not acknowledged within \
                     {SILENCE_MAX:?}"
                )));
            }
            self.check(&give_up)?;
            std::thread::sleep(POLL);
        }
    }

    fn check(&self, give_up: impl Fn() -> bool) -> Result<(), Error> {
        let failed = &self.acknowledgements.0.failed;
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = failed.or_else(|| give_up().then(|| "given up".to_owned()));
        match reason {
            Some(reason) => {
                self.producer.purge(PurgeConfig::default().queue().inflight());
                Err(Error::Unexpected(format!("sending commands on: {reason}")))
            }
            None => Ok(()),
        }
    }

    fn send(
        &self,
        topic: &str,
        partition: i32,
        outgoing: &Outgoing,
        give_up: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(partition).headers(to_owned_headers(&outgoing.headers));
        if let Some(key) = &outgoing.key {
            record = record.key(key);
        }
        if let Some(value) = &outgoing.value {
            record = record.payload(value);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.check(&give_up)?;
                    std::thread::sleep(POLL);
                }
                Err((source, _)) => {
                    return Err(Error::call(format!("sending on to {topic}"))(source));
                }
            }
        }
    }
}
