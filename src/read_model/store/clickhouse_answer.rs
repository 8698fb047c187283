//! What an error of ClickHouse means: its number -> it may pass, the rows are refused, or neither.

use ::clickhouse::error::Error as ClientError;

/// Whether ClickHouse may answer differently later. What it says of a statement or of its rows it
/// will say again; all else (away, busy, full, and whatever has no number of its own) may pass.
#[must_use]
pub(super) fn is_transient(error: &ClientError) -> bool {
    // Columns and their number, values that cannot be read, types, syntax, tables and databases
    // that are not there, functions, formats, settings, and rights.
    const LASTING: [u32; 30] = [
        6, 7, 8, 10, 16, 20, 26, 27, 33, 36, 38, 39, 41, 42, 43, 46, 47, 50, 53, 60, 62, 63, 69,
        70, 72, 73, 81, 115, 117, 497,
    ];
    if let ClientError::BadResponse(text) = error {
        return code_of(text).is_none_or(|code| !LASTING.contains(&code));
    }
    matches!(error, ClientError::Network(_) | ClientError::TimedOut)
}

/// Whether ClickHouse refuses the rows that it was given, and might take others: a constraint, a
/// value that does not fit, a check that somebody wrote.
#[must_use]
pub(super) fn is_refusal(error: &ClientError) -> bool {
    // Values that cannot be read, are too large or out of range, a null where none may be, a
    // decimal that overflows, throwIf(), and a violated constraint.
    const ROWS: [u32; 14] = [6, 26, 27, 38, 41, 69, 70, 72, 131, 321, 349, 395, 407, 469];
    let ClientError::BadResponse(text) = error else { return false };
    code_of(text).is_some_and(|code| ROWS.contains(&code))
}

/// The number in `Code: 241. DB::Exception: ...`; a gateway's page has none.
fn code_of(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    let digits = rest.split_once('.')?.0;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_is_asked_again_and_a_wrong_statement_is_not() {
        let bad = |text: &str| ClientError::BadResponse(text.to_owned());
        assert!(is_transient(&ClientError::TimedOut));
        assert!(is_transient(&bad("Code: 241. DB::Exception: Memory limit")));
        // A full disk has no number of its own.
        assert!(is_transient(&bad("Code: 1001. DB::Exception: No space left on device")));
        assert!(is_transient(&bad("Code: 439. DB::Exception: Cannot schedule a task")));
        assert!(is_transient(&bad("<html>502 Bad Gateway</html>")));
        assert!(!is_transient(&bad("Code: 60. DB::Exception: Unknown table")));
        assert!(!is_transient(&bad("Code: 497. DB::Exception: Not enough privileges")));
    }

    #[test]
    fn a_row_that_is_refused_is_told_from_a_server_that_is_busy() {
        let bad = |text: &str| ClientError::BadResponse(text.to_owned());
        let violated = "Code: 469. DB::Exception: Constraint `c` for table a.b is violated";
        assert!(is_refusal(&bad(violated)));
        assert!(is_refusal(&bad("Code: 407. DB::Exception: Decimal overflow")));
        assert!(!is_refusal(&bad("Code: 241. DB::Exception: Memory limit")));
        assert!(!is_refusal(&bad("Code: 60. DB::Exception: Unknown table")));
        assert!(!is_refusal(&ClientError::TimedOut));
    }
}
