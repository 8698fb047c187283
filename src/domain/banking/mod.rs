//! Banking: accounts, the money in them, and the process managers between them.

pub mod account;
pub mod account_opening;
pub mod customer;
mod reaction;
pub mod step;
pub mod transfer;
