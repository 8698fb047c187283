//! A member of a consumer group, for handlers and projections alike: joins, polls, takes part in
//! rebalances, and reads each partition from where its owner says, never from where the group says.
//!
//! A partition that is given to us is paused until [`Member::start_reading`]. A partition that is
//! taken away is given back only when [`Rebalance::revoked`] has returned.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Quiet};
use super::convert::to_record;
use super::{CALL_TIMEOUT, Error, ffi};
use crate::config;
use crate::kernel::message::Record;

pub use rdkafka::consumer::ConsumerGroupMetadata;

const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// `committed()` fails while a transaction is open, so it is asked again and again.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(2);
/// The least time between two clients of a witness that gets no answer.
const RENEWED_EVERY: Duration = Duration::from_secs(3);

/// How long a member tries to come into its group, or back, before it is to be replaced: a client
/// that has lost sight of all brokers may not find them by itself for minutes.
const OUTSIDE_MAX: Duration = Duration::from_secs(15);

/// A topic's partition.
pub type Place = (String, i32);

/// What happens to partitions. Called on the polling thread, from within [`Member::poll`].
pub trait Rebalance: Send + Sync + 'static {
    /// These are ours now, paused.
    fn assigned(&self, places: Vec<Place>);
    /// These are to be given back: returns when nothing is done with them any more. They are `lost`
    /// if the group has given them away without asking: no broker has answered for too long.
    fn revoked(&self, places: &[Place], lost: bool);
}

/// A member of a group.
pub struct Member<R: Rebalance> {
    consumer: BaseConsumer<Context<R>>,
}

struct Context<R> {
    rebalance: R,
    /// Since when nothing was assigned: from the beginning, or since the group has given everything
    /// away.
    outside_since: Mutex<Option<Instant>>,
}

impl<R> Context<R> {
    fn outside_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.outside_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thrown_out(&self) {
        tracing::warn!("the group has given our partitions away: our session ran out");
        self.outside_since().get_or_insert_with(Instant::now);
    }
}

impl<R: Rebalance> ClientContext for Context<R> {
    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
    }
}

impl<R: Rebalance> ConsumerContext for Context<R> {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let places: Vec<Place> = list
            .elements()
            .iter()
            .map(|element| (element.topic().to_owned(), element.partition()))
            .collect();
        let outcome = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            *self.outside_since() = None;
            assign_paused(consumer, list).map(|()| self.rebalance.assigned(places))
        } else if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS {
            let is_lost = consumer.assignment_lost();
            if is_lost {
                self.thrown_out();
            }
            self.rebalance.revoked(&places, is_lost);
            consumer.incremental_unassign(list)
        } else {
            self.thrown_out();
            self.rebalance.revoked(&places, true);
            consumer.unassign()
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "rebalance failed");
        }
    }
}

/// Where to read from is the owner's to say; until it has, nothing is delivered.
fn assign_paused<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &mut TopicPartitionList,
) -> KafkaResult<()> {
    list.set_all_offsets(Offset::Beginning)?;
    consumer.incremental_assign(list)?;
    consumer.pause(list)
}

impl<R: Rebalance> Member<R> {
    /// Joins a group for some topics.
    ///
    /// With a name of its own it is a static member.
    ///
    /// # Errors
    /// No broker answers.
    pub fn join(
        kafka: &config::Kafka,
        group: &str,
        name: Option<&str>,
        topics: &[&str],
        rebalance: R,
    ) -> Result<Self, Error> {
        Self::join_as(&client::named_group_member(kafka, group, name), topics, rebalance)
    }

    /// As [`Member::join`], for whoever keeps buffers of its own: the client reads little ahead.
    ///
    /// # Errors
    /// As [`Member::join`].
    pub fn join_lean(
        kafka: &config::Kafka,
        group: &str,
        topics: &[&str],
        rebalance: R,
    ) -> Result<Self, Error> {
        let mut options = client::group_member(kafka, group);
        // A small record costs the client a kilobyte that its own limit does not count: 100,000 of
        // them for each partition are far more than all else in the process.
        options.set("queued.min.messages", "5000").set("queued.max.messages.kbytes", "4096");
        Self::join_as(&options, topics, rebalance)
    }

