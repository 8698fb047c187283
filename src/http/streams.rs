//! Streams over HTTP: a name -> a page of its events, or its state as of a version or a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Problem;
use super::banking::{SIZE, SIZE_MAX};
use super::consistency::{Wish, behind, invalid, wish};
use crate::kernel::stream::is_aggregate_id;
use crate::kernel::time::Timestamp;
use crate::log::kafka::partition_reader::Visit;
use crate::reading::aggregate::unfolded;
use crate::reading::state::Moment;
use crate::reading::streams::{Error, From, Name, Streams, Summary};
use crate::reading::tokens::Tokens;

/// The time between two looks for an event that the log has within moments.
const PAUSE: Duration = Duration::from_millis(20);

type Answer = Result<Json<Value>, Problem>;

#[derive(Clone)]
struct Queries {
    streams: Streams,
    tokens: Arc<Tokens>,
}

pub(super) fn router(streams: Streams, tokens: Arc<Tokens>) -> Router {
    Router::new()
        .route("/v1/streams/{*stream}", get(stream))
        .with_state(Queries { streams, tokens })
}

#[derive(Deserialize)]
struct StreamQuery {
    at: Option<String>,
    version: Option<u64>,
    page: Option<u32>,
    size: Option<u32>,
    consistency_token: Option<String>,
}

/// What is asked of a stream.
#[derive(Clone, Copy)]
enum Question {
    State(Moment),
    Page { page: u32, size: u32 },
}

impl StreamQuery {
    fn question(&self) -> Result<Question, Problem> {
        let (page, size) = (self.page.unwrap_or(1), self.size.unwrap_or(SIZE));
        match (&self.at, self.version) {
            (Some(_), Some(_)) => Err(Problem::bad_request("say at or version, not both")),
            (Some(text), None) => {
                let time = Timestamp::parse_rfc3339(text).ok_or_else(|| {
                    Problem::bad_request("at must be a time such as 2026-11-21T10:15:00Z")
                })?;
                Ok(Question::State(Moment::Time(time)))
            }
            (None, Some(0)) => Err(Problem::bad_request("version counts from 1")),
            (None, Some(version)) => Ok(Question::State(Moment::Version(version))),
            (None, None) if page == 0 || !(1..=SIZE_MAX).contains(&size) => {
                Err(Problem::bad_request("page counts from 1, size is 1 to 200"))
            }
            (None, None) => Ok(Question::Page { page, size }),
        }
    }
}

async fn stream(
    State(queries): State<Queries>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Answer {
    let Path(name) = name.map_err(|error| Problem::bad_request(error.body_text()))?;
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let question = query.question()?;
    let name = named(&name)?;
    let wish = wish(&queries.tokens, query.consistency_token.as_deref(), &headers).await?;
    let wanted = match &wish.wanted {
        Some(wanted) if wanted.stream() != name.to_string() => {
            let whose = wanted.stream();
            return Err(invalid(&format!("this token is of {whose}, not of {name}")));
        }
        other => other.as_ref().map_or(0, |wanted| wanted.token.sequence),
    };
    answer(&queries.streams, &name, question, (wanted, &wish)).await
}

/// Takes `banking.account/acc-1` apart.
fn named(text: &str) -> Result<Name, Problem> {
    let none = || Problem::not_found("a stream is called as banking.account/acc-1 is");
    let (aggregate, id) = text.split_once('/').ok_or_else(none)?;
    let is_there = is_aggregate_id(id) && unfolded(aggregate).is_some();
    let name = Name { aggregate: aggregate.to_owned(), id: id.to_owned() };
    is_there.then_some(name).ok_or_else(none)
}

/// Looks until the token's event is there: in the log it may be a moment later than its result.
async fn answer(
    streams: &Streams,
    name: &Name,
    question: Question,
    (wanted, wish): (u64, &Wish),
) -> Answer {
    let deadline = Instant::now() + wish.limit;
    loop {
        let (answer, summary) = match question {
            Question::State(moment) => {
                let asked = streams.state(name, moment, From::Rows).await.map_err(problem)?;
                let (state, summary) = asked;
                (state.map(|state| state.to_json(name, &summary)), summary)
            }
            Question::Page { page, size } => page_of(streams, name, page, size).await?,
        };
        if !summary.is_whole || summary.last >= wanted {
            return answer.map(Json).map_err(problem);
        }
        if Instant::now() >= deadline {
            return Err(behind(wish, summary.last));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn page_of(
    streams: &Streams,
    name: &Name,
    page: u32,
    size: u32,
) -> Result<(Result<Value, Error>, Summary), Problem> {
    let first = u64::from(page - 1) * u64::from(size) + 1;
    let wanted = first..first + u64::from(size);
    let mut data = Vec::new();
    let summary = streams
        .read(name, From::Rows, &mut |told| {
            if wanted.contains(&told.sequence) {
                data.push(told.to_json(name));
            }
            Ok(Visit::Continue)
        })
        .await
        .map_err(problem)?;
    if summary.last == 0 {
        return Ok((Err(Error::NoStream(name.clone())), summary));
    }
    let total_pages = summary.last.div_ceil(u64::from(size));
    let answer = json!({
        "data": data,
        "page": page,
        "size": size,
        "total_count": summary.last,
        "total_pages": total_pages,
        "has_next_page": u64::from(page) < total_pages,
        "source": summary.to_json(),
    });
    Ok((Ok(answer), summary))
}

fn problem(error: Error) -> Problem {
    let text = error.to_string();
    match &error {
        Error::NoAggregate(_) => Problem::not_found(text),
        Error::NoStream(_) => Problem::not_found(text).with_code("StreamNotFound"),
        Error::Beyond { .. } => Problem::not_found(text).with_code("VersionNotReached"),
        Error::NotYet { .. } => Problem::not_found(text).with_code("BeforeFirstEvent"),
        Error::Kafka(_) | Error::Schemas(_) => Problem::unavailable("the log", &text),
        Error::Damaged { .. } | Error::Codec { .. } => Problem::internal(&error),
    }
}
