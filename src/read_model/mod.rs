//! Tables and their queries: events -> rows.
//!
//! Each domain's folder says what an event changes; [`store`] writes changes and place together,
//! exactly once. Rows never change but through the events of the log.

pub mod banking;
pub mod consistency;
pub mod event;
pub mod store;
