//! The reactor: event or result -> react -> commands of other streams. Stateless and pure.
//!
//! A step of a process manager has one command id for life, a hash of saga and step, so whatever is
//! sent again is the same command.

use uuid::Uuid;

use super::codec::CodecError;
use super::message::Record;
use super::stream::{AggregateName, Kind};

/// The namespace of step ids (UUIDv5).
const STEP_NAMESPACE: Uuid = Uuid::from_u128(0x6d69_6c6c_7261_4365_8000_7374_6570_7631);

/// A command that follows from something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The aggregate's kind.
    pub aggregate: AggregateName,
    /// The aggregate.
    pub id: String,
    /// The step's command id.
    pub command_id: Uuid,
    /// The command as JSON, as any client would write it.
    pub body: Vec<u8>,
    /// Where the result is to be told: the saga's id.
    pub reply_to: Option<String>,
    /// What it all belongs to.
    pub correlation_id: Option<String>,
    /// The event or command that caused it.
    pub causation_id: Option<String>,
    /// What else goes along from whoever started it all, by header name: `actor`, `ce_time`,
    /// `ip_address`, `traceparent`, `meta_<name>`.
    pub metadata: Vec<(String, String)>,
}

/// One process manager's reactions.
pub trait Reactor: Send + Sync + 'static {
    /// Its name, for its group: `transfer`.
    fn name(&self) -> &'static str;

    /// The topics it reads: events and results.
    fn inputs(&self) -> Vec<(AggregateName, Kind)>;

    /// Says which commands follow from a record.
    ///
    /// # Errors
    /// A schema must be looked up first, or the record is corrupt.
    fn react(
        &self,
        aggregate: AggregateName,
        kind: Kind,
        record: &Record,
    ) -> Result<Vec<Dispatch>, CodecError>;
}

/// The command id of a saga's step, for life.
#[must_use]
pub fn step_id(saga: &str, step: &str) -> Uuid {
    let mut name = Vec::with_capacity(saga.len() + step.len() + 1);
    name.extend_from_slice(saga.as_bytes());
    name.push(0);
    name.extend_from_slice(step.as_bytes());
    Uuid::new_v5(&STEP_NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_one_id_for_life() {
        assert_eq!(step_id("t-1", "receive"), step_id("t-1", "receive"));
        assert_ne!(step_id("t-1", "receive"), step_id("t-1", "reverse"));
        assert_ne!(step_id("t-1", "receive"), step_id("t-2", "receive"));
    }
}
