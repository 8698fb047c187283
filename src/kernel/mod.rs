//! The ideas, pure: commands -> decide -> events -> evolve -> state; events -> project -> changes.
//!
//! Nothing here does I/O, reads a clock or knows a domain. Every other module may import this one;
//! it imports none of them.

pub mod codec;
pub mod decider;
pub mod message;
pub mod projection;
pub mod reactor;
pub mod result;
pub mod scenario;
pub mod stream;
pub mod time;
pub mod token;
