//! Tests of the admin port, request by request.

use std::sync::OnceLock;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

struct Alone;

impl ClusterInfo for Alone {
    fn cluster(&self) -> BoxFuture<'_, ClusterReport> {
        let member = MemberReport {
            node: "node-0".to_owned(),
            ordinal: 0,
            generation: 9,
            state: MemberState::Alive,
            connections: Some(3),
            slots: 4096,
            address: Some("127.0.0.1:3002".to_owned()),
            version: Some("0.1.0".to_owned()),
            open: Some(OpenReport { owned: 2, single_copy: 2, ..OpenReport::default() }),
        };
        let link = LinkReport { node: "node-1".to_owned(), rtt_us: 180, state: LinkState::Up };
        let report = ClusterReport { members: vec![member], links: vec![link], view: 2, ..ClusterReport::default() };
        Box::pin(std::future::ready(report.judge()))
    }

    fn placement<'a>(&'a self, namespace: &'a str, room: &'a str) -> BoxFuture<'a, PlacementReport> {
        let owner = Some("node-0".to_owned());
        let (namespace, room) = (namespace.to_owned(), room.to_owned());
        Box::pin(std::future::ready(PlacementReport { namespace, room, slot: 7, owner, ..Default::default() }))
    }
}

/// One moment for all tests: health is asked about times relative to it.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "a test needs one real instant to count from")]
    *START.get_or_init(Instant::now)
}

fn threads() -> Vec<String> {
    vec!["shard-0".to_owned(), "mesh".to_owned()]
}

fn state(loopback: bool) -> State {
    State {
        health: Arc::new(Health::new(&threads(), start())),
        metrics: Arc::new(Metrics::new(&threads())),
        cluster: Arc::new(Alone),
        loopback,
        refresh: Arc::new(|| ()),
        now: start,
    }
}