    fn join_as(options: &ClientConfig, topics: &[&str], rebalance: R) -> Result<Self, Error> {
        let context = Context { rebalance, outside_since: Mutex::new(Some(Instant::now())) };
        let consumer = client::consumer(options, context)?;
        consumer
            .subscribe(topics)
            .map_err(Error::call(format!("subscribing to {}", topics.join(", "))))?;
        Ok(Self { consumer })
    }

    /// Whether this member has not come into its group, or not come back since it was thrown out,
    /// for so long that it should be dropped and join anew.
    #[must_use]
    pub fn is_left_outside(&self) -> bool {
        let since = *self.consumer.context().outside_since();
        // A member to spare is given nothing, and is one all the same.
        since.is_some_and(|since| since.elapsed() > OUTSIDE_MAX)
            && !ffi::is_group_member(self.consumer.client())
    }

    /// Waits for a record, at most that long, and hands it on with its topic and partition.
    ///
    /// # Errors
    /// What librdkafka reports; it goes on by itself unless [`Member::is_broken`].
    pub fn poll(
        &self,
        timeout: Duration,
        sink: impl FnOnce(&str, i32, Record),
    ) -> Result<(), KafkaError> {
        if let Some(message) = self.consumer.poll(timeout) {
            let message = message?;
            sink(message.topic(), message.partition(), to_record(&message));
        }
        Ok(())
    }

    /// Has a partition read from that offset on.
    ///
    /// # Errors
    /// It is not ours (yet): try again, or forget it.
    pub fn start_reading(&self, place: &Place, offset: i64) -> Result<(), KafkaError> {
        self.consumer.seek(&place.0, place.1, Offset::Offset(offset), SEEK_TIMEOUT)?;
        self.resume(place)
    }

    /// Stops reading a partition for a while. What was read ahead is thrown away.
    ///
    /// # Errors
    /// It is not ours.
    pub fn pause(&self, place: &Place) -> Result<(), KafkaError> {
        self.consumer.pause(&one(place))
    }

    /// Reads a partition on from behind the last record that was handed out.
    ///
    /// # Errors
    /// It is not ours.
    pub fn resume(&self, place: &Place) -> Result<(), KafkaError> {
        self.consumer.resume(&one(place))
    }

    /// Commits the next offset to read, with what stands beside it, and waits for the answer.
    ///
    /// # Errors
    /// It is not ours any more, or no broker answers.
    pub fn commit(&self, place: &Place, offset: i64, metadata: &str) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&place.0, place.1);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(metadata);
        self.consumer.commit(&list, CommitMode::Sync)
    }

    /// As [`Member::commit`], for several at once, and without waiting for the answer: for whoever
    /// keeps the position elsewhere, and commits for people to see.
    ///
    /// # Errors
    /// One is not ours any more.
    pub fn commit_later<'p>(
        &self,
        positions: impl Iterator<Item = (&'p Place, i64, &'p str)>,
    ) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (place, offset, metadata) in positions {
            let mut element = list.add_partition(&place.0, place.1);
            element.set_offset(Offset::Offset(offset))?;
            element.set_metadata(metadata);
        }
        self.consumer.commit(&list, CommitMode::Async)
    }

    /// Calls `wake` when there is something to poll and was nothing before, on a thread of the
    /// client's own.
    pub fn wake_with(&mut self, wake: impl Fn() + Send + Sync + 'static) {
        self.consumer.set_nonempty_callback(wake);
    }

    /// The group's metadata, if this member is in good standing: without a generation, offsets in
    /// a transaction would not be fenced by the group.
    #[must_use]
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        ffi::is_group_member(self.consumer.client())
            .then(|| self.consumer.group_metadata())
            .flatten()
    }

    /// Whether that is because another member has come under its name.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        let fatal = self.consumer.client().fatal_error();
        fatal.is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId)
    }

    /// Why this client is of no use any more, if it is not: leave, and join anew.
    #[must_use]
    pub fn is_broken(&self) -> Option<String> {
        self.consumer.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"))
    }
}

/// Whether a partition stands still after this error until it is told where to read on: what was to
/// be read next is not there, or not ours to read.
#[must_use]
pub fn ends_reading(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    error.rdkafka_error_code().is_some_and(|code| {
        matches!(
            code,
            Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicOrPartition
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
        )
    })
}

fn one(place: &Place) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&place.0, place.1);
    list
}

/// Asks about a group without joining it, and about topics. On the subscribed consumer, asking for
/// committed offsets has stalled for over 100 s after a broker's crash.
pub struct Witness {
    consumer: BaseConsumer<Quiet>,
    kafka: config::Kafka,
    group: String,
    opened: Instant,
}

