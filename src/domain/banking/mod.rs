//! Banking: accounts, the money in them, and the process managers between them.

pub mod account;
mod reaction;
pub mod step;
pub mod transfer;