async fn ask(state: &State, request: http::request::Builder) -> (StatusCode, HeaderMap, String) {
    let request = request.body(Body::empty()).unwrap();
    let (head, body) = router(state.clone()).oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get(state: &State, path: &str) -> (StatusCode, Value) {
    let (status, _, body) = ask(state, Request::get(path)).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

#[tokio::test]
async fn a_node_is_started_when_it_can_serve_and_ready_when_it_should() {
    let state = state(true);
    assert_eq!(get(&state, "/startupz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    state.health.set_store(None);
    state.health.set(Fact::Listening, true);
    assert_eq!(get(&state, "/startupz").await.0, StatusCode::OK);
    let (status, body) = get(&state, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let checks = json!([
        {"name": "store_open", "ok": true}, {"name": "listening", "ok": true},
        {"name": "joined", "ok": false}, {"name": "not_draining", "ok": true},
    ]);
    assert_eq!(body, json!({"ok": false, "checks": checks}));
    state.health.set(Fact::Joined, true);
    assert_eq!(get(&state, "/readyz").await.0, StatusCode::OK);
    state.health.set_store(Some("the disk is full"));
    let (status, body) = get(&state, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["checks"][0], json!({"name": "store_open", "ok": false, "why": "the disk is full"}));
    state.health.set_store(None);
    assert_eq!(get(&state, "/readyz").await.0, StatusCode::OK);
    state.health.set(Fact::Draining, true);
    assert_eq!(get(&state, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&state, "/startupz").await.0, StatusCode::OK, "a node that stops did start");
}

#[test]
fn a_node_lives_while_all_its_threads_tick() {
    let health = Health::new(&threads(), start());
    let at = |seconds: u64| start() + Duration::from_secs(seconds);
    assert!(health.live(at(14)).ok, "a thread counts as ticking at the start");
    assert!(!health.live(at(15)).ok);
    health.beat(0, at(20));
    let report = health.live(at(30));
    assert_eq!(report.checks.iter().map(|check| check.ok).collect::<Vec<_>>(), [true, false]);
    health.beat(1, at(30));
    health.beat(7, at(30));
    assert!(health.live(at(30)).ok);
    health.beat(1, at(1));
    assert!(health.live(at(34)).ok, "a beat that comes late does not take time back");
}

#[tokio::test]
async fn liveness_is_answered_by_a_node_that_can_do_nothing_else() {
    assert_eq!(get(&state(false), "/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_speak_the_format_that_was_asked_for() {
    let state = state(true);
    let (status, headers, body) = ask(&state, Request::get("/metrics")).await;
    assert_eq!(
        (status, &headers[header::CONTENT_TYPE]),
        (StatusCode::OK, &HeaderValue::from_static(Format::Prometheus.content_type()))
    );
    assert!(body.contains("\nstarling_deliveries_total 0\n"));
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let (_, headers, body) = ask(&state, Request::get("/metrics").header(header::ACCEPT, accept)).await;
    assert_eq!(headers[header::CONTENT_TYPE], Format::OpenMetrics.content_type());
    assert!(body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_cluster_has_the_shape_of_the_contract() {
    let (status, body) = get(&state(true), "/api/cluster").await;
    let expected = json!({
        "members": [{"node": "node-0", "ordinal": 0, "generation": 9, "state": "alive", "connections": 3, "slots": 4096,
                     "address": "127.0.0.1:3002", "version": "0.1.0",
                     "open": {"owned": 2, "replica": 0, "syncing": 0, "witness": 0, "single_copy": 2}}],
        "links": [{"node": "node-1", "rtt_us": 180, "state": "up"}],
        "view": 2, "single_copy_slots": 2, "safe_to_lose_one": false,
        "unsafe_because": "it takes three nodes, and 1 answer", "copies": 0, "partial": false, "silent": [],
    });
    assert_eq!((status, body), (StatusCode::OK, expected));
}

#[tokio::test]
async fn a_room_is_found_by_its_encoded_name_in_its_namespace() {
    let (status, body) = get(&state(true), "/api/rooms/a%2Fb%20c?namespace=%2Fchat").await;
    let nobody = json!({"owner": null, "replica": null, "witness": null});
    let expected = json!({
        "namespace": "/chat", "room": "a/b c", "slot": 7, "owner": "node-0", "replica": null, "witness": null,
        "leads": false, "term": null, "epoch": null, "replica_whole": null, "ring": nobody, "partial": false, "silent": [],
    });
    assert_eq!((status, body), (StatusCode::OK, expected));
    let (_, body) = get(&state(true), "/api/rooms/lobby").await;
    assert_eq!((&body["namespace"], &body["room"]), (&json!("/"), &json!("lobby")));
}

#[tokio::test]
async fn beyond_loopback_only_probes_and_metrics_answer() {
    let state = state(false);
    for open in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert_ne!(get(&state, open).await.0, StatusCode::FORBIDDEN, "{open}");
    }
    for closed in ["/", "/api/cluster", "/api/anything", "/status.js", "/nothing"] {
        let (status, body) = get(&state, closed).await;
        assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{closed}");
    }
}

#[tokio::test]
async fn a_foreign_name_for_loopback_is_refused() {
    let state = state(true);
    let status = async |host: &str| ask(&state, Request::get("/api/cluster").header(header::HOST, host)).await.0;
    for ours in ["127.0.0.1:3001", "localhost", "LOCALHOST:3001", "[::1]:3001", "127.9.9.9"] {
        assert_eq!(status(ours).await, StatusCode::OK, "{ours}");
    }
    for foreign in
        ["evil.example", "evil.example:3001", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1:3001", "", ":3001"]
    {
        assert_eq!(status(foreign).await, StatusCode::FORBIDDEN, "{foreign}");
    }
}

#[tokio::test]
async fn errors_are_json_with_code_and_message() {
    let state = state(true);
    let (status, body) = get(&state, "/api/nothing").await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::NOT_FOUND, Some("not_found")));
    assert!(body["message"].as_str().is_some_and(|message| message.contains("/api/nothing")));
    for path in ["/api/cluster", "/livez"] {
        let (status, _, body) = ask(&state, Request::post(path)).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, body["code"].as_str()), (StatusCode::METHOD_NOT_ALLOWED, Some("bad_request")), "{path}");
    }
}

#[tokio::test]
async fn the_status_page_and_what_it_loads_are_served_under_a_strict_policy() {
    let state = state(true);
    let (status, headers, page) = ask(&state, Request::get("/")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'self'"));
    for path in page.split('"').filter(|word| word.starts_with('/')) {
        assert_ne!(ask(&state, Request::get(path)).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("style="));
}
