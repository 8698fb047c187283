//! HTTP: requests -> what this process knows of itself, and what the read models say.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 as long as the process runs |
//! | `/readyz` | 200 once every component is ready, else 503; each component's state either way |
//! | `/metrics` | every figure, in the OpenMetrics text format |
//! | `/` | the dashboard (role `api`, as all that follows) |
//! | `/v1/banking/panels/...` | one view of ClickHouse each |
//! | `/v1/banking/accounts` | accounts, from Postgres |
//! | `/v1/streams/...` | a stream's events, or its state as of then |
//!
//! Queries take a consistency token: they answer from what has seen it, or not at all.
//! Whatever is not there is a 404, always `application/problem+json`.

mod banking;
mod consistency;
mod dashboard;
pub mod health;
mod problem;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use health::Health;
pub use problem::Problem;

use crate::read_model::banking::dashboard::Dashboard;
use crate::reading::streams::Streams;
use crate::reading::tokens::Tokens;

/// How long answers that are under way may take after the process was told to stop.
const GRACE: Duration = Duration::from_secs(2);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: set MILLRACE_HTTP_ADDR to one that is free")]
    Bind {
        /// As it was set.
        addr: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the HTTP listener broke")]
    Serve(#[source] std::io::Error),
}

/// What the answers are made of.
#[derive(Clone)]
pub struct Site {
    /// How the components are.
    pub health: Health,
    /// Every figure of this process.
    pub metrics: Arc<Registry>,
    /// Answers queries, if this process has the role `api`.
    pub api: Option<Api>,
}

/// What queries are answered with.
#[derive(Clone)]
pub struct Api {
    /// Reads the read models.
    pub dashboard: Dashboard,
    /// Reads streams.
    pub streams: Streams,
    /// Reads consistency tokens.
    pub tokens: Arc<Tokens>,
}

/// Listens on an address.
///
/// # Errors
/// It is taken, or none of this machine's.
pub async fn bind(addr: &str) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(addr).await;
    listener.map_err(|source| Error::Bind { addr: addr.to_owned(), source })
}

/// Answers until `cancellation`, then finishes what is under way.
///
/// # Errors
/// The listener breaks.
pub async fn serve(
    listener: TcpListener,
    site: Site,
    cancellation: CancellationToken,
) -> Result<(), Error> {
    if let Ok(addr) = listener.local_addr() {
        tracing::info!(%addr, "listening");
    }
    let stop = cancellation.clone();
    let serving = axum::serve(listener, router(site))
        .with_graceful_shutdown(async move { stop.cancelled().await });
    let overdue = async {
        cancellation.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        outcome = serving => outcome.map_err(Error::Serve),
        // Somebody keeps a connection busy: that must not keep the process.
        () = overdue => Ok(()),
    }
}

fn router(site: Site) -> Router {
    let queries = site.api.clone().map(|Api { dashboard, streams, tokens }| {
        dashboard::router()
            .merge(banking::router(dashboard, Arc::clone(&tokens)))
            .merge(streams::router(streams, tokens))
    });
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(site)
        .merge(queries.unwrap_or_default())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn healthz() -> Response {
    Json(json!({"status": "alive"})).into_response()
}

async fn readyz(State(site): State<Site>) -> Response {
    let report = site.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn metrics(State(site): State<Site>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &site.metrics) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

async fn not_found() -> Response {
    Problem::not_found("there is nothing at this path").into_response()
}

async fn method_not_allowed() -> Response {
    Problem::method_not_allowed().into_response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::health::Readiness;
    use super::*;
    use crate::config::Config;

    async fn ask(addr: SocketAddr, path: &str) -> (u16, String) {
        send(addr, "GET", path).await
    }

    async fn send(addr: SocketAddr, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    #[tokio::test]
    async fn it_is_ready_when_every_component_is_and_stops_when_told() {
        let commands = Counter::<u64>::default();
        let mut registry = Registry::default();
        registry.register("millrace_commands", "Commands decided", commands.clone());
        commands.inc();
        let health = Health::default();
        let site = Site { health: health.clone(), metrics: Arc::new(registry), api: None };
        let listener = bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let cancellation = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, site, cancellation.clone()));

        assert_eq!(ask(addr, "/healthz").await.0, 200);
        assert_eq!(ask(addr, "/readyz").await.0, 503);
        health.set("handler", Readiness::Starting, "restoring 40 %");
        health.set("postgres", Readiness::Ready, "");
        let (status, answer) = ask(addr, "/readyz").await;
        assert_eq!(status, 503);
        assert!(answer.contains("restoring 40 %"), "{answer}");
        health.set("handler", Readiness::Ready, "");
        assert_eq!(ask(addr, "/readyz").await.0, 200);
        let (status, answer) = ask(addr, "/metrics").await;
        assert_eq!(status, 200);
        assert!(answer.contains("millrace_commands_total 1"), "{answer}");
        let (status, answer) = ask(addr, "/nothing").await;
        assert_eq!(status, 404);
        assert!(answer.contains("application/problem+json"), "{answer}");

        let taken = bind(&addr.to_string()).await.unwrap_err().to_string();
        assert!(taken.contains("MILLRACE_HTTP_ADDR"), "{taken}");
        cancellation.cancel();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn whatever_is_wrong_with_a_request_is_a_problem() {
        let mut config = Config::default();
        // Nobody listens there, and nobody is asked.
        config.postgres.url = "postgres://x:x@127.0.0.1:1/x".to_owned();
        config.clickhouse.url = "http://127.0.0.1:1".to_owned();
        config.kafka.brokers = "127.0.0.1:1".to_owned();
        let tokens = Arc::new(Tokens::new(&config));
        let dashboard = Dashboard::new(&config).unwrap();
        let streams = Streams::new(&config, Arc::default()).unwrap();
        let api = Some(Api { dashboard, streams, tokens });
        let metrics = Arc::new(Registry::default());
        let site = Site { health: Health::default(), metrics, api };
        let listener = bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let cancellation = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, site, cancellation.clone()));
        for (method, path, expected) in [
            ("GET", "/v1/banking/accounts/%00", 404),
            ("GET", "/v1/banking/accounts/%ff", 400),
            ("GET", "/v1/banking/panels/%ff", 400),
            ("GET", "/v1/banking/panels/none", 404),
            ("GET", "/v1/banking/accounts?page=0", 400),
            ("GET", "/v1/banking/accounts/acc-1?consistency_token=x", 400),
            ("GET", "/v1/banking/panels/volume?consistency_token=2.0.0.0.0", 410),
            ("GET", "/v1/streams/banking.account", 404),
            ("GET", "/v1/streams/banking.none/x", 404),
            ("GET", "/v1/streams/banking.account%2Fx?version=0", 400),
            ("GET", "/v1/streams/banking.account/x?version=-1", 400),
            ("GET", "/v1/streams/banking.account/x?at=noon", 400),
            ("GET", "/v1/streams/banking.account/x?at=2026-11-21T10:15:00Z&version=1", 400),
            ("GET", "/v1/streams/banking.account/x?page=0", 400),
            ("POST", "/v1/streams/banking.account/x", 405),
            ("POST", "/v1/banking/accounts", 405),
            ("DELETE", "/healthz", 405),
        ] {
            let (status, answer) = send(addr, method, path).await;
            assert_eq!(status, expected, "{method} {path}: {answer}");
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
        cancellation.cancel();
        serving.await.unwrap().unwrap();
    }
}
