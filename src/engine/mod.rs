//! The loops as state machines without I/O: records, answers and moments in -> actions out.
//!
//! A machine has one action under way at a time; its driver carries it out and answers with the
//! next input. Two drivers exist: threads over the real services (`runtime`), and the seeded
//! simulator over an in-memory log. What is simulated is what runs.
//!
//! Nothing here knows a client library, a clock, a thread or a random number generator.

pub mod answers;
mod bound;
pub mod command_handler;
pub mod dedup;
pub mod dispatch;
pub mod draft;
mod hand_on;
pub mod letter;
pub mod metadata;
pub mod origin;
pub mod position;
pub mod projector;
pub mod protocol;
pub mod reactor;
pub mod recall;
mod refusing;
pub mod reply;
pub mod reset_protocol;
pub mod restore;
pub mod routing;
pub mod shelf;
pub mod snapshot;
pub mod streams;
pub mod sweep;
pub mod timer;
pub mod turn;
mod turns;
mod upkeep;