/// What the brokers know of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The group's committed offset and what stands beside it.
    pub committed: Option<(i64, String)>,
    /// The first offset that the partition still holds.
    pub log_start: i64,
    /// The offset behind its last record.
    pub log_end: i64,
}

impl Witness {
    /// Makes the client.
    ///
    /// # Errors
    /// No broker answers.
    pub fn open(kafka: &config::Kafka, group: &str) -> Result<Self, Error> {
        let consumer = client::consumer(&client::witness(kafka, group), Quiet)?;
        Ok(Self { consumer, kafka: kafka.clone(), group: group.to_owned(), opened: Instant::now() })
    }

    /// Makes the client anew, now and then: one that has lost sight of all brokers may not find
    /// them by itself for minutes. Whoever got no answer asks for it.
    pub fn renew(&mut self) {
        if self.opened.elapsed() < RENEWED_EVERY {
            return;
        }
        match Self::open(&self.kafka, &self.group) {
            Ok(witness) => *self = witness,
            // No broker answers, or none is named: what there is will do until the next time.
            Err(_) => self.opened = Instant::now(),
        }
    }

    /// Where the group stands on a partition.
    ///
    /// # Errors
    /// No broker answers in time, or a transaction holds the offset: never a "no offset".
    pub fn standing(&self, place: &Place) -> Result<Standing, KafkaError> {
        let (log_start, log_end) = self.ends(place)?;
        let committed = self.committed(place)?;
        Ok(Standing { committed, log_start, log_end })
    }

    /// The first offset that the partition still holds, and the one behind its last record.
    ///
    /// # Errors
    /// No broker answers in time.
    pub fn ends(&self, place: &Place) -> Result<(i64, i64), KafkaError> {
        self.consumer.client().fetch_watermarks(&place.0, place.1, COMMITTED_TIMEOUT)
    }

    /// The group's committed offset and what stands beside it.
    ///
    /// # Errors
    /// No broker answers in time, or a transaction holds the offset: never a "no offset".
    pub fn committed(&self, place: &Place) -> Result<Option<(i64, String)>, KafkaError> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&place.0, place.1, Offset::Invalid)?;
        let list = self.consumer.committed_offsets(asked, COMMITTED_TIMEOUT)?;
        for element in list.elements() {
            element.error()?;
        }
        let found = ffi::committed_offsets(&list).into_iter().next();
        drop(list);
        Ok(found.and_then(|found| found.offset.map(|offset| (offset, found.metadata))))
    }

    /// How many members a group has.
    ///
    /// # Errors
    /// No broker answers.
    pub fn member_count(&self, group: &str) -> Result<usize, Error> {
        let list = self.consumer.client().fetch_group_list(Some(group), CALL_TIMEOUT);
        let list = list.map_err(Error::call(format!("asking for the members of {group}")))?;
        let found = list.groups().iter().find(|found| found.name() == group);
        Ok(found.map_or(0, |found| found.members().len()))
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// The brokers do not tell.
    pub fn cluster_id(&self) -> Result<String, Error> {
        let id = self.consumer.client().fetch_cluster_id(CALL_TIMEOUT);
        id.ok_or_else(|| Error::Unexpected("the brokers do not tell their cluster id".to_owned()))
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// There is no such topic, or no broker answers.
    pub fn partition_count(&self, topic: &str) -> Result<i32, Error> {
        let metadata = self
            .consumer
            .client()
            .fetch_metadata(Some(topic), CALL_TIMEOUT)
            .map_err(Error::call(format!("reading the metadata of {topic}")))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map_or(0, |found| found.partitions().len()) {
            0 => Err(Error::NoTopic(topic.to_owned())),
            count => i32::try_from(count)
                .map_err(|_| Error::Unexpected(format!("{topic} has too many partitions"))),
        }
    }

    /// The ids of topics, in order.
    ///
    /// # Errors
    /// One does not exist, or no broker answers.
    pub fn topic_ids(&self, topics: &[&str]) -> Result<Vec<uuid::Uuid>, Error> {
        let ids = ffi::topic_ids(self.consumer.client(), topics, CALL_TIMEOUT)?;
        let named = ids.into_iter().zip(topics);
        named.map(|(id, topic)| id.ok_or_else(|| Error::NoTopic((*topic).to_owned()))).collect()
    }
}
