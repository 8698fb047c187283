//! Queries that must see a command's effect: a token -> an answer that has, or a clear no.
//!
//! | what | status and code |
//! |---|---|
//! | no token, or the store holds nothing of its aggregate | 400 `InvalidConsistencyToken` |
//! | its topic was made again, or its form is out of use | 410 `ConsistencyTokenExpired` |
//! | its stream is parked in front of its event | 503 `StreamParked`, at once |
//! | the rows are of another topic | 503 `ReadModelOutdated`, at once |
//! | the time to wait is over | 504 `ReadModelBehind` |

use std::future::Future;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use super::Problem;
use crate::read_model::consistency::{Progress, Seen, Wanted};
use crate::read_model::store;
use crate::reading::tokens::{self, Tokens};

/// How long a query waits that does not say.
const WAIT: Duration = Duration::from_secs(5);
/// The longest that one may ask for.
const WAIT_SECONDS_MAX: u64 = 60;
/// The longest time between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What a query's token asks for, and how long it may take.
pub(super) struct Wish {
    pub(super) wanted: Option<Wanted>,
    pub(super) limit: Duration,
}

/// Reads a query's token: the parameter `consistency_token` or the header `Consistency-Token`.
///
/// # Errors
/// It is no token, or one that cannot be waited for.
pub(super) async fn wish(
    tokens: &Tokens,
    parameter: Option<&str>,
    headers: &HeaderMap,
) -> Result<Wish, Problem> {
    let header = headers.get("consistency-token").map(|value| value.to_str().unwrap_or_default());
    let text = match (parameter, header) {
        (Some(one), Some(other)) if one != other => {
            return Err(invalid("the parameter and the header hold different consistency tokens"));
        }
        (one, other) => one.or(other),
    };
    let limit = limit(headers)?;
    let Some(text) = text else { return Ok(Wish { wanted: None, limit }) };
    let wanted = tokens.wanted(text).await.map_err(|error| match &error {
        tokens::Error::Unreadable(crate::kernel::token::Unreadable::Malformed) => {
            invalid(&error.to_string())
        }
        tokens::Error::Unreadable(_) | tokens::Error::NoTopic => {
            Problem::gone(error.to_string()).with_code("ConsistencyTokenExpired")
        }
        tokens::Error::Kafka(source) => Problem::unavailable("Kafka", &source.to_string()),
        tokens::Error::Declared(_) => Problem::internal(&error),
    })?;
    Ok(Wish { wanted: Some(wanted), limit })
}

/// A store that does not hold that aggregate will never see its events.
pub(super) fn held_by(store: &str, aggregates: &[&str], wish: &Wish) -> Result<(), Problem> {
    match &wish.wanted {
        Some(wanted) if !aggregates.contains(&wanted.aggregate.as_str()) => Err(invalid(&format!(
            "{store} holds nothing of {}.{}: this answer does not depend on that token",
            wanted.domain, wanted.aggregate
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Looks until there is an answer that has seen enough, or no hope or no time is left.
///
/// # Errors
/// There is no such answer, or the store does not answer at all.
pub(super) async fn answer<T, F>(
    wish: &Wish,
    first_pause: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<Seen<T>, store::Error>>,
{
    let deadline = Instant::now() + wish.limit;
    let mut pause = first_pause;
    loop {
        let progress = match look().await.map_err(unreadable)? {
            Seen::Answer(answer) => return Ok(answer),
            Seen::NotYet(progress) => progress,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if let Some(problem) = hopeless(&progress, wish, left.is_zero()) {
            return Err(problem);
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX.max(first_pause));
    }
}

/// A read model that cannot be read is away, or its projection has never run here.
pub(super) fn unreadable(error: store::Error) -> Problem {
    Problem::unavailable("the read model", &error.chain())
}

fn hopeless(progress: &Progress, wish: &Wish, is_late: bool) -> Option<Problem> {
    let wanted = wish.wanted.as_ref()?;
    let (stream, sequence) = (wanted.stream(), wanted.token.sequence);
    match progress {
        Progress::Parked { projection, sequence: first } => Some(
            Problem::service_unavailable(format!(
                "{stream} is parked in {projection} from event {first} on, and event {sequence} \
                 is wanted: see `millrace dead-letters list`, and redrive it once it is mended"
            ))
            .with_code("StreamParked"),
        ),
        Progress::OtherTopic { projection } => Some(
            Problem::service_unavailable(format!(
                "the rows of {projection} are of a topic that was made again since: \
                 `millrace rebuild {projection}`"
            ))
            .with_code("ReadModelOutdated"),
        ),
        Progress::Behind(version) if is_late => Some(behind(wish, *version)),
        Progress::Behind(_) | Progress::Reached => None,
    }
}

/// The time is over, and only so many events of the stream were seen.
pub(super) fn behind(wish: &Wish, version: u64) -> Problem {
    let wanted = wish.wanted.as_ref();
    let (stream, sequence) =
        wanted.map(|wanted| (wanted.stream(), wanted.token.sequence)).unwrap_or_default();
    Problem::gateway_timeout(format!(
        "event {sequence} of {stream} was not seen within {} s, the last one was {version}: ask \
         again, or without the token",
        wish.limit.as_secs()
    ))
    .with_code("ReadModelBehind")
}

/// `Prefer: wait=10`, in seconds.
fn limit(headers: &HeaderMap) -> Result<Duration, Problem> {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = preferences.flat_map(|value| value.split([',', ';']));
    let wait = preferences.find_map(|one| one.trim().strip_prefix("wait="));
    let Some(wait) = wait else { return Ok(WAIT) };
    let seconds = wait.trim_matches('"').parse().ok();
    let seconds = seconds.filter(|seconds| *seconds <= WAIT_SECONDS_MAX);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        Problem::bad_request(format!("Prefer: wait takes 0 to {WAIT_SECONDS_MAX} seconds"))
    })
}

pub(super) fn invalid(detail: &str) -> Problem {
    Problem::bad_request(detail).with_code("InvalidConsistencyToken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_say_how_long_it_waits() {
        let limit = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", axum::http::HeaderValue::from_static(text));
            limit(&headers).map(|limit| limit.as_secs()).ok()
        };
        assert_eq!(limit("wait=10"), Some(10));
        assert_eq!(limit("respond-async, wait=0"), Some(0));
        assert_eq!(limit("return=minimal"), Some(5));
        assert_eq!(limit("wait=61"), None);
        assert_eq!(limit("wait=-1"), None);
    }
}
