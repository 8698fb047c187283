//! `millrace serve`: runs handlers, projections and HTTP until it is told to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, Output};
use crate::config::Config;
use crate::http::health::Readiness;
use crate::http::{self, Api, Health, Site};
use crate::read_model::banking::dashboard::Dashboard;
use crate::reading::streams::Streams;
use crate::reading::tokens::Tokens;
use crate::service::{Service, Wanted};

/// How often the components are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long a stop may take before the process ends all the same. What was in hand is then undone
/// by Kafka: a transaction that is not committed does not exist.
const STOP_MAX: Duration = Duration::from_secs(4);

/// Runs handlers, projections and HTTP until Ctrl-C or SIGTERM
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  millrace serve\n  millrace serve --only handler,reactor\n  \
                        millrace serve --only postgres,clickhouse\n\n\
                        /healthz, /readyz and /metrics answer at MILLRACE_HTTP_ADDR.")]
pub struct Arguments {
    /// Runs only these roles (all by default)
    #[arg(long, value_delimiter = ',', value_name = "ROLE")]
    only: Vec<Role>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Handles commands.
    Handler,
    /// Sends the process managers' commands.
    Reactor,
    /// Projects events into Postgres.
    Postgres,
    /// Projects events into ClickHouse.
    Clickhouse,
    /// Answers queries over HTTP.
    Api,
}

impl Arguments {
    fn wants(&self, role: Role) -> bool {
        self.only.is_empty() || self.only.contains(&role)
    }
}

/// Runs until it is told to stop.
///
/// # Errors
/// Something that is needed at the start is missing or cannot be reached, or a component broke.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    let stop = CancellationToken::new();
    listen_for_signals(&stop)?;
    let listener = http::bind(&config.http.addr)
        .await
        .map_err(|error| Failure::usage(super::failure::one_line(&error)))?;
    let health = Health::default();
    let mut metrics = prometheus_client::registry::Registry::default();
    let wanted = Wanted {
        handler: arguments.wants(Role::Handler),
        reactor: arguments.wants(Role::Reactor),
        postgres: arguments.wants(Role::Postgres),
        clickhouse: arguments.wants(Role::Clickhouse),
    };
    let starting = Service::start(config, wanted, &mut metrics);
    let mut service = tokio::select! {
        service = starting => service?,
        () = stop.cancelled() => return Ok(Exit::Done),
    };
    let api = arguments.wants(Role::Api).then(|| api(config, &service)).transpose()?;
    if api.is_some() {
        health.set("api", Readiness::Ready, "");
    }
    let site = Site { health: health.clone(), metrics: Arc::new(metrics), api };
    let serving = tokio::spawn(http::serve(listener, site, stop.clone()));
    output.line(format!("millrace serves; http://{}/readyz says how it fares", config.http.addr));
    let spinner = output.spinner("starting");
    let mut failure = None;
    while !stop.is_cancelled() && !serving.is_finished() && failure.is_none() {
        service.report(&health);
        failure = service.failure();
        show_start(&spinner, &health);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
    spinner.finish_and_clear();
    let broke = !stop.is_cancelled() && failure.is_none();
    stop.cancel();
    finish(&mut service).await;
    if let Some(reason) = failure {
        anyhow::bail!(reason);
    }
    if broke {
        serving.await.context("the HTTP task broke")??;
    }
    Ok(Exit::Done)
}

/// What queries are answered with.
fn api(config: &Config, service: &Service) -> anyhow::Result<Api> {
    let tokens = Arc::new(Tokens::new(config));
    let streams = Streams::new(config, service.schemas())?;
    Ok(Api { dashboard: Dashboard::new(config)?, streams, tokens })
}

/// What is not ready yet, on one line of a terminal; the line goes away when everything is.
fn show_start(spinner: &ProgressBar, health: &Health) {
    if spinner.is_finished() {
        return;
    }
    let details = health.details();
    let waiting = details.iter().filter(|(_, state, _)| *state != Readiness::Ready);
    let waiting: Vec<_> = waiting.map(|(name, _, detail)| format!("{name}: {detail}")).collect();
    if waiting.is_empty() {
        spinner.finish_and_clear();
    } else {
        spinner.set_message(waiting.join(" · "));
    }
}

/// Lets every component finish what it has in hand.
async fn finish(service: &mut Service) {
    tracing::info!("stopping: the batches in hand are finished first");
    service.request_stop();
    let started = Instant::now();
    while !service.is_stopped() {
        if started.elapsed() > STOP_MAX {
            tracing::warn!("something still hangs; ending all the same, nothing is lost by it");
            service.abandon();
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::info!("stopped");
}

fn listen_for_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
