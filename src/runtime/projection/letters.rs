//! Dead letters of a projection: parked events -> the dead-letters topic, acknowledged before the
//! checkpoint passes them.
//!
//! The partition is the source's, which the owner of its commands writes in transactions: so these
//! go by an idempotent producer outside any transaction. A process that ends in between sends them
//! again; a repeat has the same source topic, partition and offset in its headers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::config;
use crate::kernel::message::Headers;
use crate::kernel::projection::{Batch, Parked};
use crate::kernel::stream::{Kind, Namespace};
use crate::log::kafka::sender::Sender;
use crate::read_model::store::Source;

/// The parked events behind a partition's checkpoint that have their letters: a batch that is
/// refused comes again in parts, and with other streams parked.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeSet<i64>>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is parked in a batch and has no letter yet. What stands before the batch is forgotten.
    fn new_ones<'b>(&self, batch: &'b Batch) -> Vec<&'b Parked> {
        let mut told = self.lock();
        *told = told.split_off(&batch.from.next_offset);
        batch.parked.iter().filter(|parked| !told.contains(&parked.record.offset)).collect()
    }
}

/// Sends a projection's dead letters.
pub(super) struct Letters {
    kafka: config::Kafka,
    namespace: Namespace,
    component: String,
    /// Made when it is first needed, which may be never.
    sender: Arc<Mutex<Option<Sender>>>,
}

impl Letters {
    pub(super) fn new(kafka: &config::Kafka, namespace: &Namespace, component: &str) -> Self {
        let (kafka, namespace) = (kafka.clone(), namespace.clone());
        Self { kafka, namespace, component: component.to_owned(), sender: Arc::default() }
    }

    /// Sends what is parked in a batch and has no letter yet.
    pub(super) async fn send(
        &self,
        source: &Source,
        batch: &Batch,
        told: &Told,
    ) -> Result<(), String> {
        let new = told.new_ones(batch);
        if new.is_empty() {
            return Ok(());
        }
        let topic = self.namespace.dotted(&source.aggregate.topic(Kind::DeadLetters));
        let sender = self.sender().await?;
        let sent = new.iter().map(|parked| {
            let (sender, topic) = (&sender, &topic);
            async move {
                let key = parked.record.key.as_deref().unwrap_or_default();
                let value = parked.record.value.as_deref().unwrap_or_default();
                let headers = self.headers(source, parked);
                sender.send(topic, source.partition, key, value, &headers).await
            }
        });
        let sent = futures::future::try_join_all(sent).await;
        sent.map_err(|error| super::group::chain(&error))?;
        told.lock().extend(new.iter().map(|parked| parked.record.offset));
        Ok(())
    }

    async fn sender(&self) -> Result<Sender, String> {
        let (kafka, shared) = (self.kafka.clone(), Arc::clone(&self.sender));
        let opened = tokio::task::spawn_blocking(move || {
            let mut sender = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sender) = &*sender {
                return Ok(sender.clone());
            }
            let opened = Sender::open(&kafka).map_err(|error| super::group::chain(&error))?;
            *sender = Some(opened.clone());
            Ok(opened)
        });
        opened.await.map_err(|error| error.to_string()).flatten()
    }

    fn headers(&self, source: &Source, parked: &Parked) -> Headers {
        let record = &parked.record;
        let mut headers = Headers::with_capacity(record.headers.byte_count() + 512);
        for (name, value) in record.headers.iter() {
            headers.push_optional(name, value);
        }
        headers.push("error_code", parked.cause.as_str());
        headers.push("error_message", &parked.error);
        headers.push("source_topic", &source.topic);
        headers.push("source_partition", source.partition.to_string());
        headers.push("source_offset", record.offset.to_string());
        headers.push("component", &self.component);
        headers.push("attempts", parked.attempts.to_string());
        headers.push("failed_at", clock::now().to_rfc3339());
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::message::Record;
    use crate::kernel::projection::{Cause, Place};

    fn batch(from: i64, parked: &[i64]) -> Batch {
        let parked = parked.iter().map(|offset| Parked {
            record: Record { offset: *offset, ..Record::default() },
            cause: Cause::ProjectionFailed,
            error: String::new(),
            attempts: 1,
        });
        Batch {
            from: Place { epoch: 0, epoch_start: 0, next_offset: from },
            records: Vec::new(),
            parked: parked.collect(),
            has_followers: false,
        }
    }

    #[test]
    fn a_stream_that_is_found_later_has_its_letters_too() {
        let told = Told::default();
        let new = |batch: &Batch| -> Vec<i64> {
            let new = told.new_ones(batch).iter().map(|parked| parked.record.offset).collect();
            told.lock().extend(&new);
            new
        };
        assert_eq!(new(&batch(100, &[150, 180])), [150, 180]);
        // It was refused: another stream, in front, was the cause.
        assert_eq!(new(&batch(100, &[120, 150, 170])), [120, 170]);
        assert_eq!(new(&batch(171, &[180, 190])), [190]);
        assert_eq!(told.lock().len(), 2, "what is behind the checkpoint");
        assert_eq!(new(&batch(100, &[120])), [120], "read again after a reset: sent again");
    }
}
