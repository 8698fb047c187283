//! What one stage sends to another's aggregate: dispatch -> signed command at its partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::hmac;

use super::origin::{Origin, Sender, Signed, Source};
use super::protocol::Crossing;
use crate::kernel::message::{Headers, Outgoing};
use crate::kernel::reactor::Dispatch;
use crate::kernel::stream::{AggregateName, Kind, partition_of};

/// The commands topic of an aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name, with its namespace.
    pub topic: Arc<str>,
    /// How many partitions it has.
    pub partition_count: i32,
}

/// Where commands can be sent to.
#[derive(Clone, Debug, Default)]
pub struct Targets(Arc<BTreeMap<AggregateName, Target>>);

impl Targets {
    /// Takes the aggregates that can be reached.
    #[must_use]
    pub fn new(targets: BTreeMap<AggregateName, Target>) -> Self {
        Self(Arc::new(targets))
    }

    /// Where that aggregate's commands go, if anybody has said so.
    #[must_use]
    pub fn of(&self, aggregate: AggregateName) -> Option<&Target> {
        self.0.get(&aggregate)
    }

    /// Addresses and signs what follows from the record at that place: the `index`th command of it.
    ///
    /// # Errors
    /// Nobody here has said where that aggregate's commands go: a bug in the wiring.
    pub fn address(
        &self,
        dispatch: &Dispatch,
        cause: (&Source, i64, u32),
        key: &hmac::Key,
    ) -> Result<Crossing, String> {
        let (source, offset, index) = cause;
        let origin =
            Origin { sender: Sender::ProcessManager, source: source.clone(), offset, index };
        self.address_from(dispatch, &origin, key)
    }

    /// As [`Targets::address`], but signed for an operator.
    ///
    /// # Errors
    /// As there.
    pub fn address_by_operator(
        &self,
        dispatch: &Dispatch,
        key: &hmac::Key,
    ) -> Result<Crossing, String> {
        self.address_from(dispatch, &Origin::operator(), key)
    }

    fn address_from(
        &self,
        dispatch: &Dispatch,
        origin: &Origin,
        key: &hmac::Key,
    ) -> Result<Crossing, String> {
        let Some(target) = self.0.get(&dispatch.aggregate) else {
            return Err(format!("{} cannot be reached: this is a bug", dispatch.aggregate));
        };
        let command_id = dispatch.command_id.to_string();
        let signed = Signed {
            topic: &target.topic,
            key: dispatch.id.as_bytes(),
            command_id: command_id.as_bytes(),
            value: &dispatch.body,
        };
        let mut headers = Headers::with_capacity(512);
        headers.push("ce_id", &command_id);
        let optional = [
            ("reply_to", &dispatch.reply_to),
            ("correlation_id", &dispatch.correlation_id),
            ("causation_id", &dispatch.causation_id),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                headers.push(name, value);
            }
        }
        for (name, value) in &dispatch.metadata {
            headers.push(name, value);
        }
        headers.push("origin", origin.to_header(signed, key));
        let record = Outgoing {
            kind: Kind::Commands,
            key: Some(dispatch.id.clone().into_bytes()),
            value: Some(dispatch.body.clone()),
            headers,
        };
        let partition = partition_of(&dispatch.id, target.partition_count);
        Ok(Crossing { topic: Arc::clone(&target.topic), partition, record })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SAGA: AggregateName = AggregateName { domain: "banking", aggregate: "transfer" };

    fn dispatch() -> Dispatch {
        Dispatch {
            aggregate: SAGA,
            id: "t-1".to_owned(),
            command_id: Uuid::from_u128(7),
            body: b"{}".to_vec(),
            reply_to: Some("t-1".to_owned()),
            correlation_id: None,
            causation_id: Some("e-1".to_owned()),
            metadata: vec![("actor".to_owned(), "ann".to_owned())],
        }
    }

    #[test]
    fn what_is_sent_is_signed_for_its_own_topic_key_id_and_body() {
        let target = Target { topic: "ns.banking.transfer.commands".into(), partition_count: 4 };
        let targets = Targets::new([(SAGA, target)].into());
        let source = Source { group: "g".to_owned(), topic_id: Uuid::from_u128(1), partition: 2 };
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let crossing = targets.address(&dispatch(), (&source, 40, 1), &key).unwrap();
        assert_eq!(crossing.partition, partition_of("t-1", 4));
        let headers = &crossing.record.headers;
        let signed = Signed {
            topic: "ns.banking.transfer.commands",
            key: b"t-1",
            command_id: headers.get("ce_id").unwrap(),
            value: b"{}",
        };
        let origin = Origin::verify(headers.get("origin").unwrap(), signed, &key).unwrap();
        let sender = Sender::ProcessManager;
        assert_eq!(origin, Origin { sender, source, offset: 40, index: 1 });
        assert_eq!(headers.text("reply_to"), Some("t-1"));
        assert_eq!(headers.text("causation_id"), Some("e-1"));
        assert_eq!(headers.text("actor"), Some("ann"));
        assert_eq!(headers.get("correlation_id"), None);
    }

    #[test]
    fn nobody_is_reached_who_is_not_known() {
        let source = Source { group: "g".to_owned(), topic_id: Uuid::nil(), partition: 0 };
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let refused = Targets::default().address(&dispatch(), (&source, 0, 0), &key).unwrap_err();
        assert!(refused.contains("banking.transfer"), "{refused}");
    }
}
