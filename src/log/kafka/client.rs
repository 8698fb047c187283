//! How each client is set up, and why. Numbers were measured on Kafka 4.3 with librdkafka 2.12.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::topic::BATCH_BYTES;
use super::{CALL_TIMEOUT, Error, KafkaError};
use crate::config;

/// The most bytes that a record may have: the limit of commands and dead-letters topics, plus room
/// for the headers that a dead letter gets.
pub const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024 + 64 * 1024;

/// What every client has in common: where the brokers are and how to prove who we are.
#[must_use]
pub fn base(kafka: &config::Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", &kafka.instance)
        // A broker that restarts is looked for again soon, not after ten seconds.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        // A broker that was away may come back fenced, and name no broker at all in its metadata:
        // the client forgets it, and would begin anew at the bootstrap servers after five minutes.
        .set("metadata.recovery.strategy", "rebootstrap")
        .set("metadata.recovery.rebootstrap.trigger.ms", "3000")
        // Nagle would add 40 ms to small transactions.
        .set("socket.nagle.disable", "true")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    let optional = [
        ("security.protocol", kafka.security_protocol.as_deref()),
        ("sasl.mechanism", kafka.sasl_mechanism.as_deref()),
        ("sasl.username", kafka.sasl_username.as_deref()),
        ("sasl.password", kafka.sasl_password.as_ref().map(|secret| secret.0.as_str())),
        ("ssl.ca.location", kafka.tls_ca.as_deref()),
        ("ssl.certificate.location", kafka.tls_certificate.as_deref()),
        ("ssl.key.location", kafka.tls_key.as_deref()),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            client.set(key, value);
        }
    }
    client
}

/// Reads committed records only, commits nothing by itself.
fn reader(kafka: &config::Kafka) -> ClientConfig {
    let mut client = base(kafka);
    client
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that does not exist is a fact to be looked at, not to be papered over.
        .set("auto.offset.reset", "error")
        // The default of 1,000 stalls a fast reader for a second at a time: 145 k -> 434 k/s.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", "100000")
        // 64 MB a consumer otherwise.
        .set("queued.max.messages.kbytes", "16384")
        .set("check.crcs", "true");
    client
}

/// A member of a group that takes partitions over cooperatively.
#[must_use]
pub fn group_member(kafka: &config::Kafka, group: &str) -> ClientConfig {
    let mut client = reader(kafka);
    client
        .set("group.id", group)
        // The new protocol takes over in 45 s here; the classic one in 6.2.
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1000")
        .set("max.poll.interval.ms", "300000")
        // With the default of 500, p99 of a command is 88 ms instead of 10.
        .set("fetch.wait.max.ms", "20");
    client
}

/// A member that comes back under its own name without a rebalance, if it has one.
#[must_use]
pub fn named_group_member(kafka: &config::Kafka, group: &str, name: Option<&str>) -> ClientConfig {
    let mut client = group_member(kafka, group);
    if let Some(name) = name {
        client.set("group.instance.id", name);
    }
    client
}

/// Reads a topic from some offset to its end, and says where the end is.
#[must_use]
pub fn end_reader(kafka: &config::Kafka) -> ClientConfig {
    let mut client = reader(kafka);
    client
        // Never joins a group; librdkafka wants the name all the same.
        .set("group.id", "millrace.reader")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "5");
    client
}

/// Asks for a group's committed offsets without joining it. On the subscribed consumer that call
/// has stalled for over 100 s after a broker's crash.
#[must_use]
pub fn witness(kafka: &config::Kafka, group: &str) -> ClientConfig {
    let mut client = reader(kafka);
    client.set("group.id", group);
    client
}

/// What both kinds of producer have in common.
fn producer(kafka: &config::Kafka) -> ClientConfig {
    let mut client = base(kafka);
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("batch.num.messages", "10000")
        .set("batch.size", "1000000")
        .set("compression.type", "lz4")
        .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        // With the default of 100 ms nearly every small transaction takes 104 ms instead of 4: the
        // broker is still writing the last one's markers.
        .set("retry.backoff.ms", "1")
        .set("retry.backoff.max.ms", "5");
    client
}

