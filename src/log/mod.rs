//! Where records live.

pub mod kafka;
