//! What operators read through the API: figures and connections.

use super::fake::*;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;

#[tokio::test]
async fn stats_are_per_shard_and_in_total() {
    let bench = Bench::new();
    let (status, stats) = bench.get("/v1/stats").await;
    assert_eq!(status, 200);
    assert_eq!(stats["total"]["gauges"]["connections"], 21);
    assert_eq!(stats["total"]["counters"]["accepted"], 200);
    assert_eq!((&stats["shards"][0]["shard"], &stats["shards"][1]["shard"]), (&json!(0), &json!(1)));
    assert_eq!(stats["shards"][1]["gauges"]["connections"], 11);
    assert_eq!(stats["shards"][0]["driver"], "fake");
    assert_eq!(stats["store"]["entries"], 7);
    assert_eq!(stats["api"]["push_refusals"], 0);
    assert_eq!(stats["draining"], false);
}

#[tokio::test]
async fn metrics_say_what_the_figures_say_in_prometheus_words() {
    let bench = Bench::new();
    let request = Request::get("/metrics").header(header::HOST, "localhost").body(Body::empty()).expect("a request");
    let response = bench.send(request).await;
    let kind = response.headers()[header::CONTENT_TYPE].to_str().expect("ASCII").to_owned();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body in memory");
    let text = std::str::from_utf8(&body).expect("the format is UTF-8");
    for line in [
        "# TYPE kittiwake_connections gauge",
        "kittiwake_connections{shard=\"1\"} 11",
        "# TYPE kittiwake_accepted counter",
        "kittiwake_accepted_total{shard=\"0\"} 100",
        "kittiwake_deliveries_total{shard=\"0\",qos=\"1\"} 5",
        "kittiwake_dropped_total{shard=\"1\",reason=\"expired\"} 2",
        "kittiwake_store_entries_total 7",
        "kittiwake_api_push_refusals_total 0",
        "kittiwake_draining 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let mut once = families.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), families.len(), "a family stands in one place");
}

#[tokio::test]
async fn the_slowest_connections_come_first() {
    let bench = Bench::new();
    let (status, body) = bench.get("/v1/connections?slowest=2").await;
    assert_eq!(status, 200);
    assert_eq!(body["connections"][0]["id"], "1-0-1", "{body}");
    assert_eq!(body["connections"][0]["app"], "shop");
    assert_eq!(body["connections"][1]["behind"], false);
    let (_, body) = bench.get("/v1/connections?slowest=1").await;
    assert_eq!(body["connections"].as_array().map(Vec::len), Some(1));
    for (query, status) in
        [("", 200), ("?slowest=1000", 200), ("?slowest=1001", 400), ("?slowest=0", 400), ("?x=1", 400)]
    {
        assert_eq!(bench.get(&format!("/v1/connections{query}")).await.0, status, "{query}");
    }
}

#[tokio::test]
async fn a_connection_is_found_by_its_id_while_it_lasts() {
    let bench = Bench::new();
    let (status, body) = bench.get("/v1/connections/1-4-2").await;
    assert_eq!((status, &body["id"], &body["peer"]), (200, &json!("1-4-2"), &json!("192.0.2.1:4000")));
    for gone in ["1-10-2", "2-4-2", "x", "1-4", "1-4-2-0"] {
        assert_eq!(bench.get(&format!("/v1/connections/{gone}")).await.0, 404, "{gone}");
    }
}