/// Writes transactions under an id that one partition's owner has at a time.
#[must_use]
pub fn transactional_producer(kafka: &config::Kafka, transactional_id: &str) -> ClientConfig {
    let mut client = producer(kafka);
    client
        .set("transactional.id", transactional_id)
        // A turn's records are gathered and flushed at once, so this time is never waited for. With
        // 0, librdkafka's thread is woken for nearly every record. What does not fit into one
        // request a partition waits for the one before, and librdkafka spins meanwhile: 60 % of all
        // CPU time with batches of 1 MB.
        .set("linger.ms", "1000")
        .set("batch.num.messages", "100000")
        .set("batch.size", BATCH_BYTES.to_string())
        .set("transaction.timeout.ms", "15000")
        .set("message.timeout.ms", "15000");
    client
}

/// Sends what crosses to other partitions. It keeps order through anything, so it never gives up a
/// message by itself.
#[must_use]
pub fn crossing_producer(kafka: &config::Kafka) -> ClientConfig {
    let mut client = producer(kafka);
    client
        .set("message.timeout.ms", "0")
        .set("transaction.timeout.ms", "15000")
        // A batch that is refused for good must not be overtaken by the next one.
        .set("enable.gapless.guarantee", "true");
    client
}

/// Makes a consumer and has it fetch metadata at once, which saves a flat 500 ms at its first act.
///
/// # Errors
/// The options are wrong, or no broker answers.
pub fn consumer<C: ConsumerContext + 'static>(
    client: &ClientConfig,
    context: C,
) -> Result<BaseConsumer<C>, Error> {
    let consumer: BaseConsumer<C> = BaseConsumer::from_config_and_context(client, context)
        .map_err(Error::call("creating a consumer"))?;
    knows_a_broker(client, consumer.client().fetch_metadata(None, CALL_TIMEOUT))?;
    Ok(consumer)
}

/// Makes a producer with its own polling thread and has it fetch metadata at once.
///
/// # Errors
/// The options are wrong, or no broker answers.
pub fn threaded_producer<C: ProducerContext + 'static>(
    client: &ClientConfig,
    context: C,
) -> Result<ThreadedProducer<C>, Error> {
    let producer: ThreadedProducer<C> = ThreadedProducer::from_config_and_context(client, context)
        .map_err(Error::call("creating a producer"))?;
    knows_a_broker(client, producer.client().fetch_metadata(None, CALL_TIMEOUT))?;
    Ok(producer)
}

/// As [`threaded_producer`], but whoever asks for it has it served.
///
/// # Errors
/// The options are wrong, or no broker answers.
pub fn base_producer<C: ProducerContext + 'static>(
    client: &ClientConfig,
    context: C,
) -> Result<BaseProducer<C>, Error> {
    let producer: BaseProducer<C> = BaseProducer::from_config_and_context(client, context)
        .map_err(Error::call("creating a producer"))?;
    knows_a_broker(client, producer.client().fetch_metadata(None, CALL_TIMEOUT))?;
    Ok(producer)
}

/// A lone broker that has only just come back answers, but names no broker, not even itself: a
/// client that is told so at its first question never asks again (librdkafka 2.12.1), and its calls
/// run into their timeouts. Whoever asked makes a new one a little later.
fn knows_a_broker(
    client: &ClientConfig,
    answer: Result<Metadata, KafkaError>,
) -> Result<(), Error> {
    let metadata = answered(client, answer)?;
    if metadata.brokers().is_empty() {
        let brokers = client.get("bootstrap.servers").unwrap_or_default().to_owned();
        let source = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
        return Err(Error::Unreachable { brokers, source });
    }
    Ok(())
}

/// Whether any broker has ever answered this process.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Takes a client's first answer, or says that the cluster cannot be reached.
///
/// # Errors
/// No broker answers.
pub fn answered<T>(client: &ClientConfig, answer: Result<T, KafkaError>) -> Result<T, Error> {
    let brokers = || client.get("bootstrap.servers").unwrap_or_default().to_owned();
    let answer = answer.map_err(|source| Error::Unreachable { brokers: brokers(), source })?;
    ANSWERED.store(true, Ordering::Relaxed);
    Ok(answer)
}

/// A context that does nothing but log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

/// Logs what librdkafka reports outside any call. It goes on by itself, so this is no error; and
/// the end of a partition is not even news. Until a broker has answered, whoever waits for that
/// says so, once.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    let is_end = error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF);
    if !is_end && ANSWERED.load(Ordering::Relaxed) {
        tracing::warn!(%error, reason, "Kafka client");
    }
}

impl ConsumerContext for Quiet {}
