//! An operator's word to a saga: a signed command, and the saga's answer to it.
//!
//! A transfer whose receiver can no longer tell whether it took it (`Unverifiable`) is told so by
//! the receiver's own stream, read to its end here: that is no pure stage's to do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::Manager;
use super::read::{self, Saga, State};
use crate::cli::{Exit, Output, reading, send};
use crate::clock;
use crate::codec::banking::AccountCodec;
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::domain::banking::{account, account_opening, transfer};
use crate::engine::dispatch::Targets;
use crate::kernel::codec::Codec;
use crate::kernel::message::Record;
use crate::kernel::reactor::Dispatch;
use crate::kernel::result::Outcome;
use crate::kernel::stream::{Kind, parse_event_key};
use crate::log::kafka::group::Witness;
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};
use crate::log::kafka::sender::Sender;
use crate::runtime;
use crate::runtime::signing::{internal_key, targets};

/// How long the saga's answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// Has a parked saga go on.
pub(super) async fn resume(
    config: &Config,
    manager: Manager,
    id: &str,
    output: Output,
) -> anyhow::Result<Exit> {
    let saga = read::one(config, manager, id, output).await?;
    match &saga.state {
        State::Ended(how) => bail!("{} {id} has ended: {how}", manager.as_str()),
        State::Waiting => bail!(
            "{} {id} is not parked: it waits by itself; `millrace sagas show` says until when",
            manager.as_str()
        ),
        State::Parked(_) => {}
    }
    let body = match &saga.receiver {
        Some(receiver) if has_arrived(config, receiver, id, output).await? => {
            output.note(format!("{receiver} has it: its stream says so"));
            json!({"type": "Resume", "received": "YES"})
        }
        Some(receiver) if is_unverifiable(&saga) => {
            output.note(format!("{receiver} does not have it: its whole stream was read"));
            json!({"type": "Resume", "received": "NO"})
        }
        Some(_) | None => json!({"type": "Resume"}),
    };
    say(config, manager, id, &body, output).await
}

/// Whether the receiver's word has no weight any more, so that its stream must tell.
fn is_unverifiable(saga: &Saga) -> bool {
    matches!(&saga.state, State::Parked(reason) if reason == "Unverifiable")
}

/// Leaves a saga alone.
pub(super) async fn abandon(
    config: &Config,
    manager: Manager,
    id: &str,
    reason: &str,
    output: Output,
) -> anyhow::Result<Exit> {
    let saga = read::one(config, manager, id, output).await?;
    if let State::Ended(how) = saga.state {
        bail!("{} {id} has ended: {how}", manager.as_str());
    }
    say(config, manager, id, &json!({"type": "Abandon", "reason": reason}), output).await
}

async fn say(
    config: &Config,
    manager: Manager,
    id: &str,
    body: &Value,
    output: Output,
) -> anyhow::Result<Exit> {
    let aggregate = match manager {
        Manager::Transfer => transfer::NAME,
        Manager::AccountOpening => account_opening::NAME,
    };
    let schemas = runtime::schemas::load(config).await?;
    let command_id = clock::new_id();
    let dispatch = Dispatch {
        aggregate,
        id: id.to_owned(),
        command_id,
        body: body.to_string().into_bytes(),
        reply_to: None,
        correlation_id: None,
        causation_id: None,
        metadata: vec![("actor".to_owned(), "operator".to_owned())],
    };
    let opened = config.clone();
    let (crossing, sender, results) = tokio::task::spawn_blocking(move || {
        let witness = Witness::open(&opened.kafka, "millrace.operator")?;
        let key = internal_key(&opened, &witness.cluster_id()?);
        let targets: Targets = targets(&opened, std::iter::once(aggregate), &witness)?;
        let crossing = targets.address_by_operator(&dispatch, &key).map_err(anyhow::Error::msg)?;
        // Opened before the command goes out, so that its result cannot be missed.
        let topic = opened.namespace.dotted(&aggregate.topic(Kind::Results));
        let start = Start::End;
        let results = PartitionReader::open(&opened.kafka, &topic, crossing.partition, start)?;
        anyhow::Ok((crossing, Sender::open(&opened.kafka)?, results))
    })
    .await??;
    let key = crossing.record.key.as_deref().unwrap_or_default();
    let value = crossing.record.value.as_deref().unwrap_or_default();
    let headers = &crossing.record.headers;
    sender.send(&crossing.topic, crossing.partition, key, value, headers).await?;
    let waiting = move || send::await_result(results, command_id, ANSWER_WAIT);
    let value = tokio::task::spawn_blocking(waiting).await??.with_context(|| {
        format!(
            "no answer of {aggregate} {id} within {} s: is `millrace serve` running, with the \
             same MILLRACE_INTERNAL_KEY? The command is in Kafka",
            ANSWER_WAIT.as_secs()
        )
    })?;
    let result = send::decode(config, &schemas, &value).await?;
    send::show(&result, output)?;
    Ok(if result.outcome == Outcome::Accepted { Exit::Done } else { Exit::Failed })
}

/// Whether an account's stream says that it received a transfer.
async fn has_arrived(
    config: &Config,
    account_id: &str,
    transfer_id: &str,
    output: Output,
) -> anyhow::Result<bool> {
    let schemas = runtime::schemas::load(config).await?;
    let spinner = output.spinner(format!("reading {}/{account_id}", account::NAME));
    let search = Search {
        config: config.clone(),
        schemas,
        handle: tokio::runtime::Handle::current(),
        account_id: account_id.to_owned(),
        transfer_id: transfer_id.to_owned(),
    };
    let found = tokio::task::spawn_blocking(move || search.run()).await?;
    spinner.finish_and_clear();
    found
}

struct Search {
    config: Config,
    schemas: Arc<Schemas>,
    handle: tokio::runtime::Handle,
    account_id: String,
    transfer_id: String,
}

impl Search {
    fn run(&self) -> anyhow::Result<bool> {
        let topic = self.config.namespace.dotted(&account::NAME.topic(Kind::Events));
        let mut reader = reading::open_stream(&self.config.kafka, &topic, &self.account_id)?;
        let codec = AccountCodec::new(Arc::clone(&self.schemas));
        let mut found = Ok(false);
        reader.to_end(|record| {
            found = self.is_it(&record, &codec);
            if matches!(found, Ok(false)) { Visit::Continue } else { Visit::Stop }
        })?;
        found
    }

    fn is_it(&self, record: &Record, codec: &AccountCodec) -> anyhow::Result<bool> {
        let key = record.key.as_deref().and_then(parse_event_key);
        let is_own = key.is_some_and(|(id, _)| id == self.account_id);
        let name = record.headers.text("ce_type").unwrap_or_default();
        let Some(value) = record.value.as_deref() else { return Ok(false) };
        if !is_own || !name.ends_with(".MoneyReceived") {
            return Ok(false);
        }
        let decode = || codec.decode_event(value);
        let event = self.handle.block_on(reading::decoded(&self.config, &self.schemas, decode))?;
        let account::Event::MoneyReceived(event) = event else { return Ok(false) };
        Ok(event.transfer_id == self.transfer_id)
    }
}
