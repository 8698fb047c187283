//! Banking: accounts, and the money in them.
