//! The rules of the domains, pure: commands -> events. No I/O, no clock, no encoding.

pub mod banking;
pub mod money;
