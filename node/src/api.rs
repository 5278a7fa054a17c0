//! The admin port: probes, metrics, the state of the cluster, a status page.
//!
//! Invariants:
//! - Probes and metrics answer everybody; everything else answers only while the listener is on loopback, because this
//!   version has no admin keys (interface.md 2).
//! - A probe takes no lock and asks no other thread: a stuck node says so instead of hanging.
//! - Every error is JSON `{code, message}`. No GET has an effect.

mod cluster;
mod health;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Query, Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::metrics::{Format, Metrics};

pub use cluster::{
    BoxFuture, ClusterInfo, ClusterReport, LinkReport, LinkState, MemberReport, MemberState, OpenReport,
    PlacementReport, SeatsReport,
};
pub use health::{Check, Fact, HEARTBEAT_MAX, Health, Report};

/// What the admin port answers from.
#[derive(Clone)]
pub struct State {
    /// Health of this node.
    pub health: Arc<Health>,
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    /// The cluster as this node sees it.
    pub cluster: Arc<dyn ClusterInfo>,
    /// Whether the listener is on loopback.
    pub loopback: bool,
    /// Brings numbers up to date that nobody counts as they change; called before every scrape.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// Reads the monotonic clock; a value of the caller's clock module.
    pub now: fn() -> Instant,
}

/// The routes of the admin port.
pub fn router(state: State) -> Router {
    let guarded = Router::new()
        .route("/", get(page))
        .route("/status.css", get(style))
        .route("/status.js", get(script))
        .route("/api/cluster", get(cluster))
        .route("/api/rooms/{room}", get(room))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), guard));
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .merge(guarded)
        .with_state(state)
}

/// The body of every error.
#[derive(Debug, Serialize)]
struct ErrorBody {
    code: &'static str,
    message: String,
}

fn refuse(status: StatusCode, code: &'static str, message: impl Into<String>) -> Response {
    (status, Json(ErrorBody { code, message: message.into() })).into_response()
}

/// Lets requests through on loopback, from callers that know they are talking to loopback.
async fn guard(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    if !state.loopback {
        let message = "only probes and metrics answer beyond loopback: this version has no admin keys";
        return refuse(StatusCode::FORBIDDEN, "forbidden", message);
    }
    // A page of another site can point its own name at 127.0.0.1; its requests still carry that name.
    if !request.headers().get(header::HOST).is_none_or(names_loopback) {
        return refuse(StatusCode::FORBIDDEN, "forbidden", "the Host header must name the loopback address");
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; frame-ancestors 'none'"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn names_loopback(host: &HeaderValue) -> bool {
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address: Option<IpAddr> = name.trim_matches(['[', ']']).parse().ok();
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback())
}

fn probe(report: Report) -> Response {
    let status = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

async fn live(Extract(state): Extract<State>) -> Response {
    probe(state.health.live((state.now)()))
}

async fn ready(Extract(state): Extract<State>) -> Response {
    probe(state.health.ready())
}

async fn started(Extract(state): Extract<State>) -> Response {
    probe(state.health.started())
}

async fn metrics(Extract(state): Extract<State>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let open_metrics = accepted.contains("application/openmetrics-text");
    let format = if open_metrics { Format::OpenMetrics } else { Format::Prometheus };
    (state.refresh)();
    ([(header::CONTENT_TYPE, format.content_type())], state.metrics.render(format)).into_response()
}

async fn cluster(Extract(state): Extract<State>) -> Response {
    Json(state.cluster.cluster().await).into_response()
}

/// The query of `GET /api/rooms/{room}`.
#[derive(Deserialize)]
struct RoomQuery {
    namespace: Option<String>,
}

async fn room(Extract(state): Extract<State>, Path(room): Path<String>, Query(query): Query<RoomQuery>) -> Response {
    Json(state.cluster.placement(query.namespace.as_deref().unwrap_or("/"), &room).await).into_response()
}

async fn page() -> Html<&'static str> {
    Html(include_str!("../assets/status/index.html"))
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../assets/status/style.css")).into_response()
}

async fn script() -> Response {
    let kind = "text/javascript; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], include_str!("../assets/status/status.js")).into_response()
}

async fn not_found(request: Request) -> Response {
    refuse(StatusCode::NOT_FOUND, "not_found", format!("no such call: {} {}", request.method(), request.uri().path()))
}

async fn method_not_allowed(request: Request) -> Response {
    let message = format!("{} is not answered here", request.method());
    refuse(StatusCode::METHOD_NOT_ALLOWED, "bad_request", message)
}
