//! Read your own writes: a consistency token -> whether a read model has seen that much.
//!
//! The look at a stream's version and the answer are of one snapshot, so the answer itself holds
//! what the token asks for. In Postgres that is a transaction; in ClickHouse, whose rows are only
//! ever added, a statement that refuses to answer.
//!
//! | the stream's row is | a look says |
//! |---|---|
//! | at the token's sequence, or beyond | reached |
//! | below it, or not there yet | behind: look again |
//! | below it, and its next event is parked | parked: it will not come by itself |
//! | of another topic than the token | of another topic: it will never come |

pub mod clickhouse;
pub mod postgres;

use crate::kernel::token::Token;

/// A token, and whose events its topic holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What must have been seen.
    pub token: Token,
    /// The topic, namespace included.
    pub topic: String,
    /// The domain, for example `banking`.
    pub domain: String,
    /// The aggregate within it, for example `account`.
    pub aggregate: String,
}

impl Wanted {
    /// The stream's name for people: `banking.account/acc-1`.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("{}.{}/{}", self.domain, self.aggregate, self.token.stream)
    }
}

/// How far a read model is with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has seen what the token asks for.
    Reached,
    /// It has seen so many events of the stream.
    Behind(u64),
    /// The stream waits from that event on, until somebody mends what is in its way.
    Parked {
        /// The projection that parked it.
        projection: String,
        /// The first parked event.
        sequence: u64,
    },
    /// Its rows are of another topic.
    OtherTopic {
        /// The projection that wrote them.
        projection: String,
    },
}

/// What a question that may have to wait was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// By a read model that has seen what the token asks for.
    Answer(T),
    /// It has not.
    NotYet(Progress),
}
