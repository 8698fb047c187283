//! What the doors read: tokens, histories and states as of then -> answers that are never older than
//! was asked for.

pub mod tokens;
