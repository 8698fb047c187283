//! Bytes <-> messages: Avro and JSON commands in, Avro events and results out and in again.
//!
//! - What is written is read back as it was, in every version that was ever stored ([`upcast`]).
//! - A command in JSON and the same one in Avro are one command: one extraction reads both, and
//!   feeds the content hash. What is bad is said with a code, a field and a reason.
//! - Money is neither rounded nor read from a number.
//! - Nothing here waits: a schema that is not known is asked for by whoever drives the loops, and
//!   told to [`schemas::Schemas`].

pub mod avro;
pub mod banking;
pub mod command;
mod compact;
pub mod compatibility;
pub mod compiled;
pub mod event;
pub mod fields;
pub mod flat;
pub mod registry;
pub mod result;
pub mod schemas;
pub mod upcast;
