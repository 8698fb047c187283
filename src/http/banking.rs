//! Banking over HTTP: the dashboard's panels and accounts.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Problem;
use crate::kernel::stream::is_aggregate_id;
use crate::read_model::banking::dashboard::{Dashboard, Panel, Step};
use crate::read_model::store::Error;

/// The largest page.
const SIZE_MAX: u32 = 200;
/// The size of a page that does not say.
const SIZE: u32 = 20;

type Answer = Result<Json<Value>, Problem>;

pub(super) fn router(dashboard: Dashboard) -> Router {
    Router::new()
        .route("/v1/banking/panels/{panel}", get(panel))
        .route("/v1/banking/accounts", get(accounts))
        .route("/v1/banking/accounts/{id}", get(account))
        .with_state(dashboard)
}

#[derive(Deserialize)]
struct PanelQuery {
    per: Option<String>,
    size: Option<u32>,
}

async fn panel(
    State(dashboard): State<Dashboard>,
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
    let data = dashboard.panel(panel, query.size).await.map_err(problem)?;
    Ok(Json(json!({ "data": data })))
}

#[derive(Deserialize)]
struct PageQuery {
    page: Option<u32>,
    size: Option<u32>,
}

async fn accounts(
    State(dashboard): State<Dashboard>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let (page, size) = (query.page.unwrap_or(1), query.size.unwrap_or(SIZE));
    if page == 0 || !(1..=SIZE_MAX).contains(&size) {
        return Err(Problem::bad_request("page counts from 1, size is 1 to 200"));
    }
    let found = dashboard.accounts(page, size).await.map_err(problem)?;
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

async fn account(
    State(dashboard): State<Dashboard>,
    id: Result<Path<String>, PathRejection>,
) -> Answer {
    let Path(id) = id.map_err(|error| Problem::bad_request(error.body_text()))?;
    let found =
        if is_aggregate_id(&id) { dashboard.account(&id).await.map_err(problem)? } else { None };
    found.map(Json).ok_or_else(|| Problem::not_found("there is no such account"))
}

/// A read model that cannot be read is away, or its projection has never run here.
fn problem(error: Error) -> Problem {
    Problem::unavailable("the read model", &error.chain())
}
