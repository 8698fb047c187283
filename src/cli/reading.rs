//! What subcommands that read the log have in common: a stream -> its partition's reader, bytes ->
//! what they say, although this program has not seen their schema yet.

use std::sync::Arc;

use crate::codec::schemas::Schemas;
use crate::config::{self, Config};
use crate::kernel::codec::CodecError;
use crate::kernel::stream::partition_of;
use crate::log::kafka::Error;
use crate::log::kafka::partition_reader::{PartitionReader, Start};
use crate::log::kafka::sender::Sender;
use crate::runtime;

/// Opens the partition that holds an aggregate's stream, at its oldest record.
pub(super) fn open_stream(
    kafka: &config::Kafka,
    topic: &str,
    id: &str,
) -> Result<PartitionReader, Error> {
    let count = Sender::open(kafka)?.partition_count(topic)?;
    PartitionReader::open(kafka, topic, partition_of(id, count), Start::Beginning)
}

/// Decodes something; asks the registry if its schema is not known here.
pub(super) async fn decoded<T>(
    config: &Config,
    schemas: &Arc<Schemas>,
    decode: impl Fn() -> Result<T, CodecError>,
) -> anyhow::Result<T> {
    match decode() {
        Err(CodecError::UnknownSchema(id)) => {
            runtime::schemas::look_up(config, schemas, id).await?;
            Ok(decode()?)
        }
        other => Ok(other?),
    }
}
