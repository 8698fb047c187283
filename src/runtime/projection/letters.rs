//! Dead letters of a projection: parked events -> the dead-letters topic, acknowledged before the
//! checkpoint passes them.
//!
//! The partition is the source's, which the owner of its commands writes in transactions: so these
//! go by an idempotent producer outside any transaction. A process that ends in between sends them
//! again; a repeat has the same source topic, partition and offset in its headers.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock;
use crate::config;
use crate::kernel::message::Headers;
use crate::kernel::projection::{Batch, Parked};
use crate::kernel::stream::{Kind, Namespace};
use crate::log::kafka::sender::Sender;
use crate::read_model::store::Source;

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

    /// Sends what is parked in a batch from `told` on, and moves that on.
    pub(super) async fn send(
        &self,
        source: &Source,
        batch: &Batch,
        told: &AtomicI64,
    ) -> Result<(), String> {
        let from = told.load(Ordering::Acquire);
        let new: Vec<&Parked> =
            batch.parked.iter().filter(|parked| parked.record.offset >= from).collect();
        let Some(last) = new.last().map(|parked| parked.record.offset) else { return Ok(()) };
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
        told.fetch_max(last + 1, Ordering::AcqRel);
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
