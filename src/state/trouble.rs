//! What went wrong on the disk -> whether to wait for somebody, or to throw the files away.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fjall::{Error, LsmError};

use crate::engine::shelf::ShelfError;

/// How a try ended that did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// What the system says.
    Io(io::Error),
    /// The database takes nothing any more, because something went wrong behind its back.
    Poisoned,
    /// It has not finished what it was given before.
    Slow,
    /// Another process has it open.
    Locked,
    /// The files are not what they were.
    Damaged(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Files that are gone or cut off do not come back by waiting.
        let lost = [ErrorKind::NotFound, ErrorKind::UnexpectedEof, ErrorKind::InvalidData];
        if lost.contains(&error.kind()) {
            Self::Damaged(error.to_string())
        } else {
            Self::Io(error)
        }
    }
}

impl From<Error> for Failure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is, it is damage")]
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) | Error::Storage(LsmError::Io(error)) => error.into(),
            Error::Poisoned => Self::Poisoned,
            Error::Locked => Self::Locked,
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl Failure {
    /// Says it with the directory and what somebody can do.
    pub(super) fn told(self, directory: &Path) -> ShelfError {
        let place = format!("state directory {}", directory.display());
        match self {
            Self::Io(error) => {
                let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
                let closed = [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem];
                let advice = if full.contains(&error.kind()) {
                    "free some space there, work resumes by itself"
                } else if closed.contains(&error.kind()) {
                    "make it writable, or set MILLRACE_HANDLER_STATE_DIR to one that is"
                } else {
                    "work resumes by itself once it can be written"
                };
                ShelfError::Away(format!("{place}: {error}; {advice}"))
            }
            Self::Poisoned => {
                ShelfError::Away(format!("{place}: a write has failed; it is opened anew"))
            }
            Self::Slow => ShelfError::Away(format!(
                "{place}: the disk is too slow for what is to be written; still trying"
            )),
            Self::Locked => ShelfError::Away(format!("{place}: another process has it open")),
            Self::Damaged(reason) => ShelfError::Damaged(format!("{place}: {reason}")),
        }
    }
}

/// Runs a call of the database. One that breaks has met files that it did not expect.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(Failure::Damaged(panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the database broke on it: {}", text.unwrap_or("unknown panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_waited_for_and_damage_is_not() {
        let full = Failure::from(Error::Io(ErrorKind::StorageFull.into()));
        let told = full.told(Path::new("/x"));
        assert!(matches!(&told, ShelfError::Away(text) if text.contains("free some space")));
        assert!(told.to_string().starts_with("state directory /x: "), "{told}");
        for damaged in [
            Failure::from(Error::Unrecoverable),
            Failure::from(Error::Io(ErrorKind::UnexpectedEof.into())),
            guarded::<()>(|| std::panic::panic_any("should exist")).unwrap_err(),
        ] {
            assert!(matches!(damaged.told(Path::new("/x")), ShelfError::Damaged(_)));
        }
    }
}
