//! text -> the name of an aggregate or a stream, checked against the declared topics.

use super::Failure;
use crate::config;
use crate::kernel::stream::{ID_BYTES_MAX, Kind, Namespace};
use crate::topics;

/// Checks the name of a kind of aggregate: one that has a commands topic.
///
/// # Errors
/// There is none of that name.
pub(super) fn aggregate(text: &str) -> anyhow::Result<String> {
    let declared = topics::declared(&Namespace::default())?;
    let commands = declared.iter().filter(|topic| topic.kind == Some(Kind::Commands));
    let known: Vec<&str> = commands.map(|topic| topic.aggregate()).collect();
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    let hint = match config::nearest(text, known.iter().copied()) {
        Some(hint) => format!("did you mean {hint}?"),
        None => format!("there are {}", known.join(", ")),
    };
    Err(Failure::usage(format!("unknown aggregate {text:?}: {hint}")))
}

/// Checks an aggregate's id.
///
/// # Errors
/// It is empty or too long.
pub(super) fn id(text: &str) -> anyhow::Result<&str> {
    if text.is_empty() || text.len() > ID_BYTES_MAX {
        return Err(Failure::usage(format!(
            "an id has 1 to {ID_BYTES_MAX} bytes, not {}",
            text.len()
        )));
    }
    Ok(text)
}

/// Takes a stream's name apart: `banking.account/acc-1`, or `banking.account` and the id.
///
/// # Errors
/// There is no such aggregate, or no id.
pub(super) fn stream(text: &str, separate_id: Option<&str>) -> anyhow::Result<(String, String)> {
    let (name, stream_id) = match (separate_id, text.split_once('/')) {
        (Some(id), _) => (text, id),
        (None, Some((name, id))) => (name, id),
        (None, None) => {
            return Err(Failure::usage(format!("{text:?} names no stream: say {text}/<id>")));
        }
    };
    Ok((aggregate(name)?, id(stream_id)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_two_forms() {
        let expected = ("banking.account".to_owned(), "acc/1".to_owned());
        assert_eq!(stream("banking.account/acc/1", None).unwrap(), expected);
        assert_eq!(stream("banking.account", Some("acc/1")).unwrap(), expected);
        let error = stream("banking.account", None).unwrap_err().to_string();
        assert!(error.contains("say banking.account/<id>"), "{error}");
        assert!(stream("banking.account/", None).is_err());
        assert!(id(&"x".repeat(257)).is_err());
    }
}
