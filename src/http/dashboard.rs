//! The dashboard's page: files that are compiled in, so that it needs nothing from elsewhere.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

const PAGE: &str = include_str!("assets/index.html");
const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/dashboard.js");
/// Everything comes from here, and nothing runs that is not in these files.
const POLICY: &str = "default-src 'self'";

pub(super) fn router() -> Router {
    Router::new()
        .route("/", get(|| file("text/html; charset=utf-8", PAGE)))
        .route("/assets/style.css", get(|| file("text/css; charset=utf-8", STYLE)))
        .route("/assets/dashboard.js", get(|| file("text/javascript; charset=utf-8", SCRIPT)))
}

async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let head = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (head, text)
}
