//! Banking over HTTP: the dashboard's panels and accounts.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Problem;
use super::consistency::{answer, held_by, wish};
use crate::kernel::stream::is_aggregate_id;
use crate::read_model::banking::dashboard::{Dashboard, Panel, Step};
use crate::reading::tokens::Tokens;

/// The largest page.
pub(super) const SIZE_MAX: u32 = 200;
/// The size of a page that does not say.
pub(super) const SIZE: u32 = 20;

/// Whose rows Postgres has.
const ROWS_OF: [&str; 2] = ["account", "transfer"];
/// The time between the first two looks for rows that come within milliseconds.
const ROWS_PAUSE: Duration = Duration::from_millis(4);
/// The same for blocks, which are gathered for some hundred.
const BLOCKS_PAUSE: Duration = Duration::from_millis(50);

type Answer = Result<Json<Value>, Problem>;

/// Answers banking's queries.
#[derive(Clone)]
struct Queries {
    dashboard: Dashboard,
    tokens: Arc<Tokens>,
}

pub(super) fn router(dashboard: Dashboard, tokens: Arc<Tokens>) -> Router {
    Router::new()
        .route("/v1/banking/panels/{panel}", get(panel))
        .route("/v1/banking/accounts", get(accounts))
        .route("/v1/banking/accounts/{id}", get(account))
        .with_state(Queries { dashboard, tokens })
}

#[derive(Deserialize)]
struct PanelQuery {
    per: Option<String>,
    size: Option<u32>,
    consistency_token: Option<String>,
}

async fn panel(
    State(queries): State<Queries>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<PanelQuery>, QueryRejection>,
) -> Answer {
    let Path(name) = name.map_err(|error| Problem::bad_request(error.body_text()))?;
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let per = query.per.as_deref().unwrap_or("hour");
    let step = Step::parse(per);
    let step = step.ok_or_else(|| Problem::bad_request("per must be minute, hour or day"))?;
    let panel = match name.as_str() {
        "volume" => Panel::Volume(step),
        "fees" => Panel::Fees(step),
        "deposits-withdrawals" => Panel::DepositsWithdrawals(step),
        "balance-by-type" => Panel::BalanceByType,
        "largest-movers" => Panel::LargestMovers,
        _ => return Err(Problem::not_found("there is no such panel")),
    };
    let wish = wish(&queries.tokens, query.consistency_token.as_deref(), &headers).await?;
    let look = || queries.dashboard.panel(panel, query.size, wish.wanted.as_ref());
    let data = answer(&wish, BLOCKS_PAUSE, look).await?;
    Ok(Json(json!({ "data": data })))
}

#[derive(Deserialize)]
struct PageQuery {
    page: Option<u32>,
    size: Option<u32>,
    consistency_token: Option<String>,
}

async fn accounts(
    State(queries): State<Queries>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let (page, size) = (query.page.unwrap_or(1), query.size.unwrap_or(SIZE));
    if page == 0 || !(1..=SIZE_MAX).contains(&size) {
        return Err(Problem::bad_request("page counts from 1, size is 1 to 200"));
    }
    let wish = wish(&queries.tokens, query.consistency_token.as_deref(), &headers).await?;
    held_by("Postgres", &ROWS_OF, &wish)?;
    let look = || queries.dashboard.accounts(page, size, wish.wanted.as_ref());
    let found = answer(&wish, ROWS_PAUSE, look).await?;
    let total_pages = (found.total_count + i64::from(size) - 1) / i64::from(size);
    Ok(Json(json!({
        "data": found.data,
        "page": page,
        "size": size,
        "total_count": found.total_count,
        "total_pages": total_pages,
        "has_next_page": i64::from(page) < total_pages,
    })))
}

#[derive(Deserialize)]
struct AccountQuery {
    consistency_token: Option<String>,
}

async fn account(
    State(queries): State<Queries>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Answer {
    let Path(id) = id.map_err(|error| Problem::bad_request(error.body_text()))?;
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let wish = wish(&queries.tokens, query.consistency_token.as_deref(), &headers).await?;
    held_by("Postgres", &ROWS_OF, &wish)?;
    let look = || queries.dashboard.account(&id, wish.wanted.as_ref());
    let found = if is_aggregate_id(&id) { answer(&wish, ROWS_PAUSE, look).await? } else { None };
    found.map(Json).ok_or_else(|| Problem::not_found("there is no such account"))
}
