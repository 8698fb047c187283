//! Errors as the outside sees them: `application/problem+json` (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// One error of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: Option<&'static str>,
    detail: String,
}

impl Problem {
    /// The request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// What was asked for is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The path is there, but not for that.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this path only answers GET")
    }

    /// A service that the answer needs is away.
    pub fn unavailable(service: &str, reason: &str) -> Self {
        tracing::warn!(service, reason, "cannot answer a query");
        let detail = format!("{service} cannot be read: does it run, and its projection?");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Our own fault. The outside is not told what; the log is.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "cannot answer a request");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; see the log")
    }

    /// What was asked for is not there any more, and will not come back.
    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, detail)
    }

    /// What the answer needs is there, but not as it must be.
    pub fn service_unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// What was waited for did not come in time.
    pub fn gateway_timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, detail)
    }

    /// The same, with a code that programs can go by.
    #[must_use]
    pub const fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, code: None, detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(code) = self.code {
            body["code"] = code.into();
        }
        let head = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, head, body.to_string()).into_response()
    }
}
