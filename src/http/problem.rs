//! Errors as the outside sees them: `application/problem+json` (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// One error of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    /// The request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: detail.into() }
    }

    /// What was asked for is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, detail: detail.into() }
    }

    /// The path is there, but not for that.
    pub fn method_not_allowed() -> Self {
        let detail = "this path only answers GET".to_owned();
        Self { status: StatusCode::METHOD_NOT_ALLOWED, detail }
    }

    /// A service that the answer needs is away.
    pub fn unavailable(service: &str, reason: &str) -> Self {
        tracing::warn!(service, reason, "cannot answer a query");
        let detail = format!("{service} cannot be read: does it run, and its projection?");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, detail }
    }

    /// Our own fault. The outside is not told what; the log is.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "cannot answer a request");
        let detail = "the request failed; see the log".to_owned();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, detail }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let head = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, head, body.to_string()).into_response()
    }
}
