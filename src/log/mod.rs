//! Where records live: Kafka, or memory for the simulator.

pub mod kafka;
pub mod memory;
