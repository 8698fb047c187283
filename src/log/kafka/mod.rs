//! Kafka, through librdkafka: the only folder that says rdkafka.
//!
//! Every client option that the guarantees or the speed depend on is set in [`client`], with its
//! reason.

pub mod client;
pub mod convert;
pub mod crossing;
pub mod ffi;
pub mod group;
pub mod lag;
pub mod load;
pub mod members;
pub mod partition_reader;
pub mod positions;
pub mod reader;
pub mod sender;
pub mod topic;
pub mod transaction;

use std::time::Duration;

#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
pub use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The longest a single call to a broker may take before it counts as failed.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What went wrong with Kafka, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The brokers do not answer.
    #[error(
        "no Kafka broker answers at {brokers}: is it running? (MILLRACE_KAFKA_BROKERS; \
         MILLRACE_LOG=librdkafka=info says more)"
    )]
    Unreachable {
        /// The brokers that were tried.
        brokers: String,
        /// What librdkafka says.
        #[source]
        source: KafkaError,
    },
    /// A call failed.
    #[error("{action} failed")]
    Call {
        /// What was tried, with topic and partition where there is one.
        action: String,
        /// What librdkafka says.
        #[source]
        source: KafkaError,
    },
    /// A topic is not there.
    #[error("topic {0} does not exist: run `millrace topics apply`")]
    NoTopic(String),
    /// Something else about a topic, group or record is not as it must be.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// Names what was tried.
    pub fn call(action: impl Into<String>) -> impl FnOnce(KafkaError) -> Self {
        let action = action.into();
        move |source| Self::Call { action, source }
    }
}

/// Whether a call failed because no broker answered it: the work itself may be sound.
#[must_use]
pub fn is_no_answer(error: &KafkaError) -> bool {
    use self::RDKafkaErrorCode as Code;
    // rdkafka keeps an administrative call's code to itself.
    let code = if let KafkaError::AdminOp(code) = error {
        Some(*code)
    } else {
        error.rdkafka_error_code()
    };
    code.is_some_and(|code| {
        matches!(
            code,
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::RequestTimedOut
        )
    })
}
