//! What Postgres' errors mean: error -> try again, or put aside, or stop.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// Whether Postgres may answer differently later: it is away, busy, full, or chose a victim.
pub(super) fn is_transient(error: &Error) -> bool {
    let Some(state) = error.code() else {
        // No answer at all, or none that could be read: the connection is gone.
        return true;
    };
    let passing = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    // 08 connection, 53 resources (a full disk too), 57 operator, 58 system.
    let class = state.code().get(..2).unwrap_or_default();
    passing.contains(state) || ["08", "53", "57", "58"].contains(&class)
}

/// Whether Postgres refuses the rows that it was given, and might take others: their values, a
/// constraint, a rule that somebody wrote, or a limit of its own.
pub(super) fn is_refusal(error: &Error) -> bool {
    let Some(state) = error.code() else {
        // The value does not even fit its column's type.
        return error.to_string().starts_with("error serializing parameter");
    };
    let class = state.code().get(..2).unwrap_or_default();
    ["21", "22", "23", "44", "54", "P0"].contains(&class)
}
