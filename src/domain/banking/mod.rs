//! Banking: accounts, and the money in them.

pub mod account;
