//! What the doors read: tokens, histories, and states as of then -> answers that are never older
//! than was asked for.
//!
//! | module | does |
//! |---|---|
//! | [`tokens`] | a token's text -> whose events it is about |
//! | [`aggregate`] | an event's name and fields -> state, and the state for people |
//! | [`streams`] | a stream's name -> its events, from ClickHouse and the log |
//! | [`state`] | a stream and a moment -> its state then |

pub mod aggregate;
mod log;
pub mod state;
pub mod streams;
pub mod tokens;
